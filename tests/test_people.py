"""Synthetic people: reproducible, within their settings, of any texture."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, camera, corpus, people
from ganfit_jax.errors import InputError
from ganfit_jax.people import Settings
from ganfit_jax.types import LinearTexture

SETTINGS = Settings(yaw=30.0)
TEXTURE = LinearTexture(jnp.full((16, 16, 3), 0.5), jnp.full((2, 16, 16, 3), 0.05))


@pytest.fixture(scope="module")
def loaded():
    return assets.load_shape()


def test_people_are_reproducible_and_differ(loaded):
    model, _ = loaded
    one, same, other = (people.draw_person(SETTINGS, n, model, TEXTURE) for n in (3, 3, 4))
    np.testing.assert_array_equal(one.shape, same.shape)
    np.testing.assert_array_equal(one.albedo, same.albedo)
    assert np.abs(one.shape - other.shape).mean() > 0.5
    assert one.albedo.shape == (1024, 1024, 3) and 0.005 < one.albedo.std() < 0.1
    wide = people.draw_person(dataclasses.replace(SETTINGS, shape=2.0), 3, model, TEXTURE)
    assert wide.shape == pytest.approx(2 * one.shape)
    assert people.vertices(one).shape == model.mean.shape


def test_shots_are_drawn_as_the_settings_say(loaded):
    model, info = loaded
    shots = [people.draw_shot(SETTINGS, 1, view, info.expressions, model) for view in range(60)]
    yaws = np.array([shot.yaw for shot in shots])
    assert np.abs(yaws).max() < 30 and yaws.std() == pytest.approx(60 / 12**0.5, rel=0.25)
    for shot in shots:
        turn = np.asarray(camera.rotation_matrix(shot.camera.rotation), np.float64)
        aside = np.degrees(np.arctan2(turn[2, 0], np.hypot(turn[0, 0], turn[1, 0])))
        assert aside == pytest.approx(-shot.yaw, abs=4), "the rotation turns by the yaw"
        assert shot.expression.min() >= 0 and shot.expression.max() <= SETTINGS.expression
        assert 700 < float(shot.camera.translation[2]) < 3500
    weights = np.stack([shot.expression for shot in shots])
    assert (weights > 0).mean() == pytest.approx(SETTINGS.expressed, rel=0.3)
    names = list(info.expressions)
    assert not weights[:, [names.index(n) for n in ("mouthClose", "tongueOut", "jawForward")]].any()
    left, right = weights[:, names.index("mouthSmileLeft")], weights[:, names.index("mouthSmileRight")]
    assert ((left == right) | (left == 0) | (right == 0) | (left != right)).all()
    assert (left == right).mean() > 0.7, "most of the time both sides do the same"
    assert {shot.hand is None for shot in shots} == {True, False}


def test_models_without_names_are_drawn_too(loaded):
    model, _ = loaded
    shot = people.draw_shot(SETTINGS, 1, 0, (), model)
    assert shot.expression.shape == (len(model.expression_basis),)


def test_lights_come_from_the_front():
    random = np.random.default_rng(0)
    for _ in range(50):
        light = people.draw_lighting(random)
        assert all(lamp.direction[2] > 0 and lamp.colour.min() > 0 for lamp in light.lamps) and light.ambient.min() > 0


def test_maps_of_a_folder_are_taken_with_their_gaps_filled(loaded, tmp_path):
    model, _ = loaded
    albedo = np.full((32, 32, 3), [0.8, 0.6, 0.4], np.float32)
    weight = np.ones((32, 32), np.float32)
    weight[8:16, 8:16] = 0
    corpus.write_map(tmp_path, "skin", np.where(weight[..., None] > 0, albedo, 0), weight)
    settings = dataclasses.replace(SETTINGS, texture_maps=str(tmp_path))
    person = people.draw_person(settings, 0, model, TEXTURE)
    hole = person.albedo[11 * 32 : 13 * 32, 11 * 32 : 13 * 32].mean((0, 1))
    assert hole == pytest.approx([0.8, 0.6, 0.4], abs=0.03), "the mean map, tinted"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"no albedo maps, expected NAME\.png"):
        people.map_names(str(empty))


def test_a_photo_shows_a_person(loaded):
    pytest.importorskip("mitsuba")
    model, info = loaded
    person = people.draw_person(SETTINGS, 0, model, TEXTURE)._replace(cut="short")
    shot = people.draw_shot(SETTINGS, 0, 0, info.expressions, model)._replace(hand=(1.0, 0.5))
    photo = people.take(person, shot, 48, samples=2)
    assert photo.shape == (48, 48, 3) and photo.dtype == np.float32 and photo.min() >= 0 and photo.max() <= 1
    assert photo[20:28, 20:28].std() > 0.005
    again = people.take(person, shot, 48, samples=2)
    assert np.mean(photo != again) < 0.01 and np.abs(photo - again).max() < 0.01  # threads add up in any order
