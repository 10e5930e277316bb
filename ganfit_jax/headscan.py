"""A textured scan of a real head: brought to millimetres and to our frame, photographed, and compared with a fit.

Made for "Infinite, 3D Head Scan" by Lee Perry-Smith; any OBJ with UV, one texture, y up and the face towards +z works.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ganfit_jax import camera, deviations, people, phases, picture, plots, studio, truth
from ganfit_jax.config import Config
from ganfit_jax.errors import InputError
from ganfit_jax.gallery import Row
from ganfit_jax.landmarks import INNER, LEFT_EYE, NOSE_TIP, RIGHT_EYE, Detector
from ganfit_jax.metrics import Similarity, Surface, closest_points, icp, umeyama, vertex_areas
from ganfit_jax.photo import read_photo
from ganfit_jax.protocols import Field, summary
from ganfit_jax.scans import read_surface
from ganfit_jax.studio import Lamp, Lighting, Solid
from ganfit_jax.types import Camera, ModelInfo, Models, ShapeModel

RADIUS, EYELIDS = 75.0, 19.0  # mm around the nose tip that count; around the eyes' centres that do not
FOCAL, DISTANCE = 4.0, 1700.0  # image sides; mm
SEEN = 0.7  # radians aside, and below, from where the surface must be seen to count
EVEN = Lighting((Lamp(np.array([0.3, 0.4, 1.0]), np.full(3, 0.45), 0.3),), np.full(3, 0.45))

KINDS = ("error_mm", "expressed_mm", "mean_face_mm")
YAWS = (0.0, -45.0, 45.0, -22.0, 22.0)  # degrees
LIGHT = Lighting(
    (
        Lamp(np.array([0.5, 0.4, 0.9]), np.full(3, 0.6), 0.2),
        Lamp(np.array([-0.7, 0.1, 0.7]), np.full(3, 0.15), 0.3),
    ),
    np.full(3, 0.35),
)


class Scan(NamedTuple):
    """A scan in the world frame (mm)."""

    solid: Solid
    landmarks: Float[np.ndarray, "68 3"]  # NaN where none was found
    seen: Float[np.ndarray, "v"]  # 1 for vertices that a camera can see


def read_scan(mesh: Path, picture: Path, model: ShapeModel, find: Detector, unit: float = 50.0) -> Scan:
    """Reads a scan, finds the 68 landmarks in a frontal photo of it, and scales it to the model's mean by them.

    `unit`: millimetres in a unit of the file, to 20 percent. Raises `InputError` with one line.
    """
    surface = read_surface(mesh, unit)
    centre = (surface.vertices.min(0) + surface.vertices.max(0)) / 2
    solid = Solid(surface.vertices - centre, surface.faces, read_photo(picture, 4096), read_uv(mesh))
    rough = camera_at(0.0, 0.0)._replace(translation=jnp.array([0.0, 0.0, DISTANCE]))
    faces = find.detect(np.asarray(studio.photograph([solid], rough, EVEN, 512, samples=16), np.float32))
    if not faces:
        raise InputError(f"{mesh}: no face found in a photo along -z, expected the face towards +z and y up")
    points = studio.pick([solid], rough, faces[0].landmarks.astype(np.float64), 512)
    ours = deviations.marks(model, np.asarray(model.mean, np.float64))
    known = 17 + np.flatnonzero(np.isfinite(points[INNER]).all(1))
    if len(known) < 20:
        raise InputError(f"{mesh}: {len(known)} of 51 landmarks lie on the surface, expected at least 20")
    motion = umeyama(points[known], ours[known])
    solid = solid._replace(vertices=motion(solid.vertices))
    directions = [people.rotation(yaw, pitch, 0.0).T[:, 2] for yaw, pitch in ((0, 0), (SEEN, 0), (-SEEN, 0), (0, SEEN))]
    return Scan(solid, motion(points), studio.seen_from(solid, directions))


def read_uv(mesh: Path) -> Float[np.ndarray, "f 3 2"]:
    """Texture coordinates at the corners of an OBJ file's triangles, origin at the top left."""
    places: list[list[float]] = []
    corners: list[list[int]] = []
    for line in mesh.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("vt "):
            places.append([float(x) for x in line.split()[1:3]])
        elif line.startswith("f "):
            parts = [corner.split("/") for corner in line.split()[1:]]
            if any(len(part) < 2 or not part[1] for part in parts):
                raise InputError(f"{mesh}: a face without texture coordinates, expected v/vt or v/vt/vn")
            given = [int(part[1]) for part in parts]
            index = [number - 1 if number > 0 else len(places) + number for number in given]
            corners += [[index[0], index[i], index[i + 1]] for i in range(1, len(index) - 1)]
    uv = np.array(places, np.float64)[np.array(corners)]
    return np.stack([uv[..., 0], 1.0 - uv[..., 1]], axis=-1)


def camera_at(yaw: float, pitch: float) -> Camera:
    """A camera that sees the head turned by these degrees."""
    turn = people.rotation(np.radians(yaw), np.radians(pitch), 0.0)
    vector = camera.rotation_vector(jnp.asarray(turn, jnp.float32))
    return Camera(vector, jnp.array([0.0, -20.0, DISTANCE]), jnp.log(jnp.array(FOCAL)))


def counted(scan: Scan) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n"]]:
    """The scan's points that are compared (seen, within 75 mm of the nose tip, not at the closed eyelids), and the area
    (mm^2) that each stands for."""
    points = scan.solid.vertices[scan.seen > 0]
    areas = vertex_areas(Surface(scan.solid.vertices, np.asarray(scan.solid.faces)))[scan.seen > 0]
    eyes = [np.nanmean(scan.landmarks[eye], axis=0) for eye in (RIGHT_EYE, LEFT_EYE)]
    near = np.linalg.norm(points - scan.landmarks[NOSE_TIP], axis=1) < RADIUS
    lids = np.min([np.linalg.norm(points - eye, axis=1) for eye in eyes], axis=0) < EYELIDS
    return points[near & ~lids], areas[near & ~lids]


def scan_error(scan: Scan, model: ShapeModel, vertices: Float[np.ndarray, "v 3"]) -> tuple[Field, Similarity]:
    """Distance (mm of the scan) of each counted point to the skin of a fit, after similarity ICP; fit -> scan."""
    skin = Surface(vertices, deviations.skin(model))
    ours, (points, areas) = deviations.marks(model, vertices), counted(scan)
    known = 17 + np.flatnonzero(np.isfinite(scan.landmarks[INNER]).all(1))
    motion = icp(points, skin, umeyama(scan.landmarks[known], ours[known]), weights=areas)
    placed = motion(points)
    apart = np.linalg.norm(closest_points(placed, skin) - placed, axis=1) / motion.scale
    return Field(apart, areas), motion.inverse()


def scan(
    models: Models,
    infos: Mapping[str, ModelInfo],
    find: Detector,
    config: Config,
    mesh: Path,
    colours: Path,
    size: int = 512,
    samples: int = 48,
) -> tuple[list[str], truth.Work]:
    """A scanned head to fit from single photos and from all of them: the items' names, "yaw_0" (frontal), "yaw_-45" and
    so on, then "all"; and what measures one of them into its folder.

    ``error_mm``: mean distance of the scan's surface to the neutral skin (`scan_error`); ``expressed_mm``: to
    the skin with the first photo's expression; ``mean_face_mm``: to the model's mean face. ``yaw``: of the single
    photo, degrees. Photos are taken from different sides (`YAWS`) into a folder "photos-..." beside the items'.
    """
    read = read_scan(mesh, colours, models.shape, find)
    kept = f"photos-{truth.digest(mesh.resolve(), colours.resolve(), size, samples)}"
    singles = {f"yaw_{yaw:g}": (yaw,) for yaw in YAWS}

    def work(name: str, folder: Path) -> Row:
        paths = []
        for yaw in singles.get(name, YAWS):
            paths.append(folder.parent / kept / f"{round(yaw)}.png")
            if not paths[-1].exists():
                paths[-1].parent.mkdir(parents=True, exist_ok=True)
                random = np.random.default_rng(round(100 + yaw))
                wall = studio.backdrop(size, random)
                light, view = LIGHT, camera_at(yaw, 0.0)
                photo = studio.photograph([read.solid], view, light, size, wall, samples=samples)
                picture.save_png(paths[-1], studio.developed(photo, random))
        result, costs = truth.fitted(models, infos, paths, config, find)
        head = deviations.fitted(models.shape, result.fit.params)
        shapes = {
            "error_mm": head.vertices,
            "expressed_mm": head.vertices + head.poses[0].offsets,
            "mean_face_mm": np.asarray(models.shape.mean, np.float64),
        }
        measured = {kind: scan_error(read, models.shape, shape) for kind, shape in shapes.items()}
        figures: dict[str, float | str] = {kind: field.mean() for kind, (field, _) in measured.items()}
        figures |= {"median_mm": summary([measured["error_mm"][0]])["median"], "photos": len(paths), "size": size}
        figures |= {"yaw": singles[name][0]} if name in singles else {}
        figures |= costs
        true = Surface(read.solid.vertices, np.asarray(read.solid.faces))
        tip = read.landmarks[NOSE_TIP]
        return Row(figures, truth.show(result, folder, true, tip, measured["error_mm"][1], RADIUS))

    return [*singles, "all"], work


def finished(rows: Mapping[str, Row], output: Path) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """The tables of `scan` (single photos, all of them together, each item, costs), and a plot of the error by yaw."""
    figures: dict[str, dict[str, Any]] = {
        name: {k: v for k, v in row.figures.items() if not phases.is_cost(k)} for name, row in rows.items()
    }
    singles = [each for each in figures.values() if "yaw" in each]
    groups = {"one photo": singles, "all photos": [each for each in figures.values() if "yaw" not in each]}
    means = [
        {
            "group": group,
            "items": len(members),
            **{kind: float(np.mean([each[kind] for each in members])) for kind in KINDS},
            "worst_mm": max(each["error_mm"] for each in members),
        }
        for group, members in groups.items()
        if members
    ]
    tables = {"By number of photos": means, "Items": [{"item": name, **each} for name, each in figures.items()]}
    made = {}
    if singles:
        lines = {
            name: {each["yaw"]: [each[kind]] for each in singles}
            for name, kind in (("fit of one photo", "error_mm"), ("mean face", "mean_face_mm"))
        }
        if groups["all photos"]:
            lines["fit of all photos"] = {yaw: [groups["all photos"][0]["error_mm"]] for yaw in YAWS}
        plots.error_lines(output / "error_yaw.png", lines, "yaw of the photo, degrees")
        made["Error by yaw"] = "error_yaw.png"
    return tables | phases.tables(rows.values()), made
