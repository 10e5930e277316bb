"""Skin and glasses on a photo whose content is known: the astronaut."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ganfit_jax import occluders
from ganfit_jax.detectors import detector
from ganfit_jax.observe import cut, to_window, window
from ganfit_jax.photo import read_photo

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "astronaut.png"


@pytest.fixture(scope="module")
def face():
    photo = read_photo(PHOTO)
    found = detector("dlib").detect(photo)[0]
    placement = window(found.landmarks, found.confidence, 256)
    return cut(photo, placement, 256)[0], to_window(placement, found.landmarks)


def test_skin_is_skin_and_hair_is_not(face):
    image, landmarks = face
    weight = occluders.skin_weight(image, landmarks)
    assert weight.shape == (256, 256) and weight.min() >= 0 and weight.max() <= 1
    nose, forehead = landmarks[30], landmarks[17:27].mean(0) - [0, 0.1 * (landmarks[8] - landmarks[27])[1]]
    assert weight[int(nose[1]), int(nose[0])] == 1
    assert weight[int(forehead[1]), int(forehead[0])] > 0.7
    hair = image.mean(-1) < 0.2
    hair[80:] = False
    assert hair.sum() > 200
    assert weight[hair].mean() < 0.25


def test_shine_on_hair_is_not_skin(face):
    """Islands with the colour of skin, and what hangs together with the face by a strand only, do not count."""
    image, landmarks = face
    weight = occluders.skin_weight(image, landmarks)
    assert weight[:60].max() == 0, "the fringe's highlights"
    y, x = np.mgrid[:60, :60]
    disc = (y - 30) ** 2 + (x - 15) ** 2 < 12**2
    other = (y - 30) ** 2 + (x - 45) ** 2 < 8**2
    strand = (abs(y - 30) <= 1) & (x > 15) & (x < 45)
    seeds = (y == 30) & (x == 15)
    found = occluders.connected(np.float32(disc | other | strand), seeds, 2)
    assert (found[disc] == 1).all() and found[other & (x > 42)].max() == 0
    wide = (abs(y - 30) <= 3) & (x > 15) & (x < 45)
    found = occluders.connected(np.float32(disc | other | wide), seeds, 2)
    assert (found == (disc | other | wide)).all()
    assert not occluders.connected(np.zeros((9, 9), np.float32), np.ones((9, 9), bool), 1).any()


def test_painted_glasses_are_seen(face):
    image, landmarks = face
    bare = occluders.glasses_score(image, landmarks)
    canvas = Image.fromarray(np.uint8(255 * image))
    draw = ImageDraw.Draw(canvas)
    radius = 0.75 * np.linalg.norm(landmarks[36] - landmarks[39])
    for eye in (slice(36, 42), slice(42, 48)):
        x, y = landmarks[eye].mean(0)
        draw.ellipse((x - radius, y - 0.75 * radius, x + radius, y + 0.85 * radius), outline=(20, 15, 15), width=3)
    draw.line([tuple(landmarks[39] + [2, 0]), tuple(landmarks[42] - [2, 0])], fill=(20, 15, 15), width=3)
    worn = occluders.glasses_score(np.asarray(canvas, np.float32) / 255, landmarks)
    assert bare < -2.5
    assert worn > bare + 2


def test_gradient_histogram_against_loops():
    grey = np.random.default_rng(0).normal(size=(24, 16))
    dy, dx = np.gradient(grey)
    cells = np.zeros((3, 2, 8))
    for y in range(24):
        for x in range(16):
            angle = np.arctan2(dy[y, x], dx[y, x]) % np.pi
            cells[y // 8, x // 8, min(int(angle / np.pi * 8), 7)] += np.hypot(dx[y, x], dy[y, x])
    blocks = []
    for row in range(2):
        block = np.concatenate([cells[row, 0], cells[row, 1], cells[row + 1, 0], cells[row + 1, 1]])
        blocks.append(block / (np.linalg.norm(block) + 1e-3))
    assert occluders.gradient_histogram(grey) == pytest.approx(np.concatenate(blocks), rel=1e-5)


def face_points(size=100.0):
    """68 points of an upright face, good enough for what is above and below the nose."""
    points = np.zeros((68, 2))
    points[36], points[45], points[33] = (0.3 * size, 0.4 * size), (0.7 * size, 0.4 * size), (0.5 * size, 0.6 * size)
    return points


def test_a_hidden_mouth_takes_the_lower_face_out():
    confidence = np.full(68, 0.6)
    np.testing.assert_array_equal(occluders.lower_face_weight(face_points(), confidence, 100), 1)
    confidence[48:] = 0.05
    weight = occluders.lower_face_weight(face_points(), confidence, 100)
    np.testing.assert_array_equal(weight[:60], 1)
    np.testing.assert_array_equal(weight[65:], 0)
    assert 0 < weight[61, 50] < 1
    confidence[48:] = 0.35 * 0.6
    np.testing.assert_allclose(occluders.lower_face_weight(face_points(), confidence, 100)[65:], 0.5, atol=1e-5)


def test_the_lower_face_is_below_the_nose_of_a_tilted_head():
    confidence = np.full(68, 0.6)
    confidence[48:] = 0.0
    upright = occluders.lower_face_weight(face_points(), confidence, 100)
    turned = face_points()[:, ::-1] * [-1, 1] + [100, 0]  # a quarter turn: down is to the left
    np.testing.assert_allclose(occluders.lower_face_weight(turned, confidence, 100), np.rot90(upright, -1), atol=1e-5)
