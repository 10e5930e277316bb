"""The energy and the fit: terms and networks switch off, photos of weight 0 are silent, batches equal loops, fits end
at the truth."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, config, deviations, energy, evaluation, morphable, recognition
from ganfit_jax.camera import project
from ganfit_jax.config import Config, SecondRender, Stage
from ganfit_jax.deviations import Head
from ganfit_jax.energy import like_photo
from ganfit_jax.fit import active, as_arrays, compiled_start, fit, landmark_model, run_stage
from ganfit_jax.types import Camera, LinearTexture, Models, Observation

SIZE = 64
STATIC = energy.Static(SIZE, 48)


@pytest.fixture(scope="module")
def models(tiny_recogniser):
    shape, _ = assets.load_shape()
    rng = np.random.default_rng(0)
    coarse = jnp.float32(rng.normal(0, 0.05, size=(5, 4, 4, 3)))
    basis = jax.image.resize(coarse, (5, 32, 32, 3), "cubic")
    texture = LinearTexture(jnp.full((32, 32, 3), 0.5), basis)
    return Models(shape, texture, tiny_recogniser)


@partial(jax.jit, static_argnames="photos")
def drawn_person(models, key, photos):
    spread = as_arrays(SecondRender(yaw=0.3, expression=0.4, light=0.1, focal=4.0))
    return evaluation.synthetic_person(key, models, spread, photos)


def truth_of(models, seed, photos=1):
    return drawn_person(models, jax.random.key(seed), photos)


@partial(jax.jit, static_argnames="size")
def landmarks_only(models, params, size=SIZE):
    """Observations of synthetic views with exact landmarks and a black image."""

    def observe(view):
        vertices = morphable.vertices(models.shape, params.identity.shape, view.expression)
        points = morphable.landmarks(models.shape, vertices, view.camera.rotation)
        marks = project(view.camera, points, size)[:, :2]
        black = jnp.zeros((size, size, 3))
        return Observation(black, marks, jnp.ones(68), jnp.ones((size, size)), jnp.eye(2, 3), None, jnp.ones(()))

    return jax.vmap(observe)(params.views)


@partial(jax.jit, static_argnames="size")
def photograph(models, params, size=SIZE):
    """Observations of synthetic views with exact landmarks."""
    seen = landmarks_only(models, params, size)
    images = jnp.stack([evaluation.photograph(models, params, n, size) for n in range(len(seen.weight))])
    chips = jax.vmap(lambda image, marks: recognition.aligned_chip(models.recogniser.spec, image, marks))
    return seen._replace(image=images, features=recognition.features(models.recogniser, chips(images, seen.landmarks)))


@pytest.fixture(scope="module")
def scene(models):
    truth = truth_of(models, 3, photos=2)
    return truth, photograph(models, truth)


def evaluate(models, params, observations, names, key=0, static=STATIC):
    weights = {name: jnp.float32(1.0) for name in names}
    spread = as_arrays(SecondRender())
    return energy.energy(params, observations, models, weights, jax.random.key(key), spread, static)


def primitives(jaxpr, found=None):
    found = set() if found is None else found
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for value in equation.params.values():
            for inner in jax.tree.leaves(value, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    primitives(inner, found)
    return found


def test_the_truth_has_no_image_and_landmark_error(models, scene):
    truth, observations = scene
    names = ("landmark", "pixel", "identity", "content")
    compiled = jax.jit(evaluate, static_argnums=3)
    _, terms = compiled(models, truth, observations, names)
    assert terms["landmark"] == pytest.approx(0, abs=1e-6)
    assert terms["pixel"] == pytest.approx(0, abs=2e-3)
    assert terms["identity"] == pytest.approx(0, abs=2e-2)
    other = truth._replace(identity=truth_of(models, 4).identity)
    _, worse = compiled(models, other, observations, names)
    for name in names:
        assert worse[name] > terms[name] + 1e-3


@pytest.mark.parametrize("off", ["identity", "second_identity", "content", "pixel", "landmark", "shape", "light"])
def test_a_weight_of_zero_removes_the_term(off):
    settings = Config()
    assert off in active(settings.weights, settings.full)
    setattr(settings.weights, off, 0.0)
    assert off not in active(settings.weights, settings.full)


def test_a_stage_multiplies_the_weights_that_it_names():
    settings = Config()
    settings.weights.pixel, settings.weights.landmark, settings.weights.shape = 20.0, 0.5, 0.25
    stage = Stage(terms=("pixel", "landmark", "shape"), landmark=0.5, pixel=3.0)
    assert active(settings.weights, stage) == {"pixel": 60.0, "landmark": 0.25, "shape": 0.25}


def test_the_saturation_of_the_pixel_term_is_a_setting(models, scene):
    truth, observations = scene
    dark = truth._replace(views=truth.views._replace(light=jax.tree.map(lambda x: 0.5 * x, truth.views.light)))
    found = []
    for saturation in (0.02, 10.0):
        value = jax.jit(partial(evaluate, names=("pixel",), static=STATIC._replace(saturation=saturation)))
        found.append(float(value(models, dark, observations)[1]["pixel"]))
    assert found[0] < 0.02 < found[1]


def test_without_network_terms_the_program_has_no_network(models, scene):
    truth, observations = scene

    def traced(names):
        return primitives(jax.make_jaxpr(lambda p: evaluate(models, p, observations, names))(truth).jaxpr)

    assert "conv_general_dilated" in traced(("identity",))
    assert "conv_general_dilated" in traced(("second_identity",))
    assert "conv_general_dilated" not in traced(("pixel", "landmark", "shape", "texture", "expression", "light"))
    landmarks_only = traced(("landmark", "shape", "expression"))
    assert not any(name.startswith("scatter") for name in landmarks_only), "landmarks need no rasterizer"


def test_a_photo_of_weight_zero_changes_nothing_even_if_it_is_nan(models, scene):
    truth, observations = scene
    poison = jax.tree.map(lambda x: x.at[1].set(jnp.nan), observations)
    poison = poison._replace(weight=jnp.array([1.0, 0.0]))
    start = truth._replace(identity=jax.tree.map(lambda x: 0.5 * x, truth.identity))
    # The first photo alone, in the same compiled program: the mean over two copies of it.
    twice, views = (jax.tree.map(lambda x: x[jnp.zeros(2, int)], x) for x in (observations, start.views))
    names = ("landmark", "pixel", "identity", "content", "second_identity", "shape")
    value = jax.jit(jax.value_and_grad(lambda m, p, o: evaluate(m, p, o, names), argnums=1, has_aux=True))
    (one, _), slope_one = value(models, start._replace(views=views), twice)
    (two, _), slope_two = value(models, start, poison)
    assert float(two) == pytest.approx(float(one), rel=1e-4)
    np.testing.assert_allclose(slope_two.identity.shape, slope_one.identity.shape, rtol=2e-2, atol=1e-3)
    assert all(bool(jnp.all(x[1] == 0)) for x in jax.tree.leaves(slope_two.views))


def test_a_step_that_is_not_finite_is_rejected_and_reported(models):
    truth = truth_of(models, 6)
    observations = landmarks_only(models, truth)
    settings = Config(size=SIZE, chunk=5)
    stage = dataclasses.replace(settings.align, steps=10)
    settings.weights.landmark = float("nan")
    after, _, rejected = run_stage(truth, observations, models, settings, stage, jax.random.key(0))
    assert rejected == 10
    jax.tree.map(np.testing.assert_array_equal, after, truth)


def test_landmark_model_has_the_same_landmarks(models):
    small = landmark_model(models.shape)
    assert len(small.mean) < 0.2 * len(models.shape.mean)
    truth = truth_of(models, 5)
    view = jax.tree.map(lambda x: x[0], truth.views)
    points = [
        morphable.landmarks(m, morphable.vertices(m, truth.identity.shape, view.expression), view.camera.rotation)
        for m in (models.shape, small)
    ]
    np.testing.assert_allclose(points[0], points[1], atol=1e-3)


def test_many_people_at_once_equal_a_loop(models):
    settings = Config(size=SIZE, chunk=5)
    settings.align.steps, settings.colour.steps, settings.full.steps = 10, 0, 0
    people = [landmarks_only(models, truth_of(models, seed)) for seed in (1, 2, 3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *people)
    together = fit(stacked, models, settings, jax.random.key(0))
    assert together.ok.shape == (3,)
    assert together.trace["align/landmark"].shape == (3, 10)
    for number, one in enumerate(people):
        alone = fit(one, models, settings, jax.random.key(0))
        np.testing.assert_allclose(together.params.identity.shape[number], alone.params.identity.shape, atol=2e-3)
        np.testing.assert_allclose(together.trace["align/landmark"][number], alone.trace["align/landmark"], rtol=2e-2)


@pytest.mark.parametrize("yaw", [-60, -30, 0, 45, 60])
def test_the_first_pose_is_found_at_any_yaw(models, yaw):
    rotation = jnp.array([0.1, np.radians(yaw), -0.1], jnp.float32)
    camera = Camera(rotation, jnp.array([10.0, -20.0, 1200.0]), jnp.log(jnp.float32(4.0)))
    points = project(camera, morphable.landmarks(models.shape, models.shape.mean, rotation), SIZE)[:, :2]
    black = jnp.zeros((SIZE, SIZE, 3))
    seen = Observation(black, points, jnp.ones(68), black[..., 0], jnp.eye(2, 3), None, jnp.ones(()))
    start = compiled_start(jax.tree.map(lambda x: x[None], seen), models, 4.0, SIZE)
    assert float(jnp.linalg.norm(start.views.camera.rotation[0] - rotation)) < np.radians(3)


def test_alignment_reaches_the_landmarks_of_a_known_person(models):
    truth = truth_of(models, 7)
    observations = landmarks_only(models, truth)
    settings = Config(size=SIZE, chunk=5)
    settings.colour.steps = settings.full.steps = 0
    fitted = fit(observations, models, settings, jax.random.key(0))
    assert bool(fitted.ok)
    start, end = (float(fitted.trace["align/landmark"][i]) for i in (0, -1))
    assert end < 0.25 * start and end**0.5 < 0.7


@pytest.mark.slow
def test_a_fit_of_a_synthetic_photo_comes_near_the_truth(models):
    models = models._replace(recogniser=recognition.load("dlib")[0])
    truth = truth_of(models, 11, photos=2)
    observations = photograph(models, truth, 128)
    settings = Config(size=128)
    settings.second.size = 100
    settings.align.steps, settings.colour.steps, settings.full.steps = 60, 60, 80
    fitted = fit(observations, models, settings, jax.random.key(0))
    none = 0.0 * truth.views.expression[0]
    shapes = [morphable.vertices(models.shape, p, none) for p in (truth.identity.shape, fitted.params.identity.shape)]
    heads = [Head(models.shape, np.asarray(x, np.float64), ()) for x in (*shapes, models.shape.mean)]
    error, before = (deviations.shape_error(head, heads[0]).mean() for head in heads[1:])
    assert error < 0.75 * before
    assert fitted.trace["full/pixel"][-5:].mean() < 0.5 * fitted.trace["colour/pixel"][0]


def test_callbacks_and_traces_cover_all_steps(models):
    observations = landmarks_only(models, truth_of(models, 8))
    settings = Config(size=SIZE, chunk=5)
    settings.align.steps, settings.colour.steps, settings.full.steps = 12, 0, 0
    calls = []
    fitted = fit(observations, models, settings, jax.random.key(0), lambda *c: calls.append(c[:3]))
    assert calls == [("align", 5, 12), ("align", 10, 12), ("align", 12, 12)]
    assert len(fitted.trace["align/landmark"]) == 12
    assert tuple(f.name for f in dataclasses.fields(config.Weights)) == config.TERMS


def test_a_black_and_white_photo_is_compared_in_luma():
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 5, 3)), jnp.float32)
    photo = jnp.broadcast_to(image[..., :1], image.shape)
    luma = np.asarray(image) @ np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(like_photo(image, photo), np.repeat(luma[..., None], 3, -1), atol=1e-6)
    np.testing.assert_array_equal(like_photo(image, image), image)
