"""The corpus workshop on a folder of four files: what is kept, what is dropped and why, and nothing is done twice."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ganfit_jax import corpus, morphable, skins, workshop
from ganfit_jax.camera import project
from ganfit_jax.config import Config
from ganfit_jax.landmarks import MOUTH_CORNERS, outer_eye_distance
from ganfit_jax.types import Camera

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "astronaut.png"
SIDE = 32


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    (root / "nasa").mkdir()
    shutil.copy(PHOTO, root / "nasa" / "astronaut.png")
    Image.new("RGB", (90, 90), (128, 128, 128)).save(root / "grey.png")
    (root / "broken.png").write_bytes(b"no picture")
    Image.open(PHOTO).resize((150, 150)).save(root / "small.png")
    return workshop.open_shop(root, tmp_path_factory.mktemp("corpus"), None, 30.0, SIDE, obey=True)


@pytest.fixture(scope="module")
def done(shop):
    photos = workshop.name_photos(shop, sorted(p for p in shop.root.rglob("*.png")))
    workshop.fit_batch(shop, photos, 2)
    return photos


@pytest.mark.slow
def test_photos_are_kept_or_dropped_for_a_reason(shop, done):
    assert len(done) == 4
    assert workshop.fitted(shop) == ["nasa_astronaut"]
    counts = corpus.report(shop.output)
    assert counts["photos"] == 4 and counts["kept"] == 1
    assert counts["dropped"] == {"no face": 1, "small": 1, "unreadable": 1}


@pytest.mark.slow
def test_small_photos_are_looked_at_again_when_smaller_ones_are_welcome(shop, done):
    assert all(workshop.is_done(shop, name) for name in done)
    assert not workshop.is_done(shop, "absent")
    lower = shop._replace(smallest=5.0)
    assert [name for name in done if not workshop.is_done(lower, name)] == ["small"]
    # Corpora that were written before the bar was stored are read on.
    file = shop.output / "fits" / "small.npz"
    kept = file.read_bytes()
    corpus.write_npz(file, {"dropped": np.asarray("small"), "path": np.asarray("small.png")})
    assert not workshop.is_done(shop, "small")
    file.write_bytes(kept)


def test_meshes_obey_landmarks_on_request_alone(shop, tmp_path):
    usual = workshop.open_shop(shop.root, tmp_path, None, 30.0, SIDE).config
    assert usual.weights == Config().weights and usual.align == Config().align
    assert shop.config.weights.landmark == 8 * usual.weights.landmark
    assert shop.config.weights.expression < usual.weights.expression


@pytest.mark.slow
def test_the_mesh_smiles_as_the_photo_does(shop, done):
    """Width of the mouth and gap between the lips, in outer eye distances. Under the weights of a fit the mesh of the
    same photo has a mouth that is narrower by 0.06 and a gap that is smaller by 0.03."""
    data = workshop.stored(shop, "nasa_astronaut")
    assert data is not None
    view = Camera(*(jnp.asarray(data[key]) for key in Camera._fields))
    vertices = morphable.vertices(shop.models.shape, jnp.asarray(data["shape"]), jnp.asarray(data["expression"]))
    points = project(view, morphable.landmarks(shop.models.shape, vertices, view.rotation), shop.config.size)[:, :2]

    def mouth(points):
        width, *gaps = (np.linalg.norm(points[a] - points[b]) for a, b in (MOUTH_CORNERS, (61, 67), (62, 66), (63, 65)))
        return np.array([width, np.mean(gaps)]) / outer_eye_distance(points)

    found, expected = mouth(np.asarray(points)), mouth(data["landmarks"])
    np.testing.assert_allclose(found, expected, atol=0.025)


@pytest.mark.slow
def test_maps_of_small_photos_have_little_detail(shop, done):
    data = workshop.stored(shop, "nasa_astronaut")
    assert data is not None
    corners = data["landmarks"][[36, 45]]
    assert workshop.detail(shop, "nasa_astronaut") == SIDE, "a map has no more than its texels"
    span = corpus.eye_span(shop.models.shape)
    large = shop._replace(texels=shop.texels._replace(used=np.ones((4096, 4096))))
    assert workshop.detail(large, "nasa_astronaut") == int(np.linalg.norm(corners[0] - corners[1]) / span)
    data |= {"landmarks": data["landmarks"] / 4}
    corpus.write_npz(shop.output / "fits" / "tiny.npz", data)
    assert workshop.detail(large, "tiny") == pytest.approx(workshop.detail(large, "nasa_astronaut") / 4, abs=1)
    data |= {"landmarks": data["landmarks"] * 40}
    corpus.write_npz(shop.output / "fits" / "tiny.npz", data)
    assert workshop.detail(large, "tiny") < workshop.WINDOW, "no more than the window shows"
    (shop.output / "fits" / "tiny.npz").unlink()


def test_photos_whose_names_run_together_are_kept_apart(shop):
    paths = [shop.root / name for name in ("a/b.jpg", "a_b.jpg", "c.jpg", "c.png", "d.jpg")]
    named = workshop.name_photos(shop, paths)
    assert sorted(named.values()) == sorted(paths) and named["d"] == paths[4]
    assert named == workshop.name_photos(shop, paths[::-1])
    assert "c" not in named and sum(name.startswith("c-") for name in named) == 2
    file = shop.output / "fits" / "c.npz"
    file.parent.mkdir(exist_ok=True)
    corpus.write_npz(file, {"dropped": np.asarray("pose"), "path": np.asarray(str(paths[3]))})
    named = workshop.name_photos(shop, paths)
    file.unlink()
    assert named["c"] == paths[3] and len(named) == 5


def test_copies_of_photos_are_left_out(tmp_path):
    paths = [tmp_path / f"{name}.jpg" for name in "abcde"]
    for path, content in zip(paths, (b"1", b"2", b"1", b"3", b"2"), strict=True):
        path.write_bytes(content)
    assert workshop.distinct(paths) == [paths[0], paths[1], paths[3]]
    assert workshop.distinct(paths, {"e.jpg"}) == [paths[0], paths[3]], "b shows what e is to measure"


@pytest.mark.slow
def test_what_is_done_is_not_done_again(shop, done, monkeypatch):
    def never(*_):
        raise AssertionError("done before")

    monkeypatch.setattr(workshop, "look", never)
    workshop.fit_batch(shop, done, 2)


@pytest.mark.slow
def test_a_fitted_photo_becomes_a_map(shop, done, monkeypatch):
    names = workshop.fitted(shop)
    colour, weight, normals = workshop.read(shop, names[0])
    assert colour.shape == normals.shape == (SIDE, SIDE, 3)
    assert 0.1 < (weight > 0.3).mean() < 0.9
    seen = np.average(colour.reshape(-1, 3), axis=0, weights=weight.ravel())
    assert seen[0] > seen[1] > seen[2], "skin is reddish"
    mean = workshop.mean_map(shop, names)
    assert mean.dtype == np.float32 and mean == pytest.approx(mean[:, ::-1], abs=1e-5)
    workshop.write_map(shop, names[0], mean)
    maps = corpus.read_maps(shop.output / "maps")
    assert maps.names == ("nasa_astronaut",)
    assert maps.weight.max() > 0.9 and np.isfinite(maps.albedo).all()
    well = maps.weight[0] > 0.8
    assert np.abs(maps.albedo[0] - colour)[well].mean() < 0.2
    monkeypatch.setattr(workshop, "read", None)
    workshop.write_map(shop, names[0], mean)


def test_a_skin_is_resampled_into_the_chart(shop):
    place = np.random.default_rng(0).integers(0, 65535, size=(1, 2))
    corners = np.broadcast_to(np.uint16(place)[:, None], (len(shop.models.shape.faces), 3, 2))
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[None] * 4, np.arange(64)[:, None] * 4
    file = shop.root / "young.png"
    Image.fromarray(ramp).save(file)
    details = skins.write_skin(shop, file, corners)
    assert details == skins.write_skin(shop, file, corners) == {"skin_young": 0}, "a chart that is a point"
    file.unlink()
    maps = corpus.read_maps(shop.output / "maps", ["skin_young"])
    expected = (place[0] / 65535 * 64 - 0.5) * 4 / 255
    centre = maps.albedo[0][np.asarray(shop.texels.used) > 0]
    assert centre[:, :2] == pytest.approx(np.broadcast_to(expected, (len(centre), 2)), abs=0.01)
    assert 0.3 < maps.weight.mean() < 1 and maps.weight.min() == 0
    assert corpus.report(shop.output)["synthetic"] == 1


def test_a_skin_has_the_detail_of_its_own_chart(shop):
    model = shop.models.shape
    corners = np.asarray(model.uv)[np.asarray(model.uv_faces)] / 2
    assert corpus.eye_span(model, corners) == pytest.approx(corpus.eye_span(model) / 2, rel=1e-4)
    file = shop.root / "half.png"
    Image.new("RGB", (40, 40)).save(file)
    details = skins.write_skin(shop, file, np.uint16(np.round(65535 * corners)))
    file.unlink()
    (shop.output / "maps" / "skin_half.png").unlink()
    assert details["skin_half"] in (19, 20)


def test_eyes_aim_at_the_camera(shop):
    names = ("eyeLookOutLeft", "eyeLookInRight", "eyeLookInLeft", "eyeLookUpLeft", "eyeLookDownLeft", "jawOpen")
    before = np.full(6, 0.5, np.float32)

    def aimed(rotation):
        camera = Camera(jnp.float32(rotation), jnp.array([0.0, 0.0, 1000.0]), jnp.float32(1.4))
        return dict(zip(names, workshop.aimed_gaze(names, camera, before), strict=True))

    straight = aimed([0.0, 0.0, 0.0])
    assert [straight[n] for n in names[:5]] == pytest.approx([0] * 5, abs=1e-6) and straight["jawOpen"] == 0.5
    # Turned towards the image's right, which is the subject's left: the eyes look to the subject's right.
    turned = aimed([0.0, np.radians(12.9), 0.0])
    assert turned["eyeLookInLeft"] == pytest.approx(0.5, abs=1e-3)
    assert turned["eyeLookOutLeft"] == turned["eyeLookInRight"] == 0
    # Nodding down (positive pitch): the eyes look up.
    nodding = aimed([np.radians(12.9), 0.0, 0.0])
    assert nodding["eyeLookUpLeft"] == pytest.approx(0.5, abs=1e-3) and nodding["eyeLookDownLeft"] == 0
