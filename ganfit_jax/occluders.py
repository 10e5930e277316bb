"""What hides skin: hair and background by colour, hands by unsteady landmarks, glasses by a small linear classifier.

Plain numpy, once a photo.
"""

from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFilter

EYE_CROP = (80, 40)  # width and height of the crop that the glasses classifier sees, pixels
CELL = 8
ORIENTATIONS = 8


def centre_mask(landmarks: Float[np.ndarray, "68 2"], size: int, reach: float = 1.08) -> Float[np.ndarray, "s s"]:
    """Soft mask in [0, 1] of the middle of the face: brows, eyes, nose, mouth and chin, where everything counts.

    `landmarks` in pixels of an image of side `size`; the mask reaches `reach` times as far from the middle as they do.
    """
    inner, chin = landmarks[17:], landmarks[5:12]
    middle = inner.mean(0)
    outline = np.concatenate([middle + reach * (inner - middle), middle + 0.9 * (chin - middle)])
    blur = 0.05 * float(np.linalg.norm(landmarks[36] - landmarks[45]))
    canvas = filled(hull(outline), size).filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(canvas, np.float32) / 255.0


def filled(outline: Float[np.ndarray, "n 2"], size: int) -> Image.Image:
    """A grey image of side `size`, 255 inside of a polygon (pixels, in order), 0 outside."""
    canvas = Image.new("L", (size, size))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in outline], fill=255)
    return canvas


def hull(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "m 2"]:
    """Convex hull of points in the plane, in order."""
    from scipy.spatial import ConvexHull

    return points[ConvexHull(points).vertices]


def skin_weight(
    image: Float[np.ndarray, "s s 3"], landmarks: Float[np.ndarray, "68 2"], softness: float = 3.0, reach: float = 1.08
) -> Float[np.ndarray, "s s"]:
    """How much each pixel looks like this face's skin, in [0, 1]; 1 in the middle of the face.

    Log chroma and log brightness of cheeks and nose give a robust Gaussian; a pixel `softness` standard deviations
    away does not count, nor does what is not connected to the middle of the face: shine on hair has the colour of skin.
    Highlights are judged leniently. `reach` as in `centre_mask`. Keeps hair, glasses' temples, collars and background
    out of the pixel term and of texture corpora.
    """
    size = image.shape[0]
    colour = np.log(np.clip(image, 0.02, 1.0))
    bright = colour.mean(-1)
    values = np.stack([colour[..., 0] - colour[..., 1], colour[..., 1] - colour[..., 2], bright], -1)
    cheeks = np.zeros((size, size), bool)
    radius = 0.10 * float(np.linalg.norm(landmarks[36] - landmarks[45]))
    y, x = np.mgrid[:size, :size] + 0.5
    for a, b in ((2, 31), (14, 35), (4, 48), (12, 54), (27, 30)):
        px, py = 0.5 * (landmarks[a] + landmarks[b])
        cheeks |= (x - px) ** 2 + (y - py) ** 2 < radius**2
    sample = values[cheeks]
    if len(sample) < 8:
        return np.ones((size, size), np.float32)
    middle = np.median(sample, 0)
    spread = 1.4826 * np.median(np.abs(sample - middle), 0) + np.array([0.04, 0.04, 0.12])
    distance = (values - middle) / spread
    distance[..., 2] *= np.where(distance[..., 2] > 0, 0.6, 1.0)
    squared = (distance**2).sum(-1) / softness**2
    likely = np.float32(1.0 / (1.0 + squared**2))
    smooth = Image.fromarray(np.uint8(255 * likely)).filter(ImageFilter.MedianFilter(5))
    likely = np.asarray(smooth.filter(ImageFilter.GaussianBlur(size / 256)), np.float32) / 255.0
    # Strict: what is half hair or half collar would be painted onto the skin.
    likely = np.clip(2.5 * likely - 1.25, 0.0, 1.0)
    centre = centre_mask(landmarks, size, reach)
    return connected(np.maximum(likely, centre), centre > 0, max(1, size // 128))


def lower_face_weight(
    landmarks: Float[np.ndarray, "68 2"], confidence: Float[np.ndarray, "68"], size: int
) -> Float[np.ndarray, "s s"]:
    """Weight in [0, 1] of each pixel: 1 above the base of the nose; below it 0 where something, often a hand, hides the
    mouth.

    A hand has the colour of skin, but it unsettles the mouth's points: their mean confidence over the larger of nose's
    and eyes', as fits weigh points (`observe.sharpened`), was at most 0.32 in five of eight photos with a hand at the
    face (0.57 or more in the others: fingers beside the mouth), and at least 0.47 in 78 photos without. From 0.25 to
    0.45 the weight rises from 0 to 1.
    """
    mouth, nose, eyes = (float(confidence[part].mean()) for part in (slice(48, 68), slice(27, 36), slice(36, 48)))
    believed = float(np.clip((mouth / max(nose, eyes, 1e-6) - 0.25) / 0.2, 0, 1))
    across = landmarks[45] - landmarks[36]
    down = np.array([-across[1], across[0]]) / max(float(across @ across), 1e-6)  # 1 = the distance of the eyes
    x, y = np.mgrid[:size, :size][::-1] + 0.5
    depth = (x - landmarks[33, 0]) * down[0] + (y - landmarks[33, 1]) * down[1]
    return (1 - (1 - believed) * np.clip(depth / 0.1, 0, 1)).astype(np.float32)


def connected(
    weight: Float[np.ndarray, "h w"], seeds: Bool[np.ndarray, "h w"], bridge: int
) -> Float[np.ndarray, "h w"]:
    """The weights near those regions above one half that hold a seed; 0 elsewhere. Bridges between regions that are
    less than `2 bridge + 1` pixels wide do not connect them."""
    from scipy import ndimage

    cross = ndimage.generate_binary_structure(2, 1)
    labelled: Any = ndimage.label(ndimage.binary_erosion(weight > 0.5, cross, bridge), cross)
    regions = labelled[0]
    kept = np.isin(regions, np.setdiff1d(regions[seeds], 0))
    near = ndimage.binary_dilation(kept, cross, 3 * bridge)
    return np.where(near | seeds, weight, 0).astype(weight.dtype)


def eye_crop(image: Float[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "40 80"]:
    """Grey crop around the eyes, upright, the outer eye corners 48 pixels apart, zero mean and unit variance."""
    width, height = EYE_CROP
    eyes, across = 0.5 * (landmarks[36] + landmarks[45]), landmarks[45] - landmarks[36]
    a, b = across / (0.6 * width)
    centre = np.array([width / 2, 0.42 * height])
    shift = eyes - np.array([[a, -b], [b, a]]) @ centre
    # Two samples a pixel, averaged, against aliasing.
    matrix = (a / 2, -b / 2, shift[0], b / 2, a / 2, shift[1])
    photo = Image.fromarray(np.uint8(np.clip(255 * image, 0, 255))).convert("L")
    crop = photo.transform((2 * width, 2 * height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    grey = np.asarray(crop.resize(EYE_CROP, Image.Resampling.BOX), np.float32)
    return (grey - grey.mean()) / (grey.std() + 1e-3)


def gradient_histogram(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "n"]:
    """Histograms of oriented gradients: cells of 8 pixels, 8 unsigned orientations, blocks of 2 x 2 cells, L2 norm.

    Dalal and Triggs, CVPR 2005.
    """
    dy, dx = np.gradient(grey)
    strength, angle = np.hypot(dx, dy), np.mod(np.arctan2(dy, dx), np.pi)
    index = np.minimum((angle / np.pi * ORIENTATIONS).astype(int), ORIENTATIONS - 1)
    rows, columns = grey.shape[0] // CELL, grey.shape[1] // CELL
    votes = strength[..., None] * (index[..., None] == np.arange(ORIENTATIONS))
    cells = votes[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL, ORIENTATIONS).sum((1, 3))
    blocks = np.concatenate([cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:]], -1)
    return np.float32(blocks / (np.linalg.norm(blocks, axis=-1, keepdims=True) + 1e-3)).ravel()


def glasses_score(image: Float[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "68 2"]) -> float:
    """Log odds that the face wears glasses (above 0: likely), by a linear classifier on gradient histograms.

    Trained on public-domain portraits; 'third_party/README.md' has the provenance.
    """
    with resources.as_file(resources.files("ganfit_jax.assets") / "glasses.npz") as path, np.load(path) as model:
        return float(gradient_histogram(eye_crop(image, landmarks)) @ model["weights"] + model["bias"])
