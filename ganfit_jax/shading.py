"""Colour at each pixel, differentiable: barycentrics, albedo lookup, Lambertian light, soft silhouettes.

Everything is recomputed from the vertices of the faces that `raster` names, so that ordinary automatic differentiation
gives the gradient of the image.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ganfit_jax import raster
from ganfit_jax.types import Light

BAND = 0.5
"""Pixels. Half the width over which a silhouette fades."""


def barycentrics(corners: Float[Array, "h w 3 3"]) -> tuple[Float[Array, "h w 3"], Float[Array, "h w"]]:
    """Perspective-correct barycentrics of the pixel centres in given screen triangles (x, y, depth); and the depth, mm.

    With edge functions e_i and depths z_i: ``b_i = (e_i / z_i) / sum_j (e_j / z_j)``, ``z = sum e_i / sum (e_i / z_i)``.
    """
    height, width = corners.shape[:2]
    x = jnp.arange(width, dtype=corners.dtype)[None, :] + 0.5
    y = jnp.arange(height, dtype=corners.dtype)[:, None] + 0.5
    offsets = [(corners[:, :, i, 0] - x, corners[:, :, i, 1] - y) for i in range(3)]
    edges = []
    for i in range(3):
        (x1, y1), (x2, y2) = offsets[(i + 1) % 3], offsets[(i + 2) % 3]
        edges.append(x1 * y2 - y1 * x2)
    edge = jnp.stack(edges, axis=-1)
    weighted = edge / corners[..., 2]
    total = jnp.sum(weighted, axis=-1)
    safe = jnp.where(jnp.abs(total) > 1e-12, total, 1.0)
    return weighted / safe[..., None], jnp.sum(edge, axis=-1) / safe


def lookup(texture: Float[Array, "s s c"], uv: Float[Array, "h w 2"]) -> Float[Array, "h w c"]:
    """Bilinear texture values; texel centres at (i + 0.5) / s, the border repeated outwards."""
    size, channels = texture.shape[1], texture.shape[2]
    place = jnp.clip(uv * size - 0.5, 0.0, size - 1.0)
    low = jnp.minimum(lax.stop_gradient(jnp.floor(place)), size - 2.0)
    fraction = place - low
    first = low[..., 1].astype(jnp.int32) * size + low[..., 0].astype(jnp.int32)
    index = first[..., None] + jnp.array([0, 1, size, size + 1], jnp.int32)[None, None]
    texels = texture.reshape(-1, channels).at[index].get(mode="promise_in_bounds")  # [h, w, 4, c]
    right, down = fraction[..., 0], fraction[..., 1]
    weights = jnp.stack([(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down], axis=-1)
    return jnp.sum(weights[..., None] * texels, axis=2)


def lambert(normals: Float[Array, "h w 3"], light: Light) -> Float[Array, "h w 3"]:
    """``ambient + colour * max(0, <n, direction>)``; unit normals and the direction in the view frame."""
    direction = light.direction / jnp.sqrt(jnp.sum(light.direction**2) + 1e-12)
    cosine = jnp.sum(normals * direction[None, None], axis=-1, keepdims=True)
    return light.ambient[None, None] + light.colour[None, None] * jnp.maximum(cosine, 0.0)


def normalise(vectors: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Unit vectors; zero stays zero, with a finite gradient."""
    return vectors / jnp.sqrt(jnp.sum(vectors**2, axis=-1, keepdims=True) + 1e-12)


def soften(
    layers: Float[Array, "h h c"], screen: Float[Array, "v 3"], faces: Int[Array, "f 3"], edges: Int[Array, "h h"]
) -> Float[Array, "h h c"]:
    """Silhouettes that fade over one pixel and move with the vertices.

    `edges` is what `raster.silhouettes` found. A pixel whose centre lies at a distance d < `BAND` from its edge takes
    ``0.5 - d`` of its value from the pixel across the edge and the rest from itself: 1/2 each on the edge. So the image
    is (nearly) continuous where visibility jumps, and its gradient reaches the edge's two vertices.
    """
    size = edges.shape[0]
    face, corner = edges // 3, edges % 3
    ends = []
    for step in (1, 2):
        vertex = faces[face, (corner + step) % 3]
        ends.append(screen.at[jnp.where(edges < 0, screen.shape[0], vertex)].get(mode="fill", fill_value=0.0))
    centre = jnp.arange(size, dtype=screen.dtype) + 0.5
    pixel = jnp.stack(jnp.meshgrid(centre, centre), axis=-1)
    is_edge = edges >= 0
    one, two = (jnp.where(is_edge[..., None], end, jnp.ones_like(end)) for end in ends)
    offset, _ = raster.nearest_on_edge(pixel, one, two)
    squared = jnp.sum(offset**2, axis=-1)
    tiny = squared < 1e-12
    distance = jnp.where(tiny, 0.0, jnp.sqrt(jnp.where(tiny, 1.0, squared)))
    move = raster.across_edge(lax.stop_gradient(offset), lax.stop_gradient(one), lax.stop_gradient(two))
    move = jnp.where(is_edge[..., None], move, 0)
    index = jnp.arange(size, dtype=jnp.int32)
    rows = jnp.clip(index[:, None] + move[..., 1], 0, size - 1)
    columns = jnp.clip(index[None, :] + move[..., 0], 0, size - 1)
    share = jnp.where(is_edge, jnp.maximum(BAND - distance, 0.0), 0.0)[..., None]
    return layers + share * (layers[rows, columns] - layers)
