"""R(S, T, p_c, p_l): a textured face to an image; deferred shading over hard visibility with soft silhouettes."""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ganfit_jax import camera, morphable, raster, shading, texture
from ganfit_jax.types import Camera, Identity, Light, Models, Rendering, ShapeModel, View


def draw(
    model: ShapeModel,
    vertices: Float[Array, "v 3"],
    albedo: Float[Array, "s s 3"],
    view_camera: Camera,
    light: Light,
    size: int,
    background: Float[Array, "*hw 3"] | Float[Array, ""] | float = 0.0,
) -> Rendering:
    """A rendering of side `size` of world vertices (mm) with an albedo map (sRGB, [0, 1]) over a background.

    `background` is one grey, one colour, or an image. Colour is ``albedo * (ambient + colour max(0, <n, d>))`` with
    interpolated vertex normals, not clipped: a strong light gives more than 1. Gradients reach vertices, albedo,
    camera, light and background, at silhouettes too; they never go through visibility itself.
    Faces seen from inside are not drawn.
    """
    screen = camera.project(view_camera, vertices, size)
    rotation = camera.rotation_matrix(view_camera.rotation)
    normals = jnp.matmul(morphable.normals(vertices, model.faces), rotation.T, precision=lax.Precision.HIGHEST)
    faces = raster.rasterize(screen, model.faces, size, cull=True).faces[..., 0]
    covered = faces >= 0

    once = partial(raster.once, faces=model.faces)
    per_vertex = once(jnp.concatenate([screen, normals], axis=1))
    per_face = once(per_vertex.at[model.faces].get(mode="promise_in_bounds").reshape(-1, 18))
    index = jnp.where(covered, faces, model.faces.shape[0]).reshape(-1)
    corners = once(shading.planes(shading.take(per_face, index), size))
    x, y, z = (corners[axis::6] for axis in range(3))
    weights, depth = once(shading.barycentrics(x, y, [jnp.where(covered, plane, 1.0) for plane in z]))
    normal = once([shading.interpolate(weights, corners[axis::6]) for axis in range(3, 6)])
    normal = once(shading.normalise(normal))
    per_face = once(lax.stop_gradient(model.uv[model.uv_faces].reshape(-1, 6)))
    uv_corners = shading.planes(shading.take(per_face, index), size)
    u, v = once([shading.interpolate(weights, uv_corners[axis::2]) for axis in range(2)])

    shades, texels = once((shading.lambert(normal, light), shading.lookup(albedo, u, v)))
    behind = jnp.broadcast_to(jnp.asarray(background, screen.dtype), (size, size, 3))
    colour = [
        jnp.where(covered, texel * shade, behind[..., i])
        for i, (texel, shade) in enumerate(zip(texels, shades, strict=True))
    ]
    depth = jnp.where(covered, depth, 0.0)
    across = raster.neighbours(model.faces) if model.neighbours is None else model.neighbours
    edges = raster.silhouettes(screen, model.faces, across, depth)
    soft = shading.soften([*colour, covered.astype(screen.dtype)], screen, model.faces, edges)

    points = morphable.landmarks(model, vertices, view_camera.rotation)
    landmarks = camera.project(view_camera, points, size)[:, :2]
    return Rendering(soft[..., :3], soft[..., 3], depth, jnp.stack(normal, axis=-1), landmarks)


def render(
    models: Models,
    identity: Identity,
    view: View,
    size: int,
    background: Float[Array, "*hw 3"] | Float[Array, ""] | float = 0.0,
) -> Rendering:
    """`draw` of what the models make of an identity in a view: ``R(S(p_s, p_e), T(p_t), p_c, p_l)``."""
    vertices = morphable.vertices(models.shape, identity.shape, view.expression)
    albedo = texture.decode(models.texture, identity.texture)
    return draw(models.shape, vertices, albedo, view.camera, view.light, size, background)
