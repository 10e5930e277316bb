"""How long fits and their steps take on this device; the people are drawn, so neither photo nor detector is needed.

Rows are those of `timing`.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ganfit_jax import recognition, texture
from ganfit_jax.config import PRESETS, Config
from ganfit_jax.energy import CHIP_TERMS, GREY, recogniser_of
from ganfit_jax.evaluation import VIEWS, synthetic_person
from ganfit_jax.fit import active, as_arrays, compiled_start, fit, run_stage
from ganfit_jax.pipeline import load_models
from ganfit_jax.render import render
from ganfit_jax.timing import Row, Timing, peak_gigabytes, timed
from ganfit_jax.types import Models, Observation, Params


class FitTiming(NamedTuple):
    """Seconds of one call of `fit.fit`."""

    total: float
    stages: dict[str, float]  # the first one with the poses in closed form
    good: int  # people none of whose steps was rejected


@partial(jax.jit, static_argnames="size")
def photograph(models: Models, params: Params, size: int) -> Observation:
    """A render of side `size` over grey of a person's first view, as a photo with exact landmarks; the mask is 1 on the
    head, 0 elsewhere."""
    view = jax.tree.map(lambda x: x[0], params.views)
    seen = render(models, params.identity, view, size, GREY)
    picture, mask = jnp.clip(seen.image, 0.0, 1.0), jnp.where(seen.coverage > 0.99, 1.0, 0.0)
    network = recogniser_of(models)
    found = recognition.features(network, recognition.aligned_chip(network.spec, picture, seen.landmarks))
    return Observation(picture, seen.landmarks, jnp.ones(68), mask, jnp.eye(2, 3), found, jnp.ones(()))


def observations(models: Models, count: int, size: int, distinct: int = 16) -> Observation:
    """One photo of side `size` of each of `count` people (`evaluation.synthetic_person`). Arrays on the device with
    leading axes [count, 1]. The people after the first `distinct` are these again."""
    spread, keys = as_arrays(VIEWS), jax.random.split(jax.random.key(0), min(count, distinct))
    seen = [photograph(models, synthetic_person(key, models, spread, 1), size) for key in keys]
    order = np.arange(count) % distinct
    return jax.block_until_ready(jax.tree.map(lambda *x: jnp.stack(x)[order, None], *seen))


class Case(NamedTuple):
    """What fits are timed with."""

    config: Config
    models: Models
    seen: Observation  # leading axes people, 1
    known: Row  # what a row says of it


def loaded(count: int, preset: str, recogniser: str | None, texture: str | None, steps: int | None) -> Case:
    """`count` people for a preset, of which models and steps of all stages may be changed. Raises `InputError`."""
    config = PRESETS[preset]()
    config.recogniser, config.texture_model = recogniser or config.recogniser, texture or config.texture_model
    for stage in config.stages():
        stage.steps = steps or stage.steps
    models, infos = load_models(config)
    known = {key: infos[key].name for key in ("recogniser", "texture")}
    known |= {"preset": preset, "size": config.size, "steps": "+".join(str(s.steps) for s in config.stages())}
    return Case(config, models, observations(models, count, config.size), known)


def time_fit(seen: Observation, models: Models, config: Config, key: PRNGKeyArray) -> FitTiming:
    """Fits once; `seen` as `fit.fit` takes it."""
    start, ends = time.perf_counter(), {}

    def note(stage: str, done: int, steps: int, terms: dict[str, float]) -> None:
        if done == steps:
            ends[stage] = time.perf_counter()

    fitted = jax.block_until_ready(fit(seen, models, config, key, note))
    total, times = time.perf_counter() - start, [start, *ends.values()]
    stages = {name: after - before for name, before, after in zip(ends, times, times[1:], strict=False)}
    return FitTiming(total, stages, int(np.sum(fitted.ok)))


def some(case: Case, count: int) -> Case:
    """The first `count` people alone."""
    return case._replace(seen=jax.tree.map(lambda x: x[:count], case.seen), known=case.known | {"people": count})


def fit_row(case: Case, repeats: int) -> Row:
    """Seconds of fits of all people at once, their stages, fits per second and the memory's peak so far."""
    count, key = len(case.seen.weight), jax.random.key(case.config.seed)
    first, *further = [time_fit(case.seen, case.models, case.config, key) for _ in range(1 + max(repeats, 1))]
    median = float(np.median([found.total for found in further]))
    stages = {f"{name}, s": float(np.median([found.stages[name] for found in further])) for name in first.stages}
    row = {"first call, s": first.total, "median, s": median, **stages, "fits per second": count / median}
    counts = {"further calls": len(further), "people without a rejected step": first.good}
    return {name: round(value, 4) for name, value in row.items()} | counts | {"peak memory, GB": peak_gigabytes()}


def step_seconds(seen: Observation, models: Models, config: Config, repeats: int) -> Timing:
    """Seconds of a step of the full stage as a fit runs it: a chunk of steps in one compiled program, divided by their
    number. `seen` has a leading photo axis."""
    params = compiled_start(seen, models, config.focal, config.size)
    stage = dataclasses.replace(config.full, steps=config.chunk * (1 + max(repeats, 1)))
    marks, key = [time.perf_counter()], jax.random.key(config.seed)
    run_stage(params, seen, models, config, stage, key, lambda *_: marks.append(time.perf_counter()))
    first, *times = np.diff(marks)
    return Timing(float(first), float(min(times)) / config.chunk, float(np.median(times)) / config.chunk, len(times))


@partial(jax.jit, static_argnames=("function", "steps"))
def descended(function: Callable[..., Array], start: Array, constants: Any, steps: int) -> Array:
    """So many tiny steps down a scalar `function(x, constants)` in one compiled loop."""
    slope = jax.grad(function)
    return jax.lax.scan(lambda x, _: (x - 1e-6 * slope(x, constants), None), start, None, length=steps)[0]


def network_energy(chips: Float[Array, "n s s 3"], models: Models) -> Float[Array, ""]:
    """Something that needs all that the recogniser says of chips."""
    said = jax.tree.leaves(recognition.features(recogniser_of(models), chips))
    return jnp.sum(jnp.stack([jnp.mean(x**2) for x in said]))


def texture_energy(latent: Float[Array, "n_t"], models: Models) -> Float[Array, ""]:
    """Something that needs the whole albedo."""
    return jnp.mean(texture.decode(models.texture, latent) ** 2)


def step_row(case: Case, repeats: int) -> Row:
    """Milliseconds of a step of the full stage for the first person, and of its networks alone, forward and backward,
    in the same kind of loop."""
    (config, models), seen = case[:2], jax.tree.map(lambda x: x[0], case.seen)
    spec, terms = recogniser_of(models).spec, active(config.weights, config.full).keys()
    chip = recognition.aligned_chip(spec, seen.image[0], seen.landmarks[0])
    chips = jnp.stack([chip] * (bool(terms & CHIP_TERMS) + ("second_identity" in terms)))
    latent = jnp.zeros(texture.latent_size(models.texture))
    step, networks = step_seconds(seen, models, config, repeats), {}
    for name, function, start in (("recogniser", network_energy, chips), ("texture", texture_energy, latent)):
        found = timed(descended, function, start, models, config.chunk, repeats=repeats)
        networks[f"{name}, ms"] = 1e3 * found.median / config.chunk
    row = {"step, ms": 1e3 * step.median, **networks, "networks, ms": sum(networks.values())}
    row["step / networks"] = row["step, ms"] / row["networks, ms"]
    counts = {"chips": len(chips), "steps timed": step.calls * config.chunk}
    return counts | {name: round(value, 3) for name, value in row.items()}
