"""Scans and landmarks in the formats that people have, with their quirks; broken files in one line."""

import json

import numpy as np
import pytest
import trimesh
from test_metrics import bumpy

from ganfit_jax import scans
from ganfit_jax.errors import InputError
from ganfit_jax.metrics import Surface
from ganfit_jax.scans import Marked

BALL = bumpy()
MARKS = BALL.vertices[np.random.default_rng(0).choice(len(BALL.vertices), 68, replace=False)]
MARKS[[36, 45]] = BALL.vertices[[BALL.vertices[:, 0].argmin(), 0]]


def triangles(surface):
    """The triangles of a surface in an order of their own, whatever the vertices' numbers."""
    corners = np.round(surface.vertices[surface.faces], 3)
    first = np.lexsort(np.moveaxis(corners, -1, 0)[::-1], axis=-1)[:, 0]
    turned = np.take_along_axis(corners, (first[:, None] + np.arange(3))[..., None] % 3, axis=1).reshape(-1, 9)
    return turned[np.lexsort(turned.T[::-1])]


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb", "stl"])
def test_formats(tmp_path, suffix):
    trimesh.Trimesh(BALL.vertices, BALL.faces, process=False).export(tmp_path / f"a.{suffix}")
    found = scans.read_surface(tmp_path / f"a.{suffix}", unit=10.0)
    assert triangles(found) == pytest.approx(triangles(Surface(10 * BALL.vertices, BALL.faces)), abs=2e-2)


def test_parts_of_a_scene_are_placed_and_merged(tmp_path):
    scene = trimesh.Scene()
    for shift in (0.0, 5.0):
        scene.add_geometry(trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([shift, 0, 0]))
    scene.export(tmp_path / "a.GLB")
    found = scans.read_surface(tmp_path / "a.GLB")
    assert len(found.faces) == 24
    assert found.vertices.max(0) == pytest.approx([5.5, 0.5, 0.5]) and found.vertices.min(0) == pytest.approx(
        [-0.5] * 3
    )


def test_obj_as_programs_write_it(tmp_path):
    """Colours behind the coordinates, seams, groups, materials that are not there, quads, numbers from the end."""
    text = """# scanner\r
mtllib gone.mtl\r
o face
usemtl skin
v 0 0 0 0.5 0.5 0.5
v 1 0 0 0.5 0.5 0.5
v 1 1 0
v 0 1 0
v 9 9 9
vt 0 0
vt 1 1
vn 0 0 1
f 1/1/1 2/2/1 3/1/1 4/2/1
g other
usemtl hair
s off
v 2 0 1e0
f 1//1 -2//1 -1//1
f 2/2 3/1 \\
6/1
l 1 2
"""
    (tmp_path / "a.obj").write_bytes(text.encode() + b"# Mei\xdfel\n")
    found = scans.read_surface(tmp_path / "a.obj")
    assert found.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [9, 9, 9], [2, 0, 1]]
    assert found.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 4, 5], [1, 2, 5]]


def test_vertices_that_are_no_numbers_go_with_their_triangles(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv nan 0 0\nf 1 2 3\nf 2 3 4\n")
    found = scans.read_surface(tmp_path / "a.obj")
    assert found.faces.tolist() == [[0, 1, 2]] and np.isfinite(found.vertices).all()


def test_broken_meshes_give_one_line(tmp_path):
    files = {
        "a.obj": "",
        "b.obj": "v 0 0 0\nv 1 x 0\n",
        "c.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n",
        "d.obj": "v 0 0 0\nv 1 0\nv 0 1 0\nf 1 2 3\n",
        "e.obj": "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        "f.ply": "hello",
        "g.glb": "glTF",
        "h.stl": "",
        "i.ply": "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
        "end_header\n0 0 0\n1 1 1\n",
        "j.wrl": "#VRML V2.0 utf8",
        "k.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "l.obj").mkdir()
    for name in [*files, "l.obj", "missing.obj"]:
        with pytest.raises(InputError, match="expected") as caught:
            scans.read_surface(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_landmarks_as_menpo_writes_them(tmp_path):
    points = (MARKS / 10).tolist()
    points[5] = [None, None, None]
    few = {"labels": [], "landmarks": {"points": [[0, 0, 0]] * 5}}
    whole = {
        "labels": [{"label": "chin", "mask": list(range(17))}],
        "landmarks": {"points": points, "connectivity": [[0, 1]]},
    }
    versions = [
        {"version": 1, "groups": [{"label": "all", "landmarks": [{"point": p} for p in points]}]},
        {"version": 2, **whole},
        {"version": 3, "groups": {"LJSON": whole}},
        {"version": 3, "groups": {"nose": few, "ibug_face_68": whole}},
    ]
    for version in versions:
        (tmp_path / "a.ljson").write_text(json.dumps(version, indent=4))
        found = scans.read_marks(tmp_path / "a.ljson", unit=10.0)
        assert np.isnan(found[5]).all() and np.isfinite(np.delete(found, 5, 0)).all()
        assert np.delete(found, 5, 0) == pytest.approx(np.delete(MARKS, 5, 0), abs=1e-3)
    for name, text in (
        ("a.txt", "\n".join("{} {} {}".format(*p) for p in MARKS)),
        ("a.json", json.dumps(MARKS.tolist())),
    ):
        (tmp_path / name).write_text(text)
        assert scans.read_marks(tmp_path / name) == pytest.approx(MARKS, abs=1e-3)
    (tmp_path / "flat.json").write_text(json.dumps(MARKS[:, :2].tolist()))
    with pytest.raises(InputError, match=r"flat\.json: found 2D points"):
        scans.read_marks(tmp_path / "flat.json")


def test_a_scan_goes_round_and_its_landmarks_must_lie_on_it(tmp_path):
    marks = MARKS.copy()
    marks[3] = np.nan
    paths = scans.write_scan(tmp_path, "a", Marked(BALL, marks))
    found = scans.read_scan(*paths)
    assert (found.surface.faces == BALL.faces).all()
    assert found.surface.vertices == pytest.approx(BALL.vertices, abs=1e-4)
    assert found.landmarks == pytest.approx(marks, abs=1e-3, nan_ok=True)
    with pytest.raises(InputError, match=r"a\.ljson: outer eye corners .* unit right"):
        scans.read_scan(*paths, unit=1000.0)
    far = scans.write_scan(tmp_path, "far", Marked(BALL, marks + 100.0))[1]
    with pytest.raises(InputError, match=r"far\.ljson: .* mm or more off .*a\.obj"):
        scans.read_scan(paths[0], far)
    few = np.full((68, 3), np.nan)
    few[20:24] = marks[20:24]
    with pytest.raises(InputError, match="4 of the 51 inner points"):
        scans.read_scan(paths[0], scans.write_scan(tmp_path, "few", Marked(BALL, few))[1])


def test_landmarks_of_reconstructions(tmp_path):
    mesh, marks = scans.write_scan(tmp_path, "a", Marked(BALL, MARKS))
    assert scans.read_reconstruction(mesh, 2.0).landmarks == pytest.approx(2 * MARKS, abs=1e-3)
    marks.unlink()
    with pytest.raises(InputError, match=r"a\.obj: no landmarks, expected a\.ljson or landmark_ids\.txt"):
        scans.read_reconstruction(mesh)
    numbers = np.random.default_rng(1).choice(len(BALL.vertices), 68, replace=False)
    (tmp_path / "landmark_ids.txt").write_text("\n".join(map(str, numbers)))
    assert scans.read_reconstruction(mesh).landmarks == pytest.approx(BALL.vertices[numbers], abs=1e-4)
    for wrong in ("1 2 3", " ".join(["99999"] * 68), " ".join(["-1"] * 68)):
        (tmp_path / "landmark_ids.txt").write_text(wrong)
        with pytest.raises(InputError, match=r"landmark_ids\.txt: expected the numbers of 68 of the 2562 vertices"):
            scans.read_reconstruction(mesh)
