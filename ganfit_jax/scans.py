"""Scans, reconstructions and their landmarks from files.

Scans are read as OBJ, PLY, GLB or STL; 68 landmarks (iBUG order) as `.ljson` (menpo, any version), `.txt` (a line
"x y z" a point) or `.json` (a list of points), in the coordinates and unit of the scan. Everything becomes millimetres.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ganfit_jax.errors import InputError
from ganfit_jax.landmarks import OUTER_EYE_CORNERS, read_points
from ganfit_jax.metrics import Surface, distances

MESHES = (".obj", ".ply", ".glb", ".gltf", ".stl")
EYES_APART = (50.0, 160.0)  # mm: outer eye corners of people
OFF_THE_SCAN = 15.0  # mm: median distance of landmarks that belong to another scan or unit


class Marked(NamedTuple):
    """A surface with landmarks: a scan, or a reconstruction of any topology. Millimetres."""

    surface: Surface
    landmarks: Float[np.ndarray, "68 3"]  # NaN where a landmark is not known


def read_surface(path: str | Path, unit: float = 1.0) -> Surface:
    """The triangles in a file, all parts of it merged, in millimetres; `unit` is the millimetres in one of its units.

    Vertices that are no numbers are dropped with their triangles. The vertices of an OBJ file keep their numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: not found, expected a mesh ({', '.join(MESHES)})")
    if path.suffix.lower() not in MESHES:
        raise InputError(f"{path}: mesh of kind '{path.suffix}', expected one of {', '.join(MESHES)}")
    try:
        surface = _read_obj(path) if path.suffix.lower() == ".obj" else _read_other(path)
    except InputError:
        raise
    except Exception as error:  # parsers of broken files raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: broken mesh ({reason}), expected a complete {path.suffix} file") from None
    if surface.faces.size and not 0 <= surface.faces.min() <= surface.faces.max() < len(surface.vertices):
        raise InputError(f"{path}: faces refer to vertices that are not there, expected a complete {path.suffix} file")
    known = np.asarray(np.isfinite(surface.vertices).all(-1))
    faces = surface.faces[known[surface.faces].all(-1)]
    if not len(faces):
        raise InputError(f"{path}: {len(surface.vertices)} vertices and no triangle, expected a surface")
    return Surface(np.where(known[:, None], surface.vertices, 0.0) * unit, faces)


def _read_obj(path: Path) -> Surface:
    """Vertices and faces only: numbers of vertices stay those of the file, whatever its materials, groups and seams."""
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    for line in path.read_bytes().decode("utf-8", "replace").replace("\\\n", " ").splitlines():
        if line.startswith("v "):
            vertices.append([float(x) for x in line.split()[1:4]])
        elif line.startswith("f "):
            given = [int(corner.split("/")[0]) for corner in line.split()[1:]]
            corners = [number - 1 if number > 0 else len(vertices) + number for number in given]
            faces += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    return Surface(np.array(vertices, float).reshape(-1, 3), np.array(faces, int).reshape(-1, 3))


def _read_other(path: Path) -> Surface:
    try:
        import trimesh
    except ImportError:
        raise InputError(f"{path}: reading it needs trimesh, expected: pip install ganfit-jax[evaluate]") from None
    mesh: Any = trimesh.load_scene(str(path), process=False).to_mesh()
    return Surface(np.asarray(mesh.vertices, float).reshape(-1, 3), np.asarray(mesh.faces, int).reshape(-1, 3))


def read_marks(path: str | Path, unit: float = 1.0) -> Float[np.ndarray, "68 3"]:
    """68 landmarks of a scan in millimetres; NaN where the file has none."""
    points, confidence = read_points(path)
    if points.shape[1] != 3:
        raise InputError(f"{path}: found 2D points, expected 68 points of 3 coordinates on the scan")
    return np.where(confidence[:, None] > 0, points.astype(np.float64) * unit, np.nan)


def read_scan(path: str | Path, landmarks: str | Path, unit: float = 1.0) -> Marked:
    """A scan and its landmarks in millimetres; checks that they belong together and have the size of a face."""
    scan = Marked(read_surface(path, unit), read_marks(landmarks, unit))
    known = np.asarray(np.isfinite(scan.landmarks).all(-1))
    if known[17:].sum() < 7:
        raise InputError(f"{landmarks}: {known[17:].sum()} of the 51 inner points, expected at least 7")
    right, left = scan.landmarks[list(OUTER_EYE_CORNERS)]
    apart = float(np.linalg.norm(right - left))
    if np.isfinite(apart) and not EYES_APART[0] < apart < EYES_APART[1]:
        raise InputError(f"{landmarks}: outer eye corners {apart:.3g} mm apart, expected about 90: is the unit right?")
    off = float(np.median(distances(scan.landmarks[known], scan.surface)))
    if off > OFF_THE_SCAN:
        raise InputError(f"{landmarks}: half of the points are {off:.0f} mm or more off {path}, expected them on it")
    return scan


def read_reconstruction(path: str | Path, unit: float = 1.0) -> Marked:
    """A mesh made by any program, and its 68 landmarks.

    The landmarks lie beside it, under its name, as `.ljson`, `.json` or `.txt` (points); or, for meshes of one
    topology, in `landmark_ids.txt` of its folder or of the one above: the numbers of 68 vertices, counted from 0.
    """
    path, surface = Path(path), read_surface(path, unit)
    for suffix in (".ljson", ".json", ".txt"):
        if path.with_suffix(suffix).is_file():
            return Marked(surface, read_marks(path.with_suffix(suffix), unit))
    for file in (path.parent / "landmark_ids.txt", path.parent.parent / "landmark_ids.txt"):
        if file.is_file():
            numbers = re.findall(r"[^\s,]+", file.read_text())
            if len(numbers) != 68 or not all(n.isdecimal() and int(n) < len(surface.vertices) for n in numbers):
                raise InputError(
                    f"{file}: expected the numbers of 68 of the {len(surface.vertices)} vertices of {path}"
                )
            return Marked(surface, surface.vertices[[int(n) for n in numbers]])
    raise InputError(f"{path}: no landmarks, expected {path.with_suffix('.ljson').name} or landmark_ids.txt beside it")


def write_scan(folder: str | Path, name: str, scan: Marked) -> tuple[Path, Path]:
    """Writes name.obj (millimetres) and name.ljson; returns their paths."""
    mesh, marks = Path(folder) / f"{name}.obj", Path(folder) / f"{name}.ljson"
    lines = ["v {:.5f} {:.5f} {:.5f}".format(*row) for row in scan.surface.vertices.tolist()]
    lines += ["f {} {} {}".format(*row) for row in (scan.surface.faces + 1).tolist()]
    points = [[x if np.isfinite(x) else None for x in row] for row in scan.landmarks.tolist()]
    mesh.write_text("\n".join(lines) + "\n")
    marks.write_text(json.dumps({"version": 3, "groups": {"LJSON": {"labels": [], "landmarks": {"points": points}}}}))
    return mesh, marks
