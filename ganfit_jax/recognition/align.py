"""From landmarks to the aligned chip that a recognition network expects: one similarity, one differentiable warp.

Chip coordinates follow the image convention of ``types``: x to the right, y down, pixel centres at +0.5.
"""

from functools import partial

import dm_pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..types import RecogniserSpec


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
    sum w |p|^2`` give ``[[a, -b], [b, a]]``, which is never a reflection (Umeyama, TPAMI 1991). Differentiable.
    """
    weight = jnp.ones(source.shape[0], source.dtype) if weights is None else weights
    weight = (weight / jnp.sum(weight))[:, None]
    source_mean, target_mean = jnp.sum(weight * source, axis=0), jnp.sum(weight * target, axis=0)
    p, q = source - source_mean[None, :], target - target_mean[None, :]
    variance = jnp.sum(weight * p**2)
    a = jnp.sum(weight * p * q) / variance
    b = jnp.sum(weight[:, 0] * (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])) / variance
    linear = jnp.stack([jnp.stack([a, -b]), jnp.stack([b, a])])
    translation = target_mean - linear @ source_mean
    return jnp.concatenate([linear, translation[:, None]], axis=1)


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
    points = jnp.stack([x.ravel(), y.ravel(), jnp.ones(x.size, jnp.float32)])
    columns, rows = jnp.dot(image_from_chip, points, precision=jax.lax.Precision.HIGHEST) + 0.5  # of the padded image
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=fill)
    height, width, channels = padded.shape
    coordinates = jnp.stack([jnp.clip(rows, 0.0, height - 1.0), jnp.clip(columns, 0.0, width - 1.0)])
    lookup = jax.vmap(
        partial(dm_pix.flat_nd_linear_interpolate, unflattened_vol_shape=(height, width)), in_axes=(1, None), out_axes=1
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # dm_pix mixes int and float
        chip = lookup(padded.reshape(-1, channels), coordinates)
    chip = chip.reshape(size, samples, size, samples, channels)
    return jnp.mean(chip, axis=(1, 3))


def chip_from_image(spec: RecogniserSpec, landmarks: Float[Array, "68 2"]) -> Float[Array, "2 3"]:
    """The similarity that brings the landmarks (image pixels) to the chip's template."""
    return similarity(five_points(landmarks), jnp.asarray(spec.template, jnp.float32))


def invert(matrix: Float[Array, "2 3"]) -> Float[Array, "2 3"]:
    """The inverse of an affine map of the plane."""
    linear = jnp.linalg.inv(matrix[:, :2])
    return jnp.concatenate([linear, -linear @ matrix[:, 2:]], axis=1)


def aligned_chip(
    spec: RecogniserSpec,
    image: Float[Array, "h w 3"],
    landmarks: Float[Array, "68 2"],
    fill: float = 0.5,
) -> Float[Array, "s s 3"]:
    """The chip of side ``spec.chip`` that the network expects, cut from ``image`` by its 68 landmarks (pixels).

    Differentiable in the image and the landmarks. A fit that must not gain by shifting the chip passes the landmarks
    through ``stop_gradient``.
    """
    return warp(image, invert(chip_from_image(spec, landmarks)), spec.chip, fill)
