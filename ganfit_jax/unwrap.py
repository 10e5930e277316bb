"""A fitted photo -> a UV map of the skin's own colour, with a visibility weight.

`texel_map` says once per shape model which point of the surface a texel shows; `sample` reads the photo there where the
point is visible; `fit_shading` explains the light by robust spherical harmonics, to be divided out; `complete` fills
what was not seen from the other half of the face and from the mean.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ganfit_jax import morphable
from ganfit_jax.camera import project, to_camera
from ganfit_jax.raster import rasterize
from ganfit_jax.render import draw
from ganfit_jax.types import Camera, Light, ShapeModel


class TexelMap(NamedTuple):
    """Which surface point each texel of the canonical chart shows."""

    faces: Int[Array, "s s"]  # face id; 0 where the chart is empty
    barycentric: Float[Array, "s s 3"]
    used: Float[Array, "s s"]  # 1 where the chart shows a surface, 0 elsewhere


class Unwrapped(NamedTuple):
    colour: Float[Array, "s s 3"]  # the photo's colour, [0, 1]; light included
    weight: Float[Array, "s s *m"]  # visibility, [0, 1]
    normals: Float[Array, "s s 3"]  # unit, view frame


def texel_map(model: ShapeModel, size: int) -> TexelMap:
    """Rasterizes the chart of a shape model at `size` x `size` texels."""
    corners = jnp.concatenate([model.uv * size, jnp.full((model.uv.shape[0], 1), 100.0)], axis=1)
    faces = rasterize(corners, model.uv_faces, size, 1).faces[..., 0]
    found = jnp.maximum(faces, 0)
    centres = jnp.arange(size, dtype=jnp.float32) + 0.5
    x, y = jnp.meshgrid(centres, centres)
    a, b, c = jnp.moveaxis(corners[model.uv_faces[found]][..., :2], 2, 0)
    point = jnp.stack([x, y], axis=-1)

    def area(p: Array, q: Array, r: Array) -> Array:
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])

    whole = area(a, b, c)
    whole = jnp.where(jnp.abs(whole) < 1e-9, 1.0, whole)
    weights = jnp.stack([area(point, b, c), area(a, point, c), area(a, b, point)], axis=-1) / whole[..., None]
    return TexelMap(found, jnp.clip(weights, 0.0, 1.0), jnp.where(faces >= 0, 1.0, 0.0))


def at_texels(texels: TexelMap, faces: Int[Array, "f 3"], values: Float[Array, "v c"]) -> Float[Array, "s s c"]:
    """Vertex values interpolated at every texel."""
    return jnp.einsum("hwk,hwkc->hwc", texels.barycentric, values[faces[texels.faces]])


def bilinear(image: Float[Array, "h w c"], points: Float[Array, "*n 2"]) -> Float[Array, "*n c"]:
    """Bilinear lookup at pixel positions (x, y); positions outside take the border's value."""
    height, width = image.shape[:2]
    x = jnp.clip(points[..., 0] - 0.5, 0.0, width - 1.001)
    y = jnp.clip(points[..., 1] - 0.5, 0.0, height - 1.001)
    left, top = jnp.floor(x).astype(jnp.int32), jnp.floor(y).astype(jnp.int32)
    right, down = (x - left.astype(x.dtype))[..., None], (y - top.astype(y.dtype))[..., None]
    upper = image[top, left] * (1.0 - right) + image[top, left + 1] * right
    lower = image[top + 1, left] * (1.0 - right) + image[top + 1, left + 1] * right
    return upper * (1.0 - down) + lower * down


def sample(
    model: ShapeModel,
    texels: TexelMap,
    vertices: Float[Array, "v 3"],
    camera: Camera,
    image: Float[Array, "h h 3"],
    mask: Float[Array, "h h *m"],
    tolerance: float = 1.5,
) -> Unwrapped:
    """Reads the photo at every texel's projection.

    The weight falls with the angle between normal and viewing direction (0 beyond 80 degrees); it is 0 for texels more
    than `tolerance` millimetres behind the visible surface (eyeballs and mouth: 0.3), outside the image or where `mask`
    is 0 (several masks, last axis: as many weights). On a depth step the nearer of the neighbouring pixels decides:
    what lies just behind a lip or a lid is not seen.
    """
    size = image.shape[0]
    grey = jnp.full((2, 2, 3), 0.5)
    light = Light(jnp.array([0.0, 0.0, 1.0]), jnp.ones(3), jnp.zeros(3))
    depth = draw(model, vertices, grey, camera, light, size, background=0.5).depth
    depth = jnp.where(depth > 0, depth, 1e6)
    depth = -jax.lax.reduce_window(-depth, -jnp.inf, jax.lax.max, (3, 3), (1, 1), "SAME")
    points = at_texels(texels, model.faces, vertices).reshape(-1, 3)
    screen = project(camera, points, size).reshape(*texels.used.shape, 3)
    normals = at_texels(texels, model.faces, morphable.normals(vertices, model.faces))
    normals = normals / (jnp.linalg.norm(normals, axis=-1, keepdims=True) + 1e-8)
    turn = camera._replace(translation=jnp.zeros(3))
    flip = jnp.array([1.0, -1.0, -1.0])[None]
    normals = (to_camera(turn, normals.reshape(-1, 3)) * flip).reshape(normals.shape)
    rays = (to_camera(camera, points) * flip).reshape(normals.shape)
    cosine = -jnp.sum(normals * rays, axis=-1) / jnp.linalg.norm(rays, axis=-1)
    nearest = bilinear(depth[..., None], screen[..., :2])[..., 0]
    # A slanted surface is nearer at the next pixel; allow for its slope.
    slope = screen[..., 2] / (jnp.exp(camera.log_focal) * size) / jnp.maximum(cosine, 0.17)
    patch = at_texels(texels, model.faces, (model.regions.eyes + model.regions.mouth)[:, None])[..., 0]
    slack = jnp.where(patch > 0.01, 0.3 + slope, tolerance + 1.5 * slope)
    visible = screen[..., 2] < nearest + slack
    inside = jnp.all((screen[..., :2] > 1.0) & (screen[..., :2] < size - 1.0), axis=-1)
    facing = jnp.where(visible & inside, jnp.clip((cosine - 0.17) / 0.4, 0.0, 1.0) * texels.used, 0.0)
    weight = facing[..., None] * bilinear(mask.reshape(size, size, -1), screen[..., :2])
    weight = weight.reshape(*facing.shape, *mask.shape[2:])
    return Unwrapped(bilinear(image, screen[..., :2]), weight, normals)


def harmonics(normals: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 9"]:
    """The nine real spherical harmonics up to second order, unnormalised (Ramamoorthi and Hanrahan, 2001)."""
    x, y, z = np.moveaxis(normals, -1, 0)
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], axis=-1)


def fit_shading(
    colour: Float[np.ndarray, "s s 3"],
    weight: Float[np.ndarray, "s s"],
    normals: Float[np.ndarray, "s s 3"],
    reference: Float[np.ndarray, "s s 3"],
    rounds: int = 6,
) -> Float[np.ndarray, "s s 3"]:
    """The light on the face, up to its overall strength and tint: ``colour = albedo * shading``.

    Iteratively reweighted least squares of ``colour = reference * (harmonics . l)`` per channel; `reference` is the
    mean albedo, and texels that it does not explain (brows, beard, hair) lose their say. The shading is scaled to a
    weighted mean of 1 per channel, so that skin tone stays in the albedo; it is kept within [0.35, 2].
    """
    chosen = weight > 0.3
    basis = harmonics(normals)
    shading = np.ones_like(colour)
    if chosen.sum() < 200:
        return shading
    ridge = np.diag([0.0, 1, 1, 1, 3, 3, 3, 3, 3]) * 0.01
    for channel in range(3):
        design = basis[chosen] * reference[..., channel][chosen][:, None]
        target, trust = colour[..., channel][chosen], weight[chosen].copy()
        solution = np.zeros(9)
        for _ in range(rounds):
            weighted = design * trust[:, None]
            gram = weighted.T @ design
            solution = np.linalg.solve(gram + ridge * gram[0, 0], weighted.T @ target)
            residual = target - design @ solution
            scale = 1.4826 * np.median(np.abs(residual)) + 1e-3
            trust = weight[chosen] / (1.0 + (residual / (1.5 * scale)) ** 2)
        light = basis @ solution
        shading[..., channel] = light / np.average(light[chosen], weights=weight[chosen])
    return np.clip(shading, 0.35, 2.0).astype(np.float32)


def fill(values: Float[np.ndarray, "s s c"], weight: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "s s c"]:
    """Smooth completion by push-pull (Gortler et al. 1996): texels of weight 0 take averages of ever wider
    neighbourhoods, texels of weight 1 keep their value. `s` is a power of two."""
    if values.shape[0] == 1:
        return values
    total = weight[..., None]

    def halve(x: Float[np.ndarray, "s s c"]) -> Float[np.ndarray, "h h c"]:
        return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).mean((1, 3))

    coarse_weight = halve(total)
    coarse = halve(values * total) / np.maximum(coarse_weight, 1e-6)
    coarse = fill(coarse, np.minimum(4.0 * coarse_weight[..., 0], 1.0))
    wide = enlarge(coarse)
    return total * values + (1.0 - total) * wide


def enlarge(image: Float[np.ndarray, "s s c"]) -> Float[np.ndarray, "t t c"]:
    """Doubles the side by bilinear interpolation (weights 3/4 and 1/4)."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, here, after = (np.take(padded, range(i, i + image.shape[axis]), axis) for i in range(3))
        both = np.stack([0.25 * before + 0.75 * here, 0.75 * here + 0.25 * after], axis=axis + 1)
        shape = list(image.shape)
        shape[axis] *= 2
        image = both.reshape(shape)
    return image


def complete(
    albedo: Float[np.ndarray, "s s 3"], weight: Float[np.ndarray, "s s"], mean: Float[np.ndarray, "s s 3"]
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "s s"]]:
    """The whole map: unseen texels from the mirrored half (the chart is symmetric), the rest from the mean.

    The difference to the mean is what is mirrored and then continued smoothly, so that seams do not show. Returns the
    map and its weights, the mirrored part counting half.
    """
    ratio = np.log(np.clip(albedo, 0.02, 1.0)) - np.log(np.clip(mean, 0.02, 1.0))
    other, other_weight = ratio[:, ::-1], weight[:, ::-1]
    share = weight + (1.0 - weight) * other_weight
    mixed = (ratio * weight[..., None] + other * ((1.0 - weight) * other_weight)[..., None]) / np.maximum(share, 1e-6)[
        ..., None
    ]
    whole = np.clip(mean, 0.02, 1.0) * np.exp(fill(mixed, np.clip(share, 0.0, 1.0)))
    return np.clip(whole, 0.0, 1.0).astype(np.float32), (weight + 0.5 * (1.0 - weight) * other_weight).astype(
        np.float32
    )
