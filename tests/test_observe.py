from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import detectors, observe, recognition
from ganfit_jax.errors import InputError
from ganfit_jax.landmarks import extent
from ganfit_jax.photo import read_photo


def smooth(x, y):
    """A photo that is a function of its coordinates, so that any cut of it can be told in closed form."""
    return np.stack([0.5 + 0.3 * np.sin(x / 40), 0.5 + 0.3 * np.cos(y / 50), 0.5 + 0.2 * np.sin(x / 70 + y / 60)], -1)


def photo(height, width):
    y, x = np.mgrid[:height, :width] + 0.5
    return smooth(x, y).astype(np.float32)


@pytest.fixture(scope="module")
def astronaut(request):
    return read_photo(request.config.rootpath / "examples/astronaut.png")


@pytest.fixture(scope="module")
def face(astronaut):
    return detectors.detector("dlib").detect(astronaut)[0]


def moved(face, scale=1.0, shift=(0.0, 0.0), angle=0.0):
    cosine, sine = np.cos(angle), np.sin(angle)
    points = face.landmarks @ (scale * np.array([[cosine, sine], [-sine, cosine]])) + np.array(shift)[None]
    return face._replace(landmarks=points.astype(np.float32), box=extent(points).astype(np.float32))


@pytest.mark.parametrize("scale", [0.6, 1.0, 3.7])
@pytest.mark.parametrize("angle", [0.0, 0.5, 1.4, 3.0, -1.6])
def test_window_shows_what_its_matrix_says(face, scale, angle):
    """Each pixel of the window has the photo's value at photo_from_window of its centre; quarter turns are exact."""
    turned = moved(face, scale, angle=angle)
    centre = turned.landmarks.mean(0)
    turned = moved(turned, 1.0, 900.0 - centre)
    found = observe.observe(photo(1800, 1800), turned, size=128)
    matrix = np.asarray(found.photo_from_window, np.float64)
    y, x = np.mgrid[:128, :128] + 0.5
    where = np.einsum("ij,hwj->hwi", matrix[:, :2], np.stack([x, y], -1)) + matrix[:, 2]
    # the mean over the pixel's footprint differs from the value at its centre in the second order of its size
    assert np.abs(np.asarray(found.image) - smooth(where[..., 0], where[..., 1])).max() < 0.004
    assert np.asarray(found.mask).min() > 0.999
    back = np.asarray(found.landmarks) @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(back - turned.landmarks).max() < 0.01


@pytest.mark.parametrize("degrees", [0, 40, -40, 60, 90, 180, 225, -90])
def test_roll_stays_in_the_pose_up_to_45_degrees(face, degrees):
    turned = moved(face, angle=np.deg2rad(degrees))
    points = observe.to_window(observe.window(turned.landmarks, turned.confidence, 256), turned.landmarks)
    up = points[36:48].mean(0) - points[48:68].mean(0)
    roll = np.rad2deg(np.arctan2(up[0], -up[1]))
    assert abs(roll) < 50
    if abs(degrees) <= 40:
        assert abs(roll - degrees) < 5
    upright = observe.to_window(observe.window(face.landmarks, face.confidence, 256), face.landmarks)
    assert np.allclose(np.ptp(points[[27, 8]], axis=0).max(), np.ptp(upright[[27, 8]], axis=0).max(), rtol=0.35)


def test_head_fits_the_window(astronaut, face):
    found = observe.observe(astronaut, face)
    assert found.image.shape == (256, 256, 3) and found.mask.shape == (256, 256)
    points = np.asarray(found.landmarks)
    height = points[8, 1] - points[17:27, 1].min()
    assert 0.35 < height / 256 < 0.5  # brows to chin; to the crown it is nearly twice as much
    assert points.min() > 30 and points.max() < 226
    assert points[17:27, 1].min() - 0.8 * height > -10  # the crown


def test_doubtful_points_weigh_little(face):
    """In terms of the spread of dlib's points: a tenfold sharper curve; certain and missing points stay as they are."""
    spread = np.array([0.005, 0.01, 0.04])
    confidence = 1 / (1 + (spread / detectors.UNSTEADY) ** 2)
    np.testing.assert_allclose(observe.sharpened(confidence), 1 / (1 + (spread / 0.01) ** 2), rtol=1e-4)
    np.testing.assert_array_equal(observe.sharpened(np.array([0.0, 1.0])), [0.0, 1.0])
    unsure = face._replace(confidence=np.linspace(0, 1, 68).astype(np.float32))
    seen = observe.observe(photo(512, 512), unsure, size=64)
    np.testing.assert_allclose(seen.confidence, [c / (c + 25 * (1 - c)) for c in unsure.confidence], rtol=1e-5)


def test_outside_of_the_photo_is_masked(face):
    small = photo(200, 200)
    turned = moved(face, 2.0, 100.0 - 2.0 * face.landmarks.mean(0))
    found = observe.observe(small, turned, size=96)
    matrix = np.asarray(found.photo_from_window)
    y, x = np.mgrid[:96, :96] + 0.5
    where = np.einsum("ij,hwj->hwi", matrix[:, :2], np.stack([x, y], -1)) + matrix[:, 2]
    inside = ((where > 0) & (where < 200)).all(-1)
    mask = np.asarray(found.mask)
    assert np.abs(mask - inside).mean() < 0.02
    assert 0.2 < mask.mean() < 0.8
    assert np.isfinite(np.asarray(found.image)).all()


def test_scaling_down_does_not_alias(face):
    """Stripes finer than the window's pixels become their mean."""
    stripes = np.zeros((1600, 1600, 3), np.float32)
    stripes[:, ::2] = 1
    large = moved(face, 8.0)
    large = moved(large, 1.0, 800.0 - large.landmarks.mean(0))
    found = observe.observe(stripes, large, size=128)
    inner = np.asarray(found.image)[np.asarray(found.mask) > 0.999]
    assert np.abs(inner - 0.5).max() < 0.03


def test_ignored_points_do_not_move_the_window(face):
    points = face.landmarks.copy()
    points[3] = 1e6
    confidence = face.confidence.copy()
    confidence[3] = 0
    clean = observe.window(face.landmarks, face.confidence, 256)
    assert np.allclose(observe.window(points, confidence, 256), clean, rtol=0.05, atol=6)


def test_types_and_weight(astronaut, face):
    found = observe.observe(astronaut, face)
    leaves = jax.tree.leaves(found)
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 for leaf in leaves)
    assert found.weight == 1.0 and found.features is None


def test_choose_face(face):
    right, left = moved(face, 1.0, (300, 0)), moved(face, 2.0)
    assert observe.choose_face([face])[0] is face
    chosen, said = observe.choose_face([right, left])
    assert chosen is left and said == "face 0 of 2 (from 0, left to right; the largest), found by dlib"
    chosen, said = observe.choose_face([right, left], face=1)
    assert chosen is right and "face 1 of 2" in said
    for wrong in (2, -1):
        with pytest.raises(InputError, match=f"a.jpg: face {wrong} was asked for, found 2"):
            observe.choose_face([right, left], face=wrong, photo="a.jpg")
    unsure = face._replace(confidence=np.full(68, 0.3, np.float32))
    assert observe.choose_face([unsure])[1] == "one face, found by dlib, but its landmarks are uncertain"
    with pytest.raises(InputError, match=r"a.jpg: no face found, expected"):
        observe.choose_face([], photo="a.jpg")
    with pytest.raises(InputError, match=r"too small .* expected at least 20 px"):
        observe.choose_face([moved(face, 0.3)])


def test_a_profile_is_not_too_small(face):
    """Seen from the side the eyes are close together, but eyes and mouth are not."""
    profile = face.landmarks * np.array([0.2, 1.0]) + np.array([100.0, 0])
    observe.choose_face([face._replace(landmarks=profile.astype(np.float32))])


def test_stack(astronaut, face):
    one = observe.observe(astronaut, face, size=64)
    two = observe.stack([one, one._replace(weight=jnp.zeros(()))])
    assert two.image.shape == (2, 64, 64, 3) and two.landmarks.shape == (2, 68, 2)
    assert two.weight.tolist() == [1.0, 0.0]
    assert two.photo_from_window.shape == (2, 2, 3)
    with pytest.raises(InputError, match="no photo"):
        observe.stack([])


def test_features_are_of_the_aligned_chip(astronaut, face):
    """The features that the window gives by the fit's own path nearly equal those cut from the photo."""
    network, _ = recognition.load("dlib")
    found = observe.observe(astronaut, face, network)
    chip = jax.jit(partial(recognition.aligned_chip, network.spec))(found.image, found.landmarks)
    again = jax.jit(recognition.features)(network, chip)
    assert found.features.embedding.shape == again.embedding.shape
    assert jnp.linalg.norm(found.features.embedding - again.embedding) < 0.15
    flipped = moved(face, 1.0, (4.0, 0.0))
    other = observe.observe(np.ascontiguousarray(astronaut[::-1]), flipped, network)
    assert jnp.linalg.norm(found.features.embedding - other.features.embedding) > 0.5
    both = observe.stack([found, other])
    assert both.features.embedding.shape == (2, *again.embedding.shape)
