"""Statistics of measured heads, carried to the face model: known heads give the known statistics."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ganfit_jax import assets, metrics

THIRD_PARTY = Path(__file__).resolve().parents[1] / "third_party"


@pytest.fixture(scope="module")
def measure():
    pytest.importorskip("trimesh")
    before = list(sys.path)
    sys.path.insert(0, str(THIRD_PARTY / "ict"))
    try:
        yield importlib.import_module("measure")
    finally:
        sys.path[:] = before
        for name in ("measure", "heads"):
            sys.modules.pop(name, None)


@pytest.fixture
def heads(measure):
    return sys.modules["heads"]


@pytest.fixture(scope="module")
def ours(measure):
    with np.load(Path(assets.__file__).parent / "face.npz", allow_pickle=False) as data:
        return measure.read_ours({key: data[key] for key in data.files})


def write_obj(path, vertices, faces):
    lines = ["# a head", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices), "vt 0 0"]
    path.write_text("\n".join([*lines, *("f " + " ".join(f"{v + 1}/1" for v in face) for face in faces)]) + "\n")


def test_it_reads_quads_and_triangles(heads, tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "HEAD", 5)
    monkeypatch.setattr(heads, "MODES", 2)
    mean = np.arange(18.0).reshape(6, 3)
    write_obj(tmp_path / "generic_neutral_mesh.obj", mean, [(0, 1, 2, 3), (1, 2, 4), (3, 4, 5)])
    for n in range(2):
        write_obj(tmp_path / f"identity{n:03d}.obj", mean + 0.1 * (n + 1), [])
    found = heads.read_heads(tmp_path)
    assert found.mean == pytest.approx(10.0 * mean[:5])  # centimetres to millimetres, the head alone
    assert found.modes == pytest.approx(np.stack([np.full((5, 3), 1.0), np.full((5, 3), 2.0)]), abs=1e-4)
    assert sorted(map(tuple, found.faces.tolist())) == [(0, 1, 2), (0, 2, 3), (1, 2, 4)]


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (4, [], r"identity000.obj: 4 vertices, expected those of ICT-FaceKit \(5 and more\)"),
        (7, [], "identity000.obj: 7 vertices, expected 6"),
        (6, [(0, 1, 2, 3, 4)], "identity000.obj: a face with 5 corners, expected 3 or 4"),
    ],
)
def test_files_that_are_not_its_own(heads, tmp_path, monkeypatch, vertices, faces, message):
    monkeypatch.setattr(heads, "HEAD", 5)
    write_obj(tmp_path / "generic_neutral_mesh.obj", np.zeros((6, 3)), [(0, 1, 2)])
    write_obj(tmp_path / "identity000.obj", np.zeros((vertices, 3)), faces)
    with pytest.raises(ValueError, match=message) as caught:
        heads.read_heads(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_line_without_numbers(heads, tmp_path):
    (tmp_path / "generic_neutral_mesh.obj").write_text("v 1 2 3\nv 1 2 o\n")
    with pytest.raises(ValueError, match=r"generic_neutral_mesh\.obj: line 2 is 'v 1 2 o', expected numbers"):
        heads.read_heads(tmp_path)


def test_it_reads_ict_facekit(heads, shared, monkeypatch):
    monkeypatch.setattr(heads, "MODES", 4)
    found = heads.read_heads(shared / "ict" / "FaceXModel")
    with np.load(shared / "ict" / "ict_face_f16.npz", allow_pickle=False) as data:
        wanted, landmarks = data["mean"], data["landmarks68"]
    assert found.mean[: len(wanted)] == pytest.approx(10.0 * wanted, abs=0.01)
    moves = np.sqrt((found.modes**2).sum(2).mean(1))
    assert 3.0 < moves[0] < 8.0 and moves.argmax() == 0 and moves.min() > 1.0  # millimetres
    assert found.faces.max() < heads.HEAD and found.landmarks.tolist() == landmarks[17:].tolist()


def test_rows_of_the_least_squares_are_what_coefficients_and_motions_do(measure, ours):
    random = np.random.default_rng(0)
    ids, coefficients, motion = np.array([5, 900, 7000]), random.normal(size=len(ours.basis)), random.normal(size=6)
    found = measure.design(ours, ids, ours.mean[ids]) @ np.r_[coefficients, motion]
    for row, v in enumerate(ids):
        wanted = motion[:3] + np.cross(motion[3:] / measure.ARM, ours.mean[v])
        for c, component in zip(coefficients, ours.basis[:, v], strict=True):
            wanted = wanted + c * component
        assert found.reshape(-1, 3)[row] == pytest.approx(wanted)


@pytest.mark.slow
def test_known_heads_give_the_known_statistics(measure, ours, monkeypatch):
    """Heads made of our own skin: a crooked mean, three symmetric modes and one that is not, turned and moved."""
    monkeypatch.setattr(measure, "ROUNDS", 6)
    random = np.random.default_rng(0)
    even = np.einsum("kvc,kvc->k", ours.basis, ours.basis[:, ours.mirror] * measure.FLIP) > 0
    shift = np.where(even, 0.5, 0.1) * random.normal(size=len(even))
    chosen = [*np.flatnonzero(even)[[0, 2, 5]], np.flatnonzero(~even)[0]]
    known = 2.0 * np.eye(len(even))[:, chosen]
    skin = ours.faces[(ours.weight[ours.faces] > 0).all(1)]
    turn = measure.Rotation.from_rotvec([0.05, -0.1, 0.02]).as_matrix()
    crooked, mean = (ours.mean + np.tensordot(c, ours.basis, 1) for c in (shift, shift * even))
    modes = np.tensordot(known.T, ours.basis, 1)
    heads = measure.Heads(crooked @ turn.T + [3.0, -8.0, 5.0], modes @ turn.T, skin, ours.corners[17:, 0])
    at_corners = ours._replace(barycentric=np.eye(3)[np.zeros(68, int)])  # the landmarks are vertices here
    found_mean, root = measure.statistics(at_corners, *measure.register(at_corners, heads))
    assert found_mean == pytest.approx(found_mean[ours.mirror] * measure.FLIP, abs=1e-6)
    face = np.flatnonzero(ours.weight > 0.5 * ours.weight.max())
    apart = metrics.umeyama(found_mean[face], mean[face], False)(found_mean[face]) - mean[face]
    assert np.abs((apart * measure.normals(mean, ours.faces)[face]).sum(1)).mean() < 0.3
    covariance = (root @ root.T - measure.SHRINKAGE * np.eye(len(root))) / (1 - measure.SHRINKAGE)
    assert np.abs(covariance[even][:, ~even]).max() < 1e-6
    field = np.tensordot(np.linalg.eigh(covariance)[1][:, -4:].T, ours.basis[:, face], 1).reshape(4, -1)
    wanted = modes[:, face].reshape(4, -1)
    explained = np.linalg.lstsq(field.T, wanted.T, rcond=None)[0].T @ field
    assert (np.linalg.norm(wanted - explained, axis=1) < 0.15 * np.linalg.norm(wanted, axis=1)).all()
    assert np.trace(covariance) == pytest.approx(16.0, rel=0.15)
    assert np.diff(np.linalg.norm(root, axis=0)).max() <= 1e-9  # the largest first


def test_a_model_that_is_not_makehumans(tmp_path):
    np.savez(tmp_path / "other.npz", mean=np.zeros((3, 3)))
    command = [sys.executable, THIRD_PARTY / "ict" / "measure.py", "--ict=nowhere", f"--face={tmp_path}/other.npz"]
    done = subprocess.run([*command, f"--output={tmp_path}/new.npz"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not (tmp_path / "new.npz").exists()
    assert "other.npz: no key smooth_basis, expected the face model by makehuman/convert.py" in done.stderr
    assert "Traceback" not in done.stderr
