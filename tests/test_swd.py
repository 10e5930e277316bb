"""Sliced Wasserstein distance against plain loops and on sets whose order is known."""

import time

import jax
import numpy as np
import pytest
from scipy import ndimage

from ganfit_jax import swd

KEY = jax.random.key(0)
RNG = np.random.default_rng(1)


def natural(count, side=32, seed=0):
    """Images with detail at every scale."""
    noise = np.random.default_rng(seed).normal(size=(count, side, side, 3))
    layers = [s * ndimage.gaussian_filter(noise, (0, s, s, 0), mode="reflect") for s in (0.7, 1.5, 3.0)]
    return np.float32(0.5 + 0.15 * sum(layers))


def test_sliced_against_loops():
    one, other = RNG.normal(size=(6, 4)).astype(np.float32), RNG.normal(size=(6, 4)).astype(np.float32)
    axes = RNG.normal(size=(4, 3)).astype(np.float32)
    total = 0.0
    for a in range(3):
        p = sorted(sum(float(x[d] * axes[d, a]) for d in range(4)) for x in one)
        q = sorted(sum(float(x[d] * axes[d, a]) for d in range(4)) for x in other)
        total += sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 6
    assert swd.sliced(one, other, axes) == pytest.approx(total / 3, rel=1e-5)


def test_cut_and_normalised_against_loops():
    maps = RNG.uniform(size=(3, 12, 12, 3)).astype(np.float32)
    which, row, column = np.array([2, 0, 1, 2]), np.array([0, 5, 3, 4]), np.array([5, 0, 2, 1])
    found = swd.cut(maps, which, row, column)
    for k in range(4):
        for y in range(7):
            for x in range(7):
                assert (found[k, y, x] == maps[which[k], row[k] + y, column[k] + x]).all()
    rows = swd.normalised(found).reshape(4, 7, 7, 3)
    for channel in range(3):
        values = found[..., channel]
        expected = (values - values.mean()) / np.sqrt(((values - values.mean()) ** 2).mean())
        assert rows[..., channel] == pytest.approx(expected, abs=1e-4)


def test_a_set_has_no_distance_to_itself_and_little_to_its_like():
    maps = natural(24)
    same = swd.swd(KEY, maps, maps)
    assert list(same) == [32, 16]
    like = swd.swd(KEY, maps, natural(24, seed=5))
    other = swd.swd(KEY, maps, ndimage.gaussian_filter(maps, (0, 2, 2, 0)))
    assert same[32] < 0.05 and like[32] < 0.05
    assert other[32] > 2 * max(same[32], like[32])


def test_distance_grows_with_blur_and_with_noise():
    maps, rest = natural(24), natural(24, seed=3)
    blurred = [swd.swd(KEY, maps, ndimage.gaussian_filter(rest, (0, s, s, 0)))[32] for s in (0.5, 1.0, 2.0)]
    noise = RNG.normal(size=maps.shape)
    noisy = [swd.swd(KEY, maps, np.float32(rest + s * noise))[32] for s in (0.003, 0.03, 0.3)]
    assert blurred == sorted(blurred) and blurred[2] > 2 * blurred[0]
    assert noisy == sorted(noisy) and noisy[2] > 1.5 * noisy[0]


def test_unseen_texels_do_not_count():
    maps, rest = natural(24), natural(24, seed=3)
    weight = np.ones((24, 32, 32), np.float32)
    weight[:, :, 16:] = 0
    damaged = np.where(weight[..., None] > 0, maps, RNG.uniform(size=maps.shape).astype(np.float32))
    clean = swd.swd(KEY, maps, rest)[32]
    assert swd.swd(KEY, damaged, rest, weight, seen=0.99)[32] < 1.5 * clean + 0.01
    assert swd.swd(KEY, damaged, rest)[32] > 3 * clean
    # The fake set's own weights work alike; a place must be seen in both.
    assert swd.swd(KEY, rest, damaged, None, weight, seen=0.99)[32] < 1.5 * clean + 0.01
    with pytest.raises(ValueError, match="common place"):
        swd.swd(KEY, maps, rest, weight, 1 - weight)


def test_both_sets_are_read_at_the_same_places():
    """Maps that differ from place to place but not from person to person have no distance, however little is seen."""
    one = np.repeat(natural(1), 40, axis=0)
    weight = np.zeros((40, 32, 32), np.float32)
    weight[:, 2:14, 5:20] = 1
    assert swd.swd(KEY, one, one[:20], weight)[32] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_is_fast():
    real, fake = natural(40, 128), natural(200, 128, seed=2)
    started = time.process_time()
    assert list(swd.swd(KEY, real, fake)) == [128, 64, 32, 16]
    assert time.process_time() - started < 30, "seconds of all processors together"
