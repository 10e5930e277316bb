"""A textured scan of a real head: brought to millimetres and to our frame, photographed, and compared with a fit.

Made for "Infinite, 3D Head Scan" by Lee Perry-Smith; any OBJ with UV, one texture, y up and the face towards +z works.
"""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ganfit_jax import camera, deviations, people, studio
from ganfit_jax.errors import InputError
from ganfit_jax.landmarks import INNER, LEFT_EYE, NOSE_TIP, RIGHT_EYE, Detector
from ganfit_jax.metrics import Similarity, Surface, closest_points, icp, umeyama, vertex_areas
from ganfit_jax.photo import read_photo
from ganfit_jax.protocols import Field
from ganfit_jax.scans import read_surface
from ganfit_jax.studio import Lamp, Lighting, Solid
from ganfit_jax.types import Camera, ShapeModel

RADIUS, EYELIDS = 75.0, 19.0  # mm around the nose tip that count; around the eyes' centres that do not
FOCAL, DISTANCE = 4.0, 1700.0  # image sides; mm
SEEN = 0.7  # radians aside, and below, from where the surface must be seen to count
EVEN = Lighting((Lamp(np.array([0.3, 0.4, 1.0]), np.full(3, 0.45), 0.3),), np.full(3, 0.45))


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
