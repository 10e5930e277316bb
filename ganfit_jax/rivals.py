"""Other programs that make a face of a photo, for comparisons: eos and MediaPipe, imported when asked for."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ganfit_jax import scans
from ganfit_jax.detectors import detector
from ganfit_jax.errors import InputError
from ganfit_jax.landmarks import OUTER_EYE_CORNERS
from ganfit_jax.metrics import Surface
from ganfit_jax.observe import choose_face

Program = Callable[[Float[np.ndarray, "h w 3"], str], scans.Marked]  # a photo and its name -> the largest face, mm
EYES_APART = 90.0  # mm
# MediaPipe's numbers of the 68 points: jaw, brows, nose, eyes, mouth.
MEDIAPIPE = """162 234 93 58 172 136 149 148 152 377 378 365 397 288 323 454 389 71 63 105 66 107 336 296 334 293 301
168 197 5 4 75 97 2 326 305 33 160 158 133 153 144 362 385 387 263 373 380
61 39 37 0 267 269 291 405 314 17 84 181 78 82 13 312 308 317 14 87"""


def imported(module: str, package: str) -> Any:
    """The module, or one line that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{module}: {error}; expected `pip install {package}`") from None


def eos_program(share: Path) -> Program:
    """eos (Huber et al., VISAPP 2016) fits the Surrey Face Model in `share`, a folder of eos's sources, to our
    detector's 68 landmarks. Its face is neutral. Raises `InputError` where eos or the model is absent."""
    eos = imported("eos", "eos-py")
    if not (share / "sfm_shape_3448.bin").is_file():
        raise InputError(f"{share}: no sfm_shape_3448.bin, expected the folder share of eos's sources")
    file = {name: str(share / name) for name in (p.name for p in share.iterdir())}
    shapes = eos.morphablemodel.load_model(file["sfm_shape_3448.bin"])
    moods = eos.morphablemodel.load_blendshapes(file["expression_blendshapes_3448.bin"])
    model = eos.morphablemodel.MorphableModel(
        shapes.get_shape_model(), moods, eos.morphablemodel.PcaModel(), None, shapes.get_texture_coordinates()
    )
    mapper = eos.core.LandmarkMapper(file["ibug_to_sfm.txt"])
    edges = eos.morphablemodel.load_edge_topology(file["sfm_3448_edge_topology.json"])
    contour = eos.fitting.ContourLandmarks.load(file["ibug_to_sfm.txt"])
    outline = eos.fitting.ModelContour.load(file["sfm_model_contours.json"])
    pairs = [line.split("#")[0].split("=") for line in Path(file["ibug_to_sfm.txt"]).read_text().splitlines()]
    known = {int(a): int(b) for a, b in (pair for pair in pairs if len(pair) == 2 and pair[0].strip().isdigit())}
    find = detector()

    def face(image: Float[np.ndarray, "h w 3"], name: str) -> scans.Marked:
        points = choose_face(find.detect(image), None, name)[0].landmarks
        marks = [eos.core.Landmark(str(i), [float(x), float(y)]) for i, (x, y) in enumerate(points, 1)]
        width, height = image.shape[1], image.shape[0]
        found = eos.fitting.fit_shape_and_pose(model, marks, mapper, width, height, edges, contour, outline)
        neutral = np.asarray(shapes.get_shape_model().draw_sample(found[2]), float).reshape(-1, 3)
        landmarks = np.array([neutral[known[i]] if i in known else np.full(3, np.nan) for i in range(1, 69)])
        return scans.Marked(Surface(neutral, np.asarray(found[0].tvi, int)), landmarks)

    return face


def mediapipe_program() -> Program:
    """MediaPipe Face Mesh (Kartynnik et al., 2019), a network that predicts 468 points. Its face has the photo's
    expression and no size of its own: the outer eye corners are set `EYES_APART`. Raises `InputError` if absent."""
    mesh = imported("mediapipe", "mediapipe==0.10.14").solutions.face_mesh
    network = mesh.FaceMesh(static_image_mode=True, max_num_faces=1)
    near: dict[int, set[int]] = {}
    for a, b in mesh.FACEMESH_TESSELATION:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    corners = [(a, b, c) for a in near for b in near[a] if b > a for c in near[a] & near[b] if c > b]

    def face(image: Float[np.ndarray, "h w 3"], name: str) -> scans.Marked:
        found = network.process(np.ascontiguousarray(np.round(image * 255).astype(np.uint8))).multi_face_landmarks
        if not found:
            raise InputError(f"{name}: MediaPipe finds no face, expected one")
        sides = np.array([image.shape[1], -image.shape[0], -image.shape[1]])
        points = np.array([(p.x, p.y, p.z) for p in found[0].landmark]) * sides
        marks = points[[int(number) for number in MEDIAPIPE.split()]]
        right, left = marks[list(OUTER_EYE_CORNERS)]
        unit = EYES_APART / np.linalg.norm(right - left)
        return scans.Marked(Surface(points * unit, facing(points, np.array(corners))), marks * unit)

    return face


def facing(points: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "f 3"]:
    """The triangles wound so that they look at the camera (+z)."""
    a, b, c = (points[faces[:, i]] for i in range(3))
    back = np.cross(b - a, c - a)[:, 2] < 0
    return np.where(back[:, None], faces[:, ::-1], faces)
