"""Visibility: screen triangles to face ids, and silhouette edges near each pixel. Integers, no gradient.

Method
    A z-buffer by scatter. Every triangle's bounding box is cut into windows of `WINDOW` x `WINDOW` pixels, listed by a
    prefix sum. A loop takes them in chunks of fixed size until there are no more, so the result is exact for triangles
    of every size, and the work grows with the pixels of the bounding boxes. Of each chunk, one scatter keeps the
    smallest depths and a second one the ids of the faces whose depth is the one kept.
Rules
    A pixel belongs to a triangle that contains its centre, edges included, so none is lost on a shared edge: the edge
    function of an edge is computed from the same vertex for both its faces. Depth is interpolated with perspective
    (1/z is linear on the screen); the nearest wins, and of equal ones the largest id. Triangles without area, with
    a vertex nearer than `camera.NEAR` or with a coordinate that is not finite are not drawn (no clipping).
Memory
    About 200 bytes per face, 16 bytes per pixel and layer, and 4 MB for a chunk. Nothing has faces x pixels elements.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ganfit_jax.camera import NEAR
from ganfit_jax.types import Fragments

WINDOW = 4
_CHUNK = 4096
_SAME = 1 - 4 * 2.0**-23  # depths within rounding are equal

_SCATTER = lax.ScatterDimensionNumbers((1, 2), (), (0, 1))
_GATHER = lax.GatherDimensionNumbers((1, 2), (), (0, 1))
_INSIDE = lax.GatherScatterMode.PROMISE_IN_BOUNDS


class _Boxes(NamedTuple):
    """Pixel boxes of n primitives on the screen."""

    row: Int[Array, "n"]
    column: Int[Array, "n"]
    across: Int[Array, "n"]  # windows in a row
    windows: Int[Array, "n"]  # in all; 0 = nothing to draw


def _span(low: Float[Array, "n"], high: Float[Array, "n"], size: int) -> tuple[Array, Array]:
    """First of the pixels whose centres lie between two coordinates, and how many windows they fill."""
    first = jnp.ceil(jnp.clip(low, 0.0, size + 1.0) - 0.5).astype(jnp.int32)
    last = jnp.floor(jnp.clip(high, -1.0, float(size)) - 0.5).astype(jnp.int32)
    extent = jnp.maximum(jnp.minimum(last, size - 1) - first + 1, 0)
    return first, (extent + WINDOW - 1) // WINDOW


def _boxes(x: list[Array], y: list[Array], drawn: Array, margin: float, size: int) -> _Boxes:
    """Boxes around points, of which each primitive has as many as the lists are long."""
    x, y = ([jnp.where(drawn, value, 0.0) for value in axis] for axis in (x, y))
    column, across = _span(reduce(jnp.minimum, x) - margin, reduce(jnp.maximum, x) + margin, size)
    row, down = _span(reduce(jnp.minimum, y) - margin, reduce(jnp.maximum, y) + margin, size)
    return _Boxes(row, column, across, jnp.where(drawn, across * down, 0))


def _pixels(row: Int[Array, "n"], column: Int[Array, "n"]) -> tuple[Int[Array, "n w w"], Int[Array, "n w w"]]:
    """Rows and columns of the pixels of windows."""
    step = jnp.arange(WINDOW, dtype=jnp.int32)
    shape = (row.shape[0], WINDOW, WINDOW)
    rows = row[:, None, None] + step[None, :, None]
    return jnp.broadcast_to(rows, shape), jnp.broadcast_to(column[:, None, None] + step[None, None], shape)


def _nearest(boxes: _Boxes, key: Callable, size: int, chunk_size: int) -> Int[Array, "size size"]:
    """Id of the primitive with the largest positive key at each pixel; -1 = none.

    ``key(ids, row, column) -> [n, WINDOW, WINDOW]``, for windows whose first pixels are given.
    """
    ends = jnp.cumsum(boxes.windows)
    padded = (size + WINDOW, size + WINDOW)

    def take(state):
        start, best, winner = state
        item = start + jnp.arange(chunk_size, dtype=jnp.int32)
        ids = jnp.minimum(jnp.searchsorted(ends, item, side="right").astype(jnp.int32), ends.shape[0] - 1)
        window, across = item - (ends - boxes.windows)[ids], jnp.maximum(boxes.across[ids], 1)
        valid = item < ends[-1]
        row = jnp.where(valid, boxes.row[ids] + WINDOW * (window // across), 0)
        column = jnp.where(valid, boxes.column[ids] + WINDOW * (window % across), 0)
        keys = jnp.where(valid[:, None, None], key(ids, row, column).astype(jnp.float32), 0.0)
        corner = jnp.stack([row, column], axis=1)
        nearer = lax.scatter_max(best, corner, keys, _SCATTER, mode=_INSIDE)
        known = lax.gather(nearer, corner, _GATHER, (WINDOW, WINDOW), mode=_INSIDE)
        wins = jnp.where((keys > 0) & (keys >= known * _SAME), ids[:, None, None], -1)
        winner = jnp.where(nearer > best, -1, winner)
        return start + chunk_size, nearer, lax.scatter_max(winner, corner, wins, _SCATTER, mode=_INSIDE)

    state = (jnp.int32(0), jnp.zeros(padded, jnp.float32), jnp.full(padded, -1, jnp.int32))
    return lax.while_loop(lambda state: state[0] < ends[-1], take, state)[2][:size, :size]


def once(values: Any, faces: Int[Array, "f 3"]) -> Any:
    """The same numbers, computed once and kept. `faces` is any array of indices that the compiler cannot foresee.

    XLA on the CPU copies cheap arithmetic into each of its consumers, barriers or not, which multiplies the work of
    long chains and of backward passes many times over. It does not look through a conditional: this is one that always
    goes the same way. Other platforms do without.
    """

    def keep(values):
        nothing = partial(jax.tree.map, jnp.zeros_like)
        return lax.cond(faces.reshape(-1)[0] >= -1, lambda values: values, nothing, values)

    return lax.platform_dependent(values, cpu=keep, default=lambda values: values)


def _corners(screen: Float[Array, "v 3"], faces: Int[Array, "f k"]) -> list[list[Float[Array, "f"]]]:
    """x, y and depth, each of all corners of all faces."""
    corners = screen[faces].reshape(faces.shape[0], -1).T
    return [list(corners[axis::3]) for axis in range(3)]


def _doubled_area(x: list[Array], y: list[Array]) -> Array:
    return (y[1] - y[0]) * (x[2] - x[0]) - (x[1] - x[0]) * (y[2] - y[0])


def signed_area(screen: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "f"]:
    """Twice the area of each triangle on the screen, px^2; positive if it is seen from outside."""
    x, y, _ = _corners(screen, faces)
    return _doubled_area(x, y)


def _edge_functions(
    x: list[Array], y: list[Array], faces: Int[Array, "n 3"], rows: Array, columns: Array
) -> list[Float[Array, "n w w"]]:
    """Twice the area of the triangle made of a pixel's centre and the edge opposite to each corner; positive inside.

    ``dx (y - py) - dy (x - px)`` with (px, py) the end with the smaller vertex index and (dx, dy) the way to the other
    end, so both faces at an edge compute the same number up to its sign.
    """
    centre_x, centre_y = columns.astype(x[0].dtype) + 0.5, rows.astype(x[0].dtype) + 0.5
    outside = _doubled_area(x, y) > 0
    inside = []
    for one, two in ((1, 2), (2, 0), (0, 1)):
        swap = faces[:, one] > faces[:, two]
        px, py = jnp.where(swap, x[two], x[one]), jnp.where(swap, y[two], y[one])
        dx, dy = jnp.where(swap, x[one], x[two]) - px, jnp.where(swap, y[one], y[two]) - py
        flip = swap == outside
        line = once([px, py, jnp.where(flip, dx, -dx), jnp.where(flip, dy, -dy)], faces)
        px, py, dx, dy = (value[:, None, None] for value in line)
        inside.append(dx * (centre_y - py) - dy * (centre_x - px))
    return inside


@partial(jax.jit, static_argnames=("size", "layers", "cull"))
def rasterize(
    screen: Float[Array, "v 3"], faces: Int[Array, "f 3"], size: int, layers: int = 1, cull: bool = False
) -> Fragments:
    """Ids of the `layers` nearest faces at the centre of every pixel, nearest first; -1 = none.

    `screen` holds x and y in pixels and the depth in mm, as `camera.project` gives them. `cull` leaves out the faces
    that are seen from inside. Exact up to rounding for triangles of every size; see the module's docstring.
    """
    screen = lax.stop_gradient(screen)
    x, y, depth = _corners(screen, faces)
    width, height = (reduce(jnp.maximum, axis) - reduce(jnp.minimum, axis) for axis in (x, y))
    drawn = (reduce(jnp.minimum, depth) > NEAR) & jnp.isfinite(sum(depth)) & jnp.isfinite(width + height)
    area = _doubled_area(x, y)
    drawn &= (area if cull else jnp.abs(area)) > 2.0**-22 * jnp.maximum(width, height) ** 2
    boxes = _boxes(x, y, drawn, 0.0, size)

    found = []
    for _ in range(layers):

        def inverse_depth(ids, row, column, taken=tuple(found)):
            rows, columns = _pixels(row, column)
            own = faces[ids]
            x, y, depth = once(_corners(screen, own), faces)
            inside = _edge_functions(x, y, own, rows, columns)
            inverse = [(1 / z)[:, None, None] for z in depth]
            total = inside[0] + inside[1] + inside[2]
            covered = (inside[0] >= 0) & (inside[1] >= 0) & (inside[2] >= 0) & (total > 0)
            for layer in taken:
                covered &= layer[jnp.minimum(rows, size - 1), jnp.minimum(columns, size - 1)] != ids[:, None, None]
            weighted = inside[0] * inverse[0] + inside[1] * inverse[1] + inside[2] * inverse[2]
            return jnp.where(covered, weighted / jnp.where(covered, total, 1.0), 0.0)

        found.append(_nearest(boxes, inverse_depth, size, _CHUNK))
    return Fragments(jnp.stack(found, axis=-1))


def neighbours(faces: Int[Array, "f 3"]) -> Int[Array, "f 3"]:
    """The face across the edge opposite to each corner; -1 at a border. Once per mesh: it sorts all edges."""
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
    on one side and behind it by more than the fraction `gap`, or absent, on the other (see `across_line`).
    """
    size = depth.shape[0]
    x, y, z = _corners(lax.stop_gradient(screen), faces)
    outside = once(_doubled_area(x, y), faces) > 0
    finite = jnp.isfinite(sum(x) + sum(y) + sum(z)) & (reduce(jnp.minimum, z) > NEAR)
    fold = outside[None] & ~outside[across.T]
    drawn = ((fold | (across.T < 0)) & finite[None]).reshape(-1)
    drawn = once(drawn.astype(screen.dtype), faces) > 0
    starts, stops = ([jnp.concatenate([axis[(i + step) % 3] for i in range(3)]) for axis in (x, y)] for step in (1, 2))
    boxes = _boxes([starts[0], stops[0]], [starts[1], stops[1]], drawn, radius, size)
    nearness = lax.stop_gradient(jnp.where(depth > 0, 1 / jnp.where(depth > 0, depth, 1.0), 0.0))
    count = faces.shape[0]  # edge i of face f is number count * i + f

    def closeness(ids, row, column):
        rows, columns = _pixels(row, column)
        x, y, z = _corners(screen, _edge_vertices(faces, ids % count, ids // count))
        line = once([x[0], y[0], x[1] - x[0], y[1] - y[0], 1 / z[0], 1 / z[1]], faces)
        px, py, dx, dy, first, second = (value[:, None, None] for value in line)
        along, right, down = nearest_on_line(
            columns.astype(px.dtype) + 0.5 - px, rows.astype(py.dtype) + 0.5 - py, dx, dy
        )
        length = jnp.sqrt(right**2 + down**2)
        threshold = (first + along * (second - first)) * (1 - gap)
        step_x, step_y = across_line(right, down, dx, dy)
        here = nearness.at[rows, columns].get(mode="fill", fill_value=0.0) > threshold
        there = nearness[jnp.clip(rows + step_y, 0, size - 1), jnp.clip(columns + step_x, 0, size - 1)] > threshold
        return jnp.where((here != there) & (length < radius), radius - length, 0.0)

    edges = _nearest(boxes, closeness, size, 1024)
    return jnp.where(edges < 0, -1, 3 * (edges % count) + edges // count)


def _edge_vertices(faces: Int[Array, "f 3"], face: Int[Array, "*n"], corner: Int[Array, "*n"]) -> Int[Array, "*n 2"]:
    """The two vertices of the edge opposite to a corner."""
    return jnp.stack([faces[face, (corner + 1) % 3], faces[face, (corner + 2) % 3]], axis=-1)


def edge_vertices(faces: Int[Array, "f 3"], edges: Int[Array, "h w"]) -> Int[Array, "h w 2"]:
    """The two vertices of edges as `silhouettes` names them; anything where there is none."""
    return _edge_vertices(faces, edges // 3, edges % 3)


def nearest_on_line(x: Array, y: Array, dx: Array, dy: Array) -> tuple[Array, Array, Array]:
    """The place in [0, 1] along the segment from (0, 0) to (dx, dy) that is nearest to (x, y), and the offset to it."""
    squared = dx**2 + dy**2
    along = jnp.clip((x * dx + y * dy) / jnp.where(squared > 0, squared, 1.0), 0.0, 1.0)
    return along, along * dx - x, along * dy - y


def across_line(right: Array, down: Array, dx: Array, dy: Array) -> tuple[Array, Array]:
    """The step in whole pixels (right, down), one of eight, that leads from a pixel over a line at this offset: along
    the offset or, where that vanishes, along the line's normal."""
    tiny = jnp.abs(right) + jnp.abs(down) < 1e-6
    right, down = jnp.where(tiny, -dy, right), jnp.where(tiny, dx, down)
    length = jnp.maximum(jnp.sqrt(right**2 + down**2), 1e-12)
    return jnp.round(right / length).astype(jnp.int32), jnp.round(down / length).astype(jnp.int32)
