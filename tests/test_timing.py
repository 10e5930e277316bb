"""Timing: what is drawn for it is consistent, a known time is found, rows carry what they should."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, camera, fit_timing, raster, recognition, timing
from ganfit_jax.config import Config
from ganfit_jax.types import Camera, Identity, Light, LinearTexture, Models, Params, View

SIZE = 80
FRONT = Camera(jnp.array([0.05, 0.2, 0.0]), jnp.array([0.0, -20.0, 1200.0]), jnp.log(jnp.float32(4.0)))
WHITE = Light(jnp.array([0.0, 0.0, 1.0]), jnp.zeros(3), jnp.ones(3))


@pytest.fixture(scope="module")
def models(tiny_recogniser):
    texture = LinearTexture(jnp.full((16, 16, 3), 0.5), jnp.full((2, 16, 16, 3), 0.05))
    return Models(assets.load_shape()[0], texture, tiny_recogniser)


@pytest.fixture(scope="module")
def case(models):
    config = Config(size=SIZE, chunk=2)
    config.second.size = 48
    config.align.steps, config.colour.steps, config.full.steps = 4, 0, 0
    return fit_timing.Case(config, models, fit_timing.observations(models, 3, SIZE, distinct=2), {"name": "tiny"})


def landmark_uv(model, number):
    corners = np.asarray(model.uv)[np.asarray(model.uv_faces[model.landmark_faces[number]])]
    return np.asarray(model.landmark_barycentric[number]) @ corners


@pytest.mark.parametrize("number", [27, 30, 48, 54, 57])
def test_a_dot_painted_at_a_landmark_is_seen_where_the_landmark_lies(models, number):
    side, size = 1024, 3 * SIZE  # pixels fine enough for a corner of the mouth, where most of the dot lies in the fold
    texels = (np.arange(side) + 0.5) / side
    u, v = landmark_uv(models.shape, number)
    dot = np.exp(-0.5 * ((texels[None] - u) ** 2 + (texels[:, None] - v) ** 2) * (side / 8) ** 2)
    albedo = jnp.asarray(np.repeat(dot[..., None], 3, -1), jnp.float32)
    dotted = models._replace(texture=LinearTexture(albedo, jnp.zeros((2, side, side, 3))))
    view = View(jnp.zeros(len(models.shape.expression_basis)), FRONT, WHITE)
    identity = Identity(jnp.zeros(len(models.shape.identity_basis)), jnp.zeros(2))
    seen = fit_timing.photograph(dotted, Params(identity, jax.tree.map(lambda x: x[None], view)), size)
    light = np.asarray(seen.image[..., 0] * seen.mask)
    centre = np.arange(size) + 0.5
    found = np.array([light.sum(0) @ centre, light.sum(1) @ centre]) / light.sum()
    assert light.max() > 0.5
    np.testing.assert_allclose(found, seen.landmarks[number], atol=1.5)


def test_the_photos_are_ready_for_a_fit(models, case):
    seen = case.seen
    assert seen.image.shape == (3, 1, SIZE, SIZE, 3) and seen.weight.shape == (3, 1)
    assert all(isinstance(leaf, jax.Array) and leaf.shape[:2] == (3, 1) for leaf in jax.tree.leaves(seen))
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[0], x[2]), seen)  # two people, and the first one again
    assert np.abs(seen.landmarks[0] - seen.landmarks[1]).max() > 1
    for image, marks, mask in zip(seen.image[:2, 0], seen.landmarks[:2, 0], seen.mask[:2, 0], strict=True):
        inner = np.asarray(marks[27:], int)
        assert np.mean(np.asarray(mask)[inner[:, 1], inner[:, 0]]) > 0.9, "the face lies in the mask"
        assert 0.2 < np.mean(mask) < 0.7 and set(np.unique(mask)) == {0.0, 1.0}
        assert np.abs(image - 0.5)[np.asarray(mask) == 0].max() < 0.5
    spec = models.recogniser.spec
    chip = recognition.aligned_chip(spec, seen.image[1, 0], seen.landmarks[1, 0])
    embedding = recognition.features(models.recogniser, chip).embedding
    np.testing.assert_allclose(seen.features.embedding[1, 0], embedding, atol=1e-4)


@pytest.fixture
def pass_time(monkeypatch):
    """A clock that stands still but for what this function lets pass: a busy machine changes nothing."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_a_known_time_is_found(pass_time):
    found = timing.timed(lambda seconds: pass_time(seconds), 0.02, repeats=4)
    assert found.calls == 4
    assert found.least == pytest.approx(0.02) and found.median == pytest.approx(0.02)
    assert timing.timed(pass_time, 0.02, repeats=100, limit=0.05).calls == 3
    assert timing.timed(pass_time, 0.02, repeats=3, limit=0.0).calls == 1


def test_the_first_call_is_told_apart(pass_time):
    waits = iter([0.1, 0.01, 0.01, 0.01])
    found = timing.timed(lambda: pass_time(next(waits)), repeats=3)
    assert found.first == pytest.approx(0.1) and found.least == pytest.approx(0.01)


@pytest.mark.parametrize(("count", "faces"), [(100, 48), (20_000, 19_200), (25_000, 23_760), (50_000, 49_296)])
def test_the_ellipsoid_is_closed_and_faces_outwards(count, faces):
    model = timing.ellipsoid(count)
    assert model.faces.shape == (faces, 3) and int(jnp.min(model.neighbours)) >= 0
    one, two, three = (np.asarray(model.mean, np.float64)[np.asarray(model.faces[:, i])] for i in range(3))
    volumes = np.einsum("fi,fi->f", one, np.cross(two, three)) / 6
    assert volumes.min() > 0
    if count > 1000:
        assert volumes.sum() == pytest.approx(4 / 3 * np.pi * 75 * 110 * 95, rel=0.01)


@pytest.mark.slow
def test_rows_of_renders(models):
    model = timing.ellipsoid(100)
    row = timing.batch_row(model, 16, 2, repeats=2)
    for name in ("visibility", "forward", "forward and backward"):
        assert (
            row[f"{name}, ms per image"] == pytest.approx(row[f"{name}, ms"] / 2, abs=1e-3) and row[f"{name}, ms"] > 0
        )
    alone = timing.renderer_row(model, 16, None, repeats=2)
    assert "C++ z-buffer" not in alone and alone["render, forward"][0] <= alone["render, forward"][1]

    def plain(screen, faces, size):
        return np.asarray(raster.rasterize(jnp.asarray(screen), jnp.asarray(faces), size).faces[..., 0]) + wrong

    for wrong in (0, 1):
        beside = timing.renderer_row(model, 16, plain, repeats=1)
        assert beside["winners that differ"] == wrong * 16**2 and beside["C++ z-buffer"][0] > 0


def test_a_batch_starts_with_the_scene_and_turns_it():
    model = timing.ellipsoid(100)
    many = timing.scenes(model, 4)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), many, timing.scene(model))
    assert len({float(x) for x in many.camera.rotation[:, 1]}) == 4
    points = [camera.project(jax.tree.map(lambda x, n=n: x[n], many.camera), model.mean, 16) for n in range(4)]
    assert all(float(jnp.min(p[:, :2])) > 0 and float(jnp.max(p[:, :2])) < 16 for p in points)


@pytest.mark.slow
def test_rows_of_fits_count_people_and_calls(case):
    for people in (1, 3):
        part = fit_timing.some(case, people)
        row = fit_timing.fit_row(part, 2)
        assert part.known == {"name": "tiny", "people": people}
        assert row["people without a rejected step"] == people and row["further calls"] == 2
        assert row["fits per second"] == pytest.approx(people / row["median, s"], rel=0.01)
        assert 0 < row["align, s"] <= row["median, s"] <= row["first call, s"] and "full, s" not in row


@pytest.mark.slow
def test_the_row_of_a_step_compares_it_with_its_networks(case):
    full = dataclasses.replace(case.config.full, terms=("second_identity", "shape"))  # half the program
    case = case._replace(config=dataclasses.replace(case.config, full=full))
    row = fit_timing.step_row(fit_timing.some(case, 1), 2)
    assert row["chips"] == 1 and row["steps timed"] == 2 * case.config.chunk
    assert row["networks, ms"] == pytest.approx(row["recogniser, ms"] + row["texture, ms"], abs=2e-3)
    assert (
        row["step / networks"] == pytest.approx(row["step, ms"] / row["networks, ms"], rel=0.02) and row["step, ms"] > 0
    )


def test_steps_of_the_networks_descend():
    end = fit_timing.descended(lambda x, scale: scale * jnp.sum(x**2), jnp.ones(3), jnp.float32(0.5), 10)
    np.testing.assert_allclose(end, (1 - 1e-6) ** 10, rtol=1e-6)


def test_where_memory_ends_there_is_a_note():
    def work(error):
        raise error

    full, other = (jax.errors.JaxRuntimeError(text) for text in ("RESOURCE_EXHAUSTED: Out of memory", "INTERNAL: no"))
    assert timing.attempted(lambda: work(full), {"people": 8}) == {"people": 8, "note": "out of memory"}
    assert timing.attempted(lambda: {"ms": 1.0}, {"people": 8}) == {"people": 8, "ms": 1.0}
    with pytest.raises(jax.errors.JaxRuntimeError):
        timing.attempted(lambda: work(other), {})


def test_the_table_shows_all_rows_in_blocks():
    rows = [{"people": n, "ms": n / 2} for n in range(3)] + [{"people": 3, "note": "out of memory"}]
    lines = timing.table(rows, columns=3).splitlines()
    assert [line.split() for line in lines[:2]] == [["people", "0", "1", "2"], ["ms", "0.0", "0.5", "1.0"]]
    assert [line.split() for line in lines[3:5]] == [["people", "3"], ["note", "out", "of", "memory"]]


def test_figures_name_their_device():
    assert timing.device().keys() == {"device", "platform", "cpus", "jax", "date"}
    assert timing.device()["jax"] == jax.__version__ and timing.device()["platform"] == "cpu"
    assert timing.peak_gigabytes() is None
