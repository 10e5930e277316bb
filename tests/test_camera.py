import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ganfit_jax import camera as cam
from ganfit_jax.types import Camera

SIZE = 256


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 0.02, 1.0, 3.0])
def test_rotation_matrix_equals_scipy_and_inverts(angle):
    axis = np.array([0.6, -0.48, 0.64])
    matrix = cam.rotation_matrix(jnp.asarray(angle * axis, jnp.float32))
    np.testing.assert_allclose(matrix, Rotation.from_rotvec(angle * axis).as_matrix(), atol=2e-6)
    np.testing.assert_allclose(cam.rotation_vector(matrix), angle * axis, atol=5e-6)


def test_rotation_vector_near_pi():
    vector = np.array([0.0, np.pi - 1e-3, 0.0])
    matrix = jnp.asarray(Rotation.from_rotvec(vector).as_matrix(), jnp.float32)
    np.testing.assert_allclose(cam.rotation_vector(matrix), vector, atol=1e-4)


def test_rotation_gradient_at_zero_is_the_generators():
    jacobian = jax.jacobian(cam.rotation_matrix)(jnp.zeros(3))
    for axis in range(3):
        unit = np.eye(3)[axis]
        np.testing.assert_allclose(jacobian[:, :, axis] @ np.array([1.0, 2.0, 3.0]), np.cross(unit, [1.0, 2.0, 3.0]))


def test_projection_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 60, (20, 3))
    vector, translation, log_focal = np.array([0.1, -0.5, 0.2]), np.array([5.0, -8.0, 1100.0]), 1.2
    camera = Camera(*(jnp.asarray(x, jnp.float32) for x in (vector, translation, log_focal)))
    screen = cam.project(camera, jnp.asarray(points, jnp.float32), SIZE)
    rotation = Rotation.from_rotvec(vector).as_matrix()
    for point, found in zip(points, screen, strict=True):
        x, y, z = np.diag([1.0, -1.0, -1.0]) @ (rotation @ point) + translation
        focal = np.exp(log_focal) * SIZE
        np.testing.assert_allclose(found, [focal * x / z + 128, focal * y / z + 128, z], rtol=2e-5)


def test_directions_of_the_frames():
    camera = Camera(jnp.zeros(3), jnp.array([0.0, 0.0, 1000.0]), jnp.array(1.0))
    left, up, forward = cam.project(camera, 10 * jnp.eye(3), SIZE)
    assert left[0] > 128  # the subject's left is on the right of the image
    assert up[1] < 128
    assert forward[2] < 1000


def test_points_behind_the_camera_are_finite():
    camera = Camera(jnp.zeros(3), jnp.array([0.0, 0.0, -5.0]), jnp.array(1.0))
    gradient = jax.grad(lambda p: jnp.sum(cam.project(camera, p, SIZE)))(jnp.ones((2, 3)))
    assert np.isfinite(gradient).all()


def _landmarks(rng):
    """51 points about as a face has them: a curved shell 90 mm wide, 100 mm high, with a nose."""
    x, y = rng.uniform(-45, 45, 51), rng.uniform(-70, 30, 51)
    z = -(x**2) / 60 - (y + 20) ** 2 / 200 + 30 * np.exp(-(x**2 + (y + 40) ** 2) / 300)
    return np.stack([x, y, z], 1)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_initial_camera_recovers_random_poses(noise):
    """Noise in units of the face's size in the image (about 100 px here)."""
    rng = np.random.default_rng(1)
    solve = jax.jit(cam.initial_camera, static_argnames="size")
    angles, shifts = [], []
    for trial in range(60):
        points = _landmarks(rng)
        yaw = [-70, 70][trial % 2] if trial < 8 else rng.uniform(-70, 70)
        vector = Rotation.from_euler("ZXY", [rng.uniform(-40, 40), rng.uniform(-30, 30), yaw], degrees=True).as_rotvec()
        translation = np.array([rng.uniform(-40, 40), rng.uniform(-40, 40), rng.uniform(500, 1500)])
        truth = Camera(*(jnp.asarray(x, jnp.float32) for x in (vector, translation, np.log(translation[2] / 300))))
        image = cam.project(truth, jnp.asarray(points, jnp.float32), SIZE)[:, :2]
        image = image + noise * 100 * rng.normal(size=image.shape).astype(np.float32)
        weights = np.ones(51, np.float32)
        weights[:3] = 0.0
        image = image.at[:3].set(rng.uniform(0, SIZE, (3, 2)))  # outliers of weight zero
        found = solve(jnp.asarray(points, jnp.float32), image, jnp.asarray(weights), truth.log_focal, SIZE)
        error = Rotation.from_rotvec(vector).inv() * Rotation.from_rotvec(np.array(found.rotation, np.float64))
        angles.append(np.degrees(error.magnitude()))
        shifts.append(np.abs(found.translation - translation) / translation[2])
    assert np.max(angles) < (0.05 if noise == 0 else 6), np.sort(angles)[-5:]
    assert np.median(angles) < (0.02 if noise == 0 else 2), np.median(angles)
    assert np.max(shifts) < (1e-3 if noise == 0 else 0.06), np.sort(np.max(shifts, 1))[-5:]


def test_initial_camera_is_finite_without_points():
    found = cam.initial_camera(jnp.zeros((51, 3)), jnp.zeros((51, 2)), jnp.zeros(51), jnp.array(1.0), SIZE)
    assert all(np.isfinite(x).all() for x in found)
