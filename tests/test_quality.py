"""Figures of a texture model against loops and on models whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from ganfit_jax import assets, corpus, quality, texture
from ganfit_jax.types import LinearTexture

RNG = np.random.default_rng(0)
SMOOTH = np.float32(0.5 + 2.0 * ndimage.gaussian_filter(RNG.normal(size=(6, 32, 32, 3)), (0, 2, 2, 0)))
ONES = np.ones((6, 32, 32), np.float32)
HALF = ONES.copy()
HALF[:, :, 16:] = 0


def test_energy_of_the_finest_band():
    x = np.arange(32)
    stripes = np.broadcast_to((0.5 + 0.1 * (-1.0) ** x)[None, None, :, None], (2, 32, 32, 3)).astype(np.float32)
    # The filter removes an alternation wholly, so the band is the alternation itself.
    found = np.asarray(quality.high_frequency_energy(stripes, ONES[:2]))
    assert found == pytest.approx([0.01, 0.01], rel=1e-3)
    blurred = ndimage.gaussian_filter(SMOOTH, (0, 1.5, 1.5, 0))
    ratio = quality.high_frequency_energy(blurred, ONES, 2) / quality.high_frequency_energy(SMOOTH, ONES, 2)
    assert (np.asarray(ratio) < 0.5).all()


def test_energy_of_unseen_texels_does_not_count():
    damaged = np.where(HALF[..., None] > 0, SMOOTH, RNG.uniform(size=SMOOTH.shape).astype(np.float32))
    clean = quality.high_frequency_energy(SMOOTH, HALF)
    assert np.asarray(quality.high_frequency_energy(damaged, HALF)) == pytest.approx(np.asarray(clean), rel=1e-3)
    assert (np.asarray(quality.high_frequency_energy(damaged, ONES)) > 2 * np.asarray(clean)).all()


def test_ssim_against_skimage():
    other = np.clip(SMOOTH + 0.05 * RNG.normal(size=SMOOTH.shape), 0, 1).astype(np.float32)
    found = np.asarray(quality.ssim(SMOOTH, other, ONES))
    luma = np.array([0.299, 0.587, 0.114])
    for one, a, b in zip(found, SMOOTH, other, strict=True):
        settings = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        _, full = structural_similarity(a @ luma, b @ luma, full=True, **settings)
        assert one == pytest.approx(full[5:-5, 5:-5].mean(), abs=2e-3)
    assert np.asarray(quality.ssim(SMOOTH, SMOOTH, ONES)) == pytest.approx(1.0, abs=1e-4)
    damaged = np.where(HALF[..., None] > 0, SMOOTH, 1 - SMOOTH)
    assert (np.asarray(quality.ssim(SMOOTH, damaged, HALF)) > quality.ssim(SMOOTH, damaged, ONES) + 0.1).all()


def test_mean_difference_against_a_loop():
    other, weight = SMOOTH[::-1], RNG.uniform(size=ONES.shape).astype(np.float32)
    found = quality.mean_difference(SMOOTH, other, weight)
    for n in range(2):
        total = sum(
            weight[n, y, x] * np.abs(SMOOTH[n, y, x] - other[n, y, x]).mean() for y in range(32) for x in range(32)
        )
        assert float(found[n]) == pytest.approx(total / weight[n].sum(), rel=1e-4)


def linear_model(components=5):
    basis = ndimage.gaussian_filter(RNG.normal(size=(components, 32, 32, 3)), (0, 1, 1, 0))
    return LinearTexture(jnp.full((32, 32, 3), 0.5), jnp.float32(0.15 * basis))


def people(model, count=5):
    latents = RNG.normal(size=(count, model.basis.shape[0])).astype(np.float32)
    return latents, np.asarray(jax.vmap(lambda z: texture.decode(model, z))(jnp.asarray(latents)))


def test_best_linear_finds_the_latents_behind_seen_texels():
    model = linear_model()
    latents, maps = people(model)
    damaged = np.where(HALF[:5, ..., None] > 0, maps, 1.0)
    found = quality.best_linear(model, damaged, HALF[:5], 1e-9)
    assert np.asarray(found) == pytest.approx(latents, abs=0.01)
    shrunk = quality.best_linear(model, damaged, HALF[:5], 10.0)
    assert (np.linalg.norm(shrunk, axis=1) < 0.5 * np.linalg.norm(latents, axis=1)).all()


def test_reconstruct_finds_maps_of_the_model_and_ignores_what_was_not_seen():
    model = linear_model()
    _, maps = people(model)
    damaged = np.where(HALF[:5, ..., None] > 0, maps, 1.0)
    starts = np.stack([np.zeros((5, 5)), RNG.normal(size=(5, 5))]).astype(np.float32)
    decode = jax.tree_util.Partial(texture.decode, model)
    found = quality.reconstruct(decode, starts, damaged, HALF[:5], steps=200, rate=0.1, batch=2)
    assert found.maps.shape == (5, 32, 32, 3) and found.losses.shape == (5,)
    assert np.abs(np.asarray(found.maps) - maps).mean() < 0.01
    alone = quality.reconstruct(decode, starts[:1], damaged, HALF[:5], steps=200, rate=0.1, batch=2)
    assert (np.asarray(found.losses) <= np.asarray(alone.losses) + 1e-7).all(), "a further start never harms"
    # A strong prior keeps the latents small.
    kept = quality.reconstruct(decode, starts[:1], damaged, HALF[:5], steps=200, rate=0.1, prior=10.0)
    assert float(jnp.abs(kept.latents).max()) < 0.2


def test_what_a_reconstruction_minimises_leaves_out_the_finest_band():
    x = np.arange(32)
    stripes = np.broadcast_to((0.2 * (-1.0) ** x)[None, :, None], (32, 32, 3)).astype(np.float32)

    def loss(delta, weight=ONES[0]):
        found, target = (jnp.asarray(x, jnp.float32) for x in (SMOOTH[0] + delta, SMOOTH[0]))
        return float(quality.explains(found, target, jnp.asarray(weight)))

    assert loss(0.0) < 1e-3 and loss(stripes) < 1e-3
    assert loss(0.1) == pytest.approx(0.1, rel=0.01), "a colour counts once, it has no detail"
    wide = np.repeat(np.repeat(RNG.normal(size=(8, 8, 3)), 4, 0), 4, 1).astype(np.float32)
    assert loss(wide) > 1.3 * np.abs(wide).mean(), "detail counts once more in its band"
    assert loss(np.where(HALF[0, ..., None] > 0, 0, 1.0), HALF[0]) < 1e-3, "unseen"


def test_linearised_is_the_model_itself_and_the_slope_of_any_other():
    model = linear_model()
    found = quality.linearised(lambda z: texture.decode(model, z), 5)
    assert np.asarray(found.mean) == pytest.approx(np.asarray(model.mean), abs=1e-6)
    assert np.asarray(found.basis) == pytest.approx(np.asarray(model.basis), abs=1e-6)

    def curved(z):
        return jnp.tanh(texture.decode(model, z))

    step = 1e-2 * jnp.eye(5)[2]
    slope = (curved(step) - curved(-step)) / 2e-2
    assert np.asarray(quality.linearised(curved, 5).basis[2]) == pytest.approx(np.asarray(slope), abs=1e-3)


def test_nearest_against_loops():
    maps, weights = SMOOTH[:4], RNG.uniform(size=(4, 32, 32)).astype(np.float32)
    samples = np.stack([0.5 * maps[2, :, ::-1] + 0.1, maps[1] + 0.01 * RNG.normal(size=maps[1].shape), SMOOTH[5]])
    samples = samples.astype(np.float32)
    found = quality.nearest(samples, maps, weights)
    assert found.which[:2].tolist() == [2, 1] and found.mirrored[:2].tolist() == [True, False]
    assert found.distance[0] < 0.01, "tone and contrast are no difference"
    best = np.inf
    for flip in (1, -1):
        for one, weight in zip(maps[:, :, ::flip], weights[:, :, ::flip], strict=True):
            share = (weight / weight.sum())[..., None]
            a, b = (x - (share * x).sum((0, 1)) for x in (samples[2], one))
            correlation = (share * a * b).sum() / np.sqrt((share * a**2).sum() * (share * b**2).sum())
            best = min(best, np.sqrt(2 - 2 * correlation))
    assert found.distance[2] == pytest.approx(best, rel=1e-3)
    # Of two maps seen in different halves, only common texels count.
    other = np.where(HALF[:1, ..., None] > 0, maps[:1], 0.0)
    assert quality.nearest(other, maps[:1], weights[:1], HALF[:1]).distance[0] < 0.01


def test_split_keeps_apart_what_is_held_out_and_what_has_no_detail(tmp_path):
    for name, image in zip("abcde", SMOOTH, strict=False):
        corpus.write_map(tmp_path, name, image, ONES[0])
    corpus.write_map(tmp_path, "varied_a", SMOOTH[0], ONES[0])
    (tmp_path / "detail.json").write_text('{"a": 15, "b": 14, "c": 32}')
    held, train = quality.split(tmp_path, ["a", "b"], 16)
    assert held.names == ("a",) and train.names == ("c", "d", "e"), "b has too little detail"
    expected = np.clip(SMOOTH[0], 0, 1).reshape(16, 2, 16, 2, 3).mean((1, 3))
    assert held.albedo[0] == pytest.approx(expected, abs=2 / 255)
    with pytest.raises(ValueError, match="held out"):
        quality.split(tmp_path, ["b"], 16)
    with pytest.raises(ValueError, match="no map has the detail for 64"):
        quality.split(tmp_path, ["e"], 64)


def test_linear_model_spans_its_own_maps_and_their_mirror_images():
    maps = corpus.Maps(tuple("abcdef"), SMOOTH, ONES)
    model = quality.linear_model(maps, 100)
    assert model.basis.shape == (11, 32, 32, 3), "maps and mirror images less one"
    found = quality.best_linear(model, SMOOTH[:, :, ::-1], ONES, 1e-9)
    rebuilt = np.asarray(jax.vmap(lambda z: texture.decode(model, z))(found))
    assert np.abs(rebuilt - np.clip(SMOOTH[:, :, ::-1], 0, 1)).mean() < 0.01


def test_first_axes_leave_the_other_latents_at_nothing():
    for model in (LinearTexture(jnp.asarray(SMOOTH[0]), jnp.asarray(SMOOTH[1:6])), assets.load_texture("gan")[0]):
        few, latent = quality.first_axes(model, 2), jnp.array([0.7, -1.2])
        padded = jnp.concatenate([latent, jnp.zeros(texture.latent_size(model) - 2)])
        assert texture.latent_size(few) == 2
        np.testing.assert_allclose(texture.decode(few, latent), texture.decode(model, padded), atol=1e-6)
        assert jnp.abs(texture.decode(few, latent) - texture.decode(few, 0 * latent)).max() > 1e-3
