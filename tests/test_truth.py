"""Items of synthetic people: photos kept and shared, views without a face passed over, tables by hand."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, cases, deviations, gallery, landmarks, people, pipeline, scans, truth, truth_report
from ganfit_jax.camera import project
from ganfit_jax.config import Config
from ganfit_jax.errors import InputError
from ganfit_jax.gallery import Row
from ganfit_jax.people import Settings
from ganfit_jax.types import Fit, Identity, Light, LinearTexture, ModelInfo, Models, Observation, Params, View

needs_mitsuba = pytest.mark.skipif(importlib.util.find_spec("mitsuba") is None, reason="mitsuba is absent")
SETTINGS = Settings(people=2, photos=(1, 2), sizes=(48, 32), samples=1, hair=0.0)


@pytest.fixture(scope="module")
def loaded():
    shape, info = assets.load_shape()
    texture = LinearTexture(jnp.full((16, 16, 3), 0.5), jnp.full((2, 16, 16, 3), 0.05))
    return Models(shape, texture, None), {"shape": info, "texture": ModelInfo("plain", "", "0", (), "CC0")}


def detection():
    box, points = np.array([0, 0, 1, 1], np.float32), np.zeros((68, 2), np.float32)
    return landmarks.Detection(box, points, np.ones(68, np.float32), "test")


def knowing_fit(models, settings, number, views):
    """A fit that finds the truth of these views."""

    def fit_with(given, infos, paths, config, find, callback):
        callback("align", 1, 1, {})
        person = people.draw_person(settings, number, given.shape, given.texture)
        shots = [people.draw_shot(settings, number, v, infos["shape"].expressions, given.shape) for v in views]
        lit = [truth.studio.main_direction(shot.lighting) for shot in shots]
        light = Light(jnp.asarray(np.stack(lit), jnp.float32), jnp.ones((len(views), 3)), jnp.ones((len(views), 3)))
        cameras = jax.tree.map(lambda *x: jnp.stack(x), *(shot.camera for shot in shots))
        expressions = jnp.asarray(np.stack([shot.expression for shot in shots]), jnp.float32)
        identity = Identity(jnp.asarray(person.shape, jnp.float32), jnp.zeros(2))
        params, count = Params(identity, View(expressions, cameras, light)), len(paths)
        seen = Observation(
            *(jnp.zeros((count, *shape)) for shape in ((32, 32, 3), (68, 2), (68,), (32, 32), (2, 3))),
            None,
            jnp.ones(count),
        )
        fit = Fit(params, {}, True)
        return pipeline.Result(
            tuple(map(str, paths)), seen, fit, given, infos, config, {"observe": 1.0, "fit": 2.0}, ()
        )

    return fit_with


@needs_mitsuba
def test_a_fit_that_finds_the_truth_has_no_error(loaded, tmp_path, monkeypatch):
    models, infos = loaded
    calls = []

    def detect(image):
        calls.append(image.shape)
        return [] if len(calls) == 1 else [detection()]

    names, work = truth.synthetic(models, infos, landmarks.Detector("test", detect), Config(), SETTINGS)
    assert names == ["000-1x48", "001-1x48", "000-1x32", "001-1x32", "000-2x48", "001-2x48", "000-2x32", "001-2x32"]
    monkeypatch.setattr(truth, "fit_with", knowing_fit(models, SETTINGS, 1, (1, 2)))
    folder = tmp_path / "001-2x32"
    row = gallery.kept(folder, lambda: work("001-2x32", folder))
    assert row.figures["error_mm"] < 0.01 and row.figures["pose_degrees"] < 0.1 and row.figures["light_degrees"] < 0.1
    assert row.figures["expression_mm"] < 0.01 and row.figures["passed_over"] == 1 and row.figures["seconds"] == 3
    assert row.figures["observe s"] == 0.5 and row.figures["align MB"] > 50, "per photo; of the process"
    assert calls == [(32, 32, 3)] * 3
    assert list(row.pictures) == ["photo", "all photos", "render", "geometry", "truth", "found", "error, 0 to 4 mm"]
    assert all((folder / name).is_file() for name in [*row.pictures.values(), "fit.npz"])
    photos = sorted(p.name for p in tmp_path.glob("photos-*/*.png"))
    assert photos == [f"001-{view}x{size}.png" for view in range(3) for size in (32, 48)]

    truth.write_manifest(["001-2x32", "not measured"], tmp_path)
    (case,), broken = cases.manifest_cases(tmp_path / "manifest.csv")
    kept = next(tmp_path.glob("photos-*"))
    assert not broken and case.name == "001-2x32"
    assert case.photos == tuple(kept / f"001-{view}x32.png" for view in (1, 2))
    scan = scans.read_scan(*case.scans[0], case.unit)
    person = people.draw_person(SETTINGS, 1, models.shape, models.texture)
    np.testing.assert_allclose(scan.surface.vertices, people.vertices(person), atol=1e-4)
    np.testing.assert_allclose(scan.landmarks, deviations.marks(models.shape, people.vertices(person)), atol=1e-4)


@needs_mitsuba
def test_photos_belong_to_their_settings(loaded, tmp_path, monkeypatch):
    models, infos = loaded
    find = landmarks.Detector("test", lambda image: [])
    monkeypatch.setattr(people, "take", lambda person, shot, size, samples: np.zeros((size, size, 3), np.float32))
    for settings in (SETTINGS, Settings(people=9, sizes=(48,), samples=1, hair=0.0), Settings(sizes=(48,), yaw=10.0)):
        _, work = truth.synthetic(models, infos, find, Config(), settings)
        with pytest.raises(InputError, match="000-1x48: 0 views with a face, expected 1"):
            work("000-1x48", tmp_path / "000-1x48")
    assert len(list(tmp_path.glob("photos-*"))) == 2, "the number of people changes no photo, their yaw does"


def row(error, photos=1, size=512, yaw=10.0, hidden=0.0):
    figures = dict.fromkeys(truth_report.COLUMNS, 1.0) | {"error_mm": error, "photos": photos, "size": size, "yaw": yaw}
    return Row(figures | {"hidden": hidden, "aside": 2 * yaw, "skin": 2.0 * error}, {})


def test_tables_and_charts_by_hand(tmp_path):
    rows = {
        "a": row(1.0),
        "b": row(2.0, yaw=20.0, hidden=1.0),
        "c": row(3.0, size=256, yaw=45.0),
        "d": row(0.5, photos=4, yaw=20.0),
    }
    tables = truth_report.tables(rows)
    first = {r["group"]: (r["items"], r["error_mm"]) for r in tables["By number of photos and size"]}
    assert first == {"1 x 256 px": (1, 3.0), "1 x 512 px": (2, 1.5), "4 x 512 px": (1, 0.5)}
    assert tables["By number of photos and size"][1]["error_std"] == 0.5
    bands = {r["group"]: r["error_mm"] for r in tables["By yaw, one photo"]}
    assert bands == {"0 to 15 degrees": 1.0, "15 to 30 degrees": 2.0}, "of the largest size"
    hides = {r["group"]: r["error_mm"] for r in tables["By what hides the face, one photo"]}
    assert hides == {"nothing": 1.0, "glasses or hand": 2.0}
    light = {r["group"]: r["error_mm"] for r in tables["By light, one photo"]}
    assert light == {"up to 35 degrees from the camera": 1.0, "more than 35 degrees from the camera": 2.0}
    skin = {r["group"]: r["error_mm"] for r in tables["By skin, one photo"]}
    assert skin == {"up to 2.8 density of melanin": 1.0, "more than 2.8 density of melanin": 2.0}
    charts = truth_report.charts(rows, tmp_path)
    assert sorted(charts.values()) == [
        *("error_photos.png", "error_size.png", "error_yaw.png"),
        *("errors_1.png", "errors_4.png"),
    ]
    assert list(truth_report.charts({"d": rows["d"]}, tmp_path).values()) == ["errors_4.png"], (
        "one group has a plot, too"
    )
    assert all((Path(tmp_path) / name).is_file() for name in charts.values())
    assert truth_report.tables({}) == {} and truth_report.charts({}, tmp_path) == {}


def test_landmarks_of_the_true_camera_lie_in_the_photo(loaded):
    models, infos = loaded
    shot = people.draw_shot(SETTINGS, 0, 0, infos["shape"].expressions, models.shape)
    places = np.asarray(project(shot.camera, models.shape.mean, 100))
    assert places[:, :2].min() > 0 and places[:, 0].max() < 100
