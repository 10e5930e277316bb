"""From landmarks to the aligned chip that a recognition network expects: one similarity, one differentiable warp.

Chip coordinates follow the image convention of ``types``: x to the right, y down, pixel centres at +0.5.
"""

from functools import partial

import dm_pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..types import RecogniserSpec

# dlib aligns by 33 of the 68 points (nose, eyes, upper lip): fewer move with expression, and detectors jitter less
# than with five. Where these points lie on its 150 px chip was solved from the maps that dlib returns for random
# landmarks (third_party/dlib/README.md).
ALIGNED_POINTS = (*range(27, 55), *range(60, 65))
MEAN_FACE = (
    *((74.01, 45.33), (74.01, 55.70), (74.01, 65.98), (74.01, 76.56)),
    *((61.69, 83.73), (67.60, 85.94), (74.01, 87.81), (80.42, 85.94), (86.34, 83.73)),
    *((37.17, 46.64), (43.71, 42.87), (51.58, 42.98), (58.46, 48.17), (51.09, 49.51), (43.27, 49.40)),
    *((89.57, 48.17), (96.45, 42.98), (104.32, 42.87), (110.86, 46.64), (104.76, 49.40), (96.94, 49.51)),
    *((50.41, 103.03), (59.10, 99.54), (67.89, 97.74), (74.01, 99.26), (80.14, 97.74), (88.93, 99.54)),
    *((97.61, 103.03), (54.03, 103.48), (67.81, 102.88), (74.01, 103.54), (80.22, 102.88), (93.99, 103.48)),
)
# The mean of `five_points` on dlib's chip over 160 portraits, made symmetric.
MEAN_FIVE = ((47.27, 47.15), (100.76, 47.15), (74.01, 78.16), (46.52, 101.13), (101.51, 101.13))


def five_points(landmarks: Float[Array, "*b 68 2"]) -> Float[Array, "*b 5 2"]:
    """Eye centres, nose tip, mouth corners, left to right in a frontal image, from the 68 iBUG landmarks."""
    left, right = jnp.mean(landmarks[..., 36:42, :], axis=-2), jnp.mean(landmarks[..., 42:48, :], axis=-2)
    nose, mouth_left, mouth_right = (landmarks[..., index, :] for index in (30, 48, 54))
    return jnp.stack([left, right, nose, mouth_left, mouth_right], axis=-2)


def similarity(
    source: Float[Array, "n 2"], target: Float[Array, "n 2"], weights: Float[Array, "n"] | None = None
) -> Float[Array, "2 3"]:
    """The rotation, scale and translation M that minimise ``sum_i w_i |M [source_i, 1] - target_i|^2``.

    Closed form in the plane: with centred points p, q, ``a = sum w p.q / sum w |p|^2`` and ``b = sum w p x q /
    sum w |p|^2`` give ``[[a, -b], [b, a]]``, which is never a reflection (Umeyama, TPAMI 1991). Differentiable
    where the source points are not all the same.
    """
    weight = jnp.ones(source.shape[0], source.dtype) if weights is None else weights
    weight = (weight / jnp.sum(weight))[:, None]
    source_mean, target_mean = jnp.sum(weight * source, axis=0), jnp.sum(weight * target, axis=0)
    p, q = source - source_mean[None, :], target - target_mean[None, :]
    variance = jnp.sum(weight * p**2)
    a = jnp.sum(weight * p * q) / variance
    b = jnp.sum(weight[:, 0] * (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])) / variance
    linear = jnp.stack([jnp.stack([a, -b]), jnp.stack([b, a])])
    translation = target_mean - jnp.dot(linear, source_mean, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([linear, translation[:, None]], axis=1)


def template(spec: RecogniserSpec) -> Float[Array, "33 2"]:
    """Where ``ALIGNED_POINTS`` lie on the chip of a recogniser: the mean face, moved so that its five points fit."""
    chip_from_dlib = similarity(jnp.asarray(MEAN_FIVE, jnp.float32), jnp.asarray(spec.template, jnp.float32))
    return transform(chip_from_dlib, jnp.asarray(MEAN_FACE, jnp.float32))


def transform(matrix: Float[Array, "2 3"], points: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
    """An affine map of the plane applied to points."""
    return jnp.dot(points, matrix[:, :2].T, precision=jax.lax.Precision.HIGHEST) + matrix[None, :, 2]


def image_from_chip(spec: RecogniserSpec, landmarks: Float[Array, "68 2"]) -> Float[Array, "2 3"]:
    """The similarity from chip pixels to image pixels that brings the template nearest to the landmarks.

    Distances are measured in the image, as dlib does.
    """
    return similarity(template(spec), landmarks[jnp.asarray(ALIGNED_POINTS)])


def warp(
    image: Float[Array, "h w c"],
    image_from_chip: Float[Array, "2 3"],
    size: int,
    fill: float = 0.5,
    samples: int = 1,
) -> Float[Array, "s s c"]:
    """Bilinear resampling of ``image`` to a chip of ``size`` pixels, differentiable in the image and the matrix.

    ``image_from_chip`` maps chip pixels to image pixels. Outside the image there is ``fill``, reached linearly within
    one pixel of its edge. Each chip pixel is the mean of ``samples`` x ``samples`` bilinear lookups: use 2 where the
    image is shrunk by more than 1.5.
    """
    offsets = (jnp.arange(size * samples, dtype=jnp.float32) + 0.5) / samples
    x, y = jnp.meshgrid(offsets, offsets)
    points = transform(image_from_chip, jnp.stack([x.ravel(), y.ravel()], axis=1)) + 0.5
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=fill)  # sample (r, c) lies at (c - 0.5, r - 0.5)
    height, width, channels = padded.shape
    coordinates = jnp.stack([jnp.clip(points[:, 1], 0.0, height - 1.0), jnp.clip(points[:, 0], 0.0, width - 1.0)])
    lookup = jax.vmap(
        partial(dm_pix.flat_nd_linear_interpolate, unflattened_vol_shape=(height, width)), in_axes=(1, None), out_axes=1
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # dm_pix mixes int and float
        chip = lookup(padded.reshape(-1, channels), coordinates)
    return jnp.mean(chip.reshape(size, samples, size, samples, channels), axis=(1, 3))


def aligned_chip(
    spec: RecogniserSpec,
    image: Float[Array, "h w 3"],
    landmarks: Float[Array, "68 2"],
    fill: float = 0.5,
) -> Float[Array, "s s 3"]:
    """The chip of side ``spec.chip`` that the network expects, cut from ``image`` by its 68 landmarks (pixels).

    An image of more than twice the chip's side is taken to be shrunk, and smoothed by 2 x 2 lookups. Differentiable
    in the image and the landmarks: a fit that must not gain by shifting the chip passes the landmarks through
    ``stop_gradient``.
    """
    samples = 2 if min(image.shape[:2]) > 2 * spec.chip else 1
    return warp(image, image_from_chip(spec, landmarks), spec.chip, fill, samples)
