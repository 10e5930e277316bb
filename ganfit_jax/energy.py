"""E(p) = sum_k lambda_k L_k(p): composes renderer, recogniser and losses; the only place where weights act.

Paper: Gecer et al., GANFIT, CVPR 2019, arXiv 1902.05978, the overall loss of its fitting section.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ganfit_jax import losses, morphable, texture
from ganfit_jax.assets import LUMA
from ganfit_jax.camera import project
from ganfit_jax.recognition import align, features
from ganfit_jax.render import draw
from ganfit_jax.types import Camera, Features, Light, Models, Observation, Params, Recogniser, View

GREY = 0.5
COLOURLESS = 0.01  # largest difference of a channel from the channels' mean in a black and white photo
CHIP_TERMS = frozenset({"identity", "content"})
IMAGE_TERMS = CHIP_TERMS | {"pixel"}
NETWORK_TERMS = CHIP_TERMS | {"second_identity"}


class Static(NamedTuple):
    """What shapes the compiled program; hashable."""

    size: int  # side of the fitting window, pixels
    second_size: int  # side of the second render, pixels
    texture_norm: float = 0.0  # `losses.latent_prior`
    detail: bool = True  # `texture.decode`
    saturation: float = 0.1  # `losses.pixel`


def random_view(key: PRNGKeyArray, n_expressions: int, spread: dict[str, Array]) -> View:
    """Draws the second render's expression, camera and light (paper: p_e, p_c, p_l from Gaussians).

    `spread` holds the fields of `config.SecondRender` as scalars. Expression: a sparse set of uniform blendshape
    weights; camera: a normal rotation vector; light: a random direction from the front half, near-neutral colours.
    """
    keys = jax.random.split(key, 7)
    used = jax.random.bernoulli(keys[0], spread["expressed"], (n_expressions,))
    amount = jax.random.uniform(keys[1], (n_expressions,)) * spread["expression"]
    angles = jnp.stack([spread["pitch"], spread["yaw"], spread["roll"]])
    rotation = jax.random.normal(keys[2], (3,)) * angles
    # The face is about 260 mm high; it fills 85 % of the image. Its centre lies 30 mm below the eyes.
    distance = spread["focal"] * 260.0 / 0.85
    camera = Camera(rotation, jnp.stack([0.0 * distance, -30.0 + 0.0 * distance, distance]), jnp.log(spread["focal"]))
    tilt = jax.random.normal(keys[3], (3,)) * jnp.array([0.6, 0.4, 0.0]) + jnp.array([0.0, 0.3, 1.0])
    brightness, tint = jax.random.normal(keys[4], (1,)), jax.random.normal(keys[6], (3,))
    colour = 0.5 + spread["light"] * (brightness + 0.2 * tint)
    ambient = 0.75 + 0.5 * spread["light"] * jax.random.normal(keys[5], (1,)) * jnp.ones(3)
    return View(jnp.where(used, amount, 0.0), camera, Light(tilt, jnp.maximum(colour, 0.0), ambient))


def clean(observations: Observation) -> Observation:
    """Replaces the contents of photos of weight 0 by zeros, so that not even NaN in them can reach a gradient."""
    used = observations.weight > 0

    def keep(x: Array) -> Array:
        return jnp.where(used.reshape(used.shape + (1,) * (x.ndim - used.ndim)), x, jnp.zeros_like(x))

    return jax.tree.map(keep, observations)


def recogniser_of(models: Models) -> Recogniser:
    """The recognition network of the models; raises ValueError where there is none."""
    if models.recogniser is None:
        raise ValueError("the models have no recogniser, expected one for identity and content terms")
    return models.recogniser


def chip_of(models: Models, image: Float[Array, "h w 3"], landmarks: Float[Array, "68 2"]) -> Float[Array, "s s 3"]:
    """The recogniser's aligned chip of a render; no gradient flows through the alignment."""
    return align.aligned_chip(recogniser_of(models).spec, image, jax.lax.stop_gradient(landmarks))


def like_photo(image: Float[Array, "h w 3"], photo: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """The render, or its luma where the photo is black and white: such a photo says nothing of colours."""
    colourless = jnp.all(jnp.abs(photo - photo.mean(-1, keepdims=True)) < COLOURLESS)
    luma = jnp.broadcast_to(jnp.dot(image, jnp.asarray(LUMA))[..., None], image.shape)
    return jnp.where(colourless, luma, image)


def energy(
    params: Params,
    observations: Observation,
    models: Models,
    weights: dict[str, Array],
    key: PRNGKeyArray,
    spread: dict[str, Array],
    static: Static,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The weighted sum of all terms named in `weights`, and each term's unweighted value.

    Terms absent from `weights` are not computed, nor is anything that only they need. `params.views` and
    `observations` have a leading photo axis; per-photo terms are means over it, weighted by `observations.weight`.
    """
    names = frozenset(weights)
    observations = clean(observations)
    share = observations.weight / jnp.maximum(jnp.sum(observations.weight), 1e-6)
    identity, views = params.identity, params.views
    albedo = texture.decode(models.texture, identity.texture, static.detail)  # dropped where no term needs it

    def one_view(view: View, observed: Observation) -> tuple[dict[str, Array], Any]:
        vertices = morphable.vertices(models.shape, identity.shape, view.expression)
        terms, chip = {}, None
        points = morphable.landmarks(models.shape, vertices, view.camera.rotation)
        points = project(view.camera, points, static.size)[:, :2]
        if "landmark" in names:
            terms["landmark"] = losses.landmark(points, observed.landmarks, observed.confidence, static.size)
        if names & IMAGE_TERMS:
            rendered = draw(models.shape, vertices, albedo, view.camera, view.light, static.size, background=GREY)
            image = like_photo(rendered.image, observed.image)
            if "pixel" in names:
                weight = jnp.where(rendered.coverage > 0.99, 1.0, 0.0) * observed.mask
                terms["pixel"] = losses.pixel(image, observed.image, weight, static.saturation)
            if names & CHIP_TERMS:
                chip = chip_of(models, image, points)
        if "expression" in names:
            stiffness = jnp.ones_like(view.expression) if models.stiffness is None else models.stiffness
            terms["expression"] = losses.expression_prior(view.expression, stiffness)
        if "light" in names:
            terms["light"] = losses.light_prior(view.light)
        return terms, chip

    per_view, chips = jax.vmap(one_view)(views, observations)
    terms = {name: jnp.sum(share * value) for name, value in per_view.items()}
    if "shape" in names:
        terms["shape"] = losses.gaussian_prior(identity.shape)
    if "texture" in names:
        terms["texture"] = losses.latent_prior(identity.texture, static.texture_norm)
    if names & NETWORK_TERMS:
        second = None
        if "second_identity" in names:
            view = random_view(key, models.shape.expression_basis.shape[0], spread)
            second = second_chip(params, models, view, albedo, static.second_size)
        terms |= network_terms(models, chips, second, observations.features, share, names)
    total = sum(weights[name] * terms[name] for name in sorted(names))
    return jnp.asarray(total), terms


def second_chip(
    params: Params, models: Models, view: View, albedo: Float[Array, "s s 3"], size: int
) -> Float[Array, "c c 3"]:
    """The chip of the same identity under another expression, camera and light (paper: the second render)."""
    vertices = morphable.vertices(models.shape, params.identity.shape, view.expression)
    rendered = draw(models.shape, vertices, albedo, view.camera, view.light, size, background=GREY)
    return chip_of(models, rendered.image, rendered.landmarks)


def network_terms(
    models: Models,
    chips: Float[Array, "n c c 3"] | None,
    second: Float[Array, "c c 3"] | None,
    observed: Features,
    share: Float[Array, "n"],
    names: frozenset[str],
) -> dict[str, Array]:
    """Identity, content and second identity, with one pass of the network over all chips.

    The second render belongs to the person, not to a photo: it is compared with every photo's features.
    """
    stack = [x for x in (chips, None if second is None else second[None]) if x is not None]
    network = recogniser_of(models)
    seen, metric = features(network, jnp.concatenate(stack)), network.spec.metric
    terms = {}
    first = jax.tree.map(lambda x: x[: share.shape[0]], seen)
    if "identity" in names:
        terms["identity"] = jnp.sum(share * jax.vmap(lambda a, b: losses.identity(a, b, metric))(first, observed))
    if "content" in names:
        terms["content"] = jnp.sum(share * jax.vmap(losses.content)(first, observed))
    if "second_identity" in names:
        last = jax.tree.map(lambda x: x[-1], seen)
        distances = jax.vmap(lambda o: losses.identity(last, o, metric))(observed)
        terms["second_identity"] = jnp.sum(share * distances)
    return terms
