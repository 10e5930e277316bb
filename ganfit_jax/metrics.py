"""Surfaces in plain numpy: closest points, alignment, areas, crops. `protocols` makes errors of them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

NEIGHBOURS = 6  # triangles looked at first for each point, nearest centroids first
PART, CANDIDATES = 2048, 400_000  # points, and pairs of a point and a triangle, looked at together: bound the memory


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

    def inverse(self) -> "Similarity":
        """The similarity that undoes this one."""
        return Similarity(1.0 / self.scale, self.rotation.T, -self.rotation.T @ self.shift / self.scale)

    def after(self, first: "Similarity") -> "Similarity":
        """The similarity that applies `first`, then this one."""
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, self(first.shift[None])[0])


def umeyama(
    source: Float[np.ndarray, "n 3"],
    target: Float[np.ndarray, "n 3"],
    scaled: bool = True,
    weights: Float[np.ndarray, "n"] | None = None,
) -> Similarity:
    """The similarity (or rigid motion) that brings source to target in the least squares sense (Umeyama 1991)."""
    each = np.full(len(source), 1.0 / len(source)) if weights is None else weights / weights.sum()
    middle, goal = each @ source, each @ target
    a, b = source - middle, target - goal
    u, d, vt = np.linalg.svd((each[:, None] * b).T @ a)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    scale = float((d * np.diag(sign)).sum() / (each @ a**2).sum()) if scaled else 1.0
    return Similarity(scale, rotation, goal - scale * rotation @ middle)


def closest_in_triangles(
    points: Float[np.ndarray, "n 3"], triangles: Float[np.ndarray, "n k 3 3"]
) -> Float[np.ndarray, "n k 3"]:
    """The closest point of each triangle to its point (Ericson, Real-Time Collision Detection, 2005, 5.1.5)."""
    corners = triangles.reshape(-1, 3, 3)
    p = np.broadcast_to(points[:, None], (*triangles.shape[:2], 3)).reshape(-1, 3)
    a, along, across = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    aa, ac, cc = _dot(along, along), _dot(along, across), _dot(across, across)
    pa, pc = _dot(p - a, along), _dot(p - a, across)
    determinant = np.maximum(aa * cc - ac * ac, 1e-18)
    v, w = (cc * pa - ac * pc) / determinant, (aa * pc - ac * pa) / determinant
    best = a + v[:, None] * along + w[:, None] * across
    outside = np.flatnonzero(~((v >= 0) & (w >= 0) & (v + w <= 1) & (determinant > 1e-12 * aa * cc)))
    p, corners, nearest = p[outside], corners[outside], np.full(len(outside), np.inf)
    for first in range(3):
        start, edge = corners[:, first], corners[:, (first + 1) % 3] - corners[:, first]
        t = np.clip(_dot(p - start, edge) / np.maximum(_dot(edge, edge), 1e-18), 0.0, 1.0)
        candidate = start + t[:, None] * edge
        distance = _dot(p - candidate, p - candidate)
        nearer = distance < nearest
        best[outside[nearer]], nearest[nearer] = candidate[nearer], distance[nearer]
    return best.reshape((*triangles.shape[:2], 3))


def _dot(a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
    return np.einsum("ij,ij->i", a, b)


def searcher(surface: Surface) -> Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, "n 3"]]:
    """A function that gives the closest point of a surface to each point; exact for triangles of any sizes.

    The triangles of the nearest centroids are looked at first, then all that could be closer: those whose centroids lie
    within the distance found plus their radius, for which they are sorted by size.
    """
    triangles = surface.vertices[surface.faces].astype(np.float64)
    if not len(triangles):
        raise ValueError("a surface without triangles has no closest points")
    centres = triangles.mean(1)
    radii = np.linalg.norm(triangles - centres[:, None], axis=-1).max(1)
    sizes = np.ceil(np.log2(np.maximum(radii, 1e-6))).astype(int)
    classes = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    classes.sort(key=len, reverse=True)
    trees = [(own, KDTree(centres[own]), float(radii[own].max())) for own in classes]
    every, count = KDTree(centres), min(NEIGHBOURS, len(centres))

    def search(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        points = np.asarray(points, np.float64)
        best, nearest = np.zeros_like(points), np.full(len(points), np.inf)

        def look(rows: Int[np.ndarray, "p"], candidates: Int[np.ndarray, "p"]) -> None:
            """Takes the triangle of each pair of a point and a triangle where it is closer than what was found."""
            found = closest_in_triangles(points[rows], triangles[candidates[:, None]])[:, 0]
            apart = np.linalg.norm(found - points[rows], axis=-1)
            order = np.lexsort((-apart, rows))  # the last pair of each point is its closest
            closer = order[apart[order] < nearest[rows[order]]]
            best[rows[closer]], nearest[rows[closer]] = found[closer], apart[closer]

        near = every.query(points, count)[1].reshape(-1)
        look(np.repeat(np.arange(len(points)), count), near)
        for own, tree, radius in trees:
            for part in np.array_split(np.arange(len(points)), len(points) // PART + 1):
                lists = tree.query_ball_point(points[part], nearest[part] + radius)
                rows = np.repeat(part, [len(each) for each in lists])
                pairs = np.stack([rows, own[np.concatenate([[], *lists]).astype(int)]])
                for some in np.array_split(pairs, pairs.shape[1] // CANDIDATES + 1, axis=1):
                    look(some[0], some[1])
        return best

    return search


def closest_points(points: Float[np.ndarray, "n 3"], surface: Surface) -> Float[np.ndarray, "n 3"]:
    """The closest point of a surface to each point (`searcher`)."""
    return searcher(surface)(points)


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
    weights: Float[np.ndarray, "n"] | None = None,
) -> Similarity:
    """Iterative closest points from the source points to the target surface, until the gain is under `tolerance` mm."""
    motion, before, search = start, np.inf, searcher(target)
    for _ in range(rounds):
        found = search(motion(source))
        motion = umeyama(source, found, scaled, weights)
        error = float(np.average(np.linalg.norm(motion(source) - found, axis=-1), weights=weights))
        if before - error < tolerance:
            break
        before = error
    return motion


def vertex_areas(surface: Surface) -> Float[np.ndarray, "v"]:
    """A third of the area of the triangles around each vertex, mm^2: means weighted by it do not depend on the mesh."""
    a, b, c = (surface.vertices[surface.faces[:, i]] for i in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=-1)
    return np.bincount(surface.faces.ravel(), np.repeat(area / 3.0, 3), len(surface.vertices))


def crop(surface: Surface, centre: Float[np.ndarray, "3"], radius: float) -> Surface:
    """The triangles whose corners all lie within `radius` of a point."""
    inside = np.linalg.norm(surface.vertices - centre, axis=-1) <= radius
    faces = surface.faces[inside[surface.faces].all(1)]
    kept, index = np.unique(faces, return_inverse=True)
    return Surface(surface.vertices[kept], index.reshape(-1, 3))
