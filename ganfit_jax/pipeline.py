"""From paths of photos to a finished fit: loads the models, observes the photos, runs the stages."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ganfit_jax import assets, recognition
from ganfit_jax.config import TERMS, Config
from ganfit_jax.detectors import detector
from ganfit_jax.errors import InputError
from ganfit_jax.fit import Callback, active, fit
from ganfit_jax.landmarks import Detector, points_detector
from ganfit_jax.morphable import fixed_jaw
from ganfit_jax.observe import choose_face, observe, stack
from ganfit_jax.occluders import lower_face_weight, skin_weight
from ganfit_jax.photo import photo_size, read_photo
from ganfit_jax.types import Fit, ModelInfo, Models, Observation


class Result(NamedTuple):
    """A fitted person and everything that is needed to draw and to describe the fit."""

    photos: tuple[str, ...]
    observations: Observation  # leading photo axis
    fit: Fit
    models: Models
    infos: dict[str, ModelInfo]
    config: Config
    seconds: dict[str, float]  # wall time of each phase
    notes: tuple[str, ...]  # which face was chosen in each photo


def check(config: Config) -> None:
    """Raises `InputError` with one line where a setting cannot work, before anything is loaded."""
    stages = (config.align, config.colour, config.full)
    least = {
        "config.size": (config.size, 64),
        "config.second.size": (config.second.size, 64),
        "config.chunk": (config.chunk, 1),
        **{f"config.{stage.name}.steps": (stage.steps, 0) for stage in stages},
    }
    for name, (value, bound) in least.items():
        if value < bound:
            raise InputError(f"--{name}={value}: expected at least {bound}")
    if not config.focal > 0 or not config.second.focal > 0:
        raise InputError("--config.focal, --config.second.focal: expected more than 0")
    if not config.saturation > 0:
        raise InputError(f"--config.saturation={config.saturation}: expected more than 0")
    for name, value in vars(config.weights).items():
        if not 0 <= value < math.inf:
            raise InputError(f"--config.weights.{name}={value}: expected a number that is not negative")
    for stage in stages:
        if unknown := sorted(set(stage.terms) - set(TERMS)):
            raise InputError(f"--config.{stage.name}.terms: found {', '.join(unknown)}, expected some of {TERMS}")
        if stage.steps and not active(config.weights, stage):
            raise InputError(f"--config.{stage.name}: no term has a weight, expected one, or steps=0")
    if not config.stages():
        raise InputError("--config: no stage has steps, expected one")


def load_models(config: Config) -> tuple[Models, dict[str, ModelInfo]]:
    """The models that a configuration names, and where they came from; raises `InputError` with one line."""
    try:
        shape, shape_info = assets.load_shape(config.shape_model)
        texture, texture_info = assets.load_texture(config.texture_model)
        recogniser, recogniser_info = recognition.load(config.recogniser)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(str(error)) from None
    shape = shape if config.moving_jaw else fixed_jaw(shape)
    infos = {"shape": shape_info, "texture": texture_info, "recogniser": recogniser_info}
    return Models(shape, texture, recogniser, stiffness(config, shape_info.expressions)), infos


def stiffness(config: Config, expressions: Sequence[str]) -> Float[Array, "n_e"]:
    """What multiplies the expression prior of each named unit: more than 1 for units that are rarely seen."""
    rare = tuple(config.stiff)
    return jnp.asarray([config.stiffness if name.startswith(rare) else 1.0 for name in expressions], jnp.float32)


def skin_only(seen: Observation) -> Observation:
    """The observation with what does not look like skin, around the middle of the face, taken out of its mask, and the
    lower face where something hides the mouth."""
    image, landmarks = np.asarray(seen.image), np.asarray(seen.landmarks)
    skin = skin_weight(image, landmarks)
    skin *= lower_face_weight(landmarks, np.asarray(seen.confidence), image.shape[0])
    return seen._replace(mask=seen.mask * jnp.asarray(skin))


def observe_photo(
    path: str | Path, models: Models, config: Config, find: Detector, face: int | None = None
) -> tuple[Observation, str]:
    """Reads one photo, finds the face and cuts the window; returns a note on which face was chosen.

    The mask of the observation leaves out what does not look like skin around the middle of the face.
    """
    photo = read_photo(path)
    chosen, note = choose_face(find.detect(photo), face, str(path))
    seen = observe(photo, chosen, models.recogniser, config.size)
    return skin_only(seen), note


def fit_photos(
    paths: Sequence[str | Path],
    config: Config | None = None,
    landmarks: Sequence[str | Path] | None = None,
    face: int | None = None,
    callback: Callback | None = None,
) -> Result:
    """Fits one person to one or several photos.

    Args:
      paths: image files, all of the same person.
      config: settings; the preset "fast" by default.
      landmarks: for each photo a file with its 68 points; otherwise they are detected.
      face: number of the face, counted from 0, left to right; otherwise the largest one.
      callback: called after every chunk of steps with stage, steps done, steps to do and the terms.

    Raises:
      InputError: with one line that names the file, what was found and what was expected.
    """
    config = Config() if config is None else config
    if not paths:
        raise InputError("no photo was given, expected at least one")
    check(config)
    if landmarks is not None and len(landmarks) != len(paths):
        raise InputError(f"{len(landmarks)} landmark files for {len(paths)} photos, expected one for each")
    started = time.perf_counter()
    models, infos = load_models(config)
    if landmarks is None:
        find: Detector | list[Detector] = detector(config.detector)
    else:
        find = [points_detector(points, photo_size(path)) for points, path in zip(landmarks, paths, strict=True)]
    loaded = time.perf_counter() - started
    result = fit_with(models, infos, paths, config, find, face, callback)
    return result._replace(seconds={"load": loaded, **result.seconds})


def fit_with(
    models: Models,
    infos: dict[str, ModelInfo],
    paths: Sequence[str | Path],
    config: Config,
    find: Detector | Sequence[Detector],
    face: int | None = None,
    callback: Callback | None = None,
) -> Result:
    """`fit_photos` with models that are loaded already, and one detector for all photos or one for each."""
    started = time.perf_counter()
    finders = [find] * len(paths) if isinstance(find, Detector) else find
    seen = [observe_photo(path, models, config, f, face) for path, f in zip(paths, finders, strict=True)]
    observations = jax.block_until_ready(stack([observation for observation, _ in seen]))
    observed = time.perf_counter()
    fitted = jax.block_until_ready(fit(observations, models, config, jax.random.key(config.seed), callback))
    seconds = {"observe": observed - started, "fit": time.perf_counter() - observed}
    notes = tuple(note for _, note in seen)
    return Result(tuple(str(p) for p in paths), observations, fitted, models, infos, config, seconds, notes)
