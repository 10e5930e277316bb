"""Reads ICT-FaceKit's mean head and identity modes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

MODES, HEAD = 100, 11248  # identity modes; vertices of face, head and neck come first


class Heads(NamedTuple):
    """ICT-FaceKit's mean [v, 3], modes of one standard deviation [m, v, 3] in mm, triangles [f, 3], the 51 inner
    landmarks' vertices."""

    mean: np.ndarray
    modes: np.ndarray
    faces: np.ndarray
    landmarks: np.ndarray


# The 51 inner ones of the Multi-PIE points, from ICT-FaceKit's README
BROWS = (268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509)
NOSE = (978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360)
EYES = (1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732)
OUTER_LIPS = (5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841)
INNER_LIPS = (5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966)
LANDMARKS = np.array([*BROWS, *NOSE, *EYES, *OUTER_LIPS, *INNER_LIPS])


def read_heads(folder: Path) -> Heads:
    """Raises ValueError with one line where a file is not as ICT-FaceKit's."""
    mean, quads = read_obj(folder / "generic_neutral_mesh.obj")
    quads = quads[(quads < HEAD).all(1)]
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    faces = faces[faces[:, 1] != faces[:, 2]]  # a triangle is kept as a quad whose last corner is there twice
    modes = []
    for n in range(MODES):
        vertices, _ = read_obj(folder / f"identity{n:03d}.obj")
        if vertices.shape != mean.shape:
            raise ValueError(f"{folder}/identity{n:03d}.obj: {len(vertices)} vertices, expected {len(mean)}")
        modes.append((vertices - mean)[:HEAD])
    return Heads(10.0 * mean[:HEAD], 10.0 * np.stack(modes), faces, LANDMARKS)


def read_obj(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [v, 3] and quads [q, 4] (a triangle: its last corner twice)."""
    vertices, quads = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            point = [float(x) for x in line.split()[1:4]] if line.startswith("v ") else []
            corners = [int(x.split("/")[0]) - 1 for x in line.split()[1:]] if line.startswith("f ") else []
        except ValueError:
            raise ValueError(f"{file}: line {number} is '{line[:60]}', expected numbers") from None
        if point:
            vertices.append(point)
        if corners:
            if len(corners) not in (3, 4):
                raise ValueError(f"{file}: a face with {len(corners)} corners, expected 3 or 4")
            quads.append((corners + corners[-1:])[:4])
    if len(vertices) < HEAD:
        raise ValueError(f"{file}: {len(vertices)} vertices, expected those of ICT-FaceKit ({HEAD} and more)")
    return np.array(vertices), np.array(quads).reshape(-1, 4)
