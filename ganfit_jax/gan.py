"""One training step of the texture GAN: WGAN-GP with drift, Adam, an averaged generator, and optionally an encoder.

Losses: Gulrajani et al. 2017 (arXiv 1704.00028) with the drift term of Karras et al., ICLR 2018. Maps are partly
seen: the critic gets ``(visibility x colour, visibility)``, of real maps and of generated maps seen through the real
maps' visibilities (Bora et al., AmbientGAN, ICLR 2018), so that what completes unseen texels teaches nothing.

The encoder is a departure from the paper for small corpora: it finds the latent of a real map, and the generator has
to give that map back (Larsen et al. 2016, arXiv 1512.09300). It keeps the generator from forgetting people, and gives
fits their first guess. With ``reconstruction`` 0 there is no encoder and the training is Karras et al.'s.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ganfit_jax.augment import augment
from ganfit_jax.generator import Discriminator, Generator, Projection, channels, enlarge, levels, mix, resized, shrink

ADAM = optax.scale_by_adam(b1=0.0, b2=0.99, eps=1e-8)
STEADY = optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-8)  # without a critic: three times fewer steps (measured)


@dataclasses.dataclass(unsafe_hash=True)
class Settings:
    """What shapes the networks and the compiled step; hashable, and not to be changed once it is in use."""

    side: int = 128  # of the finished maps
    latent: int = 512
    base: int = 2048  # channels of a level are min(widest, base / side); the paper's networks: 8192 and 512
    widest: int = 128
    narrowest: int = 1
    critic: float = 0.5  # widths of critic and encoder, against the generator's; the paper's: 1
    rate: float = 0.001
    pace: float = 1.0  # the critic's rate, against the generator's (Heusel et al. 2017, arXiv 1706.08500: above 1)
    penalty: float = 10.0
    drift: float = 0.001
    average: int = 5000  # images after which the averaged generator has forgotten half
    policy: tuple[str, ...] = ()  # augmentations of real and generated maps alike: `augment.augment`
    reconstruction: float = 1.0  # 1 = pulls at a map as hard as the critic does; 0 = no encoder
    encoder: int = 64  # the encoder looks at maps shrunk to this side
    linear: int = 0  # side of the generator's linear path, a PCA of the maps that finds the codes too; 0 = none
    adversarial: int = 4  # the critic takes part from this side on; below it encoder and generator learn to reconstruct
    local: bool = False  # the critic also scores every place of every level by itself
    paired: bool = False  # the critic compares maps with their own reconstructions alone: far less noise
    bfloat16: bool = False


class Networks(NamedTuple):
    """Something of each network: its weights, its graph or its optimiser's state."""

    generator: Any
    critic: Any
    encoder: Any  # None without an encoder


class GanState(NamedTuple):
    weights: Networks
    moments: Networks  # states of Adam
    average: Any  # the generator's averaged weights


class Batch(NamedTuple):
    albedo: Float[Array, "n s s 3"]  # sRGB, [0, 1]
    weight: Float[Array, "n s s"]  # visibility, [0, 1]


def create(settings: Settings, seed: int) -> tuple[Networks, GanState]:
    """Static graphs and the state before the first step. Raises ValueError where a level would learn nothing."""
    if settings.adversarial > 4 and not settings.reconstruction:
        raise ValueError(
            f"adversarial = {settings.adversarial}: expected 4, since without an encoder only the critic teaches"
        )
    if settings.paired and not settings.reconstruction:
        raise ValueError("paired: expected reconstruction > 0, since only then maps have reconstructions")
    if settings.linear and (settings.linear < 4 or settings.linear & (settings.linear - 1)):
        raise ValueError(f"linear = {settings.linear}: expected 0 or a power of two of at least 4")
    rngs = nnx.Rngs(seed)
    widths = channels(settings.side, settings.base, settings.widest, settings.narrowest)
    narrow = tuple(max(1, round(settings.critic * width)) for width in widths)
    modules = [
        Generator(settings.latent, widths, rngs, linear=settings.linear),
        Discriminator(4, narrow, rngs, local=settings.local),
    ]
    if settings.linear:
        modules.append(Projection(settings.latent, min(settings.linear, settings.encoder)))
    elif settings.reconstruction:
        small = narrow[: levels(min(settings.side, settings.encoder))]
        modules.append(Discriminator(4, small, rngs, outputs=settings.latent))
    graphs, weights = zip(*(nnx.split(module) for module in modules), strict=True)
    weights = Networks(*weights, *(None,) * (3 - len(weights)))
    average = jax.tree.map(jnp.copy, weights.generator)
    return Networks(*graphs, *(None,) * (3 - len(graphs))), GanState(weights, fresh_moments(weights), average)


def with_linear(
    state: GanState, mean: Float[Array, "s s 3"], basis: Float[Array, "d s s 3"], taught: Float[Array, "s s 1"]
) -> GanState:
    """The state with a linear path, sRGB in [0, 1] as of `types.LinearTexture`, the codes that go with it, and where
    the networks may add to it, [0, 1]."""

    def fill(weights: Any) -> Any:
        weights = jax.tree.map(lambda x: x, weights)
        side = weights["linear"]["mean"][...].shape[0]
        maps = resized(jnp.concatenate([2.0 * mean[None] - 1.0, 2.0 * basis]), side)
        weights["linear"]["mean"][...], weights["linear"]["basis"][...] = maps[0], maps[1:]
        if "taught" in weights:
            weights["taught"][...] = resized(taught[None], side)[0]
        return weights

    old = state.weights
    filled = Networks(fill(old.generator), old.critic, fill(old.encoder))
    return state._replace(weights=filled, average=fill(state.average))


def inherit(new: Any, old: Any) -> Any:
    """`new` with those arrays of `old` that have a name and shape of its own: other latents, the same blocks."""
    known = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(old)}

    def choose(path: Any, leaf: Array) -> Array:
        found = known.get(jax.tree_util.keystr(path), leaf)
        return jnp.copy(found) if found.shape == leaf.shape else leaf

    return jax.tree_util.tree_map_with_path(choose, new)


def fresh_moments(weights: Networks) -> Networks:
    """Adam's state before the first step; each new level begins with it, as in Karras et al."""
    return Networks(*(None if w is None else ADAM.init(w) for w in weights))


def dtype(settings: Settings) -> Any:
    return jnp.bfloat16 if settings.bfloat16 else jnp.float32


def generate(
    graph: Any, weights: Any, latent: Float[Array, "n d"], side: int, alpha: Float[Array, ""], kind: Any = jnp.float32
) -> Float[Array, "n s s 3"]:
    """The generator at any level and fade; colours about [-1, 1]."""
    return nnx.merge(graph, weights)(latent, side, alpha, kind)


def seen(colours: Float[Array, "n s s 3"], weight: Float[Array, "n s s"]) -> Float[Array, "n s s 4"]:
    """What the critic sees of maps: ``(visibility x colour, visibility)``."""
    return jnp.concatenate([colours * weight[..., None], weight[..., None]], axis=-1)


def fade(x: Float[Array, "n s s c"], alpha: Float[Array, ""]) -> Float[Array, "n s s c"]:
    """Real maps while a level fades in: the level below, enlarged, mixed with the map."""
    return x if x.shape[1] == 4 else mix(enlarge(shrink(x)), x, alpha)


def encode(
    graph: Any, weights: Any, images: Float[Array, "n s s 4"], side: int, alpha: Float[Array, ""], kind: Any
) -> Float[Array, "n d"]:
    """The latents of maps as `seen` gives them; larger maps than `side` are shrunk to it."""
    alpha = alpha if images.shape[1] <= side else jnp.ones_like(alpha)
    while images.shape[1] > side:
        images = shrink(images)
    return nnx.merge(graph, weights)(images, alpha, kind)


def mixtures(key: PRNGKeyArray, codes: Float[Array, "n d"], count: int) -> Float[Array, "count d"]:
    """Latents of new people, ``mean + sum_i a_i (code_i - mean) / sqrt(n - 1)`` with normal a: normal, with the codes'
    mean and covariance. With an encoder they take the place of the paper's standard normal latents."""
    mean = jnp.mean(codes, axis=0, keepdims=True)
    shares = jax.random.normal(key, (count, codes.shape[0])) / max(codes.shape[0] - 1, 1) ** 0.5
    return mean + jnp.dot(shares, codes - mean)


def penalty(score: Any, real: Float[Array, "n s s c"], fake: Float[Array, "n s s c"], share: Float[Array, "n"]) -> Any:
    """``E (|grad D(x)| - 1)^2`` at ``x = (1 - share) real + share fake``."""
    between = real + share[:, None, None, None] * (fake - real)
    gradient = jax.grad(lambda x: jnp.sum(score(x)))(between)
    return jnp.mean((jnp.sqrt(jnp.sum(gradient**2, axis=(1, 2, 3)) + 1e-12) - 1.0) ** 2)


def difference(a: Float[Array, "n s s 4"], b: Float[Array, "n s s 4"]) -> Float[Array, ""]:
    """L1 distance, over seen texels, of maps as `seen` gives them, both through the same visibility; the mean over an
    image pyramid down to 8 x 8, scaled by the root of the number of values: its gradient is then about as long as
    that of a critic with slope 1."""
    delta, weight, terms = (a - b)[..., :3], b[..., 3:], []
    scale = (3.0 * a.shape[1] * a.shape[2]) ** 0.5
    while True:
        terms.append(jnp.sum(jnp.abs(delta)) / (3.0 * jnp.sum(weight) + 1e-6))
        if delta.shape[1] <= 8:
            return scale * jnp.mean(jnp.stack(terms))
        delta, weight = shrink(delta), shrink(weight)


def update(
    weights: Any, gradient: Any, moments: Any, rate: float, adam: optax.GradientTransformation = ADAM
) -> tuple[Any, Any]:
    """One step of Adam."""
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of its integer step
        change, moments = adam.update(gradient, moments)
    return jax.tree.map(lambda w, c: w - rate * c, weights, change), moments


@partial(jax.jit, static_argnames=("graphs", "settings"), donate_argnums=0)
def step(
    state: GanState, batch: Batch, key: PRNGKeyArray, alpha: Float[Array, ""], *, graphs: Networks, settings: Settings
) -> tuple[GanState, dict[str, Array]]:
    """One step of the critic, then one of generator and encoder. Returns the losses as well."""
    count, side, kind = batch.albedo.shape[0], batch.albedo.shape[1], dtype(settings)
    keys = jax.random.split(key, 7)
    plain = seen(2.0 * batch.albedo - 1.0, batch.weight)
    faded = fade(plain, alpha)
    weight = faded[..., 3]  # generated maps are seen through it too: the critic must not know them by their edges
    compared = side >= settings.adversarial
    adam = ADAM if compared else STEADY
    coded = (count // 2 if compared else count) if settings.reconstruction else 0

    def latents(encoder: Any, key: PRNGKeyArray, coded: int) -> Float[Array, "n d"]:
        if not coded:
            return jax.random.normal(key, (count, settings.latent))
        codes = encode(graphs.encoder, encoder, plain, settings.encoder, alpha, kind)
        drawn = mixtures(key, jax.lax.stop_gradient(codes), count - coded)
        return jnp.concatenate([codes[:coded], drawn])

    def paint(generator: Any, encoder: Any, key: PRNGKeyArray, coded: int) -> Float[Array, "n s s 3"]:
        return generate(graphs.generator, generator, latents(encoder, key, coded), side, alpha, kind)

    def score(critic: Any, images: Float[Array, "n s s 4"]) -> Float[Array, "n"]:
        return nnx.merge(graphs.critic, critic)(images, alpha, kind)[:, 0]

    old, critic, critic_moments, terms = state.weights, state.weights.critic, state.moments.critic, {}

    def critic_loss(critic: Any) -> tuple[Array, dict[str, Array]]:
        of_real, of_fake = score(critic, real), score(critic, fake)
        slope = penalty(partial(score, critic), real, fake, jax.random.uniform(keys[3], (count,)))
        distance = jnp.mean(of_real) - jnp.mean(of_fake)
        terms = {"distance": distance, "penalty": slope, "drift": jnp.mean(of_real**2)}
        return -distance + settings.penalty * slope + settings.drift * terms["drift"], terms

    if compared:
        real = augment(keys[0], faded, settings.policy)
        shown = paint(old.generator, old.encoder, keys[1], count if settings.paired else coded)
        fake = augment(keys[2], seen(shown, weight), settings.policy)
        gradient, terms = jax.grad(critic_loss, has_aux=True)(critic)
        critic, critic_moments = update(critic, gradient, critic_moments, settings.pace * settings.rate)

    def generator_loss(weights: tuple[Any, Any]) -> tuple[Array, dict[str, Array]]:
        images, terms = seen(paint(*weights, keys[4], coded), weight), {}
        if compared:
            terms["generator"] = -jnp.mean(score(critic, augment(keys[5], images, settings.policy)))
        if coded:
            terms["reconstruction"] = difference(images[:coded], faded[:coded])
        return terms.get("generator", 0.0) + settings.reconstruction * terms.get("reconstruction", jnp.zeros(())), terms

    gradient, more = jax.grad(generator_loss, has_aux=True)((old.generator, old.encoder))
    generator, moments = update(old.generator, gradient[0], state.moments.generator, settings.rate, adam)
    encoder, encoder_moments = old.encoder, state.moments.encoder
    if coded:
        encoder, encoder_moments = update(old.encoder, gradient[1], state.moments.encoder, settings.rate, adam)
    keep = 0.5 ** (count / settings.average)
    average = jax.tree.map(lambda a, w: a + (1.0 - keep) * (w - a), state.average, generator)
    state = GanState(Networks(generator, critic, encoder), Networks(moments, critic_moments, encoder_moments), average)
    return state, terms | more
