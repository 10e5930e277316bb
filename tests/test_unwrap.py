"""Texels show the points they should, photos are read where they are seen, and nothing is read that is hidden."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, unwrap
from ganfit_jax.render import draw
from ganfit_jax.types import Camera, Light, Regions, ShapeModel

SIDE = 64  # texels
SIZE = 128  # pixels
UNLIT = Light(jnp.array([0.0, 0.0, 1.0]), jnp.zeros(3), jnp.ones(3))
render = jax.jit(partial(draw, size=SIZE))
sample = jax.jit(unwrap.sample)


@pytest.fixture(scope="module")
def face():
    model, _ = assets.load_shape()
    return model, jax.jit(unwrap.texel_map, static_argnames="size")(model, size=SIDE)


def plates():
    """A square plate of 100 mm that fills the left half of the chart; 30 mm in front of its left half a smaller one."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    far = np.concatenate([100 * square - 50, np.zeros((4, 1))], 1)
    near = np.concatenate([square * [50, 100] + [-50, -50], np.full((4, 1), 30)], 1)
    faces = jnp.asarray([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    down = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)  # v points down
    uv = np.concatenate([down * [0.5, 1], down * [0.5, 1] + [0.5, 0]])
    none = jnp.zeros(8)
    marks = jnp.zeros(68, int), jnp.full((68, 3), 1 / 3)
    jaw = jnp.zeros((17, 1), int), jnp.full((17, 1, 3), 1 / 3)
    vertices = jnp.float32(np.concatenate([far, near]))
    regions = Regions(none, none, none, none, none)
    empty = jnp.zeros((1, 8, 3))
    return ShapeModel(vertices, empty, empty, faces, jnp.float32(uv), faces, *marks, *jaw, regions)


def test_every_texel_shows_the_point_whose_uv_is_its_own_centre(face):
    model, texels = face
    corners = np.asarray(model.uv)[np.asarray(model.uv_faces)[np.asarray(texels.faces)]]
    found = SIDE * np.einsum("hwk,hwkc->hwc", np.asarray(texels.barycentric), corners)
    used = np.asarray(texels.used) > 0
    assert used.mean() > 0.5
    for row in range(SIDE):
        for column in range(SIDE):
            if used[row, column]:
                assert found[row, column] == pytest.approx([column + 0.5, row + 0.5], abs=2e-3)
    assert np.asarray(texels.barycentric).sum(-1)[used] == pytest.approx(1, abs=1e-4)


def test_texels_outside_every_triangle_are_unused():
    used = np.asarray(unwrap.texel_map(plates()._replace(uv_faces=jnp.asarray([[0, 1, 2]] * 4)), 16).used)
    for row in range(16):
        for column in range(16):
            x, y = (column + 0.5) / 16, (row + 0.5) / 16
            if abs(y + 2 * x - 1) > 1e-6:
                assert used[row, column] == (1.0 if x < 0.5 and y > 1 - 2 * x else 0.0)


def test_values_at_texels_against_loops(face):
    model, texels = face
    values = np.random.default_rng(0).normal(size=(len(model.mean), 2)).astype(np.float32)
    found = unwrap.at_texels(texels, model.faces, jnp.asarray(values))
    for row, column in [(5, 7), (30, 32), (60, 11)]:
        face_id = int(texels.faces[row, column])
        expected = sum(
            float(texels.barycentric[row, column, k]) * values[int(model.faces[face_id, k])] for k in range(3)
        )
        assert found[row, column] == pytest.approx(expected, abs=1e-5)


def test_bilinear_against_loops():
    image = np.random.default_rng(0).uniform(size=(5, 7, 2)).astype(np.float32)
    points = np.array([[0.5, 0.5], [2.0, 3.0], [3.25, 1.75], [6.9, 4.9], [-3.0, 2.5]], np.float32)
    found = unwrap.bilinear(jnp.asarray(image), jnp.asarray(points))
    for (px, py), value in zip(points, found, strict=True):
        x, y = min(max(px - 0.5, 0), 6), min(max(py - 0.5, 0), 4)
        expected = np.zeros(2)
        for row in range(5):
            for column in range(7):
                expected += max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row)) * image[row, column]
        assert value == pytest.approx(expected, abs=2e-3)


def test_unwrapping_a_render_gives_its_albedo_back(face):
    model, texels = face
    v, u = np.mgrid[:SIDE, :SIDE] / SIDE
    albedo = 0.5 + 0.3 * np.stack([np.sin(9 * u), np.cos(8 * v), np.sin(6 * (u + v))], -1)
    camera = Camera(jnp.array([0.05, 0.3, 0.0]), jnp.array([0.0, -25.0, 1000.0]), jnp.log(jnp.float32(3.6)))
    image = render(model, model.mean, jnp.float32(albedo), camera, UNLIT).image
    seen = sample(model, texels, model.mean, camera, image, jnp.ones((SIZE, SIZE)))
    sure = np.asarray(seen.weight) > 0.7
    assert sure.mean() > 0.2
    difference = np.abs(np.asarray(seen.colour) - albedo)[sure]
    assert difference.mean() < 0.01
    assert np.quantile(difference, 0.99) < 0.1
    assert np.linalg.norm(np.asarray(seen.normals)[sure], axis=-1) == pytest.approx(1, abs=1e-4)
    assert np.asarray(seen.normals)[sure][:, 2].min() > 0.3, "what is seen well faces the camera"


def test_the_far_side_of_a_turned_face_weighs_nothing(face):
    model, texels = face
    side = np.asarray(unwrap.at_texels(texels, model.faces, model.mean))[..., 0]
    blank = jnp.full((SIZE, SIZE, 3), 0.5)
    share = []
    for yaw in (-0.9, 0.9):
        camera = Camera(jnp.array([0.0, yaw, 0.0]), jnp.array([0.0, -25.0, 1000.0]), jnp.log(jnp.float32(3.6)))
        weight = np.asarray(sample(model, texels, model.mean, camera, blank, jnp.ones((SIZE, SIZE))).weight)
        share.append([weight[side < -50].mean(), weight[side > 50].mean()])
    # A positive yaw turns the face towards the image's right: its right cheek (x < 0) is seen.
    assert share[1][0] > 0.2 and share[1][1] < 0.01
    assert share[0][1] > 0.2 and share[0][0] < 0.01


def test_a_plate_behind_another_is_not_read():
    model = plates()
    texels = unwrap.texel_map(model, 32)
    colour = np.zeros((32, 32, 3), np.float32)
    colour[:, :16, 0], colour[:, 16:, 1] = 1, 1  # far: red, near: green
    camera = Camera(jnp.zeros(3), jnp.array([0.0, 0.0, 1000.0]), jnp.log(jnp.float32(7.0)))
    image = render(model, model.mean, jnp.asarray(colour), camera, UNLIT).image
    seen = sample(model, texels, model.mean, camera, image, jnp.ones((SIZE, SIZE)))
    weight = np.asarray(seen.weight)
    assert (weight[:, :8] == 0).all(), "the far plate's left half is hidden"
    assert (weight[2:-2, 10:15] > 0.99).all() and (weight[2:-2, 18:-2] > 0.99).all()
    assert np.asarray(seen.colour)[2:-2, 10:14] == pytest.approx(np.broadcast_to([1, 0, 0], (28, 4, 3)), abs=1e-3)
    assert np.asarray(seen.colour)[2:-2, 18:-3] == pytest.approx(np.broadcast_to([0, 1, 0], (28, 11, 3)), abs=1e-3)
    masked = sample(model, texels, model.mean, camera, image, jnp.zeros((SIZE, SIZE)))
    assert not masked.weight.any()
    left = jnp.asarray(np.arange(SIZE)[None, :] < SIZE // 2, jnp.float32) * jnp.ones((SIZE, 1))
    both = sample(model, texels, model.mean, camera, image, jnp.stack([left, jnp.ones((SIZE, SIZE))], axis=-1))
    alone = sample(model, texels, model.mean, camera, image, left)
    assert np.asarray(both.weight) == pytest.approx(np.stack([alone.weight, seen.weight], -1)), "two masks, two weights"
    assert 0 < alone.weight.sum() < seen.weight.sum()
