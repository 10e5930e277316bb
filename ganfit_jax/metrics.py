"""How far a reconstructed surface is from the true one: the MICC protocol, independent of topology. Plain numpy.

Protocol: similarity from landmarks, crop of the truth around the nose tip, ICP (with or without scale) to the closest
points of the surface, mean closest distance in both directions averaged.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

NEIGHBOURS = 12  # triangles looked at for each point, nearest centroids first


class Surface(NamedTuple):
    vertices: Float[np.ndarray, "v 3"]  # millimetres
    faces: Int[np.ndarray, "f 3"]


class Similarity(NamedTuple):
    """``x -> scale * rotation @ x + shift``."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, "3"]

    def __call__(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        return self.scale * points @ self.rotation.T + self.shift


class SurfaceError(NamedTuple):
    """Millimetres of the truth."""

    forward: float  # truth -> reconstruction
    backward: float  # reconstruction -> truth
    mean: float  # of the two
    alignment: Similarity  # reconstruction -> truth


def umeyama(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"], scaled: bool = True) -> Similarity:
    """The similarity (or rigid motion) that brings source to target in the least squares sense (Umeyama 1991)."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    scale = float((d * np.diag(sign)).sum() / (a**2).sum()) if scaled else 1.0
    return Similarity(scale, rotation, target.mean(0) - scale * rotation @ source.mean(0))


def closest_in_triangles(
    points: Float[np.ndarray, "n 3"], triangles: Float[np.ndarray, "n k 3 3"]
) -> Float[np.ndarray, "n k 3"]:
    """The closest point of each triangle to its point (Ericson, Real-Time Collision Detection, 2005, 5.1.5)."""
    a, b, c = (triangles[..., i, :] for i in range(3))
    p = np.broadcast_to(points[:, None], a.shape)
    normal = np.cross(b - a, c - a)
    squared = np.maximum((normal**2).sum(-1), 1e-18)
    v = (np.cross(p - a, c - a) * normal).sum(-1) / squared
    w = (np.cross(b - a, p - a) * normal).sum(-1) / squared
    best = a + v[..., None] * (b - a) + w[..., None] * (c - a)
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    nearest = np.where(inside, ((p - best) ** 2).sum(-1), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        t = ((p - start) * edge).sum(-1) / np.maximum((edge**2).sum(-1), 1e-18)
        candidate = start + np.clip(t, 0, 1)[..., None] * edge
        distance = ((p - candidate) ** 2).sum(-1)
        nearer = distance < nearest
        best = np.where(nearer[..., None], candidate, best)
        nearest = np.where(nearer, distance, nearest)
    return best


def closest_points(points: Float[np.ndarray, "n 3"], surface: Surface) -> Float[np.ndarray, "n 3"]:
    """The closest point of a surface to each point, among the triangles whose centroids or corners are nearest."""
    triangles = surface.vertices[surface.faces]
    count = min(NEIGHBOURS, len(triangles))
    near = KDTree(triangles.mean(1)).query(points, count)[1].reshape(len(points), count)
    found = closest_in_triangles(points, triangles[near])
    best = ((found - points[:, None]) ** 2).sum(-1).argmin(1)
    return found[np.arange(len(points)), best]


def distances(points: Float[np.ndarray, "n 3"], surface: Surface) -> Float[np.ndarray, "n"]:
    """Distance of each point to a surface."""
    return np.linalg.norm(closest_points(points, surface) - points, axis=-1)


def icp(
    source: Float[np.ndarray, "n 3"],
    target: Surface,
    start: Similarity,
    scaled: bool = True,
    tolerance: float = 1e-3,
    rounds: int = 100,
) -> Similarity:
    """Iterative closest points from the source points to the target surface, until the gain is under `tolerance` mm."""
    motion, before = start, np.inf
    for _ in range(rounds):
        found = closest_points(motion(source), target)
        motion = umeyama(source, found, scaled)
        error = float(np.linalg.norm(motion(source) - found, axis=-1).mean())
        if before - error < tolerance:
            break
        before = error
    return motion


def crop(surface: Surface, centre: Float[np.ndarray, "3"], radius: float) -> Surface:
    """The triangles whose corners all lie within `radius` of a point."""
    inside = np.linalg.norm(surface.vertices - centre, axis=-1) <= radius
    faces = surface.faces[inside[surface.faces].all(1)]
    kept, index = np.unique(faces, return_inverse=True)
    return Surface(surface.vertices[kept], index.reshape(-1, 3))


def surface_error(
    reconstruction: Surface,
    landmarks: Float[np.ndarray, "n 3"],
    truth: Surface,
    truth_landmarks: Float[np.ndarray, "n 3"],
    nose_tip: Float[np.ndarray, "3"],
    radius: float = 95.0,
    scaled: bool = True,
) -> SurfaceError:
    """Mean distance between a reconstruction and the truth within `radius` mm of the truth's nose tip.

    Corresponding landmarks give the first alignment; then ICP from the cropped truth to the reconstruction.
    """
    part = crop(truth, nose_tip, radius)
    first = umeyama(truth_landmarks, landmarks, scaled)
    motion = icp(part.vertices, reconstruction, first, scaled)
    inverse = Similarity(1.0 / motion.scale, motion.rotation.T, -motion.rotation.T @ motion.shift / motion.scale)
    moved = Surface(inverse(reconstruction.vertices), reconstruction.faces)
    forward = float(distances(part.vertices, moved).mean())
    own = crop(moved, nose_tip, radius)
    backward = float(distances(own.vertices, truth).mean())
    return SurfaceError(forward, backward, 0.5 * (forward + backward), inverse)
