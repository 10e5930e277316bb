"""Mitsuba's photos: the camera is ours, lamps are where and as bright as they say, nothing depends on the library."""

import importlib.util
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, camera, deviations, props, studio
from ganfit_jax.errors import InputError
from ganfit_jax.types import Camera

needs_mitsuba = pytest.mark.skipif(importlib.util.find_spec("mitsuba") is None, reason="mitsuba is absent")
VIEW = Camera(jnp.array([0.1, 0.35, 0.05]), jnp.array([12.0, -22.0, 1300.0]), jnp.log(jnp.array(4.0)))
DARK = studio.Lighting((), np.full(3, 0.5))


@pytest.fixture(scope="module")
def model():
    return assets.load_shape()[0]


def blob(centre, radius):
    """An octahedron."""
    points = np.concatenate([np.eye(3), -np.eye(3)]) * radius + centre
    faces = [(0, 1, 2), (1, 3, 2), (3, 4, 2), (4, 0, 2), (1, 0, 5), (3, 1, 5), (4, 3, 5), (0, 4, 5)]
    return studio.Solid(points, np.array(faces), np.ones((1, 1, 3)), None, 1.0, 0.0)


def square(corner, right, up, albedo=0.5):
    """Faces along right x up."""
    points = np.array([corner, corner + right, corner + right + up, corner + up], np.float64)
    return studio.Solid(points, np.array([[0, 1, 2], [0, 2, 3]]), np.full((1, 1, 3), albedo), None, 1.0, 0.0)


@needs_mitsuba
def test_points_appear_where_our_camera_projects_them():
    points = np.array(
        [[-60.0, 40.0, 10.0], [55.0, 35.0, 30.0], [0.0, -20.0, 60.0], [-30.0, -70.0, 0.0], [70, -60, -40]]
    )
    size = 192
    image = studio.photograph([blob(p, 2.5) for p in points], VIEW, DARK, size, 0.0, samples=16).mean(-1)
    expected = np.asarray(camera.project(VIEW, jnp.asarray(points, jnp.float32), size))[:, :2]
    y, x = np.mgrid[:size, :size] + 0.5
    for place in expected:
        near = image * (np.hypot(x - place[0], y - place[1]) < 8)
        assert near.max() > 0.2
        centre = np.array([(near * x).sum(), (near * y).sum()]) / near.sum()
        assert np.linalg.norm(centre - place) < 0.25


@needs_mitsuba
def test_picked_points_are_those_that_were_projected(model):
    vertices = np.asarray(model.mean, np.float64)
    points = deviations.marks(model, vertices)[[27, 30, 33, 36, 48, 57]]
    pixels = np.asarray(camera.project(VIEW, jnp.asarray(points, jnp.float32), 512), np.float64)[:, :2]
    skin = studio.head(model, vertices, np.full((4, 4, 3), 0.5))
    found = studio.pick(skin, VIEW, np.concatenate([pixels, [[2.0, 2.0]]]), 512)
    assert np.isnan(found[-1]).all()
    assert np.abs(found[:-1] - points).max() < 0.05
    again = np.asarray(camera.project(VIEW, jnp.asarray(found[:-1], jnp.float32), 512))[:, :2]
    assert np.abs(again - pixels).max() < 0.05


@needs_mitsuba
def test_a_lamp_gives_white_paper_its_colour_and_lights_its_side():
    paper = square(np.array([-300.0, -300.0, 0.0]), np.array([600.0, 0, 0]), np.array([0, 600.0, 0]), 1.0)
    front = Camera(jnp.zeros(3), jnp.array([0.0, 0.0, 1000.0]), jnp.log(jnp.array(4.0)))
    colour = np.array([0.6, 0.4, 0.2])
    for direction in (np.array([0.0, 0.0, 2.0]), np.array([0.6, 0.0, 0.8])):
        light = studio.Lighting((studio.Lamp(direction, colour, 0.05),), np.full(3, 0.1))
        seen = studio.linear(studio.photograph([paper], front, light, 16, samples=64)).mean((0, 1))
        cosine = direction[2] / np.linalg.norm(direction)
        assert seen == pytest.approx(colour * cosine + 0.1, rel=0.15)
    light = studio.Lighting((studio.Lamp(np.array([1.0, 1.0, 0.3]), np.ones(3)),), np.zeros(3))
    image = studio.photograph([blob(np.zeros(3), 90.0)], front, light, 32, 0.0, samples=16).mean(-1)
    assert image[8:16, 16:24].mean() > 3 * image[16:24, 8:16].mean()


@needs_mitsuba
def test_texture_background_and_seed():
    """Red above, blue below: the origin of UV is at the top left. What is not covered shows the background."""
    paper = square(np.array([-60.0, -60.0, 0.0]), np.array([120.0, 0, 0]), np.array([0, 120.0, 0]))
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float64)[paper.faces]
    albedo = np.zeros((8, 8, 3))
    albedo[:4, :, 0] = albedo[4:, :, 2] = 0.8
    front = Camera(jnp.zeros(3), jnp.array([0.0, 0.0, 1000.0]), jnp.log(jnp.array(4.0)))
    take = lambda seed: studio.photograph(  # noqa: E731
        [paper._replace(uv=uv, albedo=albedo)], front, DARK, 32, 0.25, samples=4, seed=seed
    )
    image = take(0)
    assert image[12, 16, 0] > 3 * image[12, 16, 2] and image[20, 16, 2] > 3 * image[20, 16, 0]
    assert image[1, 1] == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(image, take(0), atol=1e-6)  # threads add up in any order
    assert np.abs(image - take(1)).max() > 1e-4


@needs_mitsuba
def test_hair_is_seen():
    path = np.stack([np.linspace(-60, 60, 6), np.zeros(6), np.zeros(6)], 1)
    front = Camera(jnp.zeros(3), jnp.array([0.0, 0.0, 1000.0]), jnp.log(jnp.array(4.0)))
    image = studio.photograph([], front, DARK, 32, 1.0, [studio.Hair(path[None], 25.0, np.full(3, 0.05))], samples=4)
    assert image[16, 16].max() < 0.4 and image[4, 16].min() > 0.9


@needs_mitsuba
def test_the_tip_of_the_last_strand_may_be_seen():
    """A renderer that reads past the last strand's end takes the whole process with it, so another one is asked. Of
    so many strands the position along them is so coarse that the last 0.8 % of the last one is rounded to its end."""
    script = """
import numpy as np, jax.numpy as jnp
from ganfit_jax import studio
from ganfit_jax.types import Camera
front = Camera(jnp.zeros(3), jnp.array([0.0, 0.0, 1000.0]), jnp.log(jnp.array(4.0)))
path = np.stack([np.linspace(-200, 0, 10), np.zeros(10), np.zeros(10)], 1)
paths = np.repeat(path[None], 12000, 0) + [0.0, 0.0, -5000.0]
paths[-1] = path
lamp = studio.Lamp(np.array([0.0, 0.0, 1.0]), np.ones(3), 0.3)
light = studio.Lighting((lamp,), np.full(3, 0.4))
image = studio.photograph([], front, light, 64, 1.0, [studio.Hair(paths, 60.0, np.full(3, 0.05))], samples=16)
print(np.isfinite(image).all(), image[32, 20].max() < 0.6)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]


@needs_mitsuba
def test_hidden_vertices_are_not_seen():
    front = square(np.array([-50.0, -50.0, 10.0]), np.array([100.0, 0, 0]), np.array([0, 100.0, 0]))
    back = square(np.array([-20.0, -20.0, 0.0]), np.array([40.0, 0, 0]), np.array([0, 40.0, 0]))
    both = front._replace(
        vertices=np.concatenate([front.vertices, back.vertices]), faces=np.concatenate([front.faces, back.faces + 4])
    )
    ahead, aside = np.array([0.0, 0.0, 1.0]), np.array([0.995, 0.0, 0.0999])
    assert studio.seen_from(both, [ahead]).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert studio.seen_from(both, [ahead, aside]).tolist()[4:] == [1, 1, 1, 1]


def test_without_the_library_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    with pytest.raises(InputError, match="mitsuba is not installed"):
        studio.mitsuba()


def test_main_direction_is_that_of_the_net_irradiance():
    lamps = (studio.Lamp(np.array([2.0, 0, 0]), np.full(3, 0.3)), studio.Lamp(np.array([0, 0, 1.0]), np.full(3, 0.4)))
    assert studio.main_direction(studio.Lighting(lamps, np.ones(3))) == pytest.approx([0.6, 0, 0.8])


def test_srgb_goes_there_and_back():
    values = np.linspace(0, 1, 100)
    assert studio.encoded(studio.linear(values)) == pytest.approx(values, abs=1e-12)
    assert studio.linear(np.array([0.5]))[0] == pytest.approx(0.21404, abs=1e-5)
    assert studio.encoded(np.array([-1.0, 7.0])).tolist() == pytest.approx([0.0, 1.0])


def test_a_developed_photo_has_the_sensors_noise():
    random = np.random.default_rng(0)
    dark, bright = (studio.developed(np.full((64, 64, 3), v), random, 0.01, 0.0) for v in (0.2, 0.8))
    for image, value in ((dark, 0.2), (bright, 0.8)):
        light = studio.linear(image)
        assert light.mean() == pytest.approx(studio.linear(np.array([value]))[0], rel=0.02)
        assert light.std() == pytest.approx(0.01 * (light.mean() + 0.02) ** 0.5, rel=0.05)


def test_backdrops_are_calm_and_differ():
    one, same, other = (studio.backdrop(64, np.random.default_rng(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).mean() > 0.01 and one.min() >= 0 and one.max() <= 1
    assert np.abs(np.diff(one, axis=0)).max() < 0.05


def test_tubes_are_closed_and_round():
    for closed in (False, True):
        angle = np.linspace(0, 2 * np.pi, 30, endpoint=False)
        path = np.stack([40 * np.cos(angle), 40 * np.sin(angle), np.zeros(30)], 1)
        path = path if closed else path[:12]
        points, faces = props.tube(path, np.full(len(path), 2.0), closed)
        away = np.hypot(np.hypot(points[:, 0], points[:, 1]) - 40, points[:, 2])
        assert away.max() < 2.05
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        _, count = np.unique(edges, axis=0, return_counts=True)
        assert (count == 2).all() if closed else (count == 1).sum() == 24, "the two rings at the rounded ends"
        corners = points[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        middle = corners.mean(1)
        centre = np.stack([middle[:, 0], middle[:, 1], 0 * middle[:, 2]], 1)
        centre *= 40 / np.linalg.norm(centre, axis=1, keepdims=True)
        if closed:
            assert (((middle - centre) * normal).sum(1) > 0).all(), "faces look outwards"


def test_props_lie_where_they_belong(model):
    vertices = np.asarray(model.mean, np.float64)
    marks = deviations.marks(model, vertices)
    frame = props.glasses(marks, np.zeros(3))
    assert frame.vertices[:, 2].max() > marks[36:48, 2].max() + 5, "before the eyes"
    assert frame.vertices[:, 1].max() < marks[17:27, 1].max() + 12 and frame.vertices[:, 1].min() > marks[33, 1]
    cloth = props.shoulders(vertices, np.zeros(3))
    front = cloth.vertices[:, 2] > marks[8, 2] - 30
    assert front.any() and cloth.vertices[front, 1].max() < marks[8, 1], "under the chin"
    for side in (-1.0, 1.0):
        fingers = props.hand(marks, np.zeros(3), side, 0.0).vertices
        assert side * fingers[:, 0].mean() > 20


@pytest.mark.parametrize("cut", props.CUTS)
def test_hair_grows_on_the_scalp_and_stays_outside(model, cut):
    vertices = np.asarray(model.mean, np.float64)
    grown = props.hair(model, vertices, cut, np.full(3, 0.2), np.random.default_rng(0), count=300)
    again = props.hair(model, vertices, cut, np.full(3, 0.2), np.random.default_rng(0), count=300)
    assert grown and again
    strands, cap = grown
    roots = strands.points[:, 0]
    assert roots[:, 1].min() > -75 and (roots[:, 2] < 45).all()
    inside = np.linalg.norm(strands.points / np.array([70.0, 100.0, 80.0]) - [0, 0.1, -0.9], axis=-1) < 0.7
    assert not inside.any()
    assert cap.faces.max() < len(vertices)
    np.testing.assert_array_equal(strands.points, again[0].points)


def test_a_model_without_a_scalp_grows_no_hair(model):
    bald = model._replace(regions=model.regions._replace(face=jnp.ones_like(model.regions.face)))
    assert props.hair(bald, np.asarray(model.mean, np.float64), "short", np.zeros(3), np.random.default_rng(0)) is None
