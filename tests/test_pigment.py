"""Pigments shift the optical density along their axes, on skin alone, and bring a light corpus to all tones."""

import numpy as np
import pytest

from ganfit_jax import pigment

RNG = np.random.default_rng(0)


def linear(value):
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def srgb(value):
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def test_density_moves_along_the_axes():
    albedo = RNG.uniform(0.05, 1, size=(4, 5, 3)).astype(np.float32)
    melanin = RNG.uniform(0, 3, size=(4, 5)).astype(np.float32)
    found = pigment.vary(albedo, melanin, 0.3)
    for row in range(4):
        for column in range(5):
            for channel in range(3):
                amount = melanin[row, column] * pigment.MELANIN[channel] + 0.3 * pigment.HAEMOGLOBIN[channel]
                expected = srgb(linear(float(albedo[row, column, channel])) * np.exp(-amount))
                assert found[row, column, channel] == pytest.approx(expected, abs=1e-5)
    assert found.dtype == np.float32


def test_the_curve_and_back_and_no_pigment():
    values = np.linspace(0, 1, 257, dtype=np.float32)
    assert pigment.to_linear(values) == pytest.approx([linear(float(v)) for v in values], abs=1e-6)
    assert pigment.to_srgb(pigment.to_linear(values)) == pytest.approx(values, abs=1e-5)
    albedo = RNG.uniform(0.05, 1, size=(8, 3)).astype(np.float32)
    assert pigment.vary(albedo, 0.0, 0.0) == pytest.approx(albedo, abs=1e-5)


def test_melanin_darkens_and_browns_and_haemoglobin_reddens():
    light = np.array([0.86, 0.68, 0.58], np.float32)
    dark, red = pigment.vary(light, 2.5, 0.0), pigment.vary(light, 0.0, 0.5)
    assert (dark < light).all()
    ratio = pigment.to_linear(dark) / pigment.to_linear(light)
    assert ratio[0] > ratio[1] > ratio[2]
    assert red[0] / light[0] > 0.9 and red[1] / light[1] < 0.85
    assert np.linalg.norm(pigment.MELANIN) == pytest.approx(1) == np.linalg.norm(pigment.HAEMOGLOBIN)


def face(level):
    albedo = np.float32(np.exp(-level * pigment.MELANIN))[None, None] * RNG.uniform(0.95, 1.05, (32, 32, 1))
    return pigment.to_srgb(np.float32(albedo))


def test_levels_are_those_of_the_seen_skin():
    albedo, skin = face(2.0), np.ones((32, 32), np.float32)
    assert pigment.level(albedo, skin) == pytest.approx(2.0, abs=0.05)
    albedo[:20], skin[:20] = 0.01, 0.3
    assert pigment.level(albedo, skin) == pytest.approx(2.0, abs=0.05)
    assert pigment.LEVELS[0] < pigment.level(albedo, 0 * skin) < pigment.LEVELS[1]


def test_retoned_people_have_all_tones_and_keep_eyes_and_mouth():
    skin = np.ones((32, 32), np.float32)
    skin[:4] = 0
    levels = []
    for seed in range(60):
        albedo = face(2.2)
        out = pigment.retone(np.random.default_rng(seed), albedo, np.ones((32, 32), np.float32), skin)
        assert out[:4] == pytest.approx(albedo[:4], abs=1e-5)
        levels.append(pigment.level(out, skin))
        again = pigment.retone(np.random.default_rng(seed), albedo, np.ones((32, 32), np.float32), skin)
        assert (again == out).all()
    counts, _ = np.histogram(levels, [1.3, 2.7, 3.9, 5.6])
    assert counts.sum() == 60 and counts.min() >= 10
    assert min(levels) > 2.2 - pigment.LIGHTEN - 0.5, "no more noise than that"


def test_eyes_and_mouth_are_no_skin():
    skin = pigment.skin_texels(64)
    assert skin.shape == (64, 64) and skin.dtype == np.float32
    assert np.abs(skin - skin[:, ::-1]).mean() < 0.002, "the chart is symmetric"
    assert 0.9 < skin.mean() < 0.99
    assert skin[5, 5] == 0 and skin[45, 32] == 0, "an eyeball patch and the mouth"
    assert skin[20, 32] == 1 and skin[40, 16] == 1, "forehead and cheek"
    assert skin[50, 32] == pytest.approx(pigment.LIPS, abs=0.05)
    coarse = pigment.skin_texels(4)
    assert coarse == pytest.approx(skin.reshape(4, 16, 4, 16).mean((1, 3)), abs=1e-5)
