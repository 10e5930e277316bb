import json
import struct

import imageio.v3 as iio
import numpy as np
import pytest

from ganfit_jax import export, files, gltf, picture
from ganfit_jax.errors import InputError
from ganfit_jax.types import Camera, Identity, Light, ModelInfo, Params, Regions, ShapeModel, View

NAMES = ("jawOpen", "browDownLeft", "still")


def tiny_face(side=12):
    """A bulged sheet, 100 mm wide, whose UV chart is cut along the middle column; three expressions."""
    x, y = np.meshgrid(np.linspace(-50, 50, side), np.linspace(60, -60, side))
    mean = np.stack([x, y, 30 - (x**2 + y**2) / 100], axis=-1).reshape(-1, 3).astype(np.float32)
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, d, c], -1).reshape(-1, 3), np.stack([a, c, b], -1).reshape(-1, 3)])
    left = np.stack([(x + 50) / 250, (60 - y) / 120], axis=-1).reshape(-1, 2)
    right = left + np.array([0.5, 0.0])
    is_right = mean[faces].mean(axis=1)[:, 0] > mean[side // 2, 0]
    uv_faces = np.where(is_right[:, None], faces + side * side, faces)
    expressions = np.zeros((3, len(mean), 3), np.float32)
    expressions[0, index[side // 2 :].ravel(), 1] = -8.0
    expressions[1, index[1, 2:4], 2] = -3.0
    ones, none = np.ones(len(mean), np.float32), np.zeros(len(mean), np.float32)
    return ShapeModel(
        mean=mean,
        identity_basis=np.zeros((1, len(mean), 3), np.float32),
        expression_basis=expressions,
        faces=faces,
        uv=np.concatenate([left, right]).astype(np.float32),
        uv_faces=uv_faces,
        landmark_faces=np.zeros(68, np.int32),
        landmark_barycentric=np.full((68, 3), 1 / 3, np.float32),
        contour_faces=np.zeros((17, 1), np.int32),
        contour_barycentric=np.full((17, 1, 3), 1 / 3, np.float32),
        regions=Regions(ones, none, none, none, none),
    )


WEIGHTS = np.array([0.5, 0.25, 0.0], np.float32)


def chequer(size=16):
    albedo = np.full((size, size, 3), 0.25, np.float32)
    albedo[: size // 2, : size // 2] = [0.9, 0.5, 0.1]
    return albedo


def parse_glb(data):
    """Reads a GLB and checks its structure: chunks, alignment, bounds; returns the JSON and a reader of accessors."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    json_length, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and json_length % 4 == 0
    document = json.loads(data[20 : 20 + json_length])
    bin_length, kind = struct.unpack_from("<I4s", data, 20 + json_length)
    assert kind == b"BIN\0" and bin_length % 4 == 0 and 28 + json_length + bin_length == length
    blob = data[28 + json_length :]
    assert document["buffers"] == [{"byteLength": len(blob)}]
    end = 0
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0 and view["byteOffset"] >= end
        end = view["byteOffset"] + view["byteLength"]
    assert end <= len(blob)
    types = {5126: np.float32, 5125: np.uint32, 5123: np.uint16}
    widths = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}

    def view_of(index, component, count):
        view = document["bufferViews"][index]
        assert view["byteLength"] == count * np.dtype(types[component]).itemsize
        return np.frombuffer(blob, types[component], count, view["byteOffset"])

    def read(index):
        accessor = document["accessors"][index]
        width, count = widths[accessor["type"]], accessor["count"]
        if "bufferView" in accessor:
            values = view_of(accessor["bufferView"], accessor["componentType"], count * width).reshape(count, width)
        else:
            values = np.zeros((count, width), np.float32)
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            indices = view_of(sparse["indices"]["bufferView"], sparse["indices"]["componentType"], sparse["count"])
            assert (np.diff(indices.astype(np.int64)) > 0).all() and indices.max() < count and len(indices) > 0
            values = values.copy()
            values[indices] = view_of(sparse["values"]["bufferView"], 5126, sparse["count"] * width).reshape(-1, width)
        np.testing.assert_array_equal(values.min(0), np.asarray(accessor["min"], values.dtype))
        np.testing.assert_array_equal(values.max(0), np.asarray(accessor["max"], values.dtype))
        return values

    return document, read, blob


@pytest.fixture
def face():
    return tiny_face()


def test_split_seams_keeps_every_corner(face):
    mesh = gltf.split_seams(face.faces, face.uv_faces)
    np.testing.assert_array_equal(mesh.vertices[mesh.faces], face.faces)
    np.testing.assert_array_equal(mesh.uvs[mesh.faces], face.uv_faces)
    assert len(face.mean) < len(mesh.vertices) < 2 * len(face.mean)


def test_vertex_normals_match_a_loop(face):
    total = np.zeros((len(face.mean), 3))
    for i, j, k in face.faces:
        normal = np.cross(face.mean[j] - face.mean[i], face.mean[k] - face.mean[i])
        for vertex in (i, j, k):
            total[vertex] += normal
    expected = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(gltf.vertex_normals(face.mean, face.faces), expected, atol=1e-6)
    assert (expected[:, 2] > 0).all()


def test_glb_structure_and_content(face):
    albedo = chequer()
    document, read, blob = parse_glb(gltf.glb_bytes(face, face.mean, WEIGHTS, albedo, NAMES))
    mesh = document["meshes"][0]
    part = mesh["primitives"][0]
    assert mesh["extras"]["targetNames"] == list(NAMES)
    assert mesh["weights"] == WEIGHTS.tolist()

    positions = read(part["attributes"]["POSITION"])
    normals = read(part["attributes"]["NORMAL"])
    uv = read(part["attributes"]["TEXCOORD_0"])
    indices = read(part["indices"]).ravel().reshape(-1, 3)
    np.testing.assert_allclose(positions[indices], face.mean[face.faces] / 1000, atol=1e-7)
    np.testing.assert_allclose(uv[indices], face.uv[face.uv_faces], atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)

    for target, offsets in zip(part["targets"], face.expression_basis, strict=True):
        np.testing.assert_allclose(read(target["POSITION"])[indices], offsets[face.faces] / 1000, atol=2e-6)
        bent = gltf.vertex_normals(face.mean + offsets, face.faces)
        np.testing.assert_allclose((normals + read(target["NORMAL"]))[indices], bent[face.faces], atol=6e-3)
    assert "sparse" not in document["accessors"][part["targets"][2]["POSITION"]]

    view = document["bufferViews"][document["images"][0]["bufferView"]]
    png = iio.imread(blob[view["byteOffset"] : view["byteOffset"] + view["byteLength"]], extension=".png")
    np.testing.assert_array_equal(png, np.round(albedo * 255))
    material = document["materials"][0]["pbrMetallicRoughness"]
    assert material["metallicFactor"] == 0 and 0.6 <= material["roughnessFactor"] <= 0.7


def test_glb_without_morph_normals_is_smaller(face):
    whole = gltf.glb_bytes(face, face.mean, WEIGHTS, chequer(), NAMES)
    lean = gltf.glb_bytes(face, face.mean, WEIGHTS, chequer(), NAMES, morph_normals=False)
    document, _, _ = parse_glb(lean)
    assert all(set(target) == {"POSITION"} for target in document["meshes"][0]["primitives"][0]["targets"])
    assert len(lean) < len(whole)


def test_glb_rejects_names_that_do_not_fit(face):
    with pytest.raises(ValueError, match="2 names and 3 weights for 3 expressions"):
        gltf.glb_bytes(face, face.mean, WEIGHTS, chequer(), NAMES[:2])


def test_trimesh_reads_the_glb(face, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    export.write_glb(tmp_path / "mesh.glb", face, face.mean, WEIGHTS, chequer(), NAMES)
    scene = trimesh.load(tmp_path / "mesh.glb", process=False)
    (mesh,) = scene.geometry.values()
    assert len(mesh.vertices) == len(gltf.split_seams(face.faces, face.uv_faces).vertices)
    np.testing.assert_allclose(mesh.bounds, [face.mean.min(0) / 1000, face.mean.max(0) / 1000], atol=1e-6)
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    np.testing.assert_array_equal(texture, np.round(chequer() * 255))


def test_trimesh_reads_the_obj_with_its_texture(face, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    export.write_obj(tmp_path, face, face.mean, WEIGHTS, chequer())
    mesh = trimesh.load(tmp_path / "mesh.obj", process=False)
    moved = face.mean + 0.5 * face.expression_basis[0] + 0.25 * face.expression_basis[1]
    np.testing.assert_allclose(mesh.vertices[mesh.faces], moved[face.faces] / 1000, atol=1e-6)
    flipped = face.uv * [1, -1] + [0, 1]
    np.testing.assert_allclose(mesh.visual.uv[mesh.faces], flipped[face.uv_faces], atol=1e-6)
    np.testing.assert_array_equal(np.asarray(mesh.visual.material.image), np.round(chequer() * 255))
    assert "metres" in (tmp_path / "mesh.obj").read_text().splitlines()[0]
    # colour at the first corner of the sheet, as trimesh looks it up: the top left of the chart
    colours = mesh.visual.to_color().vertex_colors[:, :3]
    np.testing.assert_allclose(colours[mesh.faces[0, 0]], [230, 128, 26], atol=1)


def parameters(photos=2):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    camera = Camera(draw(photos, 3), draw(photos, 3), draw(photos))
    light = Light(draw(photos, 3), draw(photos, 3), draw(photos, 3))
    return Params(Identity(draw(5), draw(7)), View(draw(photos, 3), camera, light))


INFOS = {
    "shape": ModelInfo("face", "assets/face.npz", "ab" * 32, NAMES, "CC0-1.0"),
    "texture": ModelInfo("linear", "assets/texture.npz", "cd" * 32, (), "CC0-1.0"),
}


def test_fit_round_trip(tmp_path):
    params, config = parameters(), {"preset": "fast", "weights": {"pixel": 8.0}}
    export.save_fit(tmp_path / "fit.npz", params, INFOS, config, {"photos": np.array(["a.jpg", "b.jpg"])})
    stored = export.load_fit(tmp_path / "fit.npz")
    for name, value in export._leaves(params).items():
        np.testing.assert_array_equal(export._leaves(stored.params)[name], value)
    assert stored.infos == INFOS and stored.config == config
    assert stored.extra["photos"].tolist() == ["a.jpg", "b.jpg"]
    with np.load(tmp_path / "fit.npz", allow_pickle=False) as archive:
        assert "params.identity.shape" in archive.files
    assert [path.name for path in tmp_path.iterdir()] == ["fit.npz"]


def test_save_fit_refuses_objects(tmp_path):
    with pytest.raises(ValueError, match=r"extra\.thing"):
        export.save_fit(tmp_path / "fit.npz", parameters(), INFOS, {}, {"thing": np.array([{}], dtype=object)})
    assert not list(tmp_path.iterdir())


NPY = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }".ljust(127) + b"\n" + bytes(8)


def _truncated(path):
    export.save_fit(path, parameters(), INFOS, {})
    path.write_bytes(path.read_bytes()[:-300])


def _incomplete(path):
    export.save_fit(path, parameters(), INFOS, {})
    with np.load(path) as archive:
        np.savez(path, **{name: archive[name] for name in archive.files if "focal" not in name})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "not the npz"),
        (lambda path: path.write_bytes(b""), "not the npz"),
        (lambda path: path.write_text("hello"), "not the npz"),
        (lambda path: path.write_bytes(NPY), r"found arrays \[\], expected"),
        (lambda path: np.savez(path, a=np.zeros(3)), r"found arrays \['a'\], expected"),
        (lambda path: np.savez(path, format="other 7"), "found format 'other 7', expected"),
        (_truncated, "not the npz"),
        (_incomplete, "incomplete .*log_focal"),
    ],
)
def test_load_fit_says_in_one_line_what_is_wrong(tmp_path, make, words):
    path = tmp_path / "fit.npz"
    make(path)
    with pytest.raises(InputError, match=words) as caught:
        export.load_fit(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "mesh.glb"
    files.write_bytes(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_to_uint8():
    image = np.array([[[0.0, 0.5, 1.0], [-1.0, 2.0, np.nan]]], np.float32)
    np.testing.assert_array_equal(picture.to_uint8(image), [[[0, 128, 255], [0, 255, 0]]])
    np.testing.assert_array_equal(picture.to_uint8(np.array([[0.2]])), [[[51, 51, 51]]])
    with pytest.raises((ValueError, TypeError)):
        picture.to_uint8(np.zeros((2, 2, 4)))


def test_comparison_is_as_high_as_the_photo():
    photo, albedo = np.full((20, 30, 3), 0.2), np.full((64, 64, 3), 0.6)
    image = picture.comparison(photo, photo + 0.2, photo + 0.6, albedo)
    assert image.shape == (20, 3 * 30 + 20 + 3 * picture.GAP, 3)
    starts = [0, 30 + picture.GAP, 60 + 2 * picture.GAP, 90 + 3 * picture.GAP]
    np.testing.assert_allclose(image[10, [s + 5 for s in starts], 0], [0.2, 0.4, 0.8, 0.6], atol=0.003)
    assert (image[:, 30 : 30 + picture.GAP] == 1).all()


def test_contact_sheet_places_images_in_rows():
    sheet = picture.contact_sheet([np.full((8, 8, 3), v) for v in (0.0, 0.2, 0.4)], columns=2, gap=2)
    assert sheet.shape == (18, 18, 3)
    np.testing.assert_allclose([sheet[4, 4, 0], sheet[4, 14, 0], sheet[14, 4, 0], sheet[14, 14, 0]], [0, 0.2, 0.4, 1])
    wide = picture.contact_sheet([np.zeros((8, 8, 3)), np.zeros((4, 8, 3))], columns=2, gap=2)
    np.testing.assert_array_equal(wide[:, 14, 0], [1, 1, 0, 0, 0, 0, 1, 1])


def test_losses_plot_writes_a_picture(tmp_path):
    steps = np.arange(1, 21, dtype=np.float32)
    trace = {"pixel": 1 / steps, "identity": np.where(steps < 10, 0, 1 / steps), "odd": np.full(20, np.nan)}
    picture.losses_plot(trace, tmp_path / "losses.png", stages=[("alignment", 9), ("full", 11)])
    image = iio.imread(tmp_path / "losses.png")
    assert image.shape[1] > 2 * image.shape[0] and image[..., :3].min() < 50
    picture.losses_plot({}, tmp_path / "none.png")
    assert (tmp_path / "none.png").exists()
