import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ganfit_jax import detectors, landmarks
from ganfit_jax.errors import InputError
from ganfit_jax.photo import read_photo

ASTRONAUT = "examples/astronaut.png"


@pytest.fixture(scope="module")
def astronaut(request):
    return read_photo(request.config.rootpath / ASTRONAUT)


@pytest.fixture(scope="module")
def detected(astronaut):
    (face,) = detectors.detector("dlib").detect(astronaut)
    return face


def points(seed=0):
    return np.random.default_rng(seed).uniform(5, 200, (68, 2)).astype(np.float32)


def test_mirror_is_an_involution_that_keeps_the_midline():
    assert sorted(landmarks.MIRROR) == list(range(68))
    assert (landmarks.MIRROR[landmarks.MIRROR] == np.arange(68)).all()
    assert [i for i in range(68) if landmarks.MIRROR[i] == i] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert np.allclose(landmarks.mirror(landmarks.mirror(points(), 200), 200), points(), atol=1e-4)


def test_detector_agrees_with_itself_in_the_mirror(astronaut, detected):
    """Also proves the permutation: a wrong pair would be tens of pixels off."""
    (mirrored,) = detectors.detector("dlib").detect(np.ascontiguousarray(astronaut[:, ::-1]))
    error = np.linalg.norm(landmarks.mirror(mirrored.landmarks, astronaut.shape[1]) - detected.landmarks, axis=-1)
    assert error.max() < 0.06 * landmarks.outer_eye_distance(detected.landmarks)


def test_groups_tile_the_scheme():
    groups = [
        "JAW",
        "RIGHT_BROW",
        "LEFT_BROW",
        "NOSE_BRIDGE",
        "NOSE_BASE",
        "RIGHT_EYE",
        "LEFT_EYE",
        "OUTER_LIPS",
        "INNER_LIPS",
    ]
    numbers = [i for group in groups for i in range(68)[getattr(landmarks, group)]]
    assert numbers == list(range(68))
    assert list(range(68))[landmarks.INNER] == list(range(17, 68))


def test_dlib_finds_the_astronaut(detected):
    """Eye corners read off the photo by eye."""
    assert detected.name == "dlib"
    seen = {36: (193.5, 101.0), 39: (212.0, 104.0), 45: (258.5, 104.0), 48: (203.5, 140.0), 54: (245.0, 141.0)}
    for number, point in {**seen, 8: (221.0, 178.0)}.items():
        assert np.abs(detected.landmarks[number] - point).max() < 4, number
    assert 58 < landmarks.outer_eye_distance(detected.landmarks) < 68
    left, top, right, bottom = detected.box
    assert left < detected.landmarks[30, 0] < right and top < detected.landmarks[30, 1] < bottom
    assert detected.confidence.min() > 0.2 and detected.confidence[landmarks.INNER].mean() > 0.85


def test_averaging_makes_dlib_steadier(astronaut, detected, monkeypatch):
    """The points of a slightly enlarged photo, mapped back, move less than those of a single prediction."""

    def spread():
        detect = detectors.dlib_detector().detect
        found = []
        for side in (512, 498, 520, 533):
            copy = Image.fromarray((astronaut * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
            (face,) = detect(np.asarray(copy, np.float32) / 255)
            found.append(face.landmarks * (512 / side))
        return np.std(found, axis=0).mean()

    averaged = spread()
    monkeypatch.setattr(detectors, "JITTER", detectors.JITTER[:1])
    assert averaged < spread()


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_dlib_finds_a_photo_that_lies(astronaut, detected, quarter):
    (face,) = detectors.detector("dlib").detect(np.rot90(astronaut, quarter))
    row, column = np.mgrid[:512, :512] + 0.5
    where = np.rot90(np.stack([column, row], -1), quarter)  # the upright photo's coordinates at each pixel
    x, y = np.round(face.landmarks - 0.5).astype(int).T
    assert np.abs(where[y, x] - detected.landmarks).max() < 1


def test_network_takes_over_where_the_first_detector_is_blind(astronaut, detected, monkeypatch):
    import dlib

    blind = SimpleNamespace(run=lambda image, times, threshold: ([], [], []))
    monkeypatch.setattr(dlib, "get_frontal_face_detector", lambda: blind)
    (face,) = detectors.dlib_detector().detect(astronaut)
    error = np.linalg.norm(face.landmarks - detected.landmarks, axis=-1)[landmarks.INNER]
    assert error.mean() < 0.05 * landmarks.outer_eye_distance(detected.landmarks)


def test_unsteady_points_lose_confidence(astronaut, detected):
    """Half of the face behind a grey board: its points are guessed."""
    hidden = astronaut.copy()
    hidden[:, 226:300] = 0.5
    (face,) = detectors.detector("dlib").detect(hidden)
    assert face.confidence.mean() < 0.8 * detected.confidence.mean()


@pytest.mark.parametrize("size", [(1600, 32), (32, 1600), (5000, 40)])
def test_strips_have_no_face_and_do_no_harm(size):
    code = (
        "import numpy as np; from ganfit_jax.detectors import detector; "
        f"assert detector('dlib').detect(np.zeros({(*size, 3)}, np.float32)) == []"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # dlib's network would end the process


def test_no_face():
    assert detectors.detector("dlib").detect(np.full((120, 120, 3), 0.5, np.float32)) == []


def test_dlib_reads_large_photos(astronaut, detected):
    large = np.kron(astronaut, np.ones((3, 3, 1), np.float32))
    (face,) = detectors.detector("dlib").detect(large)
    assert np.abs(face.landmarks / 3 - detected.landmarks).mean() < 1.5


@pytest.mark.parametrize("suffix", ["txt", "pts"])
def test_files_round_trip(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    landmarks.write_points(path, points())
    read, confidence = landmarks.read_points(path)
    assert np.abs(read - points()).max() < 1e-3
    assert (confidence == 1).all()


def test_txt_counts_pixels_from_0_and_pts_from_1(tmp_path):
    rows = "\n".join(f"{x}, {y}" for x, y in points())
    (tmp_path / "a.txt").write_text("# x, y\n" + rows)
    assert np.abs(landmarks.read_points(tmp_path / "a.txt")[0] - points() - 0.5).max() < 1e-3
    (tmp_path / "a.pts").write_text("version: 1\nn_points:  68\n{\n" + rows.replace(",", "") + "\n}\n")
    assert np.abs(landmarks.read_points(tmp_path / "a.pts")[0] - points() + 0.5).max() < 1e-3


def test_ljson_versions(tmp_path):
    rows = points().astype(float)[:, ::-1].tolist()  # menpo: y first
    rows[5] = [None, None]
    wrapped = [{"point": row} for row in rows]
    versions = [
        {"version": 1, "groups": [{"label": "all", "landmarks": wrapped}]},
        {"version": 2, "labels": [], "landmarks": {"points": rows, "connectivity": []}},
        {"version": 3, "groups": {"PTS": {"labels": [], "landmarks": {"points": rows}}}},
    ]
    for version in versions:
        (tmp_path / "a.ljson").write_text(json.dumps(version))
        read, confidence = landmarks.read_points(tmp_path / "a.ljson")
        assert confidence[5] == 0 and confidence.sum() == 67
        known = confidence > 0
        assert np.abs(read - points() - 0.5)[known].max() < 1e-3
        assert np.isfinite(read).all()


def test_json_list_and_3d_points(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(points().astype(float).tolist()))
    assert np.abs(landmarks.read_points(tmp_path / "a.json")[0] - points() - 0.5).max() < 1e-3
    scan = np.random.default_rng(1).normal(0, 50, (68, 3))
    (tmp_path / "a.ljson").write_text(json.dumps({"version": 2, "landmarks": {"points": scan.tolist()}}))
    assert np.abs(landmarks.read_points(tmp_path / "a.ljson")[0] - scan).max() < 1e-3
    np.savetxt(tmp_path / "a.txt", scan)
    assert np.abs(landmarks.read_points(tmp_path / "a.txt")[0] - scan).max() < 1e-3


def test_bad_points_files(tmp_path):
    cases = {
        "a.txt": "1 2\n3 4\n",
        "b.txt": "hello\n",
        "c.txt": "1 2\n3\n",
        "d.json": "{",
        "e.json": "{}",
        "f.ljson": '{"groups": {}}',
        "g.csv": "1 2",
        "h.txt": "",
        "i.json": "3",
        "j.pts": "\x89PNG",
        "k.json": '{"groups": []}',
        "l.json": '{"groups": 3}',
    }
    for name, content in cases.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "m.txt").write_bytes(b"\xff\xfe\x00\x80")
    for name in [*cases, "m.txt", "missing.txt"]:
        with pytest.raises(InputError, match="expected") as caught:
            landmarks.read_points(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_points_detector_follows_the_scale(tmp_path, detected, astronaut):
    path = tmp_path / "a.pts"
    landmarks.write_points(path, detected.landmarks * 4)
    (face,) = landmarks.points_detector(path, (2048, 2048)).detect(astronaut)
    assert np.abs(face.landmarks - detected.landmarks).max() < 1e-3
    with pytest.raises(InputError, match="outside the photo"):
        landmarks.points_detector(path, (128, 128))


def test_points_that_are_no_face(tmp_path):
    path = tmp_path / "a.txt"
    for line, expected in (("{0} {0}", "on a line"), ("200 200", "in one place"), ("nan nan", "68 points have no")):
        path.write_text("\n".join(line.format(100 + 4 * i) for i in range(68)))
        with pytest.raises(InputError, match=expected):
            landmarks.points_detector(path, (512, 512))


def test_unknown_and_missing_detectors(monkeypatch):
    with pytest.raises(InputError, match=r"'dlob' is unknown.*dlib"):
        detectors.detector("dlob")
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(InputError, match=r"not installed.*pip install"):
        detectors.detector("face-alignment")


def fake_face_alignment(kinds, fails=False):
    class FaceAlignment:
        def __init__(self, kind, device, flip_input):
            if fails:
                raise OSError("no\nnetwork")
            assert kind == "2d" and device == "cpu"

        def get_landmarks_from_image(self, image, return_landmark_score):
            assert image.dtype == np.uint8
            return ([points()], [np.full((68, 1), 0.7)], None) if image.any() else None

    return SimpleNamespace(FaceAlignment=FaceAlignment, LandmarksType=kinds, __spec__=object())


@pytest.mark.parametrize("kinds", [SimpleNamespace(TWO_D="2d"), SimpleNamespace(_2D="2d")])
def test_face_alignment_of_either_version(monkeypatch, kinds):
    monkeypatch.setitem(sys.modules, "face_alignment", fake_face_alignment(kinds))
    found = detectors.detector("auto")
    assert found.name == "face-alignment"
    (face,) = found.detect(np.ones((50, 50, 3), np.float32))
    assert np.allclose(face.landmarks, points() + 0.5)
    assert np.allclose(face.confidence, 0.7)
    assert found.detect(np.zeros((50, 50, 3), np.float32)) == []


def test_auto_takes_dlib_where_face_alignment_has_no_weights(monkeypatch):
    monkeypatch.setitem(sys.modules, "face_alignment", fake_face_alignment(SimpleNamespace(TWO_D="2d"), fails=True))
    assert detectors.detector("auto").name == "dlib"
    with pytest.raises(InputError, match=r"could not get its weights .no network"):
        detectors.detector("face-alignment")
