"""Who is fitted in an experiment: photos of a folder, synthetic people, and the truth where it is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ganfit_jax import morphable
from ganfit_jax.deviations import marked
from ganfit_jax.errors import InputError
from ganfit_jax.evaluation import synthetic_person
from ganfit_jax.files import write_arrays, write_bytes
from ganfit_jax.landmarks import NOSE_TIP, Detector
from ganfit_jax.metrics import Surface
from ganfit_jax.photo import PHOTO_KINDS
from ganfit_jax.picture import png_bytes
from ganfit_jax.protocols import micc
from ganfit_jax.scans import MESHES, Marked, read_scan
from ganfit_jax.types import Light, Models, Params, ShapeModel

DIRECTIONS = 200  # normals on which two lights are compared


class Truth(NamedTuple):
    """What is known of a person: the neutral face, and the light of each photo where that is known too."""

    surface: Surface  # millimetres
    landmarks: Float[np.ndarray, "68 3"]  # NaN where one is not known
    light: Light | None  # leading photo axis


class Item(NamedTuple):
    """One person."""

    photos: tuple[Path, ...]
    truth: Truth | None


def neutral_face(model: ShapeModel, params: Params) -> Marked:
    """The person's surface (mm) without expression, eyes and the inside of the mouth left out, and its landmarks."""
    vertices = morphable.vertices(model, params.identity.shape, jnp.zeros_like(params.views.expression[0]))
    return marked(model, np.asarray(vertices))


def truth_figures(model: ShapeModel, params: Params, truth: Truth) -> dict[str, float]:
    """Errors of a fit against the truth: "geometry mm" (`protocols.micc`, similarity ICP), "light %" of the first
    photo."""
    found = micc(neutral_face(model, params), Marked(truth.surface, truth.landmarks), kinds=("similarity",))
    figures = {"geometry mm": found["similarity"].mean()}
    if truth.light is not None:
        found, known = (jax.tree.map(lambda x: np.asarray(x[0]), light) for light in (params.views.light, truth.light))
        figures["light %"] = light_error(Light(*found), Light(*known))
    return figures


def light_error(found: Light, truth: Light) -> float:
    """How differently two lights shade: mean absolute difference in percent of the mean, over normals of the front.

    Each light's irradiance ``ambient + colour max(0, <n, d>)`` is divided by its mean over normals and channels, since
    the strength of light and the brightness of skin cannot be told apart. Normals: a Fibonacci half sphere.
    """
    index = np.arange(DIRECTIONS) + 0.5
    z, angle = 1.0 - index / DIRECTIONS, np.pi * (1.0 + 5.0**0.5) * index
    normals = np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)
    shares = []
    for light in (found, truth):
        direction, colour, ambient = (np.asarray(x, np.float64) for x in (light.direction, light.colour, light.ambient))
        cosine = np.maximum(normals @ (direction / max(float(np.linalg.norm(direction)), 1e-12)), 0.0)
        irradiance = ambient[None] + colour[None] * cosine[:, None]
        shares.append(irradiance / irradiance.mean())
    return float(100.0 * np.abs(shares[0] - shares[1]).mean())


def write_truth(path: Path, truth: Truth) -> None:
    """Writes the truth as npz: vertices, faces, landmarks (mm) and light.direction, .colour, .ambient (per photo)."""
    arrays = {"vertices": truth.surface.vertices, "faces": truth.surface.faces, "landmarks": truth.landmarks}
    if truth.light is not None:
        arrays |= {f"light.{name}": np.asarray(value) for name, value in truth.light._asdict().items()}
    write_arrays(path, arrays)


def read_truth(path: Path) -> Truth:
    """What `write_truth` wrote; the three arrays of the light may be absent. Raises `InputError` with one line."""
    try:
        with np.load(path, allow_pickle=False) as file:
            data = dict(file)
        surface = Surface(np.asarray(data["vertices"], np.float64), np.asarray(data["faces"], np.int64))
        names = [f"light.{name}" for name in Light._fields]
        light = Light(*(jnp.asarray(data[name], jnp.float32) for name in names)) if names[0] in data else None
        landmarks = np.asarray(data["landmarks"], np.float64)
    except Exception as error:  # numpy raises a dozen kinds for files that are no npz
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: {reason}; expected an npz with vertices, faces and landmarks") from None
    if surface.vertices.shape[1:] != (3,) or surface.faces.shape[1:] != (3,) or landmarks.shape != (68, 3):
        found = f"{surface.vertices.shape}, {surface.faces.shape}, {landmarks.shape}"
        raise InputError(f"{path}: vertices, faces and landmarks are {found}, expected (v, 3), (f, 3), (68, 3)")
    return Truth(surface, landmarks, light)


def beside(stem: Path) -> Truth | None:
    """The truth in ``stem.npz`` (`write_truth`), or in a scan ``stem.obj`` (.ply, .glb, .stl; millimetres) with its 68
    landmarks in ``stem.ljson`` (.json, .txt); None where there is neither."""
    stored, *meshes = (stem.with_name(stem.name + kind) for kind in (".npz", *MESHES))
    if stored.is_file():
        return read_truth(stored)
    for mesh in meshes:
        if mesh.is_file():
            marks = [mesh.with_suffix(kind) for kind in (".ljson", ".json", ".txt")]
            scan = read_scan(mesh, next((file for file in marks if file.is_file()), marks[0]))
            if not np.isfinite(scan.landmarks[NOSE_TIP]).all():
                raise InputError(f"{mesh}: the landmark of the nose tip (30) is not known, expected it")
            return Truth(scan.surface, scan.landmarks, None)
    return None


def photos_of(folder: Path) -> tuple[Path, ...]:
    """The photos that lie in a folder, by name."""
    return tuple(sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTO_KINDS and not p.name.startswith(".")))


def read_item(path: Path) -> Item:
    """A photo, with the truth in the file of the same stem; or a folder of photos of one person, with its truth.npz."""
    if path.is_dir():
        photos = photos_of(path)
        if not photos:
            raise InputError(f"{path}: no photo in this folder, expected photos of one person")
        return Item(photos, beside(path / "truth"))
    if not path.is_file():
        raise InputError(f"{path}: no such photo or folder")
    return Item((path,), beside(path.with_suffix("")))


def names_in(folder: Path) -> list[str]:
    """The items in a folder: its photos, and its folders (each of one person), by name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with photos")
    return [p.name for p in photos_of(folder)] + sorted(p.name for p in folder.iterdir() if p.is_dir())


def synthetic_item(
    folder: Path,
    models: Models,
    draw: Callable[..., Any],
    find: Detector,
    seed: int,
    spread: dict[str, Any],
    photos: int = 1,
    size: int = 512,
) -> Item:
    """A random person of the models, photographed by our own renderer; made only where the folder holds none.

    `draw` is `evaluation.photograph`, compiled. Views in which the detector finds no face are passed over, up to two
    for each photo.
    """
    if not (folder / "truth.npz").is_file():
        person = synthetic_person(jax.random.key(seed), models, spread, 3 * photos)
        folder.mkdir(parents=True, exist_ok=True)
        used: list[int] = []
        for number in range(3 * photos):
            image = np.asarray(draw(models, person, photo=number, size=size))
            if len(used) < photos and find.detect(image):
                write_bytes(folder / f"view_{len(used):02d}.png", png_bytes(image))
                used.append(number)
        if len(used) < photos:
            raise InputError(f"{folder}: {len(used)} views with a face, expected {photos}")
        light = jax.tree.map(lambda x: x[np.asarray(used)], person.views.light)
        write_truth(folder / "truth.npz", Truth(*neutral_face(models.shape, person), light))
    return read_item(folder)
