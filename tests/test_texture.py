"""Albedo from a linear model and from a generator; a trained run becomes a texture model that fits take."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ganfit_jax import assets, corpus, evaluation, gan, morphable, samples, texture, texture_data, texture_export
from ganfit_jax.camera import project
from ganfit_jax.config import Config, SecondRender
from ganfit_jax.fit import as_arrays, fit
from ganfit_jax.generator import Generator
from ganfit_jax.training import Training
from ganfit_jax.types import GanTexture, GeneratorSpec, LinearTexture, Models, Observation


def _model():
    rng = np.random.default_rng(0)
    return LinearTexture(
        jnp.asarray(rng.uniform(0.2, 0.9, (6, 6, 3)), jnp.float32),
        jnp.asarray(rng.normal(0, 0.2, (4, 6, 6, 3)), jnp.float32),
    )


def test_decode_equals_a_plain_loop_and_is_clipped():
    model, latent = _model(), np.array([0.5, -1.0, 2.0, 0.3], np.float32)
    albedo = np.asarray(texture.decode(model, jnp.asarray(latent)))
    raw = np.asarray(model.mean, np.float64)
    for weight, component in zip(latent, model.basis, strict=True):
        raw = raw + weight * np.asarray(component)
    assert raw.min() < 0 and raw.max() > 1
    np.testing.assert_allclose(albedo, np.clip(raw, 0, 1), atol=1e-6)
    assert albedo.min() >= 0 and albedo.max() <= 1


def test_gradient_passes_the_clip():
    model = _model()
    gradient = jax.grad(lambda p: jnp.sum(texture.decode(model, p)))(jnp.array([9.0, 9.0, 9.0, 9.0]))
    np.testing.assert_allclose(gradient, np.asarray(model.basis).sum((1, 2, 3)), rtol=1e-4)


# Textures from a generator.


def _generator(widths=(5, 4), latent=6, size=3, contrast=1.0, seed=0, linear=0):
    """A random generator whose colours leave [0, 1] at contrast 1, with `size` latents of one standard deviation."""
    graph, state = nnx.split(Generator(latent, widths, nnx.Rngs(seed), linear=linear))
    rng = np.random.default_rng(seed)
    leaves, tree = jax.tree.flatten(state)
    moved = [x + jnp.asarray(rng.normal(0, 0.1, x.shape), jnp.float32) for x in leaves]
    state = jax.tree.unflatten(tree, moved)
    for level in state["colours"].values():
        level["kernel"][...] *= contrast
    mean, basis = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((latent,), (size, latent)))
    return GanTexture(state, mean, basis, GeneratorSpec(4 << (len(widths) - 1), graph))


def _raw(model, latent):
    z = model.mean + jnp.dot(latent, model.basis)
    network = nnx.merge(model.spec.graph, model.weights)
    return 0.5 + 0.5 * network(z[None], model.spec.side, jnp.ones(()))[0]


def test_decode_of_a_generator():
    model, latent = _generator(), jnp.array([0.5, -1.0, 2.0])
    raw = np.asarray(_raw(model, latent))
    assert raw.shape == (8, 8, 3) and raw.min() < 0 and raw.max() > 1
    for decode in (texture.decode, jax.jit(texture.decode)):
        np.testing.assert_allclose(decode(model, latent), np.clip(raw, 0, 1), atol=1e-5)
    assert texture.latent_size(model) == 3 and texture.latent_size(_model()) == 4
    many = jax.vmap(lambda p: texture.decode(model, p))(jnp.stack([latent, 0 * latent]))
    np.testing.assert_allclose(many[0], np.clip(raw, 0, 1), atol=1e-5)
    assert np.abs(many[0] - many[1]).max() > 0.05


def test_gradient_of_a_generator_passes_the_clip():
    model, latent = _generator(), jnp.array([0.5, -1.0, 2.0])
    towards = jnp.asarray(np.random.default_rng(1).normal(size=(8, 8, 3)), jnp.float32)
    outside = (_raw(model, latent) < 0) | (_raw(model, latent) > 1)
    assert bool(jnp.any(outside))
    for weight in (towards, jnp.where(outside, towards, 0.0)):
        found, expected = (
            jax.grad(lambda p, f=f, w=weight: jnp.sum(w * f(model, p)))(latent) for f in (texture.decode, _raw)
        )
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("maps"), np.random.default_rng(0)
    for number in range(6):
        smooth = 0.5 + 0.1 * rng.normal(size=(1, 1, 3)) + 0.1 * rng.normal(size=(8, 8, 3))
        corpus.write_map(root, f"p{number}", smooth, np.float32(rng.uniform(size=(8, 8)) > 0.2))
    return texture_data.find_maps([root])


RUN = Training(side=8, latent=6, base=32, widest=5, critic=1.0, encoder=4, batches=(4, 4), images=(4, 4), pigments=0.0)


@pytest.mark.parametrize("reconstruction", [0.0, 1.0])
def test_a_trained_run_becomes_a_texture_model(files, tmp_path, reconstruction):
    run = dataclasses.replace(RUN, reconstruction=reconstruction)
    graphs, state = gan.create(run.settings(), 0)
    other = gan.create(run.settings(), 1)[1].weights.generator
    state = state._replace(average=other)
    texture_export.export(tmp_path / "texture.npz", graphs, state, run, files, "CC0-1.0")
    model, info = assets.load_texture(tmp_path / "texture.npz")
    assert isinstance(model, GanTexture) and model.spec.side == 8 and texture.latent_size(model) == 6
    assert info.licence == "CC0-1.0" and info.name == "generator"
    for leaf in jax.tree.leaves(model):
        assert leaf.dtype == jnp.float32
    latent = jnp.asarray(np.random.default_rng(2).normal(size=6), jnp.float32)
    mean, basis = texture_export.latents_of(graphs, state, run, files)
    z = jnp.asarray(mean + np.asarray(latent) @ basis, jnp.float32)
    expected = samples.painted(graphs.generator, other, z[None], 8, jnp.ones(()))[0]
    found = texture.decode(model, latent)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert np.abs(found - texture.decode(model, 0 * latent)).max() > 0.05


def test_latents_of_a_run_with_an_encoder_are_those_of_its_maps(files):
    graphs, state = gan.create(RUN.settings(), 0)
    mean, basis = texture_export.latents_of(graphs, state, RUN, files, count=48)
    stream, codes = texture_data.batches(files, 8, 16, RUN.seed, 0, RUN.mirror, 0.0, threads=0), []
    for _ in range(3):
        batch = next(stream)
        maps = np.concatenate([2 * batch["albedo"] - 1, np.ones((16, 8, 8, 1), np.float32)], -1)
        maps = (maps * batch["weight"][..., None]).reshape(16, 4, 2, 4, 2, 4).mean((2, 4))
        codes.append(nnx.merge(graphs.encoder, state.weights.encoder)(jnp.asarray(maps), jnp.ones(())))
    codes = np.concatenate(codes)
    np.testing.assert_allclose(mean, codes.mean(0), atol=1e-4)
    np.testing.assert_allclose(basis.T @ basis, np.cov(codes.T, bias=True), atol=1e-4)
    sizes = np.linalg.norm(basis, axis=1)
    assert np.all(sizes[:-1] >= sizes[1:]) and sizes[0] > 1e-3


def test_without_an_encoder_a_fit_begins_near_the_mean_map(files):
    run = dataclasses.replace(RUN, reconstruction=0.0)
    graphs, state = gan.create(run.settings(), 0)
    mean, basis = texture_export.latents_of(graphs, state, run, files)
    np.testing.assert_array_equal(basis, np.eye(6))
    latents = jnp.concatenate([jnp.asarray(mean)[None], jax.random.normal(jax.random.key(9), (40, 6))])
    maps = np.asarray(samples.painted(graphs.generator, state.average, latents, 8, jnp.ones(())))
    errors = np.abs(maps - texture_data.mean_map(files, 8)[None]).mean((1, 2, 3))
    assert errors[0] <= np.quantile(errors, 0.1)


def test_without_detail_a_generator_draws_its_linear_path_alone():
    model, latent = _generator(linear=4), np.array([0.3, -0.2, 0.1], np.float32)
    found = np.asarray(texture.decode(model, jnp.asarray(latent), detail=False))
    raw = np.array(model.weights["linear"]["mean"][...], np.float64)
    z = np.asarray(model.mean) + latent @ np.asarray(model.basis)
    for weight, component in zip(z, model.weights["linear"]["basis"][...], strict=True):
        raw = raw + weight * np.asarray(component)
    assert found.shape == (4, 4, 3), "at the path's side"
    np.testing.assert_allclose(found, np.clip(0.5 + 0.5 * raw, 0, 1), atol=1e-5)
    plain = _generator()
    for one in (plain, _model()):  # no path, nothing to leave out
        latent = jnp.full(texture.latent_size(one), 0.3)
        np.testing.assert_array_equal(texture.decode(one, latent, detail=False), texture.decode(one, latent))


@pytest.mark.slow
@pytest.mark.parametrize("detail", [False, True])
def test_a_stage_without_detail_leaves_the_networks_out(detail):
    """With networks that give NaN, a stage goes well if and only if it does without them."""
    models, start, seen = _synthetic_photo(_generator((6, 6, 6, 6), contrast=0.3, size=6, seed=4, linear=8))
    broken = dataclasses.replace(models.texture, weights=jax.tree.map(jnp.array, models.texture.weights))
    broken.weights["first"]["kernel"][...] *= jnp.nan
    settings = Config(size=64, chunk=2)
    assert not settings.colour.detail and settings.full.detail
    settings.align.steps, settings.colour.steps, settings.full.steps = 0, 2, 0
    settings.colour.detail = detail
    found = fit(seen, models._replace(texture=broken), settings, jax.random.key(0), params=start)
    assert bool(found.ok) is not detail


@pytest.mark.slow
def test_a_fit_with_a_generator_lowers_the_pixel_term():
    """`fit` takes a generator as it takes a linear model: the albedo of a synthetic photo is found again in part."""
    models, truth, seen = _synthetic_photo(_generator((6, 6, 6, 6), contrast=0.3, size=6, seed=4))
    settings = Config(size=64, chunk=10)
    settings.align.steps, settings.colour.steps, settings.full.steps = 0, 20, 0
    start = truth._replace(identity=truth.identity._replace(texture=0.3 * truth.identity.texture))
    found = fit(seen, models, settings, jax.random.key(0), params=start)
    trace = found.trace["colour/pixel"]
    assert bool(found.ok) and trace[-3:].mean() < 0.7 * trace[0]
    assert float(jnp.abs(found.params.identity.texture - start.identity.texture).max()) > 0.1


def _synthetic_photo(model):
    """Models with this texture, a person drawn from them and the observation of one photo of 64 pixels."""
    shape, _ = assets.load_shape()
    models = Models(shape, model, None)
    spread = as_arrays(SecondRender(yaw=0.1, expression=0.1, light=0.05, focal=4.0))
    truth = jax.jit(evaluation.synthetic_person, static_argnums=3)(jax.random.key(0), models, spread, 1)
    image = jax.jit(evaluation.photograph, static_argnums=(2, 3))(models, truth, 0, 64)
    view = jax.tree.map(lambda x: x[0], truth.views)
    vertices = morphable.vertices(shape, truth.identity.shape, view.expression)
    points = morphable.landmarks(shape, vertices, view.camera.rotation)
    marks = project(view.camera, points, 64)[:, :2]
    seen = Observation(image, marks, jnp.ones(68), jnp.ones((64, 64)), jnp.eye(2, 3), None, jnp.ones(()))
    return models, truth, jax.tree.map(lambda x: x[None], seen)
