import jax
import jax.numpy as jnp
import numpy as np

from ganfit_jax import shading
from ganfit_jax.types import Light


def test_barycentrics_equal_a_ray_cast():
    """A triangle in space, projected; each pixel's ray is cut with its plane."""
    rng = np.random.default_rng(0)
    size, focal = 16, 40.0
    points = np.array([[-300.0, -280, 900], [420, -150, 1400], [-60, 500, 700]]) + rng.normal(0, 5, (3, 3))
    screen = np.concatenate([focal * points[:, :2] / points[:, 2:] + size / 2, points[:, 2:]], axis=1)
    corners = [[jnp.full((size, size), screen[i, axis], jnp.float32) for i in range(3)] for axis in range(3)]
    weights, depth = shading.barycentrics(*corners)
    for row, column in [(3, 4), (8, 8), (15, 0), (0, 15)]:
        ray = np.array([(column + 0.5 - size / 2) / focal, (row + 0.5 - size / 2) / focal, 1.0])
        solved = np.linalg.solve(points.T, ray)  # weights up to the depth
        expected = solved / solved.sum()
        np.testing.assert_allclose([w[row, column] for w in weights], expected, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(depth[row, column], 1 / solved.sum(), rtol=1e-4)


def test_lookup_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    texture = rng.random((5, 5, 3)).astype(np.float32)
    u, v = rng.uniform(-0.1, 1.1, (2, 8, 8)).astype(np.float32)
    found = np.stack(shading.lookup(jnp.asarray(texture), jnp.asarray(u), jnp.asarray(v)), axis=-1)
    for row in range(8):
        for column in range(8):
            x = min(max(u[row, column] * 5 - 0.5, 0), 4)
            y = min(max(v[row, column] * 5 - 0.5, 0), 4)
            left, top = min(int(x), 3), min(int(y), 3)
            upper = texture[top, left] * (1 - x + left) + texture[top, left + 1] * (x - left)
            lower = texture[top + 1, left] * (1 - x + left) + texture[top + 1, left + 1] * (x - left)
            np.testing.assert_allclose(found[row, column], upper * (1 - y + top) + lower * (y - top), atol=1e-5)


def test_lookup_of_a_ramp_is_the_ramp():
    centres = (np.arange(8) + 0.5) / 8
    ramp = np.broadcast_to(np.stack(np.meshgrid(centres, centres), -1), (8, 8, 2))
    u, v = np.random.default_rng(2).uniform(0.1, 0.9, (2, 4, 4)).astype(np.float32)
    found = shading.lookup(jnp.asarray(ramp, jnp.float32), jnp.asarray(u), jnp.asarray(v))
    np.testing.assert_allclose(found, [u, v], atol=1e-6)


def test_lambert_by_hand():
    light = Light(jnp.array([0.0, 0.0, 2.0]), jnp.array([0.5, 0.6, 0.7]), jnp.array([0.1, 0.2, 0.3]))
    normal = [jnp.array([[0.0, 0.6, 0.0]]), jnp.array([[0.0, 0.0, 0.6]]), jnp.array([[1.0, 0.8, -0.8]])]
    shade = np.stack(shading.lambert(normal, light), -1)
    np.testing.assert_allclose(shade[0], [[0.6, 0.8, 1.0], [0.5, 0.68, 0.86], [0.1, 0.2, 0.3]], atol=1e-5)


def test_a_zero_normal_has_a_finite_gradient():
    gradient = jax.grad(lambda v: jnp.sum(jnp.stack(shading.normalise(list(v)))))(jnp.zeros((3, 2, 2)))
    assert np.isfinite(gradient).all()


def test_soften_fades_over_one_pixel():
    """A vertical edge moved through pixel 4: its share follows a straight ramp, with slope 1 per pixel."""
    size, faces = 8, jnp.array([[0, 1, 2]], jnp.int32)

    def row(x):
        screen = jnp.array([[-20.0, 0.0, 900.0], [0.0, 30.0, 900.0], [0.0, -30.0, 900.0]])
        screen = screen.at[1:, 0].set(x)
        column = jnp.arange(size, dtype=jnp.float32) + 0.5
        inside = (column < jax.lax.stop_gradient(x)).astype(jnp.float32)
        near = jnp.abs(column - jax.lax.stop_gradient(x)) < 0.5
        layers = [jnp.broadcast_to(inside, (size, size))]
        edges = jnp.broadcast_to(jnp.where(near, 0, -1).astype(jnp.int32), (size, size))
        return shading.soften(layers, screen, faces, edges)[3, :, 0]

    for x in (4.1, 4.3, 4.49, 4.51, 4.7, 4.9):
        expected = np.clip(x - np.arange(size), 0, 1)
        np.testing.assert_allclose(row(x), expected, atol=1e-5)
        slope = jax.jacobian(row)(x)
        np.testing.assert_allclose(slope, (np.arange(size) == 4).astype(float), atol=1e-4)
