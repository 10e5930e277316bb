"""The 68 iBUG landmarks and the candidates of the moving jaw line, on the mean surface."""

import json
import os

import numpy as np

PAIRS = (  # iBUG points that swap sides in a mirror; the others lie on the mid-line
    *((i, 16 - i) for i in range(8)),
    *((17 + i, 26 - i) for i in range(5)),
    *((31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65)),
)
CANDIDATES = 20
INSIDE = 0.85  # the foremost candidate of the jaw line: cosine between the surface normal and the line of sight
AHEAD = 45.0  # and at most this far before the contour, mm
BEHIND = np.array([4.0, 5.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 18.0])  # how far a contour runs on behind, mm
DEFINITIONS = os.path.join(os.path.dirname(__file__), "landmarks.json")


def resolve(corner_uv: np.ndarray, faces: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Face ids [68] and barycentrics [68, 3] of the definitions: points of MakeHuman's UV map on the right side.

    corner_uv [f, 3, 2] is that map (nan: not mapped); `mirror` [v] sends a vertex to its mirror image.
    """
    with open(DEFINITIONS) as f:
        definitions = {int(k): np.array(v) for k, v in json.load(f)["points"].items()}
    ids, weights = np.full(68, -1), np.zeros((68, 3))
    for k, point in definitions.items():
        ids[k], weights[k] = _locate(corner_uv, point, k)
    for right, left in PAIRS:
        ids[left], weights[left] = mirror_point(faces, mirror, ids[right], weights[right])
    if (ids < 0).any():
        raise ValueError(f"{DEFINITIONS}: points {np.flatnonzero(ids < 0).tolist()} are not defined")
    return ids, weights


def _locate(corner_uv: np.ndarray, point: np.ndarray, k: int) -> tuple[int, np.ndarray]:
    a, b, c = corner_uv[:, 0], corner_uv[:, 1], corner_uv[:, 2]
    det = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    det = np.where(np.abs(det) > 1e-14, det, np.nan)
    p = point - a
    w1 = (p[:, 0] * (c[:, 1] - a[:, 1]) - p[:, 1] * (c[:, 0] - a[:, 0])) / det
    w2 = ((b[:, 0] - a[:, 0]) * p[:, 1] - (b[:, 1] - a[:, 1]) * p[:, 0]) / det
    bary = np.stack([1.0 - w1 - w2, w1, w2], 1)
    inside = np.where(np.isnan(bary).any(1), -np.inf, bary.min(1))
    best = int(np.argmax(inside))
    if inside[best] < -0.05:
        raise ValueError(f"{DEFINITIONS}: point {k} {point.tolist()} lies outside the mapped skin")
    w = np.clip(bary[best], 0.0, 1.0)
    return best, w / w.sum()


def mirror_point(faces: np.ndarray, mirror: np.ndarray, face: int, weights: np.ndarray) -> tuple[int, np.ndarray]:
    """The mirror image of a surface point."""
    corners = mirror[faces[face]]
    found = int(np.flatnonzero((np.sort(faces, 1) == np.sort(corners)).all(1))[0])
    return found, np.array([weights[int(np.flatnonzero(corners == v)[0])] for v in faces[found]])


def contour(vertices: np.ndarray, faces: np.ndarray, usable: np.ndarray, mirror: np.ndarray, points: np.ndarray):
    """Candidates of the 17 jaw points: faces [17, CANDIDATES] and barycentrics.

    Each runs over the surface in the plane of the line of sight and the outward normal of the frontal jaw line
    through `points` [17, 3], from the front of the cheek over the frontal contour to a little behind it. `usable` [f]
    leaves out ears and whatever is not skin.
    """
    ids, weights = np.zeros((17, CANDIDATES), int), np.zeros((17, CANDIDATES, 3))
    normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    for k in range(9):
        ahead = points[k + 1] - points[max(k - 1, 0)]
        outward = np.array([ahead[1], -ahead[0]]) / np.linalg.norm(ahead[:2])
        outward = np.array([0.0, -1.0]) if k == 8 else outward
        at_face, at_weights, at, start = _section(vertices, faces, usable, points[k], outward)
        track = _spread(at, at_face, start, normal, BEHIND[k])
        ids[k], weights[k] = at_face[track], at_weights[track]
    for right in range(8):
        for c in range(CANDIDATES):
            ids[16 - right, c], weights[16 - right, c] = mirror_point(faces, mirror, ids[right, c], weights[right, c])
    return ids, weights


def _section(vertices, faces, usable, point, outward):
    """The polyline through `point` in which usable faces cut the plane spanned by z and `outward`, front first.

    Returns for its points, one per crossed edge: face ids, barycentrics, positions, the index nearest to `point`.
    """
    across = np.array([outward[1], -outward[0], 0.0])
    side = (vertices - point) @ across + 1e-9
    at_edge: dict[tuple[int, int], tuple[int, np.ndarray]] = {}
    links: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for f in np.flatnonzero(usable & (np.ptp(np.sign(side[faces]), axis=1) > 0)):
        crossed = []
        for i in range(3):
            a, b = faces[f, i], faces[f, (i + 1) % 3]
            if side[a] * side[b] < 0:
                w = np.zeros(3)
                w[(i + 1) % 3] = side[a] / (side[a] - side[b])
                w[i] = 1.0 - w[(i + 1) % 3]
                crossed.append((int(min(a, b)), int(max(a, b))))
                at_edge.setdefault(crossed[-1], (int(f), w))
        links.setdefault(crossed[0], []).append(crossed[1])
        links.setdefault(crossed[1], []).append(crossed[0])
    edges = sorted(at_edge)
    place = {e: at_edge[e][1] @ vertices[faces[at_edge[e][0]]] for e in edges}
    start = min(edges, key=lambda e: float(np.linalg.norm(place[e] - point)))
    arms = []
    for first in links[start]:
        arm, before, here = [], start, first
        while here != start:
            arm.append(here)
            onward = [e for e in links[here] if e != before]
            if not onward:
                break
            before, here = here, onward[0]
        arms.append(arm)
    arms.sort(key=lambda arm: -place[arm[min(3, len(arm) - 1)]][2])
    forward, backward = [*arms, []][:2]
    line = [*reversed(forward), start, *backward]
    ids, weights = zip(*(at_edge[e] for e in line), strict=True)
    return np.array(ids), np.stack(weights), np.stack([place[e] for e in line]), len(forward)


def _spread(at: np.ndarray, at_face: np.ndarray, start: int, normal: np.ndarray, behind: float) -> np.ndarray:
    """CANDIDATES evenly spaced points of a section, from the cheek to `behind` mm past the frontal contour."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(at, axis=0), axis=1))])
    length -= length[start]
    ahead = np.flatnonzero((np.arange(len(at)) < start) & ((normal[at_face, 2] > INSIDE) | (length < -AHEAD)))
    first = ahead.max() if len(ahead) else 0
    wanted = np.linspace(length[first], min(behind, length[-1]), CANDIDATES)
    return np.abs(length[None] - wanted[:, None]).argmin(1)
