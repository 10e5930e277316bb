"""The mesh of the built-in model: every vertex is a fixed linear combination of MakeHuman's base vertices.

MakeHuman's morph targets displace base vertices, so the same linear map turns the base mesh and every target into
ours: region selection, one Catmull-Clark subdivision, caps for the eyeballs, a sheet that closes the mouth.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import source
from scipy.sparse.csgraph import connected_components
from subdivide import border_loops, catmull_clark

NECK = (165.0, 0.35)  # the neck is cut off by the plane y + slope z = -height, origin between the eyes, mm
NECK_RINGS = 8  # at most so many rings of quads below the head's border in MakeHuman's UV map
MOUTH_RINGS = 1  # rings of the mouth cavity kept behind the lips
MOUTH_ROWS = 7  # interior rows of the sheet that closes the mouth
MOUTH_BACK = 1.5  # the middle of that sheet lies this far behind its rim, mm
EYE_RINGS = np.radians([4, 8, 12, 16, 20, 23.5, 28, 34, 41, 49, 58, 68, 80, 95])
EYE_SEGMENTS = 24
GAZE = 0.45  # rotation of the eyeball by an eyeLook unit at 1, radians


class Mesh(NamedTuple):
    """Triangles over vertices ``operator @ base + offset``; all surfaces, patches last."""

    operator: sp.csr_matrix  # [v, base vertices]
    offset: np.ndarray  # [v, 3], mm; belongs to the mean only
    faces: np.ndarray  # [f, 3], counter-clockwise seen from outside
    part: np.ndarray  # [v]: 0 skin, 1 left eyeball, 2 right eyeball, 3 mouth sheet
    corner_uv: np.ndarray  # [f, 3, 2] MakeHuman's body UV; eyeballs and mouth: MakeHuman has none (nan)
    quads: np.ndarray  # [q, 4] coarse skin quads, base vertex ids
    children: np.ndarray  # [skin f, 3, 4] weights of each triangle corner over the corners of its coarse quad
    parent: np.ndarray  # [skin f] the coarse quad of each triangle
    eye_angle: np.ndarray  # [v, 2] polar angle from the gaze and azimuth (0 = +x, towards +y) on the eyeballs, else 0
    inner: np.ndarray  # [v] bool: skin behind the lips (MakeHuman's mouth island)
    mouth_grid: np.ndarray  # [v, 2] column, and row in [0, 1] (down), of the mouth sheet
    mouth_rim: np.ndarray  # [2, columns] ids of the upper and the lower end of each column of the sheet


def select_quads(base: source.Obj) -> tuple[np.ndarray, np.ndarray]:
    """Body quads kept: the head's UV island, the neck above the cut, the first rings behind the lips.

    Returns their ids and, for each, whether it lies behind the lips.
    """
    quads, uv_quads = base.faces["body"], base.uv_faces["body"]
    island = _islands(uv_quads, len(base.uv))
    sizes = np.bincount(island)
    head = island == island[np.argmax(base.vertices[quads].mean(1)[:, 1])]
    on_head = np.unique(quads[head])
    above = above_cut(base.vertices)[quads].any(1)
    keep, behind = head, np.zeros(len(quads), bool)
    for other in np.unique(island[np.isin(quads, on_head).any(1) & ~head]):
        mine = island == other
        reached = np.intersect1d(on_head, quads[mine])
        if sizes[other] == sizes.max():  # the body
            keep = keep | (mine & above)
        elif abs(base.vertices[reached, 0].mean()) < 1.0:  # the mouth; eye sockets lie hidden behind the eyeballs
            for _ in range(MOUTH_RINGS):
                ring = mine & np.isin(quads, reached).any(1)
                behind |= ring
                reached = np.unique(quads[ring])
    keep = np.flatnonzero(keep | behind)
    return keep, behind[keep]


def above_cut(vertices: np.ndarray) -> np.ndarray:
    return vertices[:, 1] + NECK[1] * vertices[:, 2] > 2.0 - NECK[0]


def cut_neck(base: source.Obj, quads: np.ndarray, uv_quads: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray]:
    """Slide vertices below the neck's cut up along their edges onto it: (weights [n, n], moved UV)."""
    height = base.vertices[:, 1] + NECK[1] * base.vertices[:, 2] + NECK[0]
    above = above_cut(base.vertices)
    weights = sp.identity(len(height)).tolil()
    uv = base.uv.copy()
    best: dict[int, tuple[float, int, int, int]] = {}
    for q, t in zip(quads, uv_quads, strict=True):
        for i in np.flatnonzero(~above[q]):
            for j, preference in (((i + 1) % 4, 1e6), (i - 1, 1e6), ((i + 2) % 4, 0.0)):  # a diagonal only if it must
                if above[q[j]]:
                    rank = preference + round(float(height[q[j]]), 6)
                    if rank > best.get(int(q[i]), (-1.0, 0, 0, 0))[0]:
                        best[int(q[i])] = (rank, int(q[j]), int(t[i]), int(t[j]))
    for low, (_, high, uv_low, uv_high) in best.items():
        t = height[high] / (height[high] - height[low])
        weights[low, low], weights[low, high] = t, 1.0 - t
        uv[uv_low] = t * base.uv[uv_low] + (1.0 - t) * base.uv[uv_high]
    return sp.csr_matrix(weights), uv


def rows(matrix: sp.csr_matrix) -> int:
    return len(matrix.indptr) - 1


def _islands(uv_quads: np.ndarray, count: int) -> np.ndarray:
    edges = np.concatenate([uv_quads[:, [i, (i + 1) % 4]] for i in range(4)])
    graph = sp.coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count))
    return connected_components(graph)[1][uv_quads[:, 0]]


def build(base: source.Obj) -> Mesh:
    """Subdivided skin, two eyeball caps and the mouth sheet; `base` with its origin between the eyes."""
    keep, in_mouth = select_quads(base)
    quads, uv_quads = base.faces["body"][keep], base.uv_faces["body"][keep]
    slide, uv = cut_neck(base, quads, uv_quads)
    skin, fine = catmull_clark(quads, len(base.vertices))
    skin = sp.csr_matrix(skin @ slide)
    triangles = np.stack([fine[:, [0, 1, 2]], fine[:, [0, 2, 3]]], 1).reshape(-1, 3)
    children, parent = _children(len(quads))
    corner_uv = np.einsum("fcq,fqd->fcd", children, uv[uv_quads][parent])
    operators, faces, uvs = [skin], [triangles], [corner_uv]
    offsets, parts = [np.zeros((rows(skin), 3))], [np.zeros(rows(skin), int)]
    angles, grids = [np.zeros((rows(skin), 2))], [np.zeros((rows(skin), 2))]

    def append(operator, triangles, offset, part, angle, grid):
        first = sum(rows(o) for o in operators)
        operators.append(operator)
        faces.append(np.where(triangles < 0, -1 - triangles, triangles + first))
        uvs.append(np.full((len(triangles), 3, 2), np.nan))
        offsets.append(offset)
        parts.append(np.full(rows(operator), part))
        angles.append(angle)
        grids.append(grid)

    for part, name in ((1, "helper-l-eye"), (2, "helper-r-eye")):
        operator, triangles_eye, angle = _eyeball(base, np.unique(base.faces[name]), part == 2)
        zero = np.zeros((rows(operator), 3))
        append(operator, triangles_eye, zero, part, angle, np.zeros((rows(operator), 2)))
    operator, sheet, offset, grid, rim = _mouth(base, skin, triangles)
    inner = np.zeros(rows(skin) + sum(rows(o) for o in operators[1:]) + rows(operator), bool)
    inner[triangles[in_mouth[parent]]] = True
    inner[triangles[~in_mouth[parent]]] = False  # the border still belongs to the lips
    append(operator, sheet, offset, 3, np.zeros((rows(operator), 2)), grid)
    return Mesh(
        operator=sp.csr_matrix(sp.vstack(operators)),
        offset=np.concatenate(offsets),
        faces=np.concatenate(faces),
        part=np.concatenate(parts),
        corner_uv=np.concatenate(uvs),
        quads=quads,
        children=children,
        parent=parent,
        eye_angle=np.concatenate(angles),
        inner=inner,
        mouth_grid=np.concatenate(grids),
        mouth_rim=rim,
    )


def _children(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear weights of the eight triangles of every coarse quad, in the order of `catmull_clark`."""
    corner, middle = np.eye(4), np.full(4, 0.25)
    one = []
    for i in range(4):
        after, before = (corner[i] + corner[(i + 1) % 4]) / 2, (corner[i] + corner[i - 1]) / 2
        one += [[corner[i], after, middle], [corner[i], middle, before]]
    return np.tile(np.array(one), (count, 1, 1)), np.repeat(np.arange(count), 8)


def _eyeball(base: source.Obj, ids: np.ndarray, mirror: bool) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """A spherical cap that follows the affine part of the motion of MakeHuman's eye vertices `ids`."""
    points = base.vertices[ids]
    centre = points.mean(0)
    radius = np.linalg.norm(points - centre, axis=1).mean()
    azimuth = np.arange(EYE_SEGMENTS) * 2.0 * np.pi / EYE_SEGMENTS
    theta = np.concatenate([[0.0], np.repeat(EYE_RINGS, EYE_SEGMENTS)])
    phi = np.concatenate([[0.0], np.tile(azimuth, len(EYE_RINGS))])
    if mirror:
        phi = np.pi - phi
    cap = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1) * radius
    design = np.concatenate([np.ones((len(ids), 1)), points - centre], 1)
    weights = np.concatenate([np.ones((len(cap), 1)), cap], 1) @ np.linalg.pinv(design)  # exact for affine motions
    columns = np.broadcast_to(ids, weights.shape)
    rows = np.broadcast_to(np.arange(len(cap))[:, None], weights.shape)
    operator = sp.csr_matrix((weights.ravel(), (rows.ravel(), columns.ravel())), shape=(len(cap), len(base.vertices)))
    triangles = []
    for s in range(EYE_SEGMENTS):
        t = (s + 1) % EYE_SEGMENTS
        triangles.append((0, 1 + s, 1 + t))
        for ring in range(len(EYE_RINGS) - 1):
            a, b = 1 + ring * EYE_SEGMENTS, 1 + (ring + 1) * EYE_SEGMENTS
            triangles += [(a + s, b + s, b + t), (a + s, b + t, a + t)]
    faces = np.array(triangles)
    return operator, faces[:, ::-1] if mirror else faces, np.stack([theta, phi], -1)


def _mouth(base: source.Obj, skin: sp.csr_matrix, triangles: np.ndarray):
    """A ruled sheet between the upper and the lower half of the loop behind the lips.

    Its rim is the loop itself: face indices below zero stand for skin vertex ``-1 - index``.
    """
    vertices = skin @ base.vertices
    loops = [x for x in border_loops(triangles) if abs(vertices[x, 0].mean()) < 1.0]
    loop = max(loops, key=lambda x: vertices[x, 2].mean())  # the foremost loop on the mid-line
    middle = np.flatnonzero(np.abs(vertices[loop, 0]) < 1e-6)
    top, bottom = sorted(middle, key=lambda i: -vertices[loop[i], 1])
    n = len(loop)
    half = n // 2
    step = 1 if vertices[loop[(top + 1) % n], 0] > 0 else -1
    left = loop[(top + step * np.arange(half + 1)) % n]  # over the subject's left corner, down to the middle
    right = loop[(top - step * np.arange(half + 1)) % n]
    assert left[-1] == right[-1] == loop[bottom] and half % 2 == 0
    corner = half // 2
    upper = np.concatenate([right[corner - 1 : 0 : -1], left[:corner]])
    lower = np.concatenate([right[corner + 1 : half], left[half:corner:-1]])
    width, depth_rows = len(upper), MOUTH_ROWS
    t = (np.arange(depth_rows) + 1.0) / (depth_rows + 1.0)
    blend = sp.vstack([(1.0 - s) * skin[upper] + s * skin[lower] for s in t])
    column = np.linspace(-1.0, 1.0, width + 2)[1:-1]
    depth = np.sin(np.pi * t)[:, None] * np.sqrt(1.0 - column**2)[None]
    offset = np.stack([0.0 * depth, 0.0 * depth, -MOUTH_BACK * depth], -1).reshape(-1, 3)
    grid = np.stack(np.broadcast_arrays(np.arange(width)[None], t[:, None]), -1).reshape(-1, 2)
    ids = np.concatenate([-1 - upper[None], np.arange(depth_rows * width).reshape(depth_rows, width), -1 - lower[None]])
    faces = []
    for i in range(depth_rows + 1):
        for j in range(width - 1):
            a, b, c, d = ids[i, j], ids[i + 1, j], ids[i + 1, j + 1], ids[i, j + 1]
            mirrored = j >= (width - 1) // 2  # diagonals are symmetric
            faces += [(a, b, c), (a, c, d)] if mirrored else [(a, b, d), (b, c, d)]
        faces += [(-1 - right[corner], ids[i + 1, 0], ids[i, 0]), (-1 - left[corner], ids[i, -1], ids[i + 1, -1])]
    return sp.csr_matrix(blend), np.array(faces), offset, grid, np.stack([upper, lower])
