"""Texture statistics against cases whose answer is known."""

import json

import numpy as np
import pytest

from ganfit_jax import corpus, unwrap

RNG = np.random.default_rng(0)


def low_rank(n=80, d=120, rank=3, noise=0.0):
    basis = RNG.normal(size=(rank, d)) * np.array([3.0, 2.0, 1.0])[:rank, None]
    return np.float32(5 + RNG.normal(size=(n, rank)) @ basis + noise * RNG.normal(size=(n, d)))


def test_principal_components_of_whole_vectors_are_those_of_the_svd():
    data = low_rank(noise=0.1)
    mean, basis, share = corpus.principal_components(data, np.ones_like(data), 5)
    centred = data - data.mean(0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    expected = values[:5, None] / np.sqrt(len(data)) * vectors[:5]
    assert mean == pytest.approx(data.mean(0), abs=1e-4)
    assert np.abs((basis * expected).sum(1)) == pytest.approx((expected**2).sum(1), rel=1e-3)
    assert share == pytest.approx(values[:5] ** 2 / (values**2).sum(), rel=1e-3)


def test_principal_components_see_through_missing_entries():
    data = low_rank()
    weights = np.float32(RNG.uniform(size=data.shape) > 0.3)
    damaged = np.where(weights > 0, data, 99.0).astype(np.float32)
    mean, basis, share = corpus.principal_components(damaged, weights, 3, rounds=40)
    centred = data - mean
    unit = np.linalg.svd(basis, full_matrices=False)[2]
    left = centred - centred @ unit.T @ unit
    assert (left**2).sum() < 0.02 * (centred**2).sum()
    assert share.sum() > 0.97


def test_maps_round_trip(tmp_path):
    albedo, weight = np.float32(RNG.uniform(size=(8, 8, 3))), np.float32(RNG.uniform(size=(8, 8)))
    corpus.write_map(tmp_path, "a", albedo, weight)
    maps = corpus.read_maps(tmp_path)
    assert maps.names == ("a",)
    assert maps.albedo[0] == pytest.approx(albedo, abs=1 / 255)
    assert maps.weight[0] == pytest.approx(weight, abs=1 / 255)
    with pytest.raises(ValueError, match="found no maps"):
        corpus.read_maps(tmp_path / "nothing")


def test_linear_model_file_is_reproducible_and_close_to_the_components(tmp_path):
    from ganfit_jax.assets import load_texture

    smooth = np.kron(RNG.uniform(0.2, 0.8, size=(10, 4, 4, 3)), np.ones((1, 8, 8, 1))).astype(np.float32)
    maps = corpus.Maps(tuple("abcdefghij"), smooth, np.ones((10, 32, 32), np.float32))
    share = corpus.write_linear_model(tmp_path / "a.npz", maps, 6)
    corpus.write_linear_model(tmp_path / "b.npz", maps, 6)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert 0.3 < share <= 1
    model, info = load_texture(tmp_path / "a.npz")
    assert model.mean.shape == (32, 32, 3) and model.basis.shape == (6, 32, 32, 3)
    flat = np.concatenate([smooth, smooth[:, :, ::-1]]).reshape(20, -1)
    mean, basis, _ = corpus.principal_components(flat, np.ones_like(flat), 6)
    assert np.asarray(model.mean).ravel() == pytest.approx(mean, abs=1 / 255)
    assert np.asarray(model.basis).reshape(6, -1) == pytest.approx(basis, abs=0.02 * float(np.abs(basis).max()))
    assert info.name == "albedo"


def test_details_are_entered_and_kept(tmp_path):
    corpus.write_details(tmp_path, {"b": 3, "a": 130})
    corpus.write_details(tmp_path, {"b": 4, "c": 5})
    assert json.loads((tmp_path / "detail.json").read_text()) == {"a": 130, "b": 4, "c": 5}


def test_the_report_counts_kinds_levels_tones_and_half_seen_maps(tmp_path):
    for name, why in (("light", ""), ("dark", ""), ("x", "pose"), ("y", "pose"), ("z", "small")):
        (tmp_path / "fits").mkdir(exist_ok=True)
        corpus.write_npz(tmp_path / "fits" / f"{name}.npz", {"dropped": np.asarray(why)})
    half = np.ones((64, 64))
    half[:, 32:] = 0.5
    for name, colour, weight in (
        ("light", [0.9, 0.75, 0.7], np.ones((64, 64))),
        ("dark", [0.45, 0.3, 0.22], half),
        ("skin_a", [0.5, 0.4, 0.3], np.ones((64, 64))),
    ):
        corpus.write_map(tmp_path / "maps", name, np.broadcast_to(np.array(colour), (64, 64, 3)), weight)
    corpus.write_details(tmp_path / "maps", {"light": 15, "dark": 31})
    found = corpus.report(tmp_path)
    assert (found["photos"], found["kept"], found["dropped"]) == (5, 2, {"pose": 2, "small": 1})
    assert (found["real"], found["varied"], found["synthetic"], found["half_seen"]) == (2, 0, 1, 1)
    assert {size: kinds["real"] for size, kinds in found["levels"].items()} == {
        "4": 2, "8": 2, "16": 2, "32": 1, "64": 0
    }  # fmt: skip
    assert found["levels"]["64"]["synthetic"] == 1
    assert found["tones"] == {"1": 1, "5": 1}


def test_fill_keeps_what_is_known_and_is_smooth_elsewhere():
    x = np.linspace(0, 1, 64, dtype=np.float32)
    ramp = np.repeat(np.broadcast_to(x[None, :, None], (64, 64, 1)), 3, axis=2)
    weight = np.ones((64, 64), np.float32)
    weight[20:44, 20:44] = 0
    filled = unwrap.fill(np.where(weight[..., None] > 0, ramp, 7.0), weight)
    assert filled[weight > 0] == pytest.approx(ramp[weight > 0])
    assert filled == pytest.approx(ramp, abs=0.15)


def test_shading_is_divided_out():
    size = 48
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    normals = np.stack([0.8 * x, -0.8 * y, np.sqrt(np.maximum(1 - 0.64 * (x**2 + y**2), 0.01))], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    albedo = np.float32(0.5 + 0.05 * RNG.normal(size=(size, size, 3)))
    direction = np.array([0.7, 0.3, 1.0]) / np.linalg.norm([0.7, 0.3, 1.0])
    light = 0.6 + 0.6 * np.maximum(normals @ direction, 0)
    reference = np.full((size, size, 3), 0.4)
    found = unwrap.fit_shading(albedo * light[..., None], np.ones((size, size)), normals, reference)
    expected = light / light.mean()
    error = np.abs(found.mean(-1) - expected)
    assert error.mean() < 0.02 and error.max() < 0.15
    assert np.abs(1 - expected).mean() > 0.08


def test_complete_mirrors_what_one_half_shows():
    mean = np.full((16, 16, 3), 0.5, np.float32)
    albedo = mean.copy()
    albedo[4, 3] = 0.8
    weight = np.zeros((16, 16), np.float32)
    weight[:, :8] = 1
    whole, weights = unwrap.complete(albedo, weight, mean)
    assert whole[4, 3] == pytest.approx(0.8, abs=1e-5)
    assert whole[4, 12] == pytest.approx(0.8, abs=1e-5)
    assert whole[10, 12] == pytest.approx(0.5, abs=1e-5)
    assert weights[4, 3] == 1 and weights[4, 12] == 0.5
