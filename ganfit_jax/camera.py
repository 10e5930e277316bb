"""Pinhole camera (paper: p_c): world points to pixels, and a first pose from 2D-3D landmarks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganfit_jax.types import Camera

NEAR = 1.0
"""Millimetres. What lies nearer to the camera plane, or behind it, is never drawn."""

_HIGHEST = jax.lax.Precision.HIGHEST  # accelerators would round 3 x 3 products to ten bits: a pixel


def _flip(points: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """FLIP = diag(1, -1, -1)."""
    return jnp.stack([points[..., 0], -points[..., 1], -points[..., 2]], -1)


def rotation_matrix(rotation: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Rotation matrix of a rotation vector (radians), smooth everywhere, zero included.

    Rodrigues: ``R = I + sin(t)/t K + (1 - cos t)/t^2 K^2`` with ``t = |rotation|``, ``K`` its cross-product matrix.
    """
    squared = jnp.sum(rotation**2)
    small = squared < 1e-4
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    first = jnp.where(small, 1 - squared / 6 + squared**2 / 120, jnp.sin(angle) / angle)
    half = jnp.where(small, 1 - squared / 24 + squared**2 / 1920, jnp.sin(angle / 2) / (angle / 2))
    x, y, z = rotation
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    square = rotation[:, None] * rotation[None] - squared * jnp.eye(3, dtype=rotation.dtype)
    return jnp.eye(3, dtype=rotation.dtype) + first * cross + 0.5 * half**2 * square


def rotation_vector(matrix: Float[Array, "3 3"]) -> Float[Array, "3"]:
    """Rotation vector (radians, length at most pi) of a rotation matrix: the inverse of `rotation_matrix`.

    By way of the quaternion, from the largest of its four components (Shepperd 1978), so that no angle is singular.
    """
    m = matrix
    diagonal = jnp.diagonal(m)
    four_squares = jnp.concatenate([1 + jnp.sum(diagonal, keepdims=True), 1 + 2 * diagonal - jnp.sum(diagonal)[None]])
    x, y, z = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    xy, xz, yz = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    w2, x2, y2, z2 = four_squares
    rows = jnp.stack([w2, x, y, z, x, x2, xy, xz, y, xy, y2, yz, z, xz, yz, z2]).reshape(4, 4)
    quaternion = rows[jnp.argmax(four_squares)]
    quaternion = quaternion / jnp.linalg.norm(quaternion)
    quaternion = jnp.where(quaternion[0] < 0, -quaternion, quaternion)
    sine = jnp.linalg.norm(quaternion[1:])
    tiny = sine < 1e-6
    scale = jnp.where(tiny, 2.0, 2 * jnp.arctan2(sine, quaternion[0]) / jnp.where(tiny, 1.0, sine))
    return scale * quaternion[1:]


def to_camera(camera: Camera, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """Points in the camera frame, mm: ``FLIP @ (R @ points) + translation``."""
    rotated = jnp.einsum("ij,nj->ni", rotation_matrix(camera.rotation), points, precision=_HIGHEST)
    return _flip(rotated) + camera.translation[None]


def project(camera: Camera, points: Float[Array, "n 3"], size: int) -> Float[Array, "n 3"]:
    """Screen points: x and y in pixels of an image with side `size`, z the depth in mm.

    ``x = f X / Z + size / 2`` with ``f = exp(log_focal) * size``. The depth is as it is; x and y of points nearer than
    `NEAR` are those of a point at that depth (finite, and meaningless: look at the depth).
    """
    points_camera = to_camera(camera, points)
    depth = points_camera[:, 2]
    focal = jnp.exp(camera.log_focal) * size
    xy = focal * points_camera[:, :2] / jnp.maximum(depth, NEAR)[:, None] + size / 2
    return jnp.concatenate([xy, depth[:, None]], axis=1)


def _nearest_rotation(matrix: Float[Array, "2 3"]) -> tuple[Float[Array, "3 3"], Float[Array, ""]]:
    """The rotation whose first two rows, scaled, are nearest to a 2 x 3 matrix; and that scale."""
    left, scales, right = jnp.linalg.svd(matrix, full_matrices=False)
    rows = jnp.matmul(left, right, precision=_HIGHEST)
    return jnp.concatenate([rows, jnp.cross(rows[0], rows[1])[None]]), jnp.mean(scales)


def initial_camera(
    points_world: Float[Array, "n 3"],
    points_image: Float[Array, "n 2"],
    weights: Float[Array, "n"],
    log_focal: Float[Array, ""],
    size: int,
) -> Camera:
    """Pose of a camera with known focal length from landmarks in mm and in pixels; weight 0 leaves a point out.

    Scaled-orthographic pose with perspective corrections (POSIT, DeMenthon and Davis, IJCV 1995), then a fixed number
    of damped Gauss-Newton steps on the weighted reprojection error. At least four points that are not coplanar are
    needed; no start value is, so profiles work.
    """
    weights = weights / jnp.maximum(jnp.sum(weights), 1e-12)
    focal = jnp.exp(log_focal) * size
    centre = jnp.sum(weights[:, None] * points_world, axis=0)
    offsets = points_world - centre[None]
    spread = jnp.sqrt(jnp.sum(weights[:, None] * offsets**2) + 1e-6)
    upright = (points_image - size / 2) * jnp.array([1.0, -1.0], points_image.dtype)[None]

    homogeneous = jnp.concatenate([offsets / spread, jnp.ones_like(weights)[:, None]], axis=1)
    weighted = weights[:, None] * homogeneous
    gram = jnp.matmul(weighted.T, homogeneous, precision=_HIGHEST) + 1e-5 * jnp.eye(4, dtype=offsets.dtype)
    rotation, scale, shift = jnp.eye(3, dtype=offsets.dtype), jnp.ones_like(focal), jnp.zeros_like(upright[0])
    correction = jnp.ones_like(weights)  # Z_i / Z of the centre
    for _ in range(4):
        target = jnp.matmul(weighted.T, upright * correction[:, None], precision=_HIGHEST)
        affine = jnp.linalg.solve(gram, target)
        rotation, scale = _nearest_rotation(affine[:3].T / spread)
        scale, shift = jnp.maximum(scale, 1e-6), affine[3]
        relative = jnp.matmul(offsets, rotation[2], precision=_HIGHEST) * scale / focal
        correction = jnp.maximum(1 - relative, 0.1)
    depth = focal / scale
    centre_camera = jnp.concatenate([shift * jnp.array([1.0, -1.0], shift.dtype) / scale, depth[None]])
    start = jnp.concatenate([rotation_vector(rotation), centre_camera / depth])

    def camera_of(pose):
        """Six well-scaled unknowns: rotation vector; the centre's place in units of the first depth."""
        turned = jnp.matmul(rotation_matrix(pose[:3]), centre, precision=_HIGHEST)
        return Camera(pose[:3], pose[3:] * depth - _flip(turned), log_focal)

    def residual(pose):
        projected = project(camera_of(pose), points_world, size)[:, :2]
        return (jnp.sqrt(weights)[:, None] * (projected - points_image) / focal).reshape(-1)

    def step(state, _):
        pose, damping = state
        error = residual(pose)
        jacobian = jax.jacfwd(residual)(pose)
        normal = jnp.matmul(jacobian.T, jacobian, precision=_HIGHEST)
        ridge = jnp.diag(damping * jnp.diagonal(normal) + 1e-12)
        move = jnp.linalg.solve(normal + ridge, jnp.matmul(jacobian.T, error, precision=_HIGHEST))
        better = jnp.sum(residual(pose - move) ** 2) < jnp.sum(error**2)
        return (jnp.where(better, pose - move, pose), jnp.where(better, damping * 0.2, damping * 5)), None

    (pose, _), _ = jax.lax.scan(step, (start, jnp.full_like(focal, 1e-3)), None, length=15)
    return camera_of(pose)
