"""Items and their truth: read as written, errors whose value is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, evaluation, subjects
from ganfit_jax.config import SecondRender
from ganfit_jax.errors import InputError
from ganfit_jax.fit import as_arrays
from ganfit_jax.landmarks import Detection, Detector
from ganfit_jax.picture import save_png
from ganfit_jax.scans import Marked, write_scan
from ganfit_jax.subjects import Truth
from ganfit_jax.types import Light, LinearTexture, Models

GREY = np.full((40, 40, 3), 0.5, np.float32)
SPREAD = as_arrays(SecondRender())


@pytest.fixture(scope="module")
def models():
    texture = LinearTexture(jnp.full((8, 8, 3), 0.5), jnp.full((2, 8, 8, 3), 0.02))
    return Models(assets.load_shape()[0], texture, None)


@pytest.fixture(scope="module")
def person(models):
    return evaluation.synthetic_person(jax.random.key(0), models, SPREAD, 2)


def truth_of(models, person, light=True):
    surface, landmarks = subjects.neutral_face(models.shape, person)
    return Truth(surface, np.array(landmarks), person.views.light if light else None)


def test_the_truth_itself_has_no_error_and_another_person_has(models, person):
    found = subjects.truth_figures(models.shape, person, truth_of(models, person))
    assert found == {"geometry mm": pytest.approx(0, abs=1e-3), "light %": pytest.approx(0, abs=1e-3)}
    other = evaluation.synthetic_person(jax.random.key(1), models, SPREAD, 2)
    wrong = subjects.truth_figures(models.shape, other, truth_of(models, person))
    assert wrong["geometry mm"] > 0.3 and wrong["light %"] > 1


def test_unknown_landmarks_of_a_scan_are_left_out(models, person):
    truth = truth_of(models, person, light=False)
    truth.landmarks[[0, 40, 67]] = np.nan
    assert subjects.truth_figures(models.shape, person, truth) == {"geometry mm": pytest.approx(0, abs=1e-3)}


def test_the_truth_is_the_neutral_face(models, person):
    smiling = person._replace(views=person.views._replace(expression=jnp.ones_like(person.views.expression)))
    np.testing.assert_array_equal(
        subjects.neutral_face(models.shape, smiling)[0].vertices,
        subjects.neutral_face(models.shape, person)[0].vertices,
    )


def test_light_error_against_a_loop():
    one = Light(jnp.array([0.0, 0.0, 2.0]), jnp.full(3, 0.5), jnp.full(3, 0.5))
    flat = Light(jnp.array([1.0, 0.0, 0.0]), jnp.zeros(3), jnp.full(3, 0.3))
    values = [0.5 + 0.5 * (1 - (k + 0.5) / subjects.DIRECTIONS) for k in range(subjects.DIRECTIONS)]
    mean = sum(values) / len(values)
    wanted = 100 * sum(abs(value / mean - 1) for value in values) / len(values)
    assert subjects.light_error(one, flat) == pytest.approx(wanted)
    brighter = Light(one.direction, 3 * one.colour, 3 * one.ambient)
    assert subjects.light_error(brighter, one) == pytest.approx(0, abs=1e-9)
    tinted = Light(one.direction, one.colour * jnp.array([1.2, 1.0, 0.8]), one.ambient)
    assert subjects.light_error(tinted, one) > 1


def test_truth_is_read_as_written(models, person, tmp_path):
    truth = truth_of(models, person)
    subjects.write_truth(tmp_path / "anna.npz", truth)
    save_png(tmp_path / "anna.jpg", GREY)
    item = subjects.read_item(tmp_path / "anna.jpg")
    assert item.photos == (tmp_path / "anna.jpg",) and item.truth is not None and item.truth.light is not None
    jax.tree.map(np.testing.assert_array_equal, item.truth, truth)


def test_a_scan_beside_the_photo_is_its_truth(models, person, tmp_path):
    truth = truth_of(models, person, light=False)
    write_scan(tmp_path, "truth", Marked(truth.surface, truth.landmarks))
    save_png(tmp_path / "b.png", GREY)
    save_png(tmp_path / "a.png", GREY)
    item = subjects.read_item(tmp_path)
    assert item.photos == (tmp_path / "a.png", tmp_path / "b.png") and item.truth is not None
    assert subjects.truth_figures(models.shape, person, item.truth)["geometry mm"] == pytest.approx(0, abs=1e-3)
    truth.landmarks[30] = np.nan
    write_scan(tmp_path, "truth", Marked(truth.surface, truth.landmarks))
    with pytest.raises(InputError, match="nose tip"):
        subjects.read_item(tmp_path)


def test_items_of_a_folder(tmp_path):
    save_png(tmp_path / "b.png", GREY)
    save_png(tmp_path / ".hidden.png", GREY)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "many").mkdir()
    assert subjects.names_in(tmp_path) == ["b.png", "many"]
    assert subjects.read_item(tmp_path / "b.png").truth is None


def test_one_line_for_what_is_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"PK no")
    np.savez(tmp_path / "other.npz", vertices=np.zeros((3, 2)), faces=np.zeros((1, 3)), landmarks=np.zeros((68, 3)))
    for name in ("broken.png", "other.png"):
        save_png(tmp_path / name, GREY)
    for name, match in {
        "empty": "no photo in this folder",
        "gone.png": "no such photo",
        "broken.png": "broken.npz: .*expected an npz with vertices",
        "other.png": r"other.npz: .*\(3, 2\)",
    }.items():
        with pytest.raises(InputError, match=match) as caught:
            subjects.read_item(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such folder"):
        subjects.names_in(tmp_path / "gone")


def test_a_synthetic_person_is_photographed_once_and_only_with_a_face(models, tmp_path):
    drawn = []

    def draw(models, person, photo, size):
        drawn.append(photo)
        return np.full((size, size, 3), photo / 10, np.float32)

    face = Detection(np.zeros(4), np.zeros((68, 2)), np.ones(68), "fake")
    find = Detector("fake", lambda image: [face] if image[0, 0, 0] > 0.05 else [])  # none in the first view
    make = partial(subjects.synthetic_item, tmp_path / "p", models, draw, find, 3, SPREAD, photos=2, size=16)
    item = make()
    assert [p.name for p in item.photos] == ["view_00.png", "view_01.png"] and item.truth is not None
    assert make().photos == item.photos and drawn == list(range(6))
    person = evaluation.synthetic_person(jax.random.key(3), models, SPREAD, 6)
    assert item.truth.light is not None
    np.testing.assert_array_equal(item.truth.light.direction, person.views.light.direction[1:3])
    blind = Detector("blind", lambda image: [])
    with pytest.raises(InputError, match="0 views with a face, expected 2"):
        subjects.synthetic_item(tmp_path / "q", models, draw, blind, 3, SPREAD, photos=2, size=16)
