"""Photos -> fitted poses and shapes -> UV albedo maps on disk: the workshop behind `experiments/build_corpus.py`.

Every photo has a file in ``fits/`` (its fit, or why it was dropped) and, if it was kept, a map in ``maps/``; what is
there is not done again, but for photos that were too small for an earlier run and are not for this one.
``maps/detail.json`` holds the side in texels up to which each map shows true detail.
"""

import hashlib
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ganfit_jax import assets, corpus, morphable, unwrap
from ganfit_jax.camera import project, rotation_matrix
from ganfit_jax.config import Config
from ganfit_jax.detectors import detector
from ganfit_jax.errors import InputError
from ganfit_jax.fit import fit
from ganfit_jax.landmarks import Detector, face_size, outer_eye_distance
from ganfit_jax.observe import cut, observe, to_window, window
from ganfit_jax.occluders import skin_weight
from ganfit_jax.photo import read_photo
from ganfit_jax.pipeline import skin_only, stiffness
from ganfit_jax.screening import reject_fit, reject_photo
from ganfit_jax.types import Camera, LinearTexture, Models, Observation

EYE_TURN = 25.8  # degrees by which a unit such as eyeLookUpLeft turns the eye at weight 1
WINDOW = 512  # side of the window that the texels are read from, pixels


class Workshop(NamedTuple):
    """What every step of the corpus needs: where photos and results lie, the models, the detector, the settings."""

    root: Path  # folder of the photos
    output: Path
    models: Models
    expressions: tuple[str, ...]
    config: Config
    find: Detector
    texels: unwrap.TexelMap
    smallest: float  # smallest distance of the outer eye corners, pixels of the photo


class Found(NamedTuple):
    """One photo in which a usable face was found."""

    name: str  # of its files
    path: Path
    observation: Observation
    landmarks: Float[np.ndarray, "68 2"]  # photo pixels
    confidence: Float[np.ndarray, "68"]


def open_shop(
    root: Path, output: Path, texture_model: str | None, smallest: float, size: int, obey: bool = False
) -> Workshop:
    """Loads what is needed. Without a texture model, photos are aligned by their landmarks alone; with one, by their
    colours as well. No recognition network takes part.

    With `obey` the mesh obeys the landmarks closely: a smile that it does not follow is painted into the map, and the
    mouths of later fits stay too small in turn. But landmarks err, and the shapes of later fits became no better."""
    config = Config()
    if obey:
        config.weights.landmark, config.weights.expression, config.align.steps = 0.4, 0.03, 200
    shape, info = assets.load_shape(config.shape_model)
    config.full.steps = 0
    if texture_model is None:
        config.colour.steps = 0
        texture = LinearTexture(jnp.full((2, 2, 3), 0.5), jnp.zeros((1, 2, 2, 3)))
    else:
        texture, _ = assets.load_texture(texture_model)
        config.colour.steps = 60
    models = Models(shape, texture, None, stiffness(config, info.expressions))
    texels = jax.jit(unwrap.texel_map, static_argnames="size")(shape, size=size)
    return Workshop(root, output, models, info.expressions, config, detector(config.detector), texels, smallest)


def distinct(paths: Sequence[Path], skip: Collection[str] = ()) -> list[Path]:
    """The photos whose file names are not in `skip`, every content once: a file that equals an earlier or a skipped one
    byte by byte is left out. Collections hold people under several names, and a copy must not teach what its twin is
    to measure."""
    contents = [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    known, kept = {content for path, content in zip(paths, contents, strict=True) if path.name in skip}, []
    for path, content in zip(paths, contents, strict=True):
        if content not in known:
            known.add(content)
            kept.append(path)
    return kept


def name_photos(shop: Workshop, paths: Sequence[Path]) -> dict[str, Path]:
    """A name for each photo's files: its path below the root, without suffix and separators.

    Photos that this would confuse (a.jpg, a.png; b/c.jpg, b_c.jpg) get a checksum of their path as well, but for one
    that an earlier run has stored under the plain name.
    """
    plain: dict[str, list[Path]] = {}
    for path in paths:
        inside = path.relative_to(shop.root)
        plain.setdefault(inside.with_suffix("").as_posix().replace("/", "_"), []).append(path)
    named = {}
    for name, same in plain.items():
        before = stored(shop, name) if len(same) > 1 else None
        for path in same:
            own = len(same) == 1 or (before is not None and str(before["path"]) == str(path))
            checksum = zlib.crc32(path.relative_to(shop.root).as_posix().encode())
            named[name if own else f"{name}-{checksum:08x}"] = path
    return named


def stored(shop: Workshop, name: str) -> dict[str, np.ndarray] | None:
    """What ``fits/NAME.npz`` holds; None where there is no such file."""
    file = shop.output / "fits" / f"{name}.npz"
    if not file.exists():
        return None
    with np.load(file) as archive:
        return {key: archive[key] for key in archive.files}


def is_done(shop: Workshop, name: str) -> bool:
    """Whether a photo was fitted or dropped before for a reason that still holds."""
    before = stored(shop, name)
    if before is None or str(before["dropped"]) != "small":
        return before is not None
    return float(before.get("smallest", np.inf)) <= shop.smallest


def look(shop: Workshop, name: str, path: Path) -> Found | str:
    """Reads a photo and finds its largest face; or says in a word why it is of no use."""
    try:
        photo = read_photo(path)
    except InputError:
        return "unreadable"
    faces = shop.find.detect(photo)
    if not faces:
        return "no face"
    chosen = max(faces, key=lambda face: face_size(face.landmarks))
    why = reject_photo(photo, chosen, shop.smallest)
    if why:
        return why
    seen = skin_only(observe(photo, chosen, None, shop.config.size))
    return Found(name, path, seen, chosen.landmarks, chosen.confidence)


def fit_batch(shop: Workshop, photos: Mapping[str, Path], batch: int) -> None:
    """Fits all photos of a batch that have no fit yet, in one program for `batch` people, and stores the fits."""
    folder = shop.output / "fits"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, path in photos.items():
        if is_done(shop, name):
            continue
        seen = look(shop, name, path)
        if isinstance(seen, str):
            why = {"dropped": seen, "path": str(path), "smallest": shop.smallest}
            corpus.write_npz(folder / f"{name}.npz", {k: np.asarray(v) for k, v in why.items()})
        else:
            found.append(seen)
    if not found:
        return
    padded = [f.observation for f in found]
    padded += [padded[0]._replace(weight=jnp.zeros(()))] * (batch - len(found))
    people = jax.tree.map(lambda *x: jnp.stack(x)[:, None], *padded)
    done = fit(people, shop.models, shop.config, jax.random.key(shop.config.seed))
    for number, one in enumerate(found):
        identity = jax.tree.map(lambda x, n=number: x[n], done.params.identity)
        view = jax.tree.map(lambda x, n=number: x[n, 0], done.params.views)
        vertices = morphable.vertices(shop.models.shape, identity.shape, view.expression)
        points = morphable.landmarks(shop.models.shape, vertices, view.camera.rotation)
        projected = np.asarray(project(view.camera, points, shop.config.size)[:, :2])
        why = reject_fit(view, one.observation, projected)
        expression = aimed_gaze(shop.expressions, view.camera, np.asarray(view.expression))
        result = {"dropped": why, "path": str(one.path), "shape": identity.shape, "expression": expression}
        result |= {"landmarks": one.landmarks, "confidence": one.confidence, **view.camera._asdict()}
        corpus.write_npz(folder / f"{one.name}.npz", {k: np.asarray(v) for k, v in result.items()})


def fitted(shop: Workshop) -> list[str]:
    """Names of all photos with a usable fit, in order."""
    names = []
    for file in sorted((shop.output / "fits").glob("*.npz")):
        with np.load(file) as archive:
            if not str(archive["dropped"]):
                names.append(file.stem)
    return names


def read(
    shop: Workshop, name: str
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "s s"], Float[np.ndarray, "s s 3"]]:
    """Unwraps a fitted photo: its colours at the texels (light included), their weights, and the normals."""
    data = stored(shop, name)
    if data is None:
        raise InputError(f"{shop.output / 'fits' / name}.npz: not found, expected the fit of a photo")
    photo = read_photo(str(data["path"]))
    placement = window(data["landmarks"], data["confidence"], WINDOW)
    image, inside = cut(photo, placement, WINDOW)
    skin = skin_weight(image, to_window(placement, data["landmarks"]))
    camera = Camera(*(jnp.asarray(data[key]) for key in Camera._fields))
    vertices = morphable.vertices(shop.models.shape, jnp.asarray(data["shape"]), jnp.asarray(data["expression"]))
    seen = sampled(shop.models.shape, shop.texels, vertices, camera, jnp.asarray(image), jnp.asarray(inside * skin))
    return np.asarray(seen.colour), np.asarray(seen.weight), np.asarray(seen.normals)


sampled = jax.jit(unwrap.sample)


def mean_map(shop: Workshop, names: Iterable[str]) -> Float[np.ndarray, "s s 3"]:
    """A first mean albedo: the mean of all photos' ratio to their own tone, and of their mirror images, times the mean
    tone. Light from the left and from the right cancels."""
    size = shop.texels.used.shape[0]
    total, weight, tones = np.zeros((size, size, 3)), np.zeros((size, size)), []
    for name in names:
        colour, seen, _ = read(shop, name)
        tone = (colour * seen[..., None]).sum((0, 1)) / max(float(seen.sum()), 1e-6)
        tones.append(tone)
        ratio = seen[..., None] * colour / np.maximum(tone, 0.02)
        total, weight = total + ratio + ratio[:, ::-1], weight + seen + seen[:, ::-1]
    known = np.clip(weight / (0.05 * len(tones) + 1e-6), 0.0, 1.0)
    ratio = unwrap.fill(total / np.maximum(weight, 1e-6)[..., None], known)
    return np.clip(ratio * np.mean(tones, 0), 0.0, 1.0).astype(np.float32)


def detail(shop: Workshop, name: str) -> int:
    """The side in texels at which a texel of a fitted photo's map is as large as a pixel of the photo between the eyes
    (or of the window through which it is read), at most the maps' side."""
    data = stored(shop, name) or {}
    landmarks = data["landmarks"]
    placement = window(landmarks, data["confidence"], WINDOW)
    pixels = min(outer_eye_distance(landmarks), outer_eye_distance(to_window(placement, landmarks)))
    return min(int(pixels / corpus.eye_span(shop.models.shape)), len(shop.texels.used))


def write_map(shop: Workshop, name: str, mean: Float[np.ndarray, "s s 3"]) -> None:
    """Divides out the light, completes the map and writes it with its weights, unless it is there."""
    if (shop.output / "maps" / f"{name}.png").exists():
        return
    colour, seen, normals = read(shop, name)
    shading = unwrap.fit_shading(colour, seen, normals, mean)
    albedo, weight = unwrap.complete(np.clip(colour / shading, 0.0, 1.0), seen, mean)
    corpus.write_map(shop.output / "maps", name, albedo, weight)


def aimed_gaze(names: tuple[str, ...], camera: Camera, expression: Float[np.ndarray, "n_e"]) -> np.ndarray:
    """Sets the eye units of an expression so that the eyes look into the camera, as people do in portraits.

    A unit at 1 turns the eyes by `EYE_TURN` degrees.
    """
    rotation = np.asarray(rotation_matrix(camera.rotation))
    position = np.asarray(camera.translation) * np.array([1.0, -1.0, -1.0])
    towards = -rotation.T @ position  # from the eyes to the camera, world frame
    across = np.degrees(np.arctan2(towards[0], towards[2])) / EYE_TURN
    up = np.degrees(np.arctan2(towards[1], np.hypot(towards[0], towards[2]))) / EYE_TURN
    amounts = {
        "eyeLookOutLeft": across, "eyeLookInRight": across, "eyeLookInLeft": -across, "eyeLookOutRight": -across,
        "eyeLookUpLeft": up, "eyeLookUpRight": up, "eyeLookDownLeft": -up, "eyeLookDownRight": -up,
    }  # fmt: skip
    aimed = np.array(expression, np.float32)
    for name, amount in amounts.items():
        if name in names:
            aimed[names.index(name)] = np.clip(amount, 0.0, 1.0)
    return aimed
