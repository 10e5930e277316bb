"""The canonical UV chart: the head cut open at the back and flattened, the frontal area enlarged.

A Tutte embedding (no triangle folds over) is relaxed by scalable locally injective mappings with the symmetric
Dirichlet energy (Rabinovich et al., ACM TOG 2017), which never lets a triangle fold. Everything is symmetric.
"""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

ITERATIONS = 60
MOUTH_HEIGHT = 10.0  # half height of the mouth's opening in the chart, in the units of the face (mm)


def flatten(quads: np.ndarray, points: np.ndarray, mirror: np.ndarray, density: np.ndarray) -> np.ndarray:
    """UV [q, 4, 2] of every quad corner, before it is laid out in the square; v points down.

    quads [q, 4] over `points` [n, 3] in mm, symmetric under ids -> `mirror` [n] with x -> -x; `density` [n] is the
    wanted scale (1 = face). The surface is cut along the mid-line at the back, from the neck to the crown.
    """
    cut, copy_of = _cut(quads, points)
    p, s = points[copy_of], density[copy_of]
    loops = _loops(cut)
    outer = max(loops, key=len)
    twin = _twins(copy_of, mirror, len(points))
    filled, p, s = list(cut), list(p), list(s)
    twin = list(twin)
    for loop in loops:  # eyes and mouth: a fan keeps what lies around them from folding into them
        if loop is outer:
            continue
        centre = len(p)
        p.append(np.mean([p[i] for i in loop], 0))
        s.append(np.mean([s[i] for i in loop]))
        filled += [(a, b, centre, centre) for a, b in zip(loop, np.roll(loop, -1), strict=True)]
        other = [k for k in range(len(copy_of), centre) if np.allclose(p[k] * [-1, 1, 1], p[centre], atol=1e-6)]
        twin.append(other[0] if other else centre)
        if other:
            twin[other[0]] = centre
    faces, p, s, twin = np.array(filled), np.array(p), np.array(s), np.array(twin)
    uv = _tutte(faces, p, outer, copy_of)
    flat = p.copy()
    mouth = next(loop for loop in loops if loop is not outer and abs(p[loop, 0].mean()) < 1.0)
    flat[mouth] = _opened(p[mouth])
    triangles, rest, area = _corner_triangles(faces, p, s)
    fan = np.isin(triangles, mouth).sum(1) == 2
    fan &= (triangles >= len(copy_of)).any(1)
    _, rest_fan, area_fan = _corner_triangles(faces, flat, s)
    rest[fan], area[fan] = rest_fan[fan], 4.0 * area_fan[fan]
    uv *= np.sqrt(area.sum() / np.abs(_areas(uv[triangles])).sum())
    uv = _relax(uv, triangles, rest, area, twin)
    return uv[cut]


def _opened(loop: np.ndarray) -> np.ndarray:
    """The mouth's border opened to an ellipse, so that the sheet behind it gets room; lips keep their length."""
    side = np.sign(loop[:, 1] - np.interp(loop[:, 0], *_middle_line(loop)))
    x = loop[:, 0] / np.abs(loop[:, 0]).max() / 1.001
    return np.stack([loop[:, 0], loop[:, 1].mean() + side * MOUTH_HEIGHT * np.sqrt(1.0 - x**2), 0.0 * x], 1)


def _middle_line(loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mid-height between the upper and the lower lip as a function of x, at three points."""
    ends = np.argsort(loop[:, 0])[[0, 1, -2, -1]]
    middle = np.flatnonzero(np.abs(loop[:, 0]) < 1e-6)
    x = np.array([loop[ends[:2], 0].mean(), 0.0, loop[ends[2:], 0].mean()])
    return x, np.array([loop[ends[:2], 1].mean(), loop[middle, 1].mean(), loop[ends[2:], 1].mean()])


def _cut(quads: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Duplicate the seam's vertices for the quads on the subject's right: (new quads, original id of each vertex)."""
    crown = points[np.argmax(points[:, 1]), 2]
    seam = (np.abs(points[:, 0]) < 1e-6) & (points[:, 2] < crown - 1.0)
    tip = np.flatnonzero(seam)[np.argmax(points[seam][:, 2])]
    seam[tip] = False
    ids = np.flatnonzero(seam)
    new = np.arange(len(points))
    new[ids] = len(points) + np.arange(len(ids))
    right = points[quads][:, :, 0].mean(1) < 0
    return np.where(right[:, None], new[quads], quads), np.concatenate([np.arange(len(points)), ids])


def _loops(quads: np.ndarray) -> list[np.ndarray]:
    half = np.concatenate([np.stack([quads[:, i], quads[:, (i + 1) % 4]], 1) for i in range(4)])
    have = set(map(tuple, half.tolist()))
    following = {b: a for a, b in have if (b, a) not in have}
    loops = []
    while following:
        start = min(following)
        loop, at = [start], following.pop(start)
        while at != start:
            loop.append(at)
            at = following.pop(at)
        loops.append(np.array(loop))
    return loops


def _twins(copy_of: np.ndarray, mirror: np.ndarray, n: int) -> np.ndarray:
    copies = {int(o): n + k for k, o in enumerate(copy_of[n:])}
    twin = mirror[copy_of].copy()
    for original, copy in copies.items():
        twin[original], twin[copy] = copy, original
    return twin


def _tutte(faces: np.ndarray, p: np.ndarray, outer: np.ndarray, copy_of: np.ndarray) -> np.ndarray:
    """Convex embedding in a disc; the seam's end at the top, the front of the neck at the bottom."""
    edges = np.concatenate([np.stack([faces[:, i], faces[:, (i + 1) % 4]], 1) for i in range(4)])
    edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], 1), axis=0)
    w = 1.0 / np.maximum(np.linalg.norm(p[edges[:, 0]] - p[edges[:, 1]], axis=1), 0.05)
    n = len(p)
    graph = sp.coo_matrix((w, edges.T), shape=(n, n))
    laplacian = sp.diags(np.asarray((graph + graph.T).sum(1)).ravel()) - graph - graph.T
    middle = [i for i in outer if abs(p[i, 0]) < 1e-6 and np.count_nonzero(copy_of == copy_of[i]) == 1]
    top = max(middle, key=lambda i: p[i, 1])
    loop = np.roll(outer, -int(np.flatnonzero(outer == top)[0]))
    length = np.linalg.norm(p[np.roll(loop, -1)] - p[loop], axis=1)
    angle = 2.0 * np.pi * np.concatenate([[0.0], np.cumsum(length)[:-1]]) / length.sum()
    circle = np.stack([np.sin(angle), -np.cos(angle)], 1)  # v points down
    quarter = p[loop[len(loop) // 4], 0]
    circle[:, 0] *= np.sign(quarter) * np.sign(circle[len(loop) // 4, 0])
    inner = np.setdiff1d(np.arange(n), loop)
    uv = np.zeros((n, 2))
    uv[loop] = circle
    laplacian = laplacian.tocsr()
    uv[inner] = np.asarray(spsolve(laplacian[inner][:, inner].tocsc(), -(laplacian[inner][:, loop] @ circle)))
    return uv


def _areas(t: np.ndarray) -> np.ndarray:
    a, b = t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]
    return 0.5 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


def _corner_triangles(faces: np.ndarray, p: np.ndarray, s: np.ndarray):
    """The four corner triangles of each quad with their wanted flat shape [t, 3, 2] and weight [t].

    In the chart v points down, so faces seen from outside run clockwise in (u, v): the flat shape is mirrored.
    """
    corners = [np.stack([faces[:, i - 1], faces[:, i], faces[:, (i + 1) % 4]], 1) for i in range(4)]
    triangles = np.concatenate(corners)
    triangles = triangles[(np.diff(np.sort(triangles, 1), axis=1) > 0).all(1)]
    a, b = p[triangles[:, 1]] - p[triangles[:, 0]], p[triangles[:, 2]] - p[triangles[:, 0]]
    x = np.linalg.norm(a, axis=1)
    bx = (a * b).sum(1) / x
    by = np.maximum(np.linalg.norm(np.cross(a, b), axis=1) / x, 0.02 * x)
    zero = np.zeros_like(x)
    flat = np.stack([np.stack([zero, zero], 1), np.stack([x, zero], 1), np.stack([bx, -by], 1)], 1)
    flat *= s[triangles].mean(1)[:, None, None]
    return triangles, flat, np.abs(_areas(flat))


def _relax(uv: np.ndarray, triangles: np.ndarray, rest: np.ndarray, area: np.ndarray, twin: np.ndarray) -> np.ndarray:
    """Minimise sum area (|J|^2 + |J^-1|^2) over injective maps, J from `rest` to `uv`."""
    n, t = len(uv), len(triangles)
    inverse = np.linalg.inv(np.stack([rest[:, 1] - rest[:, 0], rest[:, 2] - rest[:, 0]], 2))
    columns = np.concatenate([-inverse.sum(1, keepdims=True), inverse], 1)  # gradient of each corner's hat function
    rows = np.repeat(np.arange(t), 3)
    gradient = [sp.csr_matrix((columns[:, :, k].ravel(), (rows, triangles.ravel())), shape=(t, n)) for k in range(2)]

    def jacobian(x):
        return np.stack([gradient[0] @ x, gradient[1] @ x], 2)  # [t, uv, rest axis]

    def energy(x):
        j = jacobian(x)
        det = j[:, 0, 0] * j[:, 1, 1] - j[:, 0, 1] * j[:, 1, 0]
        if det.min() <= 0:
            return np.inf
        return float((area * (j**2).sum((1, 2)) * (1.0 + det**-2)).sum())

    def symmetric(x):
        return (x + x[twin] * [-1.0, 1.0]) / 2.0

    uv = symmetric(uv)
    current = energy(uv)
    if not np.isfinite(current):
        raise ValueError("the Tutte embedding has folded triangles")
    for _ in range(ITERATIONS):
        u, sigma, vt = np.linalg.svd(jacobian(uv))
        sigma = np.maximum(sigma, 1e-9)
        near = np.abs(sigma - 1.0) < 1e-4
        ratio = np.where(near, 4.0, (sigma - sigma**-3) / np.where(near, 1.0, sigma - 1.0))
        w = (u * np.sqrt(ratio)[:, None, :]) @ u.transpose(0, 2, 1)
        goal = w @ u @ vt
        root = np.sqrt(area)
        blocks, rhs = [], []
        for i in range(2):
            for k in range(2):
                blocks.append([sp.diags(root * w[:, i, c]) @ gradient[k] for c in range(2)])
                rhs.append(root * goal[:, i, k])
        a = sp.bmat(blocks).tocsr()
        damping = 1e-6 * area.sum() / n
        normal = (a.T @ a + damping * sp.identity(2 * n)).tocsc()
        target = spsolve(normal, a.T @ np.concatenate(rhs) + damping * uv.T.ravel()).reshape(2, n).T
        step, direction = 1.0, symmetric(target) - uv
        while energy(uv + step * direction) >= current and step > 1e-8:
            step *= 0.6
        if step <= 1e-8:
            break
        uv = uv + step * direction
        before, current = current, energy(uv)
        if before - current < 1e-5 * current:
            break
    return symmetric(uv)
