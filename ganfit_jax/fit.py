"""The fit: stages run by one loop, Adam steps inside a compiled scan, every parameter group with its own rate."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ganfit_jax import morphable, texture
from ganfit_jax.camera import initial_camera
from ganfit_jax.config import Config, Rates, SecondRender, Stage, Weights
from ganfit_jax.energy import IMAGE_TERMS, NETWORK_TERMS, Static, clean, energy
from ganfit_jax.types import Camera, Fit, Identity, Light, Models, Observation, Params, ShapeModel, View

Callback = Callable[[str, int, int, dict[str, float]], None]
ADAM = optax.scale_by_adam(b1=0.9, b2=0.99)


class State(NamedTuple):
    params: Params
    moments: Any  # state of Adam
    rejected: Float[Array, ""]  # number of steps that were not finite


def initial_params(observations: Observation, models: Models, focal: float, size: int) -> Params:
    """Mean face and texture, poses in closed form from the landmarks, neutral light from the camera's side.

    `observations` has a leading photo axis; `focal` is in window sides.
    """
    observations = clean(observations)
    n, n_e = observations.landmarks.shape[0], models.shape.expression_basis.shape[0]
    n_s, n_t = models.shape.identity_basis.shape[0], texture.latent_size(models.texture)
    identity = Identity(jnp.zeros(n_s), jnp.zeros(n_t))
    points = morphable.landmarks(models.shape, models.shape.mean, jnp.zeros(3))[17:]

    def camera(landmarks: Float[Array, "68 2"], confidence: Float[Array, "68"]) -> Camera:
        return initial_camera(points, landmarks[17:], confidence[17:], jnp.log(jnp.float32(focal)), size)

    light = Light(jnp.array([0.0, 0.3, 1.0]), jnp.full(3, 0.5), jnp.full(3, 0.75))
    light = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (n, 3)), light)
    cameras = jax.vmap(camera)(observations.landmarks, observations.confidence)
    return Params(identity, View(jnp.full((n, n_e), 0.01), cameras, light))


@partial(jax.jit, static_argnames=("focal", "size"))
def compiled_start(observations: Observation, models: Models, focal: float, size: int) -> Params:
    """`initial_params`; for many people at once where `observations` has a people axis."""
    start = partial(initial_params, models=models, focal=focal, size=size)
    return jax.vmap(start)(observations) if observations.weight.ndim > 1 else start(observations)


def rate_tree(rates: Rates, photos: int) -> Params:
    """The learning rates as a pytree like `Params`; the depth of the camera moves five times as fast as x and y."""
    camera = Camera(
        jnp.full((photos, 3), rates.rotation),
        jnp.tile(1000.0 * rates.translation * jnp.array([[1.0, 1.0, 5.0]]), (photos, 1)),
        jnp.full(photos, rates.focal),
    )
    light = jnp.full((photos, 3), rates.light)
    view = View(jnp.full((photos, 1), rates.expression), camera, Light(light, light, light))
    return Params(Identity(jnp.full(1, rates.shape), jnp.full(1, rates.texture)), view)


def active(weights: Weights, stage: Stage) -> dict[str, float]:
    """The terms of a stage that have a weight, with it."""
    factors = {"landmark": stage.landmark, "pixel": stage.pixel}
    named = {name: float(getattr(weights, name)) * factors.get(name, 1.0) for name in stage.terms}
    return {name: value for name, value in named.items() if value}


def step(
    state: State,
    key: PRNGKeyArray,
    scale: Float[Array, ""],
    observations: Observation,
    models: Models,
    weights: dict[str, Array],
    rates: Params,
    spread: dict[str, Array],
    static: Static,
) -> tuple[State, dict[str, Array]]:
    """One Adam step, its rates times `scale`; expressions stay in [0, 1]. A step that is not finite changes nothing."""
    objective = partial(energy, observations=observations, models=models, weights=weights, key=key, spread=spread)
    value = jax.value_and_grad(lambda p: objective(p, static=static), has_aux=True)
    (total, terms), gradient = value(state.params)
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of its integer step
        updates, moments = ADAM.update(gradient, state.moments)
    params = jax.tree.map(lambda p, u, r: p - scale * r * u, state.params, updates, rates)
    expression = jnp.clip(params.views.expression, 0.0, 1.0)
    params = params._replace(views=params.views._replace(expression=expression))
    finite = jnp.isfinite(total) & jnp.all(
        jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((gradient, params))])
    )
    rejected = state.rejected + jnp.where(finite, 0.0, 1.0)
    kept = jax.tree.map(
        lambda a, b: jnp.where(finite, a, b), State(params, moments, rejected), state._replace(rejected=rejected)
    )
    return kept, terms | {"total": total}


def chunk(state: State, keys: Key[Array, "n"], scales: Float[Array, "n"], *constants: Any, static: Static) -> Any:
    """`step` scanned over keys and scales; returns the state and every term's values."""
    return jax.lax.scan(lambda s, x: step(s, x[0], x[1], *constants, static=static), state, (keys, scales))


compiled_chunk = jax.jit(chunk, static_argnames="static")


@partial(jax.jit, static_argnames="static")
def compiled_people_chunk(state, keys, scales, observations, *constants, static):
    """`chunk` for many people at once: state, keys and observations have a leading people axis."""

    def one(s, k, o):
        return chunk(s, k, scales, o, *constants, static=static)

    return jax.vmap(one)(state, keys, observations)


def as_arrays(second: SecondRender) -> dict[str, Array]:
    """How `energy.random_view` draws, as scalars: changing one compiles nothing anew."""
    names = ("yaw", "pitch", "roll", "expression", "expressed", "light", "focal")
    return {name: jnp.float32(getattr(second, name)) for name in names}


def run_stage(
    params: Params,
    observations: Observation,
    models: Models,
    config: Config,
    stage: Stage,
    key: PRNGKeyArray,
    callback: Callback | None = None,
) -> tuple[Params, dict[str, np.ndarray], Any]:
    """Runs one stage; returns the parameters, the trace of every term and the number of rejected steps.

    Arrays with a people axis in front of the photo axis fit many people at once; trace and rejected steps then have it
    too. The callback is called after every chunk with the stage's name, the steps done, the steps to do and the
    (mean) terms.
    """
    people = observations.weight.shape[:-1]
    weights = {name: jnp.float32(value) for name, value in active(config.weights, stage).items()}
    if not weights.keys() & (IMAGE_TERMS | NETWORK_TERMS):
        models = models._replace(shape=landmark_model(models.shape))
    rates = rate_tree(stage.rates, observations.weight.shape[-1])
    time = np.arange(stage.steps) / max(stage.steps, 1)
    scales = jnp.float32(stage.final_rate + (1 - stage.final_rate) * 0.5 * (1 + np.cos(np.pi * time)))
    keys = jax.random.split(key, (*people, stage.steps))
    constants = (models, weights, rates, as_arrays(config.second))
    moments = jax.vmap(ADAM.init)(params) if people else ADAM.init(params)
    # Explicit types: a weakly typed first state would compile the program twice.
    state = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), State(params, moments, jnp.zeros(people)))
    static = Static(config.size, config.second.size, config.texture_norm, stage.detail, config.saturation)
    run = partial(compiled_people_chunk if people else compiled_chunk, static=static)
    spans = [slice(i, i + config.chunk) for i in range(0, stage.steps, config.chunk)]
    parts = [(keys[..., span], scales[span]) for span in spans]
    traces = []
    for span, (part_keys, part_scales) in zip(spans, parts, strict=True):
        with jax.transfer_guard("disallow"):
            state, terms = run(state, part_keys, part_scales, observations, *constants)
        traces.append(jax.device_get(terms))
        if callback is not None:
            latest = {name: float(np.mean(values[..., -1])) for name, values in traces[-1].items()}
            callback(stage.name, min(span.stop, stage.steps), stage.steps, latest)
    trace = {name: np.concatenate([t[name] for t in traces], axis=-1) for name in traces[0]} if traces else {}
    return state.params, trace, jax.device_get(state.rejected)


def fit(
    observations: Observation,
    models: Models,
    config: Config,
    key: PRNGKeyArray,
    callback: Callback | None = None,
    params: Params | None = None,
) -> Fit:
    """Fits one person to all photos in `observations` (leading photo axis): the landmarks first, then everything.

    With a people axis before the photo axis, fits many people independently in one program. `Fit.trace` holds every
    term at every step under "stage/term"; `Fit.ok` is False where steps were rejected because they were not finite.
    `params` continues from given parameters.
    """
    reached = compiled_start(observations, models, config.focal, config.size) if params is None else params
    trace, rejected = {}, 0
    for number, stage in enumerate(config.stages()):
        stage_key = jax.random.fold_in(key, number)
        reached, terms, bad = run_stage(reached, observations, models, config, stage, stage_key, callback)
        trace |= {f"{stage.name}/{name}": values for name, values in terms.items()}
        rejected = rejected + bad
    return Fit(reached, trace, np.asarray(rejected == 0))


def landmark_model(model: ShapeModel) -> ShapeModel:
    """The part of a shape model that its landmarks need: the same landmarks from a twentieth of the vertices.

    Vertices that carry no landmark and no contour candidate are dropped; the chart is emptied.
    """
    faces = np.unique(np.concatenate([np.ravel(model.landmark_faces), np.ravel(model.contour_faces)]))
    kept, corners = np.unique(np.asarray(model.faces)[faces], return_inverse=True)
    return ShapeModel(
        mean=model.mean[kept],
        identity_basis=model.identity_basis[:, kept],
        expression_basis=model.expression_basis[:, kept],
        faces=jnp.asarray(corners.reshape(-1, 3), jnp.int32),
        uv=jnp.zeros((1, 2)),
        uv_faces=jnp.zeros((len(faces), 3), jnp.int32),
        landmark_faces=jnp.asarray(np.searchsorted(faces, model.landmark_faces), jnp.int32),
        landmark_barycentric=model.landmark_barycentric,
        contour_faces=jnp.asarray(np.searchsorted(faces, model.contour_faces), jnp.int32),
        contour_barycentric=model.contour_barycentric,
        regions=jax.tree.map(lambda mask: mask[kept], model.regions),
    )
