"""The 68 iBUG landmarks: their order, their files, and the detectors that find them.

Coordinates are image pixels (x, y) with pixel centres at +0.5, as everywhere in this package; files and outside
detectors that count pixels from 0 (or 1) are converted where they are read.
A detector is a plug-in: ``Detector(name, detect)`` with any function from an image to the faces in it.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from ganfit_jax.errors import InputError

JAW = slice(0, 17)  # from the subject's right ear over the chin to the left ear
INNER = slice(17, 68)  # everything but the jaw
RIGHT_BROW = slice(17, 22)  # right and left are the subject's; the right side is on the left of the image
LEFT_BROW = slice(22, 27)
NOSE_BRIDGE = slice(27, 31)
NOSE_BASE = slice(31, 36)
RIGHT_EYE = slice(36, 42)
LEFT_EYE = slice(42, 48)
OUTER_LIPS = slice(48, 60)
INNER_LIPS = slice(60, 68)
MOUTH = slice(48, 68)
NOSE_TIP = 30
OUTER_EYE_CORNERS = (36, 45)
MOUTH_CORNERS = (48, 54)

# the point that each point becomes in the mirrored image: mirrored = points[MIRROR] with x -> width - x
MIRROR = np.array(
    [
        *(*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65),
    ]
)


class Detection(NamedTuple):
    """One face in an image."""

    box: Float[np.ndarray, "4"]  # left, top, right, bottom
    landmarks: Float[np.ndarray, "68 2"]
    confidence: Float[np.ndarray, "68"]  # [0, 1]; 0 = ignore
    name: str  # the detector's


class Detector(NamedTuple):
    """A way to find faces: ``detect(image)`` takes float RGB [h, w, 3] in [0, 1]; no face gives an empty list."""

    name: str
    detect: Callable[[Float[np.ndarray, "h w 3"]], list[Detection]]


def outer_eye_distance(landmarks: Num[np.ndarray, "68 d"]) -> float:
    """Distance of the outer eye corners, the unit of landmark errors (in the unit of the points)."""
    right, left = OUTER_EYE_CORNERS
    return float(np.linalg.norm(landmarks[right] - landmarks[left]))


def landmark_error(found: Num[np.ndarray, "68 d"], truth: Num[np.ndarray, "68 d"]) -> float:
    """Median distance of the 51 inner points in percent of the outer eye distance of `truth`."""
    distance = np.linalg.norm(found - truth, axis=-1)[INNER]
    return float(100.0 * np.median(distance) / outer_eye_distance(truth))


def face_size(landmarks: Num[np.ndarray, "68 d"]) -> float:
    """Distance between the eyes' centres, or from the eyes to the mouth where that is more (profiles)."""
    right, left, mouth = landmarks[RIGHT_EYE].mean(0), landmarks[LEFT_EYE].mean(0), landmarks[MOUTH].mean(0)
    return float(max(np.linalg.norm(left - right), np.linalg.norm((left + right) / 2 - mouth)))


def mirror(landmarks: Float[np.ndarray, "68 2"], width: float) -> Float[np.ndarray, "68 2"]:
    """Landmarks of the image mirrored left to right; ``width`` of the image in pixels."""
    return np.stack([width - landmarks[MIRROR, 0], landmarks[MIRROR, 1]], axis=-1)


def extent(landmarks: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "4"]:
    """The box (left, top, right, bottom) around points."""
    return np.concatenate([landmarks.min(0), landmarks.max(0)])


def read_points(path: str | Path) -> tuple[Float[np.ndarray, "68 d"], Float[np.ndarray, "68"]]:
    """68 points and their confidence (0 = the file has none) from a ``.txt``, ``.pts``, ``.ljson`` or ``.json`` file.

    ``.txt``: a line "x y" (or "x,y", or three numbers) a point, pixels counted from 0. ``.pts``: iBUG's format, counted
    from 1. ``.ljson``/``.json``: menpo's format of any version, in which a 2D point is (y, x), counted from 0, and of
    several groups the first with 68 points counts; a plain list of points is (x, y). 2D points come back with pixel
    centres at +0.5; 3D points (of scans) as they are.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise InputError(f"{path}: not found, expected a file with 68 points") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}), expected a file with 68 points") from None
    suffix = path.suffix.lower()
    if suffix not in (".txt", ".pts", ".ljson", ".json"):
        raise InputError(f"{path}: points file of kind '{suffix}', expected .txt, .pts, .ljson or .json")
    try:
        points = _json_points(text) if suffix in (".ljson", ".json") else _text_points(text)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: not a points file ({' '.join(str(error).split())}), expected 68 points") from None
    if points.ndim != 2 or len(points) != 68 or points.shape[1] not in (2, 3):
        found = "x".join(map(str, points.shape))
        raise InputError(f"{path}: found {found} numbers, expected 68 points of 2 or 3 coordinates")
    confidence = np.asarray(np.isfinite(points).all(-1), np.float32)
    shift = 0.0 if points.shape[1] == 3 else -0.5 if suffix == ".pts" else 0.5
    points[confidence == 0] = -shift
    return np.asarray(points + shift, np.float32), confidence


def write_points(path: str | Path, landmarks: Float[np.ndarray, "68 2"]) -> None:
    """Write 2D landmarks as ``.pts`` or ``.txt``, so that ``read_points`` gives them back (to 0.001 px)."""
    pts = Path(path).suffix.lower() == ".pts"
    lines = [f"{x:.3f} {y:.3f}" for x, y in np.asarray(landmarks, np.float64) + (0.5 if pts else -0.5)]
    lines = ["version: 1", f"n_points: {len(lines)}", "{", *lines, "}"] if pts else lines
    Path(path).write_text("\n".join(lines) + "\n")


def points_detector(path: str | Path, size: tuple[int, int]) -> Detector:
    """A detector that takes the one face from a points file; ``size`` is the (width, height) the points refer to.

    The size is that of the upright photo in its file (``photo.photo_size``); the image observed may be a smaller copy.
    """
    points, confidence = read_points(path)
    if points.shape[1] != 2:
        raise InputError(f"{path}: found 3D points, expected 68 points in pixels of the photo")
    if missing := int((confidence == 0).sum()):  # the aligned chip and the skin mask need every point
        raise InputError(f"{path}: {missing} points have no coordinates, expected all 68")
    width, height = size
    inside = ((points >= 0) & (points <= np.array([width, height], np.float32)[None])).all(-1)
    if inside.mean() < 0.5:
        raise InputError(f"{path}: most points lie outside the photo, expected pixels of {width} x {height}")
    spans = np.linalg.svd(points[INNER] - points[INNER].mean(0, keepdims=True), compute_uv=False)
    if spans[1] < 0.1 * max(float(spans[0]), 1.0):
        raise InputError(f"{path}: the points lie on a line or in one place, expected those of a face")

    def detect(image: Float[np.ndarray, "h w 3"]) -> list[Detection]:
        scale = np.array([image.shape[1] / width, image.shape[0] / height], np.float32)
        return [Detection(extent(points * scale[None]), points * scale[None], confidence, "points")]

    return Detector("points", detect)


def _text_points(text: str) -> Float[np.ndarray, "n d"]:
    body = re.search(r"\{(.*)\}", text, re.DOTALL)
    lines = (body.group(1) if body else text).splitlines()
    rows = [line.replace(",", " ").split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return np.array([[float(value) for value in row] for row in rows], np.float64)


def _json_points(text: str) -> Float[np.ndarray, "n d"]:
    data = json.loads(text)
    menpo = isinstance(data, dict)
    if menpo:
        groups = data.get("groups", [data])
        groups = list(groups.values()) if isinstance(groups, dict) else groups
        sets = [group["landmarks"] for group in groups]
        sets = [marks["points"] if isinstance(marks, dict) else [mark["point"] for mark in marks] for marks in sets]
        data = next((marks for marks in sets if len(marks) == 68), sets[0])
    points = np.array([[np.nan if value is None else value for value in point] for point in data], np.float64)
    return points[:, ::-1] if menpo and points.shape[1] == 2 else points
