"""The linear 3D morphable model (paper: S(p_s, p_e)): vertices, normals, landmarks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ganfit_jax.camera import rotation_matrix
from ganfit_jax.types import ShapeModel


def vertices(model: ShapeModel, shape: Float[Array, "n_s"], expression: Float[Array, "n_e"]) -> Float[Array, "v 3"]:
    """S(p_s, p_e) = mean + identity_basis . p_s + expression_basis . p_e, in millimetres (GANFIT, eq. 1).

    shape in standard deviations, expression in blendshape weights, [0, 1].
    """
    # One row a component: on a CPU, XLA is twenty times slower with the bases in their own shape.
    identity = jnp.dot(shape, model.identity_basis.reshape(shape.shape[0], -1))
    moved = jnp.dot(expression, model.expression_basis.reshape(expression.shape[0], -1))
    return model.mean + (identity + moved).reshape(model.mean.shape)


def normals(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "v 3"]:
    """Unit vertex normals, pointing out: the normalised sum of the adjacent faces' normals, weighted by area.

    A vertex without area around it gets zero. The sum is a scatter over the corners of the faces: on a CPU it takes
    a third of the time of a gather over a table of adjacent faces (0.7 against 2.4 ms for 28,000 faces).
    """
    first, second, third = (vertices[faces[:, i]] for i in range(3))
    face = jnp.cross(second - first, third - first)
    total = jnp.zeros_like(vertices)
    for i in range(3):
        total = total.at[faces[:, i]].add(face)
    return total / jnp.sqrt(jnp.sum(total**2, axis=1, keepdims=True) + 1e-12)


def landmarks(model: ShapeModel, vertices: Float[Array, "v 3"], rotation: Float[Array, "3"]) -> Float[Array, "68 3"]:
    """The 68 iBUG points on the surface, in millimetres; the 17 jaw points lie on the contour seen at this rotation.

    A jaw point is the candidate that reaches farthest out of the face on screen (`contour`). The choice carries no
    gradient, the chosen position does. Inner points are fixed on the surface.
    """
    fixed = _points(vertices, model.faces[model.landmark_faces], model.landmark_barycentric)
    candidates = _points(vertices, model.faces[model.contour_faces], model.contour_barycentric)
    choice = contour(fixed[:17], candidates, rotation)
    jaw = jnp.take_along_axis(candidates, choice[:, None, None], axis=1)[:, 0]
    return jnp.concatenate([jaw, fixed[17:]])


def contour(
    frontal: Float[Array, "17 3"], candidates: Float[Array, "17 c 3"], rotation: Float[Array, "3"]
) -> Int[Array, "17"]:
    """Which candidate of each jaw point lies on the visible contour at this rotation; no gradient.

    argmax_c <R x_c, R o> over the screen axes, where o is the outward normal of the frontal jaw line (`frontal`), as
    if seen from far away.
    """
    frontal, candidates, rotation = jax.lax.stop_gradient((frontal, candidates, rotation))
    along = jnp.concatenate([frontal[1:], frontal[-1:]]) - jnp.concatenate([frontal[:1], frontal[:-1]])
    outward = jnp.stack([along[:, 1], -along[:, 0], jnp.zeros_like(along[:, 0])], axis=1)
    on_screen = rotation_matrix(rotation)[:2]
    reach = jnp.einsum("kcd,ed,ef,kf->kc", candidates, on_screen, on_screen, outward)
    return jnp.argmax(reach, axis=1)


def fixed_jaw(model: ShapeModel) -> ShapeModel:
    """The model with jaw points that stay on the frontal contour: each has no candidate but its frontal point."""
    faces, barycentric = model.landmark_faces[:17, None], model.landmark_barycentric[:17, None]
    return model._replace(contour_faces=faces, contour_barycentric=barycentric)


def _points(
    vertices: Float[Array, "v 3"], corners: Int[Array, "... 3"], barycentric: Float[Array, "... 3"]
) -> Float[Array, "... 3"]:
    return jnp.sum(vertices[corners] * barycentric[..., None], axis=-2)
