"""Which photos are of no use for a texture corpus. A reason is a word; the empty one means that a photo is of use."""

import numpy as np
from jaxtyping import Float

from ganfit_jax.landmarks import LEFT_EYE, OUTER_EYE_CORNERS, OUTER_LIPS, RIGHT_EYE, Detection, outer_eye_distance
from ganfit_jax.occluders import glasses_score
from ganfit_jax.pigment import to_linear
from ganfit_jax.types import Observation, View

GLASSES = -2.5  # score from which a portrait counts as wearing glasses: strict, a corpus can do without doubtful ones
UNSURE = 0.6  # mean confidence of the landmarks below which a portrait is left out
REDNESS = 0.2  # least log ratio of red to green light: skin of any tone has more (0.31 to 1.25 in 354 portraits)


def reject_photo(photo: Float[np.ndarray, "h w 3"], face: Detection, smallest: float) -> str:
    """Why a photo is no use before it is fitted. `smallest`: least distance of the outer eye corners, pixels."""
    if face.confidence.mean() < UNSURE:
        return "landmarks"
    if outer_eye_distance(face.landmarks) < smallest:
        return "small"
    if redness(photo, face.landmarks) < REDNESS:
        return "colour"
    if glasses_score(photo, face.landmarks) > GLASSES:
        return "glasses"
    return ""


def redness(photo: Float[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "68 2"]) -> float:
    """Logarithm of red over green light in the face's middle, between eyes and mouth: about 0 in black and white
    photos, low in drawings and badges."""
    left, right = sorted(landmarks[list(OUTER_EYE_CORNERS), 0])
    eyes = np.concatenate([landmarks[RIGHT_EYE], landmarks[LEFT_EYE]])
    top, bottom = sorted([eyes[:, 1].max(), landmarks[OUTER_LIPS, 1].min()])
    height, width = photo.shape[:2]
    rows = slice(*np.clip([int(top), int(bottom) + 1], 0, height))
    columns = slice(*np.clip([int(left), int(right) + 1], 0, width))
    middle = photo[rows, columns].reshape(-1, 3)
    if not len(middle):
        return 0.0
    red, green, _ = np.log(np.maximum(to_linear(np.median(middle, axis=0)), 1e-3))
    return float(red - green)


def reject_fit(view: View, observed: Observation, projected: Float[np.ndarray, "68 2"]) -> str:
    """Why a landmark fit is no use: the head is turned too far, or the model's landmarks are not where the face's
    are."""
    pitch, yaw, _ = np.degrees(np.abs(np.asarray(view.camera.rotation)))
    if yaw > 35 or pitch > 25:
        return "pose"
    found = np.asarray(observed.landmarks)
    error = np.linalg.norm(projected - found, axis=-1)[17:].mean() / outer_eye_distance(found)
    return "fit" if error > 0.06 else ""
