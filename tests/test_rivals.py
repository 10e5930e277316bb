"""What can be said of other programs without having them."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ganfit_jax import rivals
from ganfit_jax.errors import InputError
from ganfit_jax.landmarks import NOSE_TIP


def test_mediapipes_numbers_of_the_68_points():
    numbers = [int(number) for number in rivals.MEDIAPIPE.split()]
    assert len(numbers) == len(set(numbers)) == 68 and max(numbers) < 468


def test_triangles_come_to_face_the_camera():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0.5], [1, 1, 0]])
    found = rivals.facing(points, np.array([[0, 1, 2], [1, 2, 3], [0, 2, 1]]))
    a, b, c = (points[found[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()
    assert [sorted(face) for face in found.tolist()] == [[0, 1, 2], [1, 2, 3], [0, 1, 2]]


def test_an_absent_program_gives_one_line(monkeypatch, tmp_path):
    for module in ("eos", "mediapipe"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"expected `pip install eos-py`"):
        rivals.eos_program(tmp_path)
    with pytest.raises(InputError, match=r"expected `pip install mediapipe==0\.10\.14`"):
        rivals.mediapipe_program()
    monkeypatch.setitem(sys.modules, "eos", SimpleNamespace())
    with pytest.raises(InputError, match=r"no sfm_shape_3448\.bin, expected the folder share of eos's sources"):
        rivals.eos_program(tmp_path)


def test_mediapipes_points_become_a_face_in_millimetres(monkeypatch):
    """A network that returns a known grid of points: their size comes from the outer eye corners, y points up."""
    random = np.random.default_rng(0)
    places = random.uniform(0.2, 0.8, size=(468, 3))
    right, left = (int(rivals.MEDIAPIPE.split()[number]) for number in (36, 45))
    places[[right, left]] = [[0.3, 0.4, 0.0], [0.7, 0.4, 0.0]]
    marks = [SimpleNamespace(x=x, y=y, z=z) for x, y, z in places]

    class Mesh:
        FACEMESH_TESSELATION = frozenset({(0, 1), (1, 2), (0, 2)})

        @staticmethod
        def FaceMesh(**settings):
            seen = [SimpleNamespace(landmark=marks)]
            return SimpleNamespace(
                process=lambda image: SimpleNamespace(multi_face_landmarks=seen if image.any() else None)
            )

    module = SimpleNamespace(solutions=SimpleNamespace(face_mesh=Mesh))
    monkeypatch.setitem(sys.modules, "mediapipe", module)
    face = rivals.mediapipe_program()
    found = face(np.ones((100, 200, 3)), "photo")
    assert np.linalg.norm(found.landmarks[45] - found.landmarks[36]) == pytest.approx(rivals.EYES_APART)
    assert found.surface.faces.shape == (1, 3)
    unit = rivals.EYES_APART / (0.4 * 200)
    tip = places[int(rivals.MEDIAPIPE.split()[NOSE_TIP])] * [200, -100, -200] * unit
    assert found.landmarks[NOSE_TIP] == pytest.approx(tip)
    with pytest.raises(InputError, match="photo: MediaPipe finds no face"):
        face(np.zeros((100, 200, 3)), "photo")
