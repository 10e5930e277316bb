"""Colour at each pixel, differentiable: barycentrics, albedo lookup, Lambertian light, soft silhouettes.

Everything is recomputed from the vertices of the faces that `raster` names, so that ordinary automatic differentiation
gives the gradient of the image.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ganfit_jax import raster
from ganfit_jax.types import Light

BAND = 0.5
"""Pixels. Half the width over which a silhouette fades."""

Planes = Sequence[Float[Array, "h w"]]


def planes(rows: Float[Array, "n c"], size: int) -> list[Float[Array, "h w"]]:
    """Columns of a table with one row per pixel, as images. Arithmetic on whole planes is what compiles well."""
    return [column.reshape(size, size) for column in lax.split(rows.T, (1,) * rows.shape[1])]


def take(table: Float[Array, "n c"], index: Int[Array, "m"]) -> Float[Array, "m c"]:
    """Rows of a table; an index of n gives zeros and receives no gradient."""
    return table.at[index].get(mode="fill", fill_value=0.0)


def pixel_centres(size: int, dtype: Any) -> tuple[Float[Array, "1 w"], Float[Array, "h 1"]]:
    """x and y of the pixels' centres."""
    centre = jnp.arange(size, dtype=dtype) + 0.5
    return centre[None, :], centre[:, None]


def barycentrics(x: Planes, y: Planes, z: Planes) -> tuple[Planes, Float[Array, "h w"]]:
    """Perspective-correct barycentrics of the pixels' centres in screen triangles, one a pixel; and the depth, mm.

    With edge functions e_i, depths z_i: ``b_i = (e_i / z_i) / sum_j (e_j / z_j)``, ``z = sum e_i / sum (e_i / z_i)``.
    `x`, `y` and `z` hold an image for each of the three corners.
    """
    centre_x, centre_y = pixel_centres(x[0].shape[0], x[0].dtype)
    x, y = [value - centre_x for value in x], [value - centre_y for value in y]
    edges = [x[i] * y[j] - y[i] * x[j] for i, j in ((1, 2), (2, 0), (0, 1))]
    weighted = [edge / depth for edge, depth in zip(edges, z, strict=True)]
    total = weighted[0] + weighted[1] + weighted[2]
    total = jnp.where(jnp.abs(total) > 1e-12, total, 1.0)
    return [value / total for value in weighted], (edges[0] + edges[1] + edges[2]) / total


def interpolate(weights: Planes, values: Planes) -> Float[Array, "h w"]:
    """Weighted sum over the three corners."""
    return weights[0] * values[0] + weights[1] * values[1] + weights[2] * values[2]


def lookup(texture: Float[Array, "s s c"], u: Float[Array, "h w"], v: Float[Array, "h w"]) -> Planes:
    """Bilinear texture values, a plane per channel; texel centres at (i + 0.5) / s, the border repeated outwards."""
    size, channels = texture.shape[1], texture.shape[2]
    u, v = jnp.clip(u * size - 0.5, 0.0, size - 1.0), jnp.clip(v * size - 0.5, 0.0, size - 1.0)
    left, top = (lax.stop_gradient(jnp.minimum(jnp.floor(place), size - 2.0)) for place in (u, v))
    right, down = u - left, v - top
    first = (top.astype(jnp.int32) * size + left.astype(jnp.int32)).reshape(-1)
    rows = texture.reshape(-1, channels)
    corners = [planes(rows.at[first + step].get(mode="clip"), u.shape[0]) for step in (0, 1, size, size + 1)]
    weights = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
    one, two, three, four = (
        [weight * plane for plane in corner] for weight, corner in zip(weights, corners, strict=True)
    )
    return [one[c] + two[c] + three[c] + four[c] for c in range(channels)]


def lambert(normal: Planes, light: Light) -> Planes:
    """``ambient + colour * max(0, <n, direction>)``; unit normals and the direction in the view frame."""
    direction = light.direction / jnp.sqrt(jnp.sum(light.direction**2) + 1e-12)
    cosine = jnp.maximum(sum(axis * direction[i] for i, axis in enumerate(normal)), 0.0)
    return [light.ambient[i] + light.colour[i] * cosine for i in range(3)]


def normalise(vector: Planes) -> Planes:
    """Unit vectors; zero stays zero, with a finite gradient."""
    length = jnp.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2 + 1e-12)
    return [axis / length for axis in vector]


def soften(
    layers: Planes, screen: Float[Array, "v 3"], faces: Int[Array, "f 3"], edges: Int[Array, "h h"]
) -> Float[Array, "h h c"]:
    """Silhouettes that fade over one pixel and move with the vertices.

    `edges` is what `raster.silhouettes` found. A pixel whose centre lies at a distance d < `BAND` from its edge takes
    the share ``BAND - d`` of its value from the pixel across the edge and the rest from itself: half each on the edge.
    So the image is (nearly) continuous where visibility jumps, and its gradient reaches the edge's two vertices.
    """
    size = edges.shape[0]
    is_edge = edges >= 0
    vertices = jnp.where(is_edge[..., None], raster.edge_vertices(faces, edges), screen.shape[0])
    x1, y1, x2, y2 = (
        plane for end in range(2) for plane in planes(take(screen[:, :2], vertices[..., end].reshape(-1)), size)
    )
    centre_x, centre_y = pixel_centres(size, screen.dtype)
    _, right, down = raster.nearest_on_line(centre_x - x1, centre_y - y1, x2 - x1, y2 - y1)
    squared = jnp.where(is_edge, right**2 + down**2, 1.0)
    tiny = squared < 1e-12
    distance = jnp.where(tiny, 0.0, jnp.sqrt(jnp.where(tiny, 1.0, squared)))
    share = jnp.where(is_edge, jnp.maximum(BAND - distance, 0.0), 0.0)

    step_x, step_y = raster.across_line(*lax.stop_gradient((right, down, x2 - x1, y2 - y1)))
    index = jnp.arange(size, dtype=jnp.int32)
    row, column = jnp.clip(index[:, None] + step_y, 0, size - 1), jnp.clip(index[None, :] + step_x, 0, size - 1)
    other = jnp.where(is_edge, row * size + column, size * size).reshape(-1)
    stack = jnp.stack(layers, axis=-1)
    beyond = take(stack.reshape(size * size, -1), other).reshape(stack.shape)
    return stack + share[..., None] * (beyond - jnp.where(is_edge[..., None], stack, 0.0))
