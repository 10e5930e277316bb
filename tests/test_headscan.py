"""A scan whose shape is known, our own mean face in another unit and place: it comes home, and its error is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import assets, gallery, headscan, picture, pipeline, texture, truth
from ganfit_jax.config import Config
from ganfit_jax.detectors import detector
from ganfit_jax.errors import InputError
from ganfit_jax.gallery import Row
from ganfit_jax.types import Fit, Identity, Light, LinearTexture, Models, Observation, Params, View


@pytest.fixture(scope="module")
def model():
    return assets.load_shape()[0]


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    vertices = np.asarray(model.mean, np.float64) / 48.0 + np.array([0.3, 2.0, -1.0])
    corners = np.stack([np.asarray(model.faces), np.asarray(model.uv_faces)], -1).reshape(-1, 6) + 1
    lines = ["v {:.5f} {:.5f} {:.5f}".format(*row) for row in vertices]
    lines += [f"vt {u:.5f} {1 - v:.5f}" for u, v in np.asarray(model.uv)]
    lines += ["f {}/{} {}/{} {}/{}".format(*row) for row in corners]
    (folder / "head.obj").write_text("\n".join(lines))
    textures = assets.load_texture()[0]
    picture.save_png(folder / "head.png", texture.decode(textures, jnp.zeros(texture.latent_size(textures))))
    return folder


def test_texture_coordinates_are_read_for_every_corner(model, files):
    uv = headscan.read_uv(files / "head.obj")
    assert uv == pytest.approx(np.asarray(model.uv)[np.asarray(model.uv_faces)], abs=1e-5)
    (files / "quads.obj").write_text("vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3 4/4\nf -4/-4/1 -3/-3/1 -2/-2/1\n")
    square = np.array([[0, 1], [1, 1], [1, 0], [0, 0]])
    assert headscan.read_uv(files / "quads.obj").tolist() == square[[[0, 1, 2], [0, 2, 3], [0, 1, 2]]].tolist()
    (files / "bare.obj").write_text("v 0 0 0\nf 1//1 1//1 1//1\n")
    with pytest.raises(InputError, match=r"bare\.obj: a face without texture coordinates"):
        headscan.read_uv(files / "bare.obj")


@pytest.mark.slow
def test_a_scan_comes_to_our_frame_and_a_copy_has_no_error(model, files):
    pytest.importorskip("mitsuba")
    find, mean = detector("dlib"), np.asarray(model.mean, np.float64)
    scan = headscan.read_scan(files / "head.obj", files / "head.png", model, find)
    assert np.linalg.norm(scan.solid.vertices - mean, axis=1).mean() < 3, "as exact as the detector"
    field, motion = headscan.scan_error(scan, model, mean)
    assert field.mean() < 0.05 and motion(mean) == pytest.approx(scan.solid.vertices, abs=0.3)
    counted, areas = headscan.counted(scan)
    assert areas.sum() == pytest.approx(field.areas.sum()) and 10000 < areas.sum() < 40000, "mm^2 of a face"
    assert 1000 < len(counted) < 8000
    tip, eye = scan.landmarks[30], scan.landmarks[36:42].mean(0)
    assert np.linalg.norm(counted - tip, axis=1).max() < 75 and np.linalg.norm(counted - eye, axis=1).min() > 19
    longer = mean * np.array([1.0, 1.2, 1.0])
    assert headscan.scan_error(scan, model, longer)[0].mean() > 0.5


def test_a_head_that_looks_away_gives_one_line(model, files):
    pytest.importorskip("mitsuba")
    empty = detector("dlib")._replace(detect=lambda image: [])
    with pytest.raises(InputError, match=r"head\.obj: no face found"):
        headscan.read_scan(files / "head.obj", files / "head.png", model, empty)


@pytest.mark.slow
def test_every_single_photo_and_all_together_are_items(model, files, tmp_path, monkeypatch):
    pytest.importorskip("mitsuba")
    models = Models(model, LinearTexture(jnp.full((16, 16, 3), 0.5), jnp.zeros((2, 16, 16, 3))), None)

    def fit_with(models, infos, paths, config, find, callback):
        count = len(paths)
        view = View(
            jnp.zeros((count, len(model.expression_basis))),
            jax.tree.map(lambda x: jnp.stack([x] * count), headscan.camera_at(0.0, 0.0)),
            Light(jnp.ones((count, 3)), jnp.ones((count, 3)), jnp.ones((count, 3))),
        )
        identity = Identity(jnp.zeros(len(model.identity_basis)), jnp.zeros(2))
        shapes = ((32, 32, 3), (68, 2), (68,), (32, 32), (2, 3))
        seen = Observation(*(jnp.zeros((count, *shape)) for shape in shapes), None, jnp.ones(count))
        seconds = {"observe": 1.0, "fit": 2.0}
        return pipeline.Result(
            tuple(map(str, paths)), seen, Fit(Params(identity, view), {}, True), models, infos, config, seconds, ()
        )

    monkeypatch.setattr(truth, "fit_with", fit_with)
    head = files / "head.obj", files / "head.png"
    names, work = headscan.scan(models, {}, detector("dlib"), Config(), *head, size=48, samples=1)
    assert names == ["yaw_0", "yaw_-45", "yaw_45", "yaw_-22", "yaw_22", "all"]
    for name, yaw, photos in (("yaw_-22", -22.0, 1), ("all", None, 5)):
        folder = tmp_path / name
        row = gallery.kept(folder, lambda name=name, folder=folder: work(name, folder))
        assert row.figures["error_mm"] < 0.05 and row.figures["mean_face_mm"] < 0.05, "the mean face was scanned"
        assert (row.figures.get("yaw"), row.figures["photos"], row.figures["seconds"]) == (yaw, photos, 3.0)
    assert len(list(tmp_path.glob("photos-*/*.png"))) == 5


def test_single_photos_are_averaged_and_plotted_by_yaw(tmp_path):
    others = {"expressed_mm": 2.0, "mean_face_mm": 3.0}

    def row(error, **more):
        return Row({"error_mm": error, **others, "full s": 7.0, "full MB": 9.0, **more}, {})

    rows = {"yaw_0": row(1.0, yaw=0.0), "yaw_45": row(2.0, yaw=45.0), "all": row(0.5)}
    tables, made = headscan.finished(rows, tmp_path)
    one, every = tables["By number of photos"]
    assert one == {"group": "one photo", "items": 2, "error_mm": 1.5, **others, "worst_mm": 2.0}
    assert (every["group"], every["items"], every["error_mm"], every["worst_mm"]) == ("all photos", 1, 0.5, 0.5)
    assert tables["Items"][1] == {"item": "yaw_45", "error_mm": 2.0, **others, "yaw": 45.0}
    assert tables["Time and memory"] == [
        {"phase": "full", "seconds a photo": 7.0, "first, s": 7.0, "peak memory, MB": 9.0}
    ]
    assert list(made.values()) == ["error_yaw.png"] and (tmp_path / "error_yaw.png").stat().st_size > 1000
    single, none = headscan.finished({"all": rows["all"]}, tmp_path)
    assert [line["group"] for line in single["By number of photos"]] == ["all photos"] and none == {}
