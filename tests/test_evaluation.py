"""Judges against loops, side views, shape errors whose value is known."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, energy, evaluation, recognition
from ganfit_jax.config import SecondRender
from ganfit_jax.detectors import detector
from ganfit_jax.errors import InputError
from ganfit_jax.fit import as_arrays
from ganfit_jax.photo import read_photo
from ganfit_jax.types import LinearTexture, Models

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "astronaut.png"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def models():
    texture = LinearTexture(jnp.full((8, 8, 3), 0.5), jnp.full((2, 8, 8, 3), 0.02))
    return Models(assets.load_shape()[0], texture, None)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_judge_pairs_against_loops(metric):
    photos = RNG.normal(size=(5, 4))
    renders = photos + 0.3 * RNG.normal(size=(5, 4))
    renders[1] = photos[3]  # taken for somebody else
    renders[2] = np.nan  # no face found
    judged = evaluation.judge_pairs(photos, renders, metric)
    for i in range(5):
        values = []
        for j in range(5):
            if metric == "cosine":
                values.append(renders[i] @ photos[j] / (sum(renders[i] ** 2) * sum(photos[j] ** 2)) ** 0.5)
            else:
                values.append(-(sum((renders[i] - photos[j]) ** 2) ** 0.5))
        assert judged.similarity[i] == pytest.approx(values, nan_ok=True)
        assert judged.own[i] == pytest.approx(values[i], nan_ok=True)
        best = max(range(5), key=lambda j: values[j])
        assert judged.right[i] == (1.0 if best == i and i != 2 else 0.0)
    assert judged.right[1] == 0 and judged.right[2] == 0


def test_the_side_view_is_turned_neutral_and_centred(models):
    spread = as_arrays(SecondRender())
    person = evaluation.synthetic_person(jax.random.key(0), models, spread, 2)
    view = evaluation.side_view(person, 1)
    assert not view.expression.any()
    assert float(jnp.linalg.norm(view.camera.rotation)) == pytest.approx(np.radians(26))
    assert view.camera.translation[2] == person.views.camera.translation[1, 2]
    assert view.camera.log_focal == person.views.camera.log_focal[1]


def test_the_brightness_of_drawn_lights_says_nothing_about_their_tint():
    spread = as_arrays(SecondRender(light=0.1))
    draw = jax.jit(jax.vmap(lambda key: energy.random_view(key, 3, spread).light))
    light = draw(jax.random.split(jax.random.key(0), 4000))
    colour, ambient = np.asarray(light.colour), np.asarray(light.ambient[:, 0])
    tint = colour - colour.mean(1, keepdims=True)
    draws = np.column_stack([colour.mean(1), ambient, tint[:, 0], tint[:, 1]])
    assert draws[:, 0].std() == pytest.approx(0.1, rel=0.1) and ambient.std() == pytest.approx(0.05, rel=0.1)
    assert tint.std() == pytest.approx(0.02 * (2 / 3) ** 0.5, rel=0.1)
    correlation = np.corrcoef(draws.T)
    assert np.abs(correlation[0, 1:]).max() < 0.06 and np.abs(correlation[1, 2:]).max() < 0.06


def test_synthetic_people_differ_and_are_reproducible(models):
    spread = as_arrays(SecondRender())
    one, same, other = (evaluation.synthetic_person(jax.random.key(k), models, spread, 2) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert one.identity.shape.shape == models.shape.identity_basis.shape[:1]
    assert one.views.camera.rotation.shape == (2, 3)
    assert float(jnp.abs(one.identity.shape - other.identity.shape).mean()) > 0.5
    assert float(jnp.abs(one.views.camera.rotation[0] - one.views.camera.rotation[1]).max()) > 1e-3
    assert one.views.expression.min() >= 0 and one.views.expression.max() <= 1


def test_our_embedding_agrees_with_dlibs_library():
    image = read_photo(PHOTO)
    judge = recognition.load("dlib")[0]
    find = detector("dlib")
    network = evaluation.dlib_network()
    seen = evaluation.describe(image, judge, find, network)
    assert np.linalg.norm(seen.embedding - seen.descriptor) < 0.1, "two people are 0.6 or more apart"
    empty = evaluation.describe(np.full((128, 128, 3), 0.5, np.float32), judge, find, network)
    assert np.isnan(empty.embedding).all() and empty.embedding.shape == (128,)
    table = evaluation.compare([seen, seen], [seen, empty], "euclidean")
    assert table["without_face"] == 1 and table["judge_nearest_is_own"] == 0.5
    assert table["dlib_distance_median"] == pytest.approx(0)


def test_a_failure_is_listed_and_stops_no_other():
    def work(name):
        if name == "b":
            raise InputError("b.jpg: no face")
        return 1 / (ord(name) - ord("c"))

    done, failed = evaluation.attempt("abcd", work)
    assert done == {"a": -0.5, "d": 1.0}
    assert failed == {"b": "b.jpg: no face", "c": "ZeroDivisionError: division by zero"}
    assert evaluation.attempt("", work) == ({}, {})
