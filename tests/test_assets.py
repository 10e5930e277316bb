"""The built-in shape model is what its documentation says; wrong files give one clear line."""

import importlib
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ganfit_jax import assets, corpus, morphable, quality, texture
from ganfit_jax.generator import Generator, resized
from ganfit_jax.types import GanTexture, LinearTexture

CONVERTER = Path(__file__).resolve().parents[1] / "third_party" / "makehuman"
TINY = {"mean": np.full((4, 4, 3), 0.5, np.float16), "basis": np.ones((2, 4, 4, 3), np.float16)}
TINY |= {"name": np.array("tiny"), "licence": np.array("CC0")}


@pytest.fixture(scope="module")
def loaded():
    return assets.load_shape()


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0]


def stored():
    with np.load(Path(assets.__file__).parent / "face.npz", allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


def mirror_of(model):
    from scipy.spatial import cKDTree

    vertices = np.asarray(model.mean, float)
    parts = np.stack([np.asarray(model.regions.eyes), np.asarray(model.regions.mouth)], 1) * 100.0
    distance, ids = cKDTree(np.c_[vertices, parts]).query(np.c_[vertices * [-1, 1, 1], parts])
    return distance, ids


def test_what_it_says_of_itself(loaded):
    model, info = loaded
    assert info.name == "makehuman-face" and len(info.sha256) == 64
    assert "CC0" in info.licence and "MIT (statistics: ICT-FaceKit)" in info.licence
    assert len(info.expressions) == 52 == len(model.expression_basis)
    assert {"eyeBlinkLeft", "jawOpen", "mouthSmileRight", "tongueOut"} <= set(info.expressions)
    assert 10_000 <= len(model.mean) <= 15_000 and 140 <= len(model.identity_basis) <= 160
    assert Path(info.path).stat().st_size < 12e6


def test_conventions(model):
    mean = np.asarray(model.mean)
    eyes = np.asarray(model.regions.eyes) > 0
    left, right = (mean[eyes & (side * mean[:, 0] > 0)] for side in (1, -1))
    assert (left.mean(0) + right.mean(0))[0] == pytest.approx(0.0, abs=0.01)
    assert left[:, 0].mean() - right[:, 0].mean() == pytest.approx(62.5, abs=1.5)
    assert mean[np.argmax(mean[:, 2]), 1] == pytest.approx(-42.0, abs=8.0)  # the nose is foremost
    volume = np.einsum("fi,fi->", *(lambda t: (t[:, 0], np.cross(t[:, 1], t[:, 2])))(mean[np.asarray(model.faces)]))
    assert volume > 0  # faces run counter-clockwise seen from outside


def test_mean_and_modes_are_symmetric(model):
    distance, mirror = mirror_of(model)
    assert distance.max() < 0.05
    for mode in np.asarray(model.identity_basis):  # or antisymmetric
        reflected = mode[mirror] * [-1, 1, 1]
        size = np.abs(mode).max()
        assert min(np.abs(reflected - mode).max(), np.abs(reflected + mode).max()) < 0.001 * size


def test_the_chart_has_no_folds_and_is_symmetric(model):
    corners = np.asarray(model.uv, float)[np.asarray(model.uv_faces)]
    assert corners.min() > 0 and corners.max() < 1
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    assert (area < 0).all()  # v points down
    _, mirror = mirror_of(model)
    faces = np.asarray(model.faces)
    at = {tuple(sorted(f)): i for i, f in enumerate(faces.tolist())}
    for i in range(0, len(faces), 37):
        j = at[tuple(sorted(mirror[faces[i]].tolist()))]
        order = [faces[j].tolist().index(v) for v in mirror[faces[i]].tolist()]
        assert corners[j][order] * [-1, 1] + [1, 0] == pytest.approx(corners[i], abs=1e-5)


def test_no_texel_belongs_to_two_faces(model):
    """Centres of the triangles of skin, eyes and mouth lie in no other triangle: the islands do not overlap."""
    from ganfit_jax import raster

    size = 512
    flat = jnp.concatenate([model.uv * size, jnp.full((len(model.uv), 1), 10.0)], axis=1)
    flipped = model.uv_faces[:, ::-1]
    covered = np.asarray(raster.rasterize(flat, flipped, size).faces[..., 0]) >= 0
    covered |= np.asarray(raster.rasterize(flat, model.uv_faces, size).faces[..., 0]) >= 0
    corners = np.asarray(model.uv, float)[np.asarray(model.uv_faces)] * size
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    total = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2
    assert total == pytest.approx(covered.sum(), rel=0.01)


def test_regions(model):
    regions = {k: np.asarray(v) for k, v in model.regions._asdict().items()}
    for mask in regions.values():
        assert mask.min() >= 0 and mask.max() == 1
    assert (regions["face"] + regions["ears"] + regions["neck"] + regions["eyes"] + regions["mouth"]).max() <= 1.001
    corners = np.asarray(model.faces)[np.asarray(model.landmark_faces)[17:48]]
    assert regions["face"][corners].min() > 0.4


def test_the_neutral_mouth_and_eyes_are_closed_by_skin(model):
    """Seen from the front no part of the mouth sheet shows at rest, and it does when the jaw opens."""
    names = assets.load_shape()[1].expressions
    sheet = np.asarray(model.regions.mouth)[np.asarray(model.faces)].min(1) == 1
    assert shown(model, np.asarray(model.mean), sheet) < 30
    opened = np.asarray(model.mean + model.expression_basis[names.index("jawOpen")])
    assert shown(model, opened, sheet) > 1000
    eyes = np.asarray(model.regions.eyes)[np.asarray(model.faces)].min(1) == 1
    blink = sum(np.asarray(model.expression_basis[names.index(f"eyeBlink{side}")]) for side in ("Left", "Right"))
    wide, shut = shown(model, np.asarray(model.mean), eyes), shown(model, np.asarray(model.mean) + blink, eyes)
    assert wide > 1000 and shut < 0.06 * wide


def shown(model, vertices, chosen, size=512):
    """How many pixels of a frontal picture (0.4 mm each) show the chosen faces."""
    from ganfit_jax import raster

    x, y, z = vertices.T
    screen = np.stack([size / 2 + 2.5 * x, size / 2 - 2.5 * (y + 40.0), 500.0 - z], 1)
    faces = np.asarray(raster.rasterize(jnp.float32(screen), model.faces, size).faces[..., 0])
    return int(chosen[faces[faces >= 0]].sum())


def test_gaze_turns_the_irises_towards_the_named_side(loaded):
    model, info = loaded
    for side, sign in (("Left", 1.0), ("Right", -1.0)):
        ball = (np.asarray(model.regions.eyes) > 0) & (sign * np.asarray(model.mean)[:, 0] > 0)
        pole = np.flatnonzero(ball)[np.argmax(np.asarray(model.mean)[ball, 2])]
        for way, axis, towards in (("Up", 1, 1.0), ("Down", 1, -1.0), ("Out", 0, sign), ("In", 0, -sign)):
            unit = np.asarray(model.expression_basis[info.expressions.index(f"eyeLook{way}{side}")])
            assert 3.0 < towards * unit[pole, axis] < 10.0


def test_random_people_keep_their_proportions(model):
    rng = np.random.default_rng(0)
    for _ in range(20):
        shape = jnp.float32(rng.normal(size=len(model.identity_basis)))
        vertices = morphable.vertices(model, shape, jnp.zeros(len(model.expression_basis)))
        points = np.asarray(morphable.landmarks(model, vertices, jnp.zeros(3)))
        assert 50 < np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0)) < 78
        assert points[8, 1] < points[57, 1] < points[51, 1] < points[33, 1] < points[27, 1]


def test_measured_statistics_are_applied(model):
    arrays = stored()
    smooth, scale = (arrays[f"smooth_{key}"].astype(float) for key in ("basis", "scale"))
    root = arrays["identity_root"].astype(float)
    random = np.random.default_rng(0)
    for v, k in zip(random.choice(len(arrays["mean"]), 30), random.choice(root.shape[1], 30), strict=True):
        wanted = np.zeros(3)
        for j in range(len(arrays["identity_basis"])):
            wanted += root[j, k] * arrays["identity_basis"][j, v].astype(float)
        for j in range(len(smooth)):
            for axis in range(3):
                row = len(arrays["identity_basis"]) + 3 * j + axis
                wanted[axis] += root[row, k] * smooth[j, v] * scale[j, axis]
        assert np.asarray(model.identity_basis[k, v]) == pytest.approx(wanted, abs=1e-3)
    assert np.asarray(model.mean) == pytest.approx(arrays["identity_mean"])
    assert (np.abs(arrays["identity_mean"] - arrays["mean"]).max(0) > 1.0).all()
    eyes = arrays["regions.eyes"] > 0  # they, and with them the origin, stay where they were
    assert arrays["identity_mean"][eyes].mean(0) == pytest.approx(arrays["mean"][eyes].mean(0), abs=1e-3)


def test_a_model_without_measured_statistics_is_its_own_basis(tmp_path):
    arrays = stored()
    path = change(arrays, tmp_path / "plain.npz", identity_root=None, identity_mean=None)
    plain = assets.load_shape(path)[0]
    assert np.asarray(plain.mean) == pytest.approx(arrays["mean"])
    assert np.asarray(plain.identity_basis[:59]) == pytest.approx(arrays["identity_basis"].astype(np.float32))


def change(arrays, path, **values):
    np.savez(path, **{k: v for k, v in (arrays | values).items() if v is not None})
    return path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"uv": None}, "'uv': expected an array .*found no such key"),
        ({"mean": np.zeros((7, 2))}, r"'mean': expected \[.*found \[7, 2\]"),
        ({"faces": np.zeros((5, 3))}, "'(faces|uv_faces)': expected"),
        ({"landmark_faces": np.full(68, 60000)}, "'landmark_faces': expected indices in 0.."),
        ({"expressions": np.array(["a"])}, "'expressions': expected 52 names, found 1"),
        ({"name": None}, "'name': expected a string"),
        ({"uv": np.full((14411, 2), np.nan)}, "'uv': expected finite numbers"),
        ({"identity_root": np.eye(5)}, r"'identity_root': expected \[158, n_s\], found \[5, 5\]"),
        ({"identity_root": None}, "'identity_root': expected an array .*found no such key"),
        ({"identity_mean": None}, "'identity_mean': expected an array .*found no such key"),
        ({"identity_mean": np.zeros((7, 3))}, r"'identity_mean': expected \[14301, 3\], found \[7, 3\]"),
    ],
)
def test_wrong_shape_files(tmp_path, values, message):
    path = change(stored(), tmp_path / "wrong.npz", **values)
    with pytest.raises(ValueError, match=message) as caught:
        assets.load_shape(path)
    assert "wrong.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model"):
        assets.load_shape("nobody")
    text = tmp_path / "text.npz"
    text.write_text("hello")
    with pytest.raises(ValueError, match=r"text.npz: expected an npz"):
        assets.load_shape(text)
    np.savez(tmp_path / "pickled.npz", mean=np.array([object()]), name=np.array("x"), licence=np.array("x"))
    with pytest.raises(ValueError, match=r"pickled.npz: expected an npz of plain arrays"):
        assets.load_shape(tmp_path / "pickled.npz")
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"array.npz: expected an npz of plain arrays"):
        assets.load_texture(tmp_path / "array.npz")


@pytest.mark.parametrize("side", [0, 3])
def test_colours_that_do_not_fit_their_luma(tmp_path, side):
    arrays = {"mean": np.zeros((4, 4, 3)), "luma": np.zeros((2, 4, 4)), "chroma": np.zeros((2, side, side, 2))}
    scales = {"luma_scale": np.ones(2), "chroma_scale": np.ones(2)}
    np.savez(tmp_path / "wrong.npz", name="x", licence="x", **arrays, **scales)
    with pytest.raises(ValueError, match=f"wrong.npz: key 'chroma': expected a side that divides 4, found {side}"):
        assets.load_texture(tmp_path / "wrong.npz")


def test_textures_as_floats_and_as_luma_and_chroma(tmp_path):
    model, info = assets.load_texture(change(TINY, tmp_path / "a.npz"))
    assert info.name == "tiny" and model.basis.shape == (2, 4, 4, 3) and float(model.mean[0, 0, 0]) == 0.5
    small = {"basis": None, "luma": np.full((2, 4, 4), 10, np.int8), "chroma": np.zeros((2, 2, 2, 2), np.int8)}
    small["chroma"][:, :, :, 0] = 5
    scales = {"luma_scale": np.float32([0.1, 0.2]), "chroma_scale": np.float32([0.1, 0.1])}
    model, _ = assets.load_texture(change(TINY, tmp_path / "b.npz", **small, **scales))
    red, green, blue = np.asarray(model.basis[0, 0, 0])
    assert red == pytest.approx(1.5) and blue == pytest.approx(1.0)
    assert 0.299 * red + 0.587 * green + 0.114 * blue == pytest.approx(1.0)
    with pytest.raises(ValueError, match="'basis': expected"):
        assets.load_texture(change(TINY, tmp_path / "c.npz", basis=np.ones((2, 5, 4, 3))))


def tiny_generator(linear=0):
    """The arrays of a generator's file: latent 6, up to 8 x 8."""
    state = nnx.to_flat_state(nnx.split(Generator(6, (5, 4), nnx.Rngs(0), linear=linear))[1])
    weights = {"generator." + ".".join(map(str, path)): np.float16(leaf[...]) for path, leaf in state}
    arrays = {"latent_mean": np.zeros(6, np.float16), "latent_basis": np.eye(3, 6, dtype=np.float16)}
    names = {"name": np.array("tiny"), "licence": np.array("CC0"), "widths": np.int32([5, 4])}
    return arrays | names | weights


def test_the_built_in_generator():
    model, info = assets.load_texture("gan")
    assert isinstance(model, GanTexture) and model.spec.side == 256 and texture.latent_size(model) == 300
    assert info.licence == "Apache-2.0" and Path(info.path).stat().st_size < 16e6
    linear, _ = assets.load_texture()
    assert isinstance(linear, LinearTexture)
    assert np.abs(np.asarray(texture.decode(model, jnp.zeros(300))) - np.asarray(linear.mean)).mean() < 0.05
    latents = jax.random.normal(jax.random.key(0), (4, 300))
    people = jnp.stack([texture.decode(model, z) for z in latents])
    assert people.min() >= 0 and people.max() <= 1 and float(people.std(0).mean()) > 0.03, "people differ"
    sides = jnp.abs(people - people[:, :, ::-1]).mean()
    assert float(sides) < 0.05, "left and right are alike"
    # Its detail is finer than that of the linear path inside it.
    path: Any = model.weights["linear"]
    codes = model.mean[None] + latents @ model.basis
    smooth = 0.5 + 0.5 * (path["mean"][...][None] + jnp.tensordot(codes, path["basis"][...], 1))
    smooth = jax.image.resize(smooth, people.shape, "linear")
    ones = np.ones(people.shape[:3], np.float32)
    energy = [np.asarray(quality.high_frequency_energy(x, ones)) for x in (people, smooth)]
    assert (energy[0] > 2.0 * energy[1]).all()
    # What no map showed is the path's alone.
    silent = np.asarray(resized(model.weights["taught"][...][None], 256))[0, ..., 0] == 0
    assert 0.2 < silent.mean() < 0.8
    np.testing.assert_allclose(people[:, silent], np.clip(smooth[:, silent], 0, 1), atol=1e-5)


def test_a_generator_s_linear_path_may_be_stored_small(tmp_path):
    arrays, random = tiny_generator(linear=4), np.random.default_rng(0)
    basis = 0.2 * np.repeat(np.repeat(random.normal(size=(6, 2, 2, 3)), 2, 1), 2, 2)  # no detail in its colours is lost
    del arrays["generator.linear.basis"]
    small = {f"generator.linear.{key}": value for key, value in corpus.small_basis(basis).items()}
    model, _ = assets.load_texture(change(arrays | small, tmp_path / "a.npz"))
    assert isinstance(model, GanTexture)
    np.testing.assert_allclose(model.weights["linear"]["basis"][...], basis, atol=0.015)
    older, _ = assets.load_texture(change(arrays | small, tmp_path / "older.npz", **{"generator.taught": None}))
    assert isinstance(older, GanTexture)
    np.testing.assert_array_equal(older.weights["taught"][...], np.ones((4, 4, 1)))
    for key, wrong in (("luma", np.zeros((5, 4, 4))), ("chroma", np.zeros((6, 4, 4, 2))), ("luma_scale", None)):
        path = change(arrays | small, tmp_path / "wrong.npz", **{f"generator.linear.{key}": wrong})
        with pytest.raises(ValueError, match=rf"wrong.npz: key 'generator.linear.{key}': expected"):
            assets.load_texture(path)


def test_a_texture_generator(tmp_path):
    arrays = tiny_generator()
    model, info = assets.load_texture(change(arrays, tmp_path / "a.npz"))
    assert isinstance(model, GanTexture) and model.spec.side == 8 and info.name == "tiny"
    assert model.basis.shape == (3, 6) and model.mean.dtype == model.basis.dtype == jnp.float32
    kernel = model.weights["blocks"][0]["first"]["kernel"][...]
    np.testing.assert_array_equal(kernel, np.float32(arrays["generator.blocks.0.first.kernel"]))
    again, _ = assets.load_texture(tmp_path / "a.npz")
    assert hash(again.spec) == hash(model.spec) and again.spec == model.spec, "compiled programs are found again"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"generator.blocks.0.first.kernel": None}, "1 missing weights, the first is blocks.0.first.kernel"),
        ({"generator.blocks.7.first.kernel": np.zeros((3, 3, 5, 4))}, "1 unknown weights, .*blocks.7.first.kernel"),
        ({"widths": np.int32([5])}, "unknown weights"),
        ({"widths": np.int32([5, 4, 3])}, "missing weights"),
        ({"widths": np.int32([5, 3])}, r"expected float of shape \(.*3"),
        ({"widths": np.int32([])}, "'widths': expected .*positive"),
        ({"widths": np.int32([5, 0])}, "'widths': expected .*positive"),
        ({"widths": np.float32([5, 4])}, "'widths': expected .*positive"),
        ({"widths": None}, "'widths': expected an array .*found no such key"),
        ({"latent_basis": None}, "'latent_basis': expected an array .*found no such key"),
        ({"latent_basis": np.zeros((3, 7))}, r"'latent_basis': expected \[n_t, 6\], found \[3, 7\]"),
        ({"latent_mean": np.zeros(7), "latent_basis": np.zeros((3, 7))}, "dense.kernel is .*expected float of shape"),
        ({"latent_mean": np.full(6, np.nan)}, "'latent_mean': expected finite numbers"),
        ({"generator.first.bias": np.float16([0, 0, np.nan, 0, 0])}, "first.bias holds values that are not finite"),
        ({"generator.first.bias": np.zeros(5, np.int32)}, "first.bias is int32"),
        ({"generator.linear.mean": np.zeros((4, 4, 3))}, "1 missing weights, the first is linear.basis"),
        ({"generator.linear.basis": np.zeros((6, 4, 4, 3))}, "1 unknown weights, the first is linear.basis"),
        ({"generator.linear.mean": np.float16(0.5)}, r"linear.mean': expected \[s, s, 3\], found \[\]"),
        ({"generator.linear.mean": np.zeros((4, 8, 3))}, r"linear.mean': expected \[s, s, 3\], found \[4, 8, 3\]"),
        (
            {
                "generator.linear.mean": np.zeros((4, 4, 3)),
                "generator.linear.basis": np.zeros((5, 4, 4, 3)),
                "generator.blocks.0.first.kernel": np.zeros((3, 3, 5 + 6, 4)),
            },
            r"linear.basis is .*expected float of shape \(6, 4, 4, 3\)",
        ),
    ],
)
def test_wrong_generator_files(tmp_path, values, message):
    path = change(tiny_generator(), tmp_path / "wrong.npz", **values)
    with pytest.raises(ValueError, match=message) as caught:
        assets.load_texture(path)
    assert "wrong.npz" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_model_explains_a_head_scan(shared, monkeypatch):
    trimesh = pytest.importorskip("trimesh")
    monkeypatch.syspath_prepend(str(CONVERTER))
    monkeypatch.delitem(sys.modules, "scan_fit", raising=False)
    scan_fit = importlib.import_module("scan_fit")
    scan = trimesh.load(shared / "scans" / "LeePerrySmith.obj", process=False, force="mesh")
    distance, coefficients = scan_fit.fit(scan_fit.seen_points(scan, 0.03), assets.load_shape()[0], 50.0)
    assert len(distance) > 1000
    assert distance.mean() < 1.0
    assert np.abs(coefficients).max() <= 3.0
