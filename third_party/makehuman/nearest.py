"""The closest point of a finely triangulated surface."""

import numpy as np
from scipy.spatial import KDTree


def closest(corners: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Closest surface points [n, 3] to `points` [n, 3], and ids [n] of their triangles; `corners` [f, 3, 3] of all."""
    import trimesh

    near = np.asarray(KDTree(corners.mean(1)).query(points, k=12)[1])  # triangles are small: one of these is closest
    spread = np.repeat(points, near.shape[1], axis=0)
    found = trimesh.triangles.closest_point(corners[near.ravel()], spread)
    best = np.linalg.norm(found - spread, axis=1).reshape(near.shape).argmin(1)
    rows = np.arange(len(points))
    return found.reshape(*near.shape, 3)[rows, best], near[rows, best]
