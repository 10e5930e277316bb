"""R(S, T, p_c, p_l): a textured face to an image; deferred shading over hard visibility with soft silhouettes."""

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
    background: Float[Array, "*hw 3"] | float = 0.0,
) -> Rendering:
    """A rendering of side `size` of world vertices (mm) with an albedo map (sRGB, [0, 1]) over a background.

    `background` is one grey, one colour, or an image. Colour is ``albedo * (ambient + colour max(0, <n, d>))`` with
    interpolated vertex normals, not clipped: a strong light gives more than 1. Gradients reach vertices, albedo, camera,
    light and background, at silhouettes too; they never go through visibility itself.
    """
    screen = camera.project(view_camera, vertices, size)
    rotation = camera.rotation_matrix(view_camera.rotation)
    normals = jnp.matmul(morphable.normals(vertices, model.faces), rotation.T, precision=lax.Precision.HIGHEST)
    faces = raster.rasterize(screen, model.faces, size).faces[..., 0]
    covered = faces >= 0

    corners = jnp.concatenate([screen, normals], axis=1).at[model.faces].get(mode="promise_in_bounds")
    corners = corners.reshape(-1, 18).at[jnp.where(covered, faces, corners.shape[0])].get(mode="fill", fill_value=0.0)
    corners = corners.reshape(size, size, 3, 6)
    nowhere = jnp.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], screen.dtype)
    weights, depth = shading.barycentrics(jnp.where(covered[..., None, None], corners[..., :3], nowhere[None, None]))
    normal = jnp.sum(weights[..., None] * corners[..., 3:], axis=2)
    normal = jnp.where(covered[..., None], shading.normalise(normal), 0.0)
    uv_corners = lax.stop_gradient(model.uv[model.uv_faces].reshape(-1, 6)[jnp.maximum(faces, 0)])
    uv = jnp.sum(weights[..., None] * uv_corners.reshape(size, size, 3, 2), axis=2)

    colour = shading.lookup(albedo, jnp.where(covered[..., None], uv, 0.5)) * shading.lambert(normal, light)
    behind = jnp.broadcast_to(jnp.asarray(background, colour.dtype), colour.shape)
    hard = jnp.where(covered[..., None], colour, behind)
    depth = jnp.where(covered, depth, 0.0)
    across = raster.neighbours(model.faces) if model.neighbours is None else model.neighbours
    edges = raster.silhouettes(screen, model.faces, across, depth)
    coverage = covered.astype(colour.dtype)[..., None]
    soft = shading.soften(jnp.concatenate([hard, coverage], axis=-1), screen, model.faces, edges)

    points = morphable.landmarks(model, vertices, view_camera.rotation)
    landmarks = camera.project(view_camera, points, size)[:, :2]
    return Rendering(soft[..., :3], soft[..., 3], depth, normal, landmarks)


def render(
    models: Models,
    identity: Identity,
    view: View,
    size: int,
    background: Float[Array, "*hw 3"] | float = 0.0,
) -> Rendering:
    """`draw` of what the models make of an identity in a view: ``R(S(p_s, p_e), T(p_t), p_c, p_l)``."""
    vertices = morphable.vertices(models.shape, identity.shape, view.expression)
    albedo = texture.decode(models.texture, identity.texture)
    return draw(models.shape, vertices, albedo, view.camera, view.light, size, background)
