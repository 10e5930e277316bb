"""Every loss against a plain numpy loop, and its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import losses
from ganfit_jax.types import Features, Light

RNG = np.random.default_rng(0)


def some_features(seed):
    rng = np.random.default_rng(seed)
    maps = tuple(jnp.float32(rng.normal(size=shape)) for shape in ((4, 4, 3), (2, 2, 5)))
    return Features(jnp.float32(rng.normal(size=8)), maps)


def test_identity_is_one_minus_the_cosine():
    a, b = some_features(1), some_features(2)
    x, y = np.asarray(a.embedding), np.asarray(b.embedding)
    expected = 1 - sum(x * y) / (sum(x * x) ** 0.5 * sum(y * y) ** 0.5)
    assert losses.identity(a, b) == pytest.approx(expected, abs=1e-6)
    assert losses.identity(a, a) == pytest.approx(0, abs=1e-6)
    scaled = a._replace(embedding=3.0 * a.embedding)
    assert losses.identity(scaled, b) == pytest.approx(expected, abs=1e-6)


def test_identity_euclidean_is_the_squared_distance():
    a, b = some_features(1), some_features(2)
    expected = sum((x - y) ** 2 for x, y in zip(np.asarray(a.embedding), np.asarray(b.embedding), strict=True))
    assert losses.identity(a, b, "euclidean") == pytest.approx(float(expected), rel=1e-5)


def test_content_against_loops():
    a, b = some_features(1), some_features(2)
    expected = []
    for r, o in zip(a.activations, b.activations, strict=True):
        r, o = np.asarray(r).ravel(), np.asarray(o).ravel()
        expected.append(sum((r - o) ** 2) / sum(o**2))
    assert losses.content(a, b) == pytest.approx(np.mean(expected), rel=1e-5)
    zero = b._replace(activations=tuple(jnp.zeros_like(x) for x in b.activations))
    assert losses.content(zero, b) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("saturation", [0.1, 0.5])
def test_pixel_against_loops(saturation):
    a, b, w = (np.float32(RNG.uniform(size=s)) for s in ((3, 4, 3), (3, 4, 3), (3, 4)))
    total = 0.0
    for row in range(3):
        for column in range(4):
            values = []
            for channel in range(3):
                difference = float(a[row, column, channel]) - float(b[row, column, channel])
                distance = (difference**2 + 1e-6) ** 0.5 - 1e-3
                values.append(saturation * (1 - np.exp(-distance / saturation)))
            total += w[row, column] * sum(values) / 3
    expected = total / (w.sum() + 1e-6)
    found = losses.pixel(jnp.asarray(a), jnp.asarray(b), jnp.asarray(w), saturation)
    assert found == pytest.approx(expected, rel=1e-4)


def test_pixel_of_a_large_saturation_is_the_plain_distance():
    a, b = (jnp.asarray(RNG.uniform(size=(3, 4, 3)), jnp.float32) for _ in range(2))
    plain = float(jnp.mean(jnp.abs(a - b)))
    assert losses.pixel(a, b, jnp.ones((3, 4)), 1000.0) == pytest.approx(plain, abs=2e-3)


def test_pixel_ignores_pixels_of_weight_zero_and_saturates():
    a, b = jnp.zeros((2, 2, 3)), jnp.ones((2, 2, 3))
    half = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    assert losses.pixel(a.at[0, 0].set(1.0), b, half) == pytest.approx(0, abs=1e-6)
    assert losses.pixel(a, b, half) < 0.1
    assert 0.1 < losses.pixel(a, b, half, 0.5) < 0.5
    assert losses.pixel(a, b, jnp.zeros((2, 2))) == 0


def test_landmark_is_in_squared_percents_of_the_side():
    a, b = np.float32(RNG.uniform(0, 200, size=(2, 68, 2)))
    confidence = np.float32(RNG.uniform(size=68))
    expected = sum(c * ((p - q) ** 2).sum() * (100 / 200) ** 2 for c, p, q in zip(confidence, a, b, strict=True))
    expected /= confidence.sum()
    value = losses.landmark(jnp.asarray(a), jnp.asarray(b), jnp.asarray(confidence), 200)
    assert value == pytest.approx(float(expected), rel=1e-5)
    moved = jnp.asarray(a).at[5].add(1000.0)
    silent = jnp.asarray(confidence).at[5].set(0.0)
    same = losses.landmark(jnp.asarray(a), jnp.asarray(b), silent, 200)
    assert losses.landmark(moved, jnp.asarray(b), silent, 200) == pytest.approx(float(same), rel=1e-6)


def test_latent_prior_draws_to_the_length_of_normal_vectors():
    z = jnp.asarray(RNG.normal(size=50), jnp.float32)
    assert losses.latent_prior(z) == losses.gaussian_prior(z)
    for norm in (0.5, 1.0):
        expected = (float(np.linalg.norm(np.asarray(z, float))) - norm * 50**0.5) ** 2
        assert losses.latent_prior(z, norm) == pytest.approx(expected, rel=1e-3, abs=1e-4)
        gradient = jax.grad(losses.latent_prior)(0.3 * z, norm)
        assert jnp.vdot(gradient, z) < 0, "too short: outwards"
        assert jnp.vdot(jax.grad(losses.latent_prior)(3.0 * z, norm), z) > 0
    assert np.isfinite(jax.grad(losses.latent_prior)(jnp.zeros(50), 1.0)).all(), "fits begin at 0"
    many = np.linalg.norm(RNG.normal(size=(4000, 50)), axis=1)
    assert abs(np.median(many) - 50**0.5) < 0.1


def test_light_prior_is_zero_for_neutral_unit_light_and_grows_with_tint():
    neutral = Light(jnp.array([0.0, 0.0, 1.0]), jnp.full(3, 0.6), jnp.full(3, 0.7))
    assert losses.light_prior(neutral) == pytest.approx(0, abs=1e-6)
    tinted = neutral._replace(ambient=jnp.array([0.8, 0.7, 0.6]))
    assert losses.light_prior(tinted) == pytest.approx(4 * 0.02, rel=1e-4)
    assert losses.light_prior(neutral._replace(colour=jnp.array([0.6, 0.6, -0.6]))) > 1


@pytest.mark.parametrize("name", ["identity", "euclidean", "content", "pixel", "landmark", "light"])
def test_gradients_agree_with_finite_differences(name):
    with jax.enable_x64(True):
        a, b = (jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), some_features(s)) for s in (1, 2))
        image, target = (jnp.asarray(RNG.uniform(size=(3, 3, 3))) for _ in range(2))
        points, found = (jnp.asarray(RNG.uniform(0, 9, size=(68, 2))) for _ in range(2))
        neutral = Light(jnp.ones(3), jnp.array([0.5, 0.4, 0.6]), jnp.array([0.7, 0.6, 0.9]))
        function, x = {
            "identity": (lambda e: losses.identity(a._replace(embedding=e), b), a.embedding),
            "euclidean": (lambda e: losses.identity(a._replace(embedding=e), b, "euclidean"), a.embedding),
            "content": (lambda m: losses.content(a._replace(activations=(m, a.activations[1])), b), a.activations[0]),
            "pixel": (lambda i: losses.pixel(i, target, jnp.ones((3, 3))), image),
            "landmark": (lambda p: losses.landmark(p, found, jnp.ones(68), 10), points),
            "light": (lambda c: losses.light_prior(neutral._replace(colour=c)), neutral.colour),
        }[name]
        gradient = jax.grad(function)(x)
        direction = jnp.asarray(RNG.normal(size=x.shape))
        numeric = (function(x + 1e-5 * direction) - function(x - 1e-5 * direction)) / 2e-5
        assert float(jnp.sum(gradient * direction)) == pytest.approx(float(numeric), rel=1e-5, abs=1e-8)
