"""Vertices, normals and landmarks of the shape model against plain loops and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, camera, morphable


@pytest.fixture(scope="module")
def model():
    return assets.load_shape()[0]


def test_vertices_are_the_linear_model(model):
    rng = np.random.default_rng(0)
    shape, expression = rng.normal(size=len(model.identity_basis)), rng.uniform(size=len(model.expression_basis))
    found = np.asarray(morphable.vertices(model, jnp.float32(shape), jnp.float32(expression)))
    for v in rng.choice(len(found), 50, replace=False):
        wanted = np.asarray(model.mean[v], float)
        for weight, mode in zip(shape, np.asarray(model.identity_basis[:, v]), strict=True):
            wanted = wanted + weight * mode
        for weight, unit in zip(expression, np.asarray(model.expression_basis[:, v]), strict=True):
            wanted = wanted + weight * unit
        assert found[v] == pytest.approx(wanted, abs=1e-3)


def test_normals_equal_a_loop_over_faces(model):
    vertices, faces = np.asarray(model.mean, float), np.asarray(model.faces)
    wanted = np.zeros_like(vertices)
    for a, b, c in faces:
        normal = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
        for v in (a, b, c):
            wanted[v] += normal
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = np.asarray(morphable.normals(model.mean, model.faces))
    assert found == pytest.approx(wanted, abs=2e-4)


def test_normals_of_a_sphere_point_out_and_unused_vertices_get_zero():
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=3, radius=2.0)
    points = np.concatenate([ball.vertices, [[9.0, 9.0, 9.0]]])
    found = np.asarray(morphable.normals(jnp.float32(points), jnp.int32(ball.faces)))
    assert found[:-1] == pytest.approx(points[:-1] / 2.0, abs=0.02)
    assert (found[-1] == 0.0).all()


def test_gradient_of_normals_agrees_with_finite_differences():
    rng = np.random.default_rng(1)
    points, pull = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    faces = jnp.int32(np.stack([rng.permutation(12)[:3] for _ in range(20)]))

    def value(x):
        return jnp.sum(morphable.normals(x, faces) * jnp.asarray(pull, x.dtype))

    with jax.enable_x64(True):
        x = jnp.asarray(points, jnp.float64)
        gradient = np.asarray(jax.grad(value)(x))
        step = 1e-6
        for i, k in ((0, 0), (3, 1), (7, 2), (11, 0)):
            move = np.zeros_like(points)
            move[i, k] = step
            slope = (value(x + move) - value(x - move)) / (2 * step)
            assert gradient[i, k] == pytest.approx(float(slope), rel=1e-4, abs=1e-6)


def test_landmarks_lie_where_their_barycentrics_say(model):
    found = np.asarray(morphable.landmarks(model, model.mean, jnp.zeros(3)))
    vertices, faces = np.asarray(model.mean), np.asarray(model.faces)
    for k in range(17, 68):
        weights = np.asarray(model.landmark_barycentric[k])
        wanted = sum(w * vertices[v] for w, v in zip(weights, faces[model.landmark_faces[k]], strict=True))
        assert found[k] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("yaw", [-0.6, -0.3, 0.3, 0.6])
def test_the_jaw_line_follows_the_visible_contour(model, yaw):
    """On the far side the jaw points hug the silhouette: hardly any skin of the face projects beyond them."""
    rotation = jnp.float32([0.0, yaw, 0.0])
    turn = np.asarray(camera.rotation_matrix(rotation))
    moving = np.asarray(morphable.landmarks(model, model.mean, rotation)) @ turn.T
    still = np.asarray(morphable.landmarks(model, model.mean, jnp.zeros(3))) @ turn.T
    vertices = np.asarray(model.mean) @ turn.T
    side = 1.0 if yaw > 0 else -1.0  # a turn about +y moves the face to +x: the subject's left is far
    far = [k for k in range(2, 6)] if side < 0 else [k for k in range(11, 15)]
    for k in far:
        level = np.abs(vertices[:, 1] - moving[k, 1]) < 3.0
        face = level & (np.asarray(model.regions.face) > 0.5)
        beyond = side * vertices[face, 0].max() if side > 0 else -vertices[face, 0].min()
        assert beyond - side * moving[k, 0] < 4.0
        assert side * (moving[k, 0] - still[k, 0]) > -1e-3


def test_the_choice_carries_no_gradient_but_the_positions_do(model):
    rotation = jnp.float32([0.1, 0.3, 0.0])

    def jaw(vertices, rotation):
        return jnp.sum(morphable.landmarks(model, vertices, rotation)[:17])

    to_vertices, to_rotation = jax.grad(jaw, argnums=(0, 1))(model.mean, rotation)
    assert float(jnp.sum(to_vertices)) == pytest.approx(51.0, abs=1e-2)
    assert (np.asarray(to_rotation) == 0.0).all()


def test_landmarks_are_mirror_symmetric_and_in_order(model):
    points = np.asarray(morphable.landmarks(model, model.mean, jnp.zeros(3)))
    pairs = [(36, 45), (39, 42), (48, 54), (31, 35), (17, 26), (0, 16), (4, 12), (60, 64)]
    for right, left in pairs:
        assert points[right] * [-1, 1, 1] == pytest.approx(points[left], abs=0.02)
        assert points[right, 0] < 0
    assert (np.diff(points[:9, 0]) > 0).all() and (np.diff(points[:9, 1]) < 0).all()
    assert (np.diff(points[27:31, 1]) < 0).all() and points[30, 2] == points[:, 2].max()
    assert 55 < np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0)) < 70


def test_a_fixed_jaw_stays_where_it_is_seen_from_the_front(model):
    rotation = jnp.float32([0.0, 0.5, 0.0])
    still = np.asarray(morphable.landmarks(morphable.fixed_jaw(model), model.mean, rotation))
    weights, vertices, faces = (np.asarray(x) for x in (model.landmark_barycentric, model.mean, model.faces))
    for k in range(17):
        wanted = sum(w * vertices[v] for w, v in zip(weights[k], faces[model.landmark_faces[k]], strict=True))
        assert still[k] == pytest.approx(wanted, abs=1e-3)
    moving = np.asarray(morphable.landmarks(model, model.mean, rotation))
    assert np.abs(moving[:17] - still[:17]).max() > 3.0
    assert moving[17:] == pytest.approx(still[17:])
