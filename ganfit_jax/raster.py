"""Visibility: screen triangles to face ids, and silhouette edges near each pixel. Integers, no gradient.

Method
    A z-buffer by scatter. Every triangle's bounding box is cut into windows of `WINDOW` x `WINDOW` pixels. The first
    window of all triangles is scattered in one operation (a face mesh seldom needs more); further windows of larger
    triangles are listed by a prefix sum and taken in chunks by a loop that runs as long as there are any, so the result
    is exact for every size of triangle and the work grows with the pixels of the bounding boxes. A second scatter
    finds the ids: the faces whose depth equals the winning one.
Rules
    A pixel belongs to a triangle that contains its centre, edges included, so none is lost on a shared edge: the edge
    function of an edge is computed from the same vertex for both its faces. Depth is interpolated with perspective
    (1/z is linear on the screen); the nearest wins, and of equal ones the largest id. Triangles without area, with
    a vertex nearer than `camera.NEAR` or with a coordinate that is not finite are not drawn (no clipping).
Memory
    About 250 bytes per face (of which 64 for the depths of its first window), 16 bytes per pixel and layer, and 2 MB
    for a chunk. Nothing has faces x pixels elements.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ganfit_jax.camera import NEAR
from ganfit_jax.types import Fragments

WINDOW = 4
_CHUNK = 2048
_SAME = 1 - 4 * 2.0**-23  # depths within rounding are equal

_SCATTER = lax.ScatterDimensionNumbers((1, 2), (), (0, 1))
_GATHER = lax.GatherDimensionNumbers((1, 2), (), (0, 1))
_INSIDE = lax.GatherScatterMode.PROMISE_IN_BOUNDS


class _Boxes(NamedTuple):
    """Pixel boxes of n primitives on the screen."""

    corner: Int[Array, "n 2"]  # first row and column
    windows: Int[Array, "n 2"]  # windows down and across; 0 = nothing to draw


def _boxes(low: Float[Array, "n 2"], high: Float[Array, "n 2"], drawn: Array, size: int) -> _Boxes:
    """The pixels whose centres lie between two corners (x, y)."""
    first = jnp.ceil(jnp.clip(low, 0.0, size + 1.0) - 0.5).astype(jnp.int32)
    last = jnp.floor(jnp.clip(high, -1.0, float(size)) - 0.5).astype(jnp.int32)
    extent = jnp.maximum(jnp.minimum(last, size - 1) - first + 1, 0)
    windows = (extent + WINDOW - 1) // WINDOW
    windows = jnp.where((drawn & jnp.all(extent > 0, axis=1))[:, None], windows, 0)
    return _Boxes(jnp.minimum(first, size)[:, ::-1], windows[:, ::-1])


def _pixel_centres(corner: Int[Array, "n 2"], dtype) -> tuple[Float[Array, "n w w"], Float[Array, "n w w"]]:
    """x and y of the pixel centres of a window."""
    step = jnp.arange(WINDOW, dtype=jnp.int32)
    y = corner[:, 0, None, None] + step[None, :, None]
    x = corner[:, 1, None, None] + step[None, None, :]
    shape = (corner.shape[0], WINDOW, WINDOW)
    return jnp.broadcast_to(x, shape).astype(dtype) + 0.5, jnp.broadcast_to(y, shape).astype(dtype) + 0.5


def _read(buffer: Array, corner: Int[Array, "n 2"]) -> Array:
    """Windows [n, w, w] of a padded buffer."""
    return lax.gather(buffer, corner, _GATHER, (WINDOW, WINDOW), mode=_INSIDE)


def _write_max(buffer: Array, corner: Int[Array, "n 2"], values: Array) -> Array:
    return lax.scatter_max(buffer, corner, values, _SCATTER, mode=_INSIDE)


def _over_windows(boxes: _Boxes, skip: int, body: Callable, init: Array) -> Array:
    """Folds ``body(carry, primitive ids, corners, valid)`` over the windows of the boxes, the first `skip` left out."""
    counts = jnp.maximum(boxes.windows[:, 0] * boxes.windows[:, 1] - skip, 0)
    ends = jnp.cumsum(counts)

    def chunk(state):
        start, carry = state
        item = start + jnp.arange(_CHUNK, dtype=jnp.int32)
        ids = jnp.minimum(jnp.searchsorted(ends, item, side="right").astype(jnp.int32), counts.shape[0] - 1)
        window = item - ends[ids] + counts[ids] + skip
        across = jnp.maximum(boxes.windows[ids, 1], 1)
        corner = boxes.corner[ids] + WINDOW * jnp.stack([window // across, window % across], axis=1)
        valid = item < ends[-1]
        return start + _CHUNK, body(carry, ids, jnp.where(valid[:, None], corner, 0), valid)

    return lax.while_loop(lambda state: state[0] < ends[-1], chunk, (jnp.int32(0), init))[1]


def _nearest(boxes: _Boxes, key: Callable, size: int, dense: bool) -> Int[Array, "size size"]:
    """Id of the primitive with the largest positive key at each pixel; -1 = none.

    ``key(ids, corners) -> [n, WINDOW, WINDOW]``; with ``ids=None`` for all primitives in order. `dense`: most
    primitives are drawn, so their first windows are taken together and not from a list.
    """
    padded = (size + WINDOW, size + WINDOW)
    skip = 1 if dense else 0
    drawn = boxes.windows[:, 0] > 0

    def keep_best(best, ids, corner, valid):
        return _write_max(best, corner, jnp.where(valid[:, None, None], key(ids, corner), 0))

    def keep_id(winner, ids, corner, valid, keys=None):
        keys = key(ids, corner) if keys is None else keys
        wins = valid[:, None, None] & (keys > 0) & (keys >= _read(best, corner) * _SAME)
        return _write_max(winner, corner, jnp.where(wins, ids[:, None, None], -1))

    best = jnp.zeros(padded, jnp.float32)
    winner = jnp.full(padded, -1, jnp.int32)
    if dense:
        keys = jnp.where(drawn[:, None, None], key(None, boxes.corner), 0)
        best = _write_max(best, boxes.corner, keys)
        best = _over_windows(boxes, skip, keep_best, best)
        winner = keep_id(winner, jnp.arange(drawn.shape[0], dtype=jnp.int32), boxes.corner, drawn, keys)
    else:
        best = _over_windows(boxes, skip, keep_best, best)
    return _over_windows(boxes, skip, keep_id, winner)[:size, :size]


def signed_area(screen: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "f"]:
    """Twice the area of each triangle on the screen, px^2; positive if it is seen from outside."""
    a, b, c = (screen[faces[:, i], :2] for i in range(3))
    return (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]) - (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1])


def _edge_functions(screen: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "f 3 4"]:
    """Edge opposite to each corner: a point (x, y) and a direction, such that ``dx (py - y) - dy (px - x)`` times the
    orientation's sign (already in the direction) is positive inside. The point is the end with the smaller index, so
    both faces at an edge compute the same number up to its sign."""
    sign = jnp.where(signed_area(screen, faces) > 0, -1.0, 1.0)
    edges = []
    for i in range(3):
        one, two = faces[:, (i + 1) % 3], faces[:, (i + 2) % 3]
        origin = screen[jnp.minimum(one, two), :2]
        direction = screen[jnp.maximum(one, two), :2] - origin
        edges.append(jnp.concatenate([origin, direction * (jnp.where(one < two, 1.0, -1.0) * sign)[:, None]], axis=1))
    return jnp.stack(edges, axis=1)


@partial(jax.jit, static_argnames=("size", "layers", "cull"))
def rasterize(
    screen: Float[Array, "v 3"], faces: Int[Array, "f 3"], size: int, layers: int = 1, cull: bool = False
) -> Fragments:
    """Ids of the `layers` nearest faces at the centre of every pixel, nearest first; -1 = none.

    `screen` holds x and y in pixels and the depth in mm, as `camera.project` gives them. `cull` leaves out the faces
    that are seen from inside. Exact up to rounding for triangles of every size; see the module's docstring.
    """
    screen = lax.stop_gradient(screen)
    corners = screen[faces]  # [f, 3, 3]
    area = signed_area(screen, faces)
    low, high = jnp.min(corners, axis=1), jnp.max(corners, axis=1)
    longest = jnp.max(high[:, :2] - low[:, :2], axis=1)
    drawn = jnp.all(jnp.isfinite(corners), axis=(1, 2)) & (low[:, 2] > NEAR)
    drawn &= (area if cull else jnp.abs(area)) > 2.0**-22 * longest**2
    safe = jnp.where(drawn[:, None, None], corners, 1.0)
    boxes = _boxes(jnp.min(safe, axis=1)[:, :2], jnp.max(safe, axis=1)[:, :2], drawn, size)
    edges = _edge_functions(screen, faces).reshape(-1, 12)
    table = jnp.concatenate([edges, 1 / safe[:, :, 2]], axis=1)

    found = []
    for _ in range(layers):

        def inverse_depth(ids, corner, taken=tuple(found)):
            rows = table if ids is None else table[ids]
            x, y = _pixel_centres(corner, rows.dtype)
            row = [rows[:, i, None, None] for i in range(15)]
            inside = [row[4 * i + 2] * (y - row[4 * i + 1]) - row[4 * i + 3] * (x - row[4 * i]) for i in range(3)]
            total = inside[0] + inside[1] + inside[2]
            covered = (inside[0] >= 0) & (inside[1] >= 0) & (inside[2] >= 0) & (total > 0)
            weighted = inside[0] * row[12] + inside[1] * row[13] + inside[2] * row[14]
            own = (jnp.arange(rows.shape[0], dtype=jnp.int32) if ids is None else ids)[:, None, None]
            for layer in taken:
                covered &= _read(jnp.pad(layer, (0, WINDOW)), corner) != own
            return jnp.where(covered, weighted / jnp.where(covered, total, 1.0), 0.0).astype(jnp.float32)

        found.append(_nearest(boxes, inverse_depth, size, dense=True))
    return Fragments(jnp.stack(found, axis=-1))


def neighbours(faces: Int[Array, "f 3"]) -> Int[Array, "f 3"]:
    """The face across the edge opposite to each corner; -1 at a border. Compute it once per mesh: it sorts all edges."""
    one, two = jnp.roll(faces, -1, axis=1).reshape(-1), jnp.roll(faces, -2, axis=1).reshape(-1)
    index = jnp.arange(one.shape[0], dtype=jnp.int32)
    low, high, edge = lax.sort((jnp.minimum(one, two), jnp.maximum(one, two), index), num_keys=2)
    same = (low[1:] == low[:-1]) & (high[1:] == high[:-1])
    pad = jnp.zeros(1, bool)
    face = edge // 3
    before, after = jnp.roll(face, 1), jnp.roll(face, -1)
    across = jnp.where(jnp.concatenate([same, pad]), after, jnp.where(jnp.concatenate([pad, same]), before, -1))
    return jnp.zeros_like(across).at[edge].set(across).reshape(-1, 3)


@partial(jax.jit, static_argnames=("radius", "gap"))
def silhouettes(
    screen: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    across: Int[Array, "f 3"],
    depth: Float[Array, "h h"],
    radius: float = 0.5,
    gap: float = 0.005,
) -> Int[Array, "h h"]:
    """For each pixel the nearest silhouette edge that is visible and within `radius` px, as ``3 face + corner`` (the
    edge opposite to this corner); -1 = none.

    A silhouette edge lies between a face seen from outside and one seen from inside, or at a border (`across` is what
    `neighbours` gives). It counts at a pixel if the surface in `depth` (mm, 0 = background) is in front of it or at it
    on one side and behind it by more than the fraction `gap`, or absent, on the other (see `across_edge`).
    """
    screen, depth = lax.stop_gradient(screen), lax.stop_gradient(depth)
    size = depth.shape[0]
    outside = signed_area(screen, faces) > 0
    border = across < 0
    fold = outside[:, None] & ~outside[across] & ~border
    ends = screen[jnp.stack([jnp.roll(faces, -1, axis=1), jnp.roll(faces, -2, axis=1)], axis=2)]  # [f, 3, 2, 3]
    ends = ends.reshape(-1, 2, 3)
    drawn = (fold | border).reshape(-1) & jnp.all(jnp.isfinite(ends), axis=(1, 2)) & jnp.all(ends[:, :, 2] > NEAR, 1)
    ends = jnp.where(drawn[:, None, None], ends, 1.0)
    boxes = _boxes(jnp.min(ends, axis=1)[:, :2] - radius, jnp.max(ends, axis=1)[:, :2] + radius, drawn, size)
    padded = jnp.pad(jnp.where(depth > 0, 1 / jnp.where(depth > 0, depth, 1.0), 0.0), 1, mode="edge")

    def closeness(ids, corner):
        one, two = (ends[ids, i][:, None, None] for i in range(2))
        pixel = jnp.stack(_pixel_centres(corner, one.dtype), axis=-1)
        offset, inverse = nearest_on_edge(pixel, one, two)
        length = jnp.sqrt(jnp.sum(offset**2, axis=-1))
        row, column = jnp.minimum(corner[:, 0], size - 1), jnp.minimum(corner[:, 1], size - 1)
        step = jnp.arange(WINDOW, dtype=jnp.int32)
        rows = jnp.minimum(row[:, None, None] + step[None, :, None], size - 1) + 1
        columns = jnp.minimum(column[:, None, None] + step[None, None, :], size - 1) + 1
        move = across_edge(offset, one, two)
        threshold = inverse * (1 - gap)
        here = padded[rows, columns] > threshold
        there = padded[rows + move[..., 1], columns + move[..., 0]] > threshold
        return jnp.where((here != there) & (length < radius), radius - length, 0.0).astype(jnp.float32)

    return _nearest(boxes, closeness, size, dense=False)


def nearest_on_edge(
    pixel: Float[Array, "*n 2"], one: Float[Array, "*n 3"], two: Float[Array, "*n 3"]
) -> tuple[Float[Array, "*n 2"], Float[Array, "*n"]]:
    """Offset in pixels from a point to the nearest one of a screen segment; and 1/depth of that."""
    along, start = (two - one)[..., :2], pixel - one[..., :2]
    squared = jnp.sum(along**2, axis=-1)
    fraction = jnp.clip(jnp.sum(along * start, axis=-1) / jnp.where(squared > 0, squared, 1.0), 0.0, 1.0)
    inverse = (1 - fraction) / one[..., 2] + fraction / two[..., 2]
    return fraction[..., None] * along - start, inverse


def across_edge(offset: Float[Array, "*n 2"], one: Float[Array, "*n 3"], two: Float[Array, "*n 3"]) -> Array:
    """The step (x, y) in whole pixels, one of eight, from a pixel over an edge at this offset: along the offset, or,
    where that vanishes, along the edge's normal."""
    tangent = (two - one)[..., :2]
    normal = jnp.stack([-tangent[..., 1], tangent[..., 0]], axis=-1)
    tiny = jnp.sum(jnp.abs(offset), axis=-1, keepdims=True) < 1e-6
    direction = jnp.where(tiny, normal, offset)
    length = jnp.sqrt(jnp.sum(direction**2, axis=-1, keepdims=True))
    return jnp.round(direction / jnp.where(length > 0, length, 1.0)).astype(jnp.int32)
