"""A photo and the face found in it -> the Observation that a fit explains."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from ganfit_jax.errors import InputError
from ganfit_jax.landmarks import MOUTH, Detection, face_size
from ganfit_jax.recognition import aligned_chip, features
from ganfit_jax.types import Features, Observation, Recogniser

SIDE = 2.15  # window side in extents of the landmarks: the head fills 60-75 % of it
RAISE = 0.15  # the window's centre lies above the landmarks' by this part of the extent: they end at the brows
SMALLEST = 20.0  # px between the eyes' centres (or from eyes to mouth): less shows no person
SHARPNESS = 25.0  # how much less a doubtful point counts in the fit than its confidence says
DOUBTFUL = 0.5  # mean confidence of the landmarks under which the message warns


def choose_face(
    detections: Sequence[Detection], face: int | None = None, photo: str = "photo"
) -> tuple[Detection, str]:
    """The largest face, or number ``face`` counted from 0, left to right; and a sentence that tells the choice.

    ``photo`` names the photo in messages. Raises ``InputError`` where there is no (such) face, or it is too small.
    """
    if not detections:
        raise InputError(f"{photo}: no face found, expected at least one; landmarks may be given in a file instead")
    ordered = sorted(detections, key=lambda detection: float(detection.landmarks[:, 0].mean()))
    if face is not None and not 0 <= face < len(ordered):
        raise InputError(f"{photo}: face {face} was asked for, found {len(ordered)} (numbered from 0, left to right)")
    sizes = [face_size(detection.landmarks) for detection in ordered]
    number = int(np.argmax(sizes)) if face is None else face
    if sizes[number] < SMALLEST:
        raise InputError(
            f"{photo}: face {number} is too small ({sizes[number]:.0f} px between the eyes), "
            f"expected at least {SMALLEST:.0f} px"
        )
    chosen = ordered[number]
    how = "the largest" if face is None else "as asked"
    which = "one face" if len(ordered) == 1 else f"face {number} of {len(ordered)} (from 0, left to right; {how})"
    doubt = ", but its landmarks are uncertain" if chosen.confidence.mean() < DOUBTFUL else ""
    return chosen, f"{which}, found by {chosen.name}{doubt}"


def observe(
    photo: Float[np.ndarray, "h w 3"], detection: Detection, recogniser: Recogniser | None = None, size: int = 256
) -> Observation:
    """Cut and scale a photo to the fitting window around a face: a square of ``size`` pixels that holds the head.

    ``mask`` is 0 where the window reaches beyond the photo (there the photo's border is repeated). ``features`` are the
    recogniser's of the aligned chip, ``None`` without one. A head that lies or stands on its head is turned upright by
    quarter turns; any smaller roll is left to the pose. Colours in [0, 1], landmarks in window pixels; their confidence
    is `sharpened`.
    """
    placement = window(detection.landmarks, detection.confidence, size)
    image, mask = cut(photo, placement, size)
    landmarks = to_window(placement, detection.landmarks)
    return Observation(
        image=jnp.asarray(image),
        landmarks=jnp.asarray(landmarks, jnp.float32),
        confidence=jnp.asarray(sharpened(detection.confidence)),
        mask=jnp.asarray(mask),
        photo_from_window=jnp.asarray(placement, jnp.float32),
        features=None if recogniser is None else _features(photo, detection, recogniser),
        weight=jnp.ones((), jnp.float32),
    )


def sharpened(confidence: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """``c / (c + 25 (1 - c))``: what a point of confidence c in [0, 1] weighs in the fit; 0 stays 0 and 1 stays 1.

    A detector guesses the points that something hides, and a fit that believes the guesses opens mouths behind hands.
    With dlib's confidence (`detectors.dlib_detector`), a spread of 0.01 weighs a half and one of 0.04, as hidden points
    have, 0.06. Chosen on 12 synthetic people: docs/experiments.md.
    """
    confidence = np.asarray(confidence, np.float32)
    return confidence / (confidence + SHARPNESS * (1 - confidence))


def stack(observations: Sequence[Observation]) -> Observation:
    """Several photos of one person as one Observation with a leading photo axis."""
    if not observations:
        raise InputError("no photo to stack, expected at least one observation")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *observations)


def window(
    landmarks: Float[np.ndarray, "68 2"], confidence: Float[np.ndarray, "68"], size: int
) -> Float[np.ndarray, "2 3"]:
    """The similarity from pixels of the window to pixels of the photo, rotated by quarter turns only.

    Side and centre come from the box around the landmarks in the face's own upright frame. From the front the box is
    as wide as the face; in profile its height takes over, so that the head keeps its size in the window.
    """
    known = np.asarray(landmarks, np.float64)[np.asarray(confidence) > 0]
    up = _up(landmarks)
    upright = np.array([[-up[1], up[0]], [-up[0], -up[1]]])  # rows: the face's own directions right and down
    turned = known @ upright.T
    low, high = turned.min(0), turned.max(0)
    length = float((high - low).max())
    centre = ((low + high) / 2 - np.array([0.0, RAISE * length])) @ upright
    quarter = round(float(np.arctan2(up[0], -up[1])) / (np.pi / 2)) % 4
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter]
    linear = SIDE * length / size * np.array([[cosine, -sine], [sine, cosine]], np.float64)
    return np.concatenate([linear, (centre - linear @ np.full(2, size / 2))[:, None]], axis=1)


def to_window(
    photo_from_window: Float[np.ndarray, "2 3"], points: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 2"]:
    """Points of the photo in pixels of the window."""
    linear, shift = photo_from_window[:, :2], photo_from_window[:, 2]
    return np.linalg.solve(linear, (np.asarray(points, np.float64) - shift[None]).T).T


def cut(
    photo: Float[np.ndarray, "h w 3"], photo_from_window: Float[np.ndarray, "2 3"], size: int
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "s s"]]:
    """The window's pixels, free of aliasing, and its mask: 1 inside the photo, 0 outside."""
    linear, shift = photo_from_window[:, :2], photo_from_window[:, 2]
    corners = np.array([[0.0, 0.0], [size, size]]) @ linear.T + shift[None]
    low, high = corners.min(0), corners.max(0)
    height, width = photo.shape[:2]
    margin = 4 + int(np.ceil(4 * (high - low).max() / size))  # the filter's reach
    left, top = np.floor(low).astype(int) - margin
    right, bottom = np.ceil(high).astype(int) + margin
    rows, columns = np.arange(top, bottom), np.arange(left, right)
    patch = np.asarray(photo, np.float32)[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)[None]]
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
    box = (low[0] - left, low[1] - top, high[0] - left, high[1] - top)

    def scaled(channel: Float[np.ndarray, "a b"], how: Image.Resampling) -> Float[np.ndarray, "s s"]:
        return np.asarray(Image.fromarray(channel).resize((size, size), how, box=box), np.float32)

    image = np.stack([scaled(np.ascontiguousarray(patch[..., c]), Image.Resampling.BICUBIC) for c in range(3)], axis=-1)
    mask = scaled(inside.astype(np.float32), Image.Resampling.BILINEAR)
    quarter = round(float(np.arctan2(linear[1, 0], linear[0, 0])) / (np.pi / 2)) % 4
    return np.clip(np.rot90(image, quarter), 0, 1), np.clip(np.rot90(mask, quarter), 0, 1)


def _up(landmarks: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "2"]:
    """Unit vector from the mouth to the eyes, photo pixels."""
    points = np.asarray(landmarks, np.float64)
    up = points[36:48].mean(0) - points[MOUTH].mean(0)
    return up / max(float(np.linalg.norm(up)), 1e-9)


def _features(photo: Float[np.ndarray, "h w 3"], detection: Detection, recogniser: Recogniser) -> Features:
    size = 2 * recogniser.spec.chip  # at this size the window's pixels are about as large as the chip's
    placement = window(detection.landmarks, detection.confidence, size)
    image, _ = cut(photo, placement, size)
    landmarks = to_window(placement, detection.landmarks)
    return _chip_features(recogniser, jnp.asarray(image), jnp.asarray(landmarks, jnp.float32))


@jax.jit
def _chip_features(recogniser: Recogniser, image: Float[Array, "s s 3"], landmarks: Float[Array, "68 2"]) -> Features:
    return features(recogniser, aligned_chip(recogniser.spec, image, landmarks))
