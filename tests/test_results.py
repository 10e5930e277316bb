"""The folder of results: its files, its figures, its pictures."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ganfit_jax import assets, evaluation, results
from ganfit_jax.config import Config, SecondRender
from ganfit_jax.errors import InputError
from ganfit_jax.export import load_fit
from ganfit_jax.fit import as_arrays
from ganfit_jax.pipeline import Result
from ganfit_jax.recognition import aligned_chip, features
from ganfit_jax.render import render
from ganfit_jax.texture import decode
from ganfit_jax.types import Fit, LinearTexture, ModelInfo, Models, Observation

SIZE = 64


@pytest.fixture(scope="module")
def result(tiny_recogniser):
    """Two photos of a synthetic person, "fitted" by the truth."""
    shape, info = assets.load_shape()
    texture = LinearTexture(jnp.full((16, 16, 3), 0.5), 0.05 * jnp.ones((2, 16, 16, 3)))
    models = Models(shape, texture, tiny_recogniser)
    spread = as_arrays(SecondRender(yaw=0.2, light=0.02))
    params = evaluation.synthetic_person(jax.random.key(1), models, spread, 2)

    @jax.jit
    def observe(models, view):
        drawn = render(models, params.identity, view, SIZE, 0.5)
        seen = features(models.recogniser, aligned_chip(models.recogniser.spec, drawn.image, drawn.landmarks))
        ones = jnp.ones((SIZE, SIZE))
        return Observation(drawn.image, drawn.landmarks, jnp.ones(68), ones, jnp.eye(2, 3), seen, jnp.ones(()))

    views = [jax.tree.map(lambda x, n=n: x[n], params.views) for n in range(2)]
    observations = jax.tree.map(lambda *x: jnp.stack(x), *(observe(models, view) for view in views))
    config = Config(size=SIZE)
    config.align.steps, config.colour.steps, config.full.steps = 3, 0, 2
    trace = {"align/total": np.arange(3.0), "full/total": np.arange(2.0), "full/pixel": np.ones(2)}
    other = ModelInfo("tiny", "tiny.npz", "0" * 64, (), "CC0-1.0")
    infos = {"shape": info, "texture": other, "recogniser": other}
    photos = ("album/a.jpg", "album/b.jpg")
    fit = Fit(params, trace, np.asarray(True))
    return Result(photos, observations, fit, models, infos, config, {"fit": 1.234}, ("one face", "the left one of two"))


def albedo_of(result):
    return decode(result.models.texture, result.fit.params.identity.texture)


@pytest.fixture(scope="module")
def written(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "new"
    return results.write_results(result, folder), folder


@pytest.mark.slow
def test_all_files_are_there_and_nothing_else(written):
    _, folder = written
    pictures = {f"{base}{n}.png" for base in ("photo", "render", "comparison") for n in ("", "_2")}
    others = ["mesh.glb", "mesh.obj", "mesh.mtl", "albedo.png", "fit.npz", "losses.png", "metrics.json", "report.html"]
    assert {p.name for p in folder.iterdir()} == pictures | set(others)


@pytest.mark.slow
def test_metrics_of_a_perfect_fit(written):
    metrics, folder = written
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert metrics["ok"] is True
    assert list(metrics["photos"]) == ["1: a.jpg", "2: b.jpg"]
    for figures in metrics["photos"].values():
        assert figures["identity_distance_euclidean"] < 0.05
        assert figures["landmark_error_percent"] < 0.01
    assert metrics["terms"] == {"align/total": 2.0, "full/total": 1.0, "full/pixel": 1.0}
    seconds = metrics["seconds"]
    assert list(seconds) == ["fit", "write", "total"] and seconds["fit"] == 1.23 and seconds["write"] > 0
    assert seconds["total"] == pytest.approx(seconds["fit"] + seconds["write"], abs=0.02)
    assert metrics["faces"] == {"1: a.jpg": "one face", "2: b.jpg": "the left one of two"}
    assert {"python", "jax", "numpy", "ganfit-jax", "device"} <= metrics["versions"].keys()


@pytest.mark.slow
def test_a_completed_albedo_is_shown_but_the_figures_are_the_fits(result, written, tmp_path):
    completed = np.full((32, 32, 3), [0.9, 0.1, 0.1], np.float32)
    metrics = results.write_results(result, tmp_path, completed)
    before, folder = written
    assert metrics["photos"] == before["photos"]
    assert before["albedo"] == {"figures": "fitted", "pictures": "fitted"}
    assert metrics["albedo"] == {"figures": "fitted", "pictures": "completed from the photos"}
    with Image.open(tmp_path / "albedo.png") as image:
        assert np.asarray(image)[0, 0].tolist() == [230, 26, 26]
    for name in ("render.png", "comparison.png", "mesh.glb", "report.html"):
        assert (tmp_path / name).read_bytes() != (folder / name).read_bytes()
    stored = load_fit(tmp_path / "fit.npz")
    assert np.asarray(stored.params.identity.texture) == pytest.approx(np.asarray(result.fit.params.identity.texture))


@pytest.mark.slow
def test_metrics_of_a_wrong_fit_are_worse(result):
    view, observed = (jax.tree.map(lambda x: x[0], x) for x in (result.fit.params.views, result.observations))
    moved = view._replace(camera=view.camera._replace(translation=view.camera.translation + jnp.array([9.0, 0.0, 0.0])))
    shown = results.pictures(result.models, result.fit.params, moved, observed.image, albedo_of(result))
    figures = results.photo_metrics(result.models, shown, observed)
    outer = np.linalg.norm(observed.landmarks[36] - observed.landmarks[45])
    shift = 9 * float(jnp.exp(view.camera.log_focal)) * SIZE / float(view.camera.translation[2])
    assert figures["landmark_error_percent"] == pytest.approx(100 * shift / outer, rel=0.1)


@pytest.mark.slow
def test_pictures_of_the_truth_look_like_the_photo(result, written):
    _, folder = written
    view, observed = (jax.tree.map(lambda x: x[0], x) for x in (result.fit.params.views, result.observations))
    shown = results.pictures(result.models, result.fit.params, view, observed.image, albedo_of(result))
    photo = np.clip(observed.image, 0, 1)
    assert np.clip(shown.render, 0, 1) == pytest.approx(photo, abs=1e-4)
    difference = np.abs(np.asarray(shown.composite) - photo)
    assert difference.max() < 0.1 and difference.mean() < 1e-3, "only the soft silhouette counts twice"
    centre = np.asarray(observed.landmarks[30], int)
    grey = np.asarray(shown.geometry)[centre[1], centre[0]]
    assert np.ptp(grey) < 1e-4, "the geometry is shown without colour"
    stored = np.asarray(Image.open(folder / "photo.png"), np.float32) / 255
    assert stored == pytest.approx(photo, abs=1 / 255)


@pytest.mark.slow
def test_the_stored_fit_is_the_fit(result, written):
    stored = load_fit(written[1] / "fit.npz")
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), stored.params, result.fit.params)
    assert stored.config["size"] == SIZE
    assert list(stored.extra["photos"]) == list(result.photos)


def test_joined_traces_have_gaps_where_a_stage_has_no_such_term():
    trace = {"align/total": np.ones(2), "full/total": np.zeros(3), "full/pixel": np.ones(3)}
    joined = results.joined(trace, [("align", 2), ("full", 3)])
    assert joined["total"].tolist() == [1, 1, 0, 0, 0]
    assert np.isnan(joined["pixel"][:2]).all() and (joined["pixel"][2:] == 1).all()


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot write there \(.*\), expected a writable folder"):
        results.prepare_folder(tmp_path / "file")
    assert list(results.prepare_folder(tmp_path / "a" / "b").iterdir()) == []


def test_names_of_pictures():
    assert [results.name_of("photo", n, 3) for n in range(3)] == ["photo.png", "photo_2.png", "photo_3.png"]
    assert results.name_of("photo", 0, 1) == "photo.png"
