"""The generator's linear path: codes of partly seen maps, what fills it, and that training leaves it alone."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ganfit_jax import assets, corpus, gan, quality, samples, texture, texture_data, texture_export, training
from ganfit_jax.checkpoints import Checkpoints
from ganfit_jax.errors import InputError
from ganfit_jax.generator import Linear, Projection
from ganfit_jax.training import Training

LATENT = 3
RUN = Training(
    side=8, latent=LATENT, base=32, widest=5, critic=1.0, encoder=4, linear=8, adversarial=8,
    batches=(4, 4), images=(12, 12), pigments=0.0, mirror=False, average=40, threads=0,
)  # fmt: skip


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def path_of(mean, basis, taught=None):
    taught = np.ones((*mean.shape[:2], 1)) if taught is None else taught
    return jnp.float32(mean), jnp.float32(basis), jnp.float32(taught)


def filled(module, seed=1, side=8):
    """A linear model with a random mean and basis, and both in float64."""
    mean, basis = 0.3 * draw((side, side, 3), seed), 0.2 * draw((LATENT, side, side, 3), seed + 1)
    module.mean[...], module.basis[...] = jnp.float32(mean), jnp.float32(basis)
    return module, np.asarray(module.mean[...], float), np.asarray(module.basis[...], float)


def halved(x):
    n, side = x.shape[:2]
    return x.reshape(n, side // 2, 2, side // 2, 2, -1).mean((2, 4))


def visible(colours, weight):
    return np.concatenate([colours * weight[..., None], weight[..., None]], -1)


# Codes.


@pytest.mark.parametrize("noise", [0.05, 0.1, 2.0])
def test_codes_are_the_most_probable_latents(noise):
    """Least squares, map by map: every texel over its deviation noise / sqrt(visibility), every latent over 1."""
    model, mean, basis = filled(Linear(LATENT, 8))
    rng = np.random.default_rng(0)
    weight = rng.uniform(size=(4, 8, 8)) * (rng.uniform(size=(4, 8, 8)) > 0.5)
    weight[3] = 0
    colours = mean[None] + 0.4 * rng.normal(size=(4, 8, 8, 3))
    found = np.asarray(model.codes(jnp.float32(visible(colours, weight)), noise))
    for row in range(4):
        root = np.sqrt(weight[row])[..., None].repeat(3, -1).ravel() / noise
        system = np.concatenate([root[:, None] * basis.reshape(LATENT, -1).T, np.eye(LATENT)])
        wanted = np.concatenate([root * (colours[row] - mean).ravel(), np.zeros(LATENT)])
        np.testing.assert_allclose(found[row], np.linalg.lstsq(system, wanted)[0], atol=2e-4)
    assert np.all(found[3] == 0), "a map of which nothing is seen is the mean"


def test_codes_of_exact_maps_are_their_latents():
    model, mean, basis = filled(Linear(LATENT, 8))
    latent, weight = draw((4, LATENT), 3), np.ones((4, 8, 8))
    weight[1, :, :4], weight[2, ::2] = 0, 0.3
    weight[3, 1:] = 0
    colours = mean[None] + np.einsum("nd,dhwc->nhwc", latent, basis)
    garbage = np.where(weight[..., None] > 0, colours, 50.0)
    found = np.asarray(model.codes(jnp.float32(visible(garbage, weight)), 1e-3))
    np.testing.assert_allclose(found, latent, atol=2e-3)
    rough = np.asarray(model.codes(jnp.float32(visible(garbage, weight)), 1.0))
    assert np.all(np.linalg.norm(rough, axis=1) < np.linalg.norm(latent, axis=1)), "noise draws towards the mean"


@pytest.mark.parametrize("side", [4, 8, 16])
def test_a_projection_takes_maps_of_any_side(side):
    projection = Projection(LATENT, 8)
    model, _, _ = filled(projection.linear)
    images = visible(draw((2, side, side, 3), 5), np.random.default_rng(6).uniform(size=(2, side, side)))
    same = {4: images.repeat(2, 1).repeat(2, 2), 8: images, 16: halved(images) if side == 16 else None}[side]
    found = projection(jnp.float32(images), jnp.float32(0.3), jnp.bfloat16)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, model.codes(jnp.float32(same)), atol=1e-4)


# The state of the networks.


@pytest.fixture(scope="module")
def begun():
    """Graphs and the state of RUN's networks, with the linear model (sRGB, side 16) in it."""
    graphs, fresh = gan.create(RUN.settings(), 0)
    mean, basis = 0.5 + 0.1 * draw((16, 16, 3), 1), 0.1 * draw((LATENT, 16, 16, 3), 2)
    state = gan.with_linear(fresh, *path_of(mean, basis, np.linspace(0, 1, 256).reshape(16, 16, 1)))
    return graphs, jax.device_get(fresh), jax.device_get(state), mean, basis


def linear_parts(state):
    """(mean, basis) of generator, average and encoder."""
    parts = (state.weights.generator["linear"], state.average["linear"], state.weights.encoder["linear"])
    return [(np.asarray(part["mean"][...]), np.asarray(part["basis"][...])) for part in parts]


def test_with_linear_fills_generator_average_and_encoder(begun):
    graphs, fresh, state, mean, basis = begun
    assert all(np.all(x == 0) for part in linear_parts(fresh) for x in part), "the state before stays as it was"
    generator, average, encoder = linear_parts(state)
    small = halved(np.concatenate([mean[None], basis]))
    for (found, axes), expected in ((generator, small), (average, small), (encoder, halved(small))):
        np.testing.assert_allclose(found, 2 * expected[0] - 1, atol=1e-6)
        np.testing.assert_allclose(axes, 2 * expected[1:], atol=1e-6)
    taught = halved(np.linspace(0, 1, 256).reshape(1, 16, 16, 1))[0]
    for weights in (state.weights.generator, state.average):
        np.testing.assert_allclose(weights["taught"][...], taught, atol=1e-6)
    for weights in (fresh.weights.generator, fresh.weights.encoder, fresh.average):
        del weights["linear"]
    rest = jax.tree.map(lambda x: x, state)
    for weights in (rest.weights.generator, rest.weights.encoder, rest.average):
        del weights["linear"]
    for one in (rest, fresh):
        del one.weights.generator["taught"], one.average["taught"]
    jax.tree.map(np.testing.assert_array_equal, rest, fresh)
    latents = draw((2, LATENT), 3)
    maps = samples.painted(graphs.generator, state.average, jnp.float32(latents), 8, jnp.ones(()))
    expected = np.clip(small[:1] + np.einsum("nd,dhwc->nhwc", latents, small[1:]), 0, 1)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("adversarial", [4, 16])
def test_training_moves_the_networks_and_never_the_linear_path(begun, adversarial):
    graphs, _, start, _, _ = begun
    settings = dataclasses.replace(RUN.settings(), adversarial=adversarial)
    state, first = (jax.tree.map(jnp.array, start) for _ in range(2))  # a step takes its state's memory
    rng = np.random.default_rng(4)
    for number in range(4):
        batch = gan.Batch(jnp.float32(rng.uniform(size=(4, 8, 8, 3))), jnp.float32(rng.uniform(size=(4, 8, 8))))
        key = jax.random.fold_in(jax.random.key(0), number)
        state, losses = gan.step(state, batch, key, jnp.float32(0.5), graphs=graphs, settings=settings)
        assert np.isfinite(list(map(float, losses.values()))).all()
        if not number:  # the networks add nothing yet: the model's own maps, seen through the fade
            before = gan.seen(2.0 * batch.albedo - 1.0, batch.weight)
            codes = gan.encode(graphs.encoder, first.weights.encoder, before, 4, jnp.ones(()), jnp.float32)
            faded = gan.fade(before, jnp.float32(0.5))
            images = gan.generate(graphs.generator, first.weights.generator, codes, 8, jnp.float32(0.5))
            images, count = gan.seen(images, faded[..., 3]), 2 if adversarial == 4 else 4
            expected = gan.difference(images[:count], faded[:count])
            assert float(losses["reconstruction"]) == pytest.approx(float(expected), rel=1e-4)
    for old, new in zip(linear_parts(start), linear_parts(state), strict=True):
        for one, other in zip(old, new, strict=True):
            np.testing.assert_array_equal(one, other)
    for old, new in ((start.weights.generator, state.weights.generator), (start.average, state.average)):
        np.testing.assert_array_equal(old["taught"][...], new["taught"][...])
    for level in state.weights.generator["colours"].values():
        assert np.any(level["kernel"][...] != 0)
    assert np.any(state.weights.generator["dense"]["kernel"][...] != start.weights.generator["dense"]["kernel"][...])


def test_a_linear_path_without_reconstruction_keeps_the_state_s_layout(begun):
    settings = dataclasses.replace(RUN.settings(), adversarial=4, reconstruction=0.0)
    graphs, state = gan.create(settings, 0)
    batch = gan.Batch(jnp.zeros((4, 8, 8, 3)), jnp.ones((4, 8, 8)))
    step = partial(gan.step, graphs=graphs, settings=settings)
    after, losses = jax.eval_shape(step, state, batch, jax.random.key(0), jnp.ones(()))
    assert jax.tree.structure(after) == jax.tree.structure(state) and "reconstruction" not in losses


@pytest.mark.parametrize("side", [2, 12])
def test_a_linear_path_of_an_odd_side(side):
    with pytest.raises(ValueError, match=f"linear = {side}: expected 0 or a power of two"):
        gan.create(dataclasses.replace(RUN.settings(), linear=side), 0)


# Runs.


@pytest.fixture(scope="module")
def known():
    """A linear model of smooth colours: its mean, and orthogonal axes of falling length."""
    y, x = np.mgrid[:8, :8] / 8.0
    waves = [np.sin(3 * x + y), np.cos(4 * y), np.sin(5 * x * y)]
    axes = np.stack([w[..., None] * np.float64(tint) for w, tint in zip(waves, np.eye(3) + 0.2, strict=True)])
    axes, _ = np.linalg.qr(axes.reshape(LATENT, -1).T)
    mean = 0.5 + 0.1 * np.stack([x, y, x * y], -1)
    return mean, (axes * [0.9, 0.6, 0.4]).T.reshape(LATENT, 8, 8, 3)


@pytest.fixture(scope="module")
def files(known, tmp_path_factory):
    """Forty maps of the known model, each seen in part."""
    root, rng = tmp_path_factory.mktemp("maps"), np.random.default_rng(0)
    mean, basis = known
    scores = rng.normal(size=(40, LATENT))
    scores = (scores - scores.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(scores.T, bias=True))).T
    for number, score in enumerate(scores):
        hole = rng.integers(0, 6, 2)
        weight = np.ones((8, 8), np.float32)
        weight[hole[0] : hole[0] + 3, hole[1] : hole[1] + 3] = 0
        colours = mean + np.einsum("d,dhwc->hwc", score, basis)
        corpus.write_map(root, f"p{number:02d}", np.where(weight[..., None] > 0, colours, 0.9), weight)
    return texture_data.find_maps([root])


def test_the_linear_path_finds_a_known_model_again(known, files):
    """Twice forty maps of a model with three axes, seen in part: mean, subspace and covariance come back."""
    mean, basis = (np.asarray(x, float) for x in training.linear_path(RUN, files, 80))
    assert mean.shape == (8, 8, 3) and basis.shape == (LATENT, 8, 8, 3)
    np.testing.assert_allclose(mean, known[0], atol=0.02)
    one, other = (np.linalg.qr(x.reshape(LATENT, -1).T)[0] for x in (basis, known[1]))
    assert np.linalg.svd(one.T @ other)[1].min() > 0.99, "cosine of the largest angle between the subspaces"
    found, expected = (x.reshape(LATENT, -1) for x in (basis, known[1]))
    np.testing.assert_allclose(found.T @ found, expected.T @ expected, atol=0.1 * (expected.T @ expected).max())
    with pytest.raises(InputError, match="latent = 30: expected at most 19 with a linear path of 20 maps"):
        training.linear_path(dataclasses.replace(RUN, latent=30), files, 20)


@pytest.mark.parametrize("mirror", [False, True])
def test_networks_add_where_maps_are_seen(tmp_path, mirror):
    """Of four maps, k show row k of the left half; all show the right half and the rows from 4 on. A fifth map has no
    detail for the side and does not count."""
    for number in range(4):
        weight = np.ones((8, 8), np.float32)
        for row in range(4):
            weight[row, :4] = number < row
        corpus.write_map(tmp_path, f"p{number}", np.full((8, 8, 3), 0.5), weight)
    corpus.write_map(tmp_path, "small", np.full((4, 4, 3), 0.5), np.zeros((4, 4), np.float32))
    found = training.taught(dataclasses.replace(RUN, mirror=mirror), texture_data.find_maps([tmp_path]))
    rows = np.array([0.5, 0.75, 1, 1] if mirror else [0, 0, 0.5, 1])
    expected = np.ones((8, 8, 1))
    expected[:4, : 8 if mirror else 4] = rows[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_export_of_a_run_with_a_linear_path(begun, files, tmp_path):
    graphs, _, state, _, _ = begun
    rng = np.random.default_rng(7)
    for level in (average := jax.tree.map(jnp.array, state.average))["colours"].values():
        level["kernel"][...] = jnp.float32(0.3 * rng.normal(size=level["kernel"][...].shape))
    coarse = halved(np.asarray(average["linear"]["basis"][...]))  # files hold colours at half the resolution
    average["linear"]["basis"][...] = jnp.float32(coarse.repeat(2, 1).repeat(2, 2))
    state = state._replace(average=average)
    texture_export.export(tmp_path / "texture.npz", graphs, state, RUN, files, "CC0-1.0")
    model, _ = assets.load_texture(tmp_path / "texture.npz")
    assert model.spec.side == 8 and model.spec.graph == graphs.generator
    for name in ("mean", "basis"):
        stored = model.weights["linear"][name][...]
        wanted = average["linear"][name][...]
        np.testing.assert_allclose(stored, wanted, atol=1e-3 if name == "mean" else float(jnp.abs(wanted).max()) / 50)
    average["linear"]["basis"][...] = model.weights["linear"]["basis"][...]
    mean, axes = texture_export.latents_of(graphs, state, RUN, files)
    latent = rng.normal(size=LATENT)
    z = jnp.float32(mean + latent @ axes)[None]
    expected = samples.painted(graphs.generator, average, z, 8, jnp.ones(()))[0]
    found = texture.decode(model, jnp.float32(latent))
    np.testing.assert_allclose(found, expected, atol=5e-3)
    plain = samples.painted(graphs.generator, begun[2].average, z, 8, jnp.ones(()))[0]
    assert np.abs(expected - plain).max() > 0.05, "the networks do add something"


def test_the_latents_of_an_exported_run_are_those_of_its_maps(known, files):
    """With the true model the maps' latents are standard normal: mean 0 and, as axes, a rotation."""
    graphs, state = gan.create(dataclasses.replace(RUN.settings(), encoder=8), 0)
    state = gan.with_linear(state, *path_of(*known))
    mean, axes = texture_export.latents_of(graphs, state, dataclasses.replace(RUN, encoder=8), files, 640)
    np.testing.assert_allclose(mean, 0.0, atol=0.1)
    np.testing.assert_allclose(axes.T @ axes, np.eye(LATENT), atol=0.15)


def test_a_stopped_run_with_a_linear_path_goes_on_with_the_same_losses(files, tmp_path, monkeypatch):
    """One run to the end, and one that ends within the second level and then goes on with its own linear path."""
    path = training.linear_path(RUN, files, 40)
    monkeypatch.setattr(training, "linear_path", lambda *_: path)
    _, whole = training.train(RUN, files, [], tmp_path / "whole")
    training.train(dataclasses.replace(RUN, images=(12, 4)), files, [], tmp_path / "stopped")
    monkeypatch.setattr(training, "linear_path", lambda *_: pytest.fail("found once more"))
    _, again = training.train(RUN, files, [], tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    rows = [
        {row["step"]: row for row in map(json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines())}
        for name in ("whole", "stopped")
    ]
    assert list(rows[0]) == [3, 6] and list(rows[1]) == [3, 4, 6]
    for step in (3, 6):
        one, other = ({k: v for k, v in table[step].items() if k != "time"} for table in rows)
        assert one == other and ("distance" in one) == (step == 6)
    np.testing.assert_allclose(linear_parts(again)[0][0], 2 * np.asarray(path[0]) - 1, atol=1e-6)
    kept = Checkpoints(tmp_path / "stopped" / "checkpoints")
    done, restored = kept.restore(gan.create(RUN.settings(), 9)[1])
    kept.close()
    assert done == 6 and nnx.to_flat_state(restored.average)
    jax.tree.map(np.testing.assert_array_equal, restored, whole)


def test_the_linear_path_of_a_texture_model_is_the_model_without_networks(known, files, tmp_path):
    """Fresh networks add nothing: model and path agree, and the path's least squares give latents back."""
    graphs, state = gan.create(RUN.settings(), 0)
    state = gan.with_linear(state, *path_of(*known))
    texture_export.export(tmp_path / "texture.npz", graphs, state, RUN, files)
    model, _ = assets.load_texture(tmp_path / "texture.npz")
    path = quality.linear_path(model)
    latents = jnp.float32(0.5 * draw((3, LATENT), 4))
    maps = jnp.stack([texture.decode(model, z) for z in latents])
    np.testing.assert_allclose(jnp.stack([texture.decode(path, z) for z in latents]), maps, atol=1e-4)
    weight = np.float32(draw((3, 8, 8), 5) > 0)
    np.testing.assert_allclose(quality.best_linear(path, maps, weight, 1e-7), latents, atol=0.05)
    plain = Training(side=8, latent=3, base=32, widest=5, critic=1.0, encoder=4, batches=(4, 4), images=(4, 4))
    texture_export.export(tmp_path / "plain.npz", *gan.create(plain.settings(), 0), plain, files)
    assert quality.linear_path(assets.load_texture(tmp_path / "plain.npz")[0]) is None


def test_latents_come_from_maps_of_the_linear_paths_side(known, files):
    """Maps too coarse for the finished side still tell how people vary."""
    run = dataclasses.replace(RUN, side=16, batches=(4, 4, 4), images=(4, 4, 4), encoder=8)
    graphs, state = gan.create(run.settings(), 0)
    state = gan.with_linear(state, *path_of(*known))
    mean, axes = texture_export.latents_of(graphs, state, run, files, 640)
    np.testing.assert_allclose(mean, 0.0, atol=0.1)
    np.testing.assert_allclose(axes.T @ axes, np.eye(LATENT), atol=0.15)
    with pytest.raises(InputError, match="16 x 16"):
        texture_data.teachers(files, 16)
