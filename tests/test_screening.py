"""Photos that would spoil a corpus are dropped for the reason that holds."""

import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, morphable, screening
from ganfit_jax.camera import project
from ganfit_jax.landmarks import Detection
from ganfit_jax.types import Camera, Light, Observation, View


def frontal():
    """Landmarks of the mean face in a photo of 256 px."""
    model, _ = assets.load_shape()
    camera = Camera(jnp.zeros(3), jnp.array([0.0, 0.0, 1000.0]), jnp.log(jnp.float32(3.6)))
    return np.asarray(project(camera, morphable.landmarks(model, model.mean, camera.rotation), 256)[:, :2])


def verdict(colour, confidence=0.9, smallest=30.0):
    photo = np.broadcast_to(np.float32(colour), (256, 256, 3))
    face = Detection(np.zeros(4), frontal(), np.full(68, confidence), "given")
    return screening.reject_photo(photo, face, smallest)


def test_photos_are_dropped_for_the_reason_that_holds(monkeypatch):
    monkeypatch.setattr(screening, "glasses_score", lambda *_: -9.0)
    assert verdict([0.8, 0.62, 0.52]) == "" and verdict([0.3, 0.18, 0.12]) == ""
    assert verdict([0.8, 0.62, 0.52], confidence=0.3) == "landmarks"
    assert verdict([0.8, 0.62, 0.52], smallest=200.0) == "small"
    assert verdict([0.6, 0.6, 0.6]) == "colour" and verdict([0.5, 0.6, 0.7]) == "colour"
    monkeypatch.setattr(screening, "glasses_score", lambda *_: 0.0)
    assert verdict([0.8, 0.62, 0.52]) == "glasses"


def test_redness_is_that_of_the_faces_middle():
    landmarks = frontal()
    photo = np.full((256, 256, 3), 0.5, np.float32)
    middle = (
        slice(int(landmarks[41, 1]), int(landmarks[51, 1]) + 1),
        slice(int(landmarks[36, 0]), int(landmarks[45, 0])),
    )
    photo[middle] = [0.8, 0.6, 0.5]
    expected = 2.4 * (np.log(0.8 + 0.055) - np.log(0.6 + 0.055))
    assert screening.redness(photo, landmarks) == pytest.approx(expected, abs=1e-4)
    assert screening.redness(photo, landmarks + 1000) == 0.0, "a face outside the photo"


def test_fits_far_from_the_front_or_from_their_landmarks_are_dropped():
    model, _ = assets.load_shape()
    light = Light(jnp.ones(3), jnp.ones(3), jnp.ones(3))

    def verdict(yaw, shift):
        camera = Camera(jnp.float32([0.0, np.radians(yaw), 0.0]), jnp.array([0.0, 0.0, 1000.0]), jnp.float32(1.4))
        points = morphable.landmarks(model, model.mean, camera.rotation)
        points = np.asarray(project(camera, points, 256)[:, :2])
        seen = Observation(*[jnp.zeros(1)] * 7)._replace(landmarks=jnp.asarray(points))
        return screening.reject_fit(View(jnp.zeros(52), camera, light), seen, points + np.float32(shift))

    assert verdict(0, 0.0) == "" and verdict(20, 0.5) == ""
    assert verdict(40, 0.0) == "pose"
    assert verdict(0, 20.0) == "fit"
