"""The paper's equations against plain numpy loops, on a face of 64 vertices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import energy, morphable, texture
from ganfit_jax.camera import project
from ganfit_jax.config import SecondRender
from ganfit_jax.fit import as_arrays
from ganfit_jax.recognition import aligned_chip, features
from ganfit_jax.render import draw
from ganfit_jax.types import (
    Camera,
    Features,
    Identity,
    Light,
    LinearTexture,
    Models,
    Observation,
    Params,
    Regions,
    ShapeModel,
    View,
)

RNG = np.random.default_rng(0)
ROWS, N_S, N_E, N_T, SIZE = 8, 4, 3, 5, 32
STATIC = energy.Static(SIZE, 24)
compiled_draw = jax.jit(partial(draw, background=0.5), static_argnames="size")


def f32(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def models(tiny_recogniser):
    """A bulge of 160 mm with random modes; its 68 landmarks lie anywhere on it."""
    y, x = np.mgrid[:ROWS, :ROWS] / (ROWS - 1) * 2 - 1
    mean = np.stack([80 * x, -80 * y, 40 - 30 * (x**2 + y**2)], -1).reshape(-1, 3)
    corner = np.add.outer(ROWS * np.arange(ROWS - 1), np.arange(ROWS - 1)).ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + ROWS, corner + 1], 1), np.stack([corner + 1, corner + ROWS, corner + ROWS + 1], 1)]
    )
    weights = RNG.dirichlet(np.ones(3), size=(68 + 17 * 2))
    none = jnp.zeros(len(mean))
    shape = ShapeModel(
        mean=jnp.float32(mean),
        identity_basis=f32(N_S, len(mean), 3, scale=2.0),
        expression_basis=f32(N_E, len(mean), 3, scale=2.0),
        faces=jnp.asarray(faces),
        uv=jnp.float32(np.stack([x, y], -1).reshape(-1, 2) / 2 + 0.5),
        uv_faces=jnp.asarray(faces),
        landmark_faces=jnp.asarray(RNG.integers(len(faces), size=68)),
        landmark_barycentric=jnp.float32(weights[:68]),
        contour_faces=jnp.asarray(RNG.integers(len(faces), size=(17, 2))),
        contour_barycentric=jnp.float32(weights[68:].reshape(17, 2, 3)),
        regions=Regions(none, none, none, none, none),
    )
    linear = LinearTexture(jnp.asarray(RNG.uniform(0.2, 0.8, (6, 6, 3)), jnp.float32), f32(N_T, 6, 6, 3, scale=0.1))
    return Models(shape, linear, tiny_recogniser, jnp.asarray([1.0, 8.0, 2.0]))


@pytest.fixture(scope="module")
def params():
    cameras = Camera(
        f32(2, 3, scale=0.1), jnp.array([[3.0, -5.0, 900.0], [0.0, 8.0, 1000.0]]), jnp.log(jnp.array([4.0, 4.5]))
    )
    lights = Light(
        jnp.array([[0.3, 0.2, 1.0], [-0.5, 0.1, 0.8]]), 0.5 + f32(2, 3, scale=0.1), 0.6 + f32(2, 3, scale=0.1)
    )
    return Params(Identity(f32(N_S), f32(N_T)), View(jnp.abs(f32(2, N_E, scale=0.3)), cameras, lights))


@pytest.fixture(scope="module")
def observations(models):
    chips = jnp.asarray(RNG.uniform(size=(2, 32, 32, 3)), jnp.float32)
    return Observation(
        image=jnp.asarray(RNG.uniform(size=(2, SIZE, SIZE, 3)), jnp.float32),
        landmarks=16 + f32(2, 68, 2, scale=6.0),
        confidence=jnp.asarray(RNG.uniform(size=(2, 68)), jnp.float32),
        mask=jnp.asarray(RNG.uniform(size=(2, SIZE, SIZE)), jnp.float32),
        photo_from_window=jnp.stack([jnp.eye(2, 3)] * 2),
        features=features(models.recogniser, chips),
        weight=jnp.array([1.0, 0.5]),
    )


def loops_shape(model, shape, expression):
    """S(p_s, p_e) = m_s + U_s p_s + U_e p_e."""
    model = jax.tree.map(np.asarray, model)
    found = model.mean.astype(float)
    for v in range(len(found)):
        for axis in range(3):
            for k in range(N_S):
                found[v, axis] += float(model.identity_basis[k, v, axis] * shape[k])
            for k in range(N_E):
                found[v, axis] += float(model.expression_basis[k, v, axis] * expression[k])
    return found


def loops_rotation(vector):
    """The matrix exponential of the cross-product matrix, by its series."""
    x, y, z = np.asarray(vector, float)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    total, power = np.eye(3), np.eye(3)
    for n in range(1, 20):
        power = power @ cross / n
        total = total + power
    return total


def loops_project(camera, points, size):
    """x = f X / Z + size / 2 with FLIP (R X) + t."""
    rotation, found = loops_rotation(camera.rotation), []
    for point in np.asarray(points, float):
        turned = rotation @ point * [1, -1, -1] + np.asarray(camera.translation, float)
        focal = np.exp(float(camera.log_focal)) * size
        found.append([focal * turned[0] / turned[2] + size / 2, focal * turned[1] / turned[2] + size / 2, turned[2]])
    return np.array(found)


def loops_landmarks(model, vertices, rotation):
    """Points on the surface; a jaw point is the candidate that lies farthest out on the screen."""

    model = jax.tree.map(np.asarray, model)

    def point(face, weights):
        return sum(float(w) * vertices[int(v)] for v, w in zip(model.faces[int(face)], weights, strict=True))

    found = [point(f, w) for f, w in zip(model.landmark_faces, model.landmark_barycentric, strict=True)]
    screen, jaw = loops_rotation(rotation)[:2], []
    for k in range(17):
        along = found[min(k + 1, 16)] - found[max(k - 1, 0)]
        outward = screen @ np.array([along[1], -along[0], 0])
        candidates = [point(f, w) for f, w in zip(model.contour_faces[k], model.contour_barycentric[k], strict=True)]
        jaw.append(max(candidates, key=lambda c: (screen @ c) @ outward))
    return np.array(jaw + found[17:])


def view_of(params, n):
    return jax.tree.map(lambda x: x[n], params.views)


def test_shape_equation(models, params):
    view = view_of(params, 0)
    found = morphable.vertices(models.shape, params.identity.shape, view.expression)
    assert found == pytest.approx(loops_shape(models.shape, params.identity.shape, view.expression), abs=1e-3)


def test_texture_equation(models, params):
    found = texture.decode(models.texture, params.identity.texture)
    for row in range(6):
        for column in range(6):
            for channel in range(3):
                value = float(models.texture.mean[row, column, channel])
                for k in range(N_T):
                    value += float(models.texture.basis[k, row, column, channel] * params.identity.texture[k])
                assert found[row, column, channel] == pytest.approx(min(max(value, 0), 1), abs=1e-5)


def test_camera_equation(models, params):
    camera = view_of(params, 1).camera
    expected = loops_project(camera, models.shape.mean, SIZE)
    assert project(camera, models.shape.mean, SIZE) == pytest.approx(expected, abs=2e-3)


def loops_energy(models, params, observations, weights, key):
    """E(p) = sum_k lambda_k L_k(p). The renders and the network's features are given; all else is loops."""
    share = np.asarray(observations.weight, float) / float(observations.weight.sum())
    terms = dict.fromkeys(weights, 0.0)
    albedo = texture.decode(models.texture, params.identity.texture)

    def rendered(view, size):
        vertices = loops_shape(models.shape, params.identity.shape, view.expression)
        drawn = compiled_draw(models.shape, jnp.float32(vertices), albedo, view.camera, view.light, size=size)
        points = loops_landmarks(models.shape, vertices, view.camera.rotation)
        marks = loops_project(view.camera, points, size)[:, :2]
        chip = aligned_chip(models.recogniser.spec, drawn.image, jnp.float32(marks))
        return drawn, marks, features(models.recogniser, chip)

    second = energy.random_view(key, N_E, as_arrays(SecondRender()))
    _, _, second_features = rendered(second, STATIC.second_size)
    for n in range(2):
        view, observed = view_of(params, n), jax.tree.map(lambda x, n=n: np.asarray(x[n], float), observations)
        drawn, marks, seen = rendered(view, SIZE)
        error = total = 0.0
        for point, target, confidence in zip(marks, observed.landmarks, observed.confidence, strict=True):
            error += confidence * sum((100 / SIZE * (point - target)) ** 2)
            total += confidence
        terms["landmark"] += share[n] * error / total
        drawn = jax.tree.map(np.asarray, drawn)
        error = total = 0.0
        for row in range(SIZE):
            for column in range(SIZE):
                weight = observed.mask[row, column] * (float(drawn.coverage[row, column]) > 0.99)
                difference = np.asarray(drawn.image[row, column], float) - observed.image[row, column]
                distance = np.sqrt(difference**2 + 1e-6) - 1e-3
                error += weight * np.mean(STATIC.saturation * (1 - np.exp(-distance / STATIC.saturation)))
                total += weight
        terms["pixel"] += share[n] * error / total
        terms["identity"] += share[n] * sum((np.asarray(seen.embedding) - observed.features.embedding) ** 2)
        other = np.asarray(second_features.embedding)
        terms["second_identity"] += share[n] * sum((other - observed.features.embedding) ** 2)
        layers = zip(seen.activations, observed.features.activations, strict=True)
        ratios = [((np.asarray(a) - b) ** 2).mean() / (b**2).mean() for a, b in layers]
        terms["content"] += share[n] * sum(ratios) / len(ratios)
        for unit in range(N_E):
            terms["expression"] += share[n] * float(models.stiffness[unit] * view.expression[unit] ** 2)
        ambient, colour = np.asarray(view.light.ambient, float), np.asarray(view.light.colour, float)
        prior = 4 * sum((ambient - ambient.mean()) ** 2) + 4 * sum((colour - colour.mean()) ** 2)
        prior += 0.2 * (ambient.mean() + colour.mean() / 2 - 1) ** 2
        terms["light"] += share[n] * prior
    terms["shape"] = sum(float(x) ** 2 for x in params.identity.shape)
    terms["texture"] = sum(float(x) ** 2 for x in params.identity.texture)
    return sum(weights[name] * value for name, value in terms.items()), terms


@pytest.mark.slow
def test_the_energy_is_the_weighted_sum_of_its_terms(models, params, observations):
    weights = dict(identity=3.0, second_identity=2.0, content=0.5, pixel=8.0, landmark=0.05, shape=0.002)
    weights |= dict(expression=0.02, texture=0.0008, light=1.0)
    key = jax.random.key(5)
    arrays = {name: jnp.float32(value) for name, value in weights.items()}
    compiled = jax.jit(energy.energy, static_argnames="static")
    total, terms = compiled(params, observations, models, arrays, key, as_arrays(SecondRender()), static=STATIC)
    expected_total, expected = loops_energy(models, params, observations, weights, key)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 1e-4
        assert terms[name] == pytest.approx(value, rel=2e-3), name
    assert float(total) == pytest.approx(expected_total, rel=2e-3)
    assert isinstance(observations.features, Features)
