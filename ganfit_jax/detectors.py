"""Detectors of faces and their 68 landmarks: plug-ins that import their library only when they are made."""

import importlib.util
import itertools
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ganfit_jax.errors import InputError
from ganfit_jax.files import dlib_file
from ganfit_jax.landmarks import Detection, Detector, extent, face_size, mirror

NAMES = ("auto", "dlib", "face-alignment")
HOG_SIDE = 800  # px: longest side of the copy in which dlib searches; faces are found from 80 px, 20 px when upsampled
DOUBTFUL = 0.25  # score of dlib's detector under which a face is dropped where there is a better one (faces: 0.5 to 3)
STEADY = 0.03  # median spread above which other boxes are tried
UNSTEADY = 0.05  # spread of a point, in sizes of the face, at which its confidence is a half (steady points: 0.01)
CNN_SIDE = 400  # px: the network that finds profiles is slow on a CPU
CNN_LEAST = 20  # px: it crashes the process on narrower strips, in which no face could be seen
FACE_SIDE = 300  # px: side of the face's box in the copy in which dlib places the landmarks, in whole pixels
JITTER = ((0.0, 0.0, 1.0), (0.04, 0.0, 1.0), (-0.04, 0.0, 1.0), (0.0, 0.04, 1.06), (0.0, -0.04, 0.94))  # dx, dy, scale


def detector(name: str = "auto") -> Detector:
    """The detector of that name; ``auto`` takes the first that is usable, and its ``name`` says which it was."""
    if name == "dlib":
        return dlib_detector()
    if name == "face-alignment":
        return face_alignment_detector()
    if name != "auto":
        raise InputError(f"detector '{name}' is unknown, expected one of {', '.join(NAMES)}")
    if importlib.util.find_spec("face_alignment") is not None:
        try:
            return face_alignment_detector()
        except InputError:  # installed, but its weights cannot be had: the next one
            pass
    return dlib_detector()


def dlib_detector() -> Detector:
    """dlib's face detector and 68-point shape predictor; works offline.

    The faces are found by dlib's HOG detector, upsampled where nothing is found, then in the photo turned by quarters,
    then by its network (profiles). The points are the mean over five jittered boxes in the image and in its mirror
    image, which halves their noise; their confidence follows from their spread. The 68-point file was trained on the
    iBUG 300-W data, whose licence excludes commercial use; dlib itself and its detectors are free.
    """
    try:
        import dlib
    except ImportError:
        raise InputError("detector 'dlib' is not installed, expected the package dlib-bin") from None
    library: Any = dlib
    hog = library.get_frontal_face_detector()
    predictor = library.shape_predictor(str(dlib_file("shape_predictor_68_face_landmarks.dat")))
    network: list[Any] = []

    def search(image: UInt8[np.ndarray, "h w 3"], upsampling: tuple[int, ...]) -> list[Float[np.ndarray, "4"]]:
        small, scale = _shrunk(image, HOG_SIDE / max(image.shape))
        for times in upsampling:
            found, scores, _ = hog.run(small, times, 0.0)
            if found:
                least = min(DOUBTFUL, max(scores) / 2)
                likely = [each for each, score in zip(found, scores, strict=True) if score >= least]
                return [_corners(rectangle) / np.tile(scale, 2) for rectangle in likely]
        return []

    def search_profiles(image: UInt8[np.ndarray, "h w 3"]) -> list[Float[np.ndarray, "4"]]:
        small, scale = _shrunk(image, CNN_SIDE / max(image.shape))
        if min(small.shape[:2]) < CNN_LEAST:
            return []
        if not network:
            network.append(library.cnn_face_detection_model_v1(str(dlib_file("mmod_human_face_detector.dat"))))
        return [_corners(found.rect) / np.tile(scale, 2) for found in network[0](small, 0)]

    def place(image: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]) -> Float[np.ndarray, "j 68 2"]:
        found = []
        for dx, dy, size in JITTER:
            side = (box[2] - box[0]) * size
            left, top = (box[:2] + box[2:]) / 2 + np.array([dx, dy]) * side - side / 2
            corners = (round(left), round(top), round(left + side), round(top + side))
            found.append(
                [(point.x + 0.5, point.y + 0.5) for point in predictor(image, library.rectangle(*corners)).parts()]
            )
        return np.array(found)

    def both(image: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]) -> tuple[np.ndarray, np.ndarray]:
        """The points, and their spread over jitter and mirror in parts of the face's size."""
        copy, scale, corner = _face_copy(image, box)
        width = copy.shape[1]
        left, top, right, bottom = ((box.reshape(2, 2) - corner[None]) * scale[None]).ravel()
        seen = place(copy, np.array([left, top, right, bottom]))
        turned = place(np.ascontiguousarray(copy[:, ::-1]), np.array([width - right, top, width - left, bottom]))
        every = np.concatenate([seen, [mirror(points, width) for points in turned]])
        mean = every.mean(0)
        spread = np.sqrt(((every - mean[None]) ** 2).sum(-1).mean(0)) / face_size(mean)
        return mean / scale[None] + corner[None], spread

    def steadiest(
        image: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Some boxes suit the predictor badly (profiles, small faces): take a shifted one, that of the least spread."""
        centre, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
        results = []
        for dx, dy, size in itertools.product((-0.3, -0.15, 0.0, 0.15, 0.3), (-0.1, 0.1), (0.8, 1.0, 1.25)):
            middle = centre + np.array([dx, dy]) * side
            near = np.concatenate([middle - side * size / 2, middle + side * size / 2])
            results.append((near, *both(image, near)))
        return min(results, key=lambda result: float(np.median(result[2])))

    def faces(image: UInt8[np.ndarray, "h w 3"]) -> tuple[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        if found := search(image, (1, 2) if max(image.shape) <= HOG_SIDE / 2 else (0, 1, 2)):
            results = [(box, *both(image, box)) for box in found]
            return 0, [each if np.median(each[2]) < STEADY else steadiest(image, each[0]) for each in results]
        for quarter in (1, 3, 2):
            turned = np.ascontiguousarray(np.rot90(image, quarter))
            if found := search(turned, (0,)):
                return quarter, [(box, *both(turned, box)) for box in found]
        return 0, [steadiest(image, box) for box in search_profiles(image)]

    def detect(image: Float[np.ndarray, "h w 3"]) -> list[Detection]:
        pixels = _bytes(image)
        quarter, found = faces(pixels)
        detections = []
        for box, points, spread in found:
            corners, points = (_turned_back(each, quarter, pixels.shape) for each in (box.reshape(2, 2), points))
            detections.append(_detection(extent(corners), points, 1 / (1 + (spread / UNSTEADY) ** 2), "dlib"))
        return detections

    return Detector("dlib", detect)


def face_alignment_detector(device: str = "cpu") -> Detector:
    """The hourglass network of the package ``face-alignment``, which fetches its weights on first use.

    Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D face alignment problem?", ICCV 2017.
    """
    try:
        import face_alignment  # pyright: ignore[reportMissingImports]
    except ImportError:
        message = "detector 'face-alignment' is not installed, expected: pip install ganfit-jax[face-alignment]"
        raise InputError(message) from None
    kinds = face_alignment.LandmarksType
    kind = kinds.TWO_D if hasattr(kinds, "TWO_D") else kinds._2D
    try:
        network = face_alignment.FaceAlignment(kind, device=device, flip_input=False)
    except Exception as error:  # no network, no disk, a broken download: torch.hub raises many kinds
        line = " ".join(str(error).split())
        raise InputError(f"detector 'face-alignment' could not get its weights ({line}), expected a download") from None

    def detect(image: Float[np.ndarray, "h w 3"]) -> list[Detection]:
        found = network.get_landmarks_from_image(_bytes(image), return_landmark_score=True)
        points, scores = found[:2] if found is not None else (None, None)
        return [
            _detection(extent(each), np.asarray(each) + 0.5, np.clip(np.ravel(score), 0, 1), "face-alignment")
            for each, score in zip(points or [], scores or [], strict=True)
        ]

    return Detector("face-alignment", detect)


def _detection(box: Any, points: Any, confidence: Any, name: str) -> Detection:
    box, points, confidence = (np.asarray(each, np.float32) for each in (box, points, confidence))
    return Detection(box, points, confidence, name)


def _bytes(image: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.ascontiguousarray(np.clip(np.asarray(image) * 255 + 0.5, 0, 255).astype(np.uint8))


def _shrunk(
    image: UInt8[np.ndarray, "h w 3"], scale: float
) -> tuple[UInt8[np.ndarray, "a b 3"], Float[np.ndarray, "2"]]:
    """A copy, smaller by ``scale`` (never larger), and its exact scale in x and y."""
    if scale >= 1:
        return image, np.ones(2)
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    copy = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(copy), np.array([size[0] / width, size[1] / height])


def _face_copy(
    image: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]
) -> tuple[UInt8[np.ndarray, "a b 3"], Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """The surroundings of a face, scaled so that its box has FACE_SIDE pixels; the scale; the corner in the image."""
    side = box[2] - box[0]
    low = np.floor(np.maximum(box[:2] - side, 0)).astype(int)
    high = np.ceil(np.minimum(box[2:] + side, image.shape[1::-1])).astype(int)
    patch = Image.fromarray(image[low[1] : high[1], low[0] : high[0]])
    size = np.maximum(1, np.round((high - low) * (FACE_SIDE / side))).astype(int)
    return (
        np.asarray(patch.resize((size[0], size[1]), Image.Resampling.BICUBIC)),
        size / (high - low),
        low.astype(float),
    )


def _corners(rectangle: Any) -> Float[np.ndarray, "4"]:
    return np.array(
        [rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1], dtype=np.float64
    )


def _turned_back(points: Float[np.ndarray, "n 2"], quarter: int, shape: tuple[int, ...]) -> Float[np.ndarray, "n 2"]:
    """Points of ``np.rot90(image, quarter)`` in pixels of the image, whose shape is given."""
    height, width = shape[:2]
    x, y = points[:, 0], points[:, 1]
    return np.stack([(x, y), (width - y, x), (width - x, height - y), (y, height - x)][quarter], axis=-1)
