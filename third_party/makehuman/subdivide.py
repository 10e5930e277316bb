"""Subdivision as a linear map, and the borders of a mesh."""

import numpy as np
import scipy.sparse as sp


def catmull_clark(quads: np.ndarray, count: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """One Catmull-Clark step as ``(weights [n, count], quads [4 q, 4])``; borders follow the cubic B-spline rule.

    New quads start at their old vertex: (vertex, edge point, face point, edge point). Vertices of `count` that no
    quad uses are left out. Catmull and Clark, Recursively generated B-spline surfaces (1978).
    """
    used, q = np.unique(quads, return_inverse=True)
    q = q.reshape(-1, 4)
    n, f = len(used), len(q)
    half = np.stack([q, np.roll(q, -1, 1)], -1).reshape(-1, 2)  # corner i -> corner i + 1
    edges, edge_of = np.unique(np.sort(half, 1), axis=0, return_inverse=True)
    edge_of = edge_of.reshape(f, 4)
    e = len(edges)
    ones = np.ones(4 * f)
    face_rows = sp.csr_matrix((ones / 4.0, (np.repeat(np.arange(f), 4), q.ravel())), shape=(f, n))
    edge_ends = sp.csr_matrix((np.full(2 * e, 0.5), (np.repeat(np.arange(e), 2), edges.ravel())), shape=(e, n))
    edge_faces = sp.csr_matrix((ones, (edge_of.ravel(), np.repeat(np.arange(f), 4))), shape=(e, f))
    uses = np.bincount(edge_of.ravel(), minlength=e)
    border = uses == 1
    inner = sp.diags(np.where(border, 0.0, 0.5)) @ edge_ends + sp.diags(np.where(border, 0.0, 0.25)) @ (
        edge_faces @ face_rows
    )
    edge_rows = inner + sp.diags(border.astype(float)) @ edge_ends
    vertex_edges = sp.csr_matrix((np.ones(2 * e), (edges.ravel(), np.repeat(np.arange(e), 2))), shape=(n, e))
    vertex_faces = sp.csr_matrix((ones, (q.ravel(), np.repeat(np.arange(f), 4))), shape=(n, f))
    valence = np.asarray(vertex_edges.sum(1)).ravel()
    faces_at = np.asarray(vertex_faces.sum(1)).ravel()
    on_border = np.asarray(vertex_edges @ border.astype(float)).ravel() > 0
    mean_face = sp.diags(1.0 / faces_at) @ vertex_faces @ face_rows
    mean_edge = sp.diags(1.0 / valence) @ vertex_edges @ edge_ends
    smooth = sp.diags(1.0 / valence) @ (mean_face + 2.0 * mean_edge) + sp.diags((valence - 3.0) / valence)
    border_edges = vertex_edges @ sp.diags(border.astype(float)) @ edge_ends  # sum of two border mid-points
    along = 0.25 * border_edges + 0.5 * sp.identity(n)
    vertex_rows = sp.diags((~on_border).astype(float)) @ smooth + sp.diags(on_border.astype(float)) @ along
    weights = sp.csr_matrix(sp.vstack([vertex_rows, edge_rows, face_rows]))
    spread = sp.csr_matrix((np.ones(n), (np.arange(n), used)), shape=(n, count))
    previous = np.roll(edge_of, 1, 1)
    middle = np.broadcast_to(n + e + np.arange(f)[:, None], (f, 4))
    fine = np.stack([q, n + edge_of, middle, n + previous], -1).reshape(-1, 4)
    return sp.csr_matrix(weights @ spread), fine


def border_loops(triangles: np.ndarray) -> list[np.ndarray]:
    """Closed border loops of a mesh, each in the direction of its triangles' edges."""
    half = np.concatenate([triangles[:, [i, (i + 1) % 3]] for i in range(3)])
    key = half.min(1) * (half.max() + 1) + half.max(1)
    _, first, count = np.unique(key, return_index=True, return_counts=True)
    following = dict(half[first[count == 1]].tolist())
    loops = []
    while following:
        start = min(following)
        loop, at = [start], following.pop(start)
        while at != start:
            loop.append(at)
            at = following.pop(at)
        loops.append(np.array(loop))
    return loops
