"""Each operation against numpy loops, and gradients of both orders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import augment as a

SIDE = 8
IMAGES = np.random.default_rng(0).uniform(-1, 1, size=(6, SIDE, SIDE, 4)).astype(np.float32)
KEY = jax.random.key(3)


def test_an_empty_policy_changes_nothing_and_unknown_names_are_refused():
    assert (a.augment(KEY, jnp.asarray(IMAGES), ()) == IMAGES).all()
    with pytest.raises(ValueError, match="'color', expected some of colour, translation, cutout"):
        a.augment(KEY, jnp.asarray(IMAGES), ("color",))


def keys(number):
    return jax.random.split(jax.random.fold_in(KEY, number), len(IMAGES))


def test_colour_against_loops():
    found = a.augment(KEY, jnp.asarray(IMAGES), ("colour",))
    for key, image, out in zip(keys(0), IMAGES, np.asarray(found), strict=True):
        shift, saturation, contrast = np.asarray(jax.random.uniform(key, (3,)))
        expected = image.copy()
        for row in range(SIDE):
            for column in range(SIDE):
                rgb = image[row, column, :3] + (2 * shift - 1) * 0.5
                expected[row, column, :3] = rgb.mean() + 2 * saturation * (rgb - rgb.mean())
        mean = sum(float(x) for x in expected[..., :3].ravel()) / (3 * SIDE * SIDE)
        expected[..., :3] = mean + (0.5 + contrast) * (expected[..., :3] - mean)
        assert out == pytest.approx(expected, abs=1e-5)
    assert np.abs(np.asarray(found) - IMAGES)[..., :3].max() > 0.2


def test_translation_against_loops():
    shifts = set()
    for seed in range(40):
        key = jax.random.key(seed)
        out = np.asarray(a.translate(key, jnp.asarray(IMAGES[0])))
        matches = []
        for down in range(-SIDE, SIDE + 1):
            for right in range(-SIDE, SIDE + 1):
                expected = np.zeros_like(out)
                for row in range(SIDE):
                    for column in range(SIDE):
                        if 0 <= row - down < SIDE and 0 <= column - right < SIDE:
                            expected[row, column] = IMAGES[0, row - down, column - right]
                if (expected == out).all():
                    matches.append((down, right))
        assert len(matches) == 1
        shifts.add(matches[0])
    assert shifts == {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}


def test_cutout_zeroes_one_square_of_half_the_side():
    areas = set()
    for seed in range(40):
        out = np.asarray(a.cut_out(jax.random.key(seed), jnp.asarray(IMAGES[0])))
        hole = (out == 0).all(-1)
        assert (out[~hole] == IMAGES[0][~hole]).all()
        rows, columns = np.nonzero(hole)
        high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert hole.sum() == high * wide and min(high, wide) >= 2 and max(high, wide) <= SIDE // 2
        areas.add((high, wide))
    assert (4, 4) in areas and len(areas) > 3


def test_every_image_has_its_own_numbers_and_tiny_images_pass():
    same = jnp.broadcast_to(jnp.asarray(IMAGES[:1]), IMAGES.shape)
    out = np.asarray(a.augment(KEY, same, a.POLICIES))
    assert all((out[0] != other).any() for other in out[1:])
    assert a.augment(KEY, jnp.ones((2, 4, 4, 3)), a.POLICIES).shape == (2, 4, 4, 3)
    assert a.augment(KEY, jnp.ones((2, 4, 4, 3), jnp.bfloat16), a.POLICIES).dtype == jnp.bfloat16


def test_gradients_of_both_orders_against_finite_differences():
    weights = jnp.asarray(np.random.default_rng(1).normal(size=IMAGES.shape).astype(np.float32))
    direction = jnp.asarray(np.random.default_rng(2).normal(size=IMAGES.shape).astype(np.float32))

    def score(images):
        return jnp.sum(jnp.sin(a.augment(KEY, images, a.POLICIES) * weights))

    def penalty(images):  # as in WGAN-GP: a function of the gradient
        return jnp.sum(jax.grad(score)(images) ** 2)

    for function in (score, penalty):
        slope = float(jnp.sum(jax.jit(jax.grad(function))(jnp.asarray(IMAGES)) * direction))
        step = 3e-3
        ahead, behind = (float(function(jnp.asarray(IMAGES) + s * direction)) for s in (step, -step))
        assert slope == pytest.approx((ahead - behind) / (2 * step), rel=2e-2)
        assert abs(slope) > 1
