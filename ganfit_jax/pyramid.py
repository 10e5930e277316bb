"""Laplacian pyramids (Burt and Adelson, 1983) of images with any leading axes; reflected borders.

The filter is the 5 x 5 binomial one, as in Karras et al., ICLR 2018.
"""

from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp
from jaxtyping import Array, Float


def down(image: Float[Array, "*n h w c"]) -> Float[Array, "*n h//2 w//2 c"]:
    """Half the size: binomial filter (1, 4, 6, 4, 1) / 16 along both axes, then every second pixel. Even sides."""
    for axis in (-3, -2):
        rows = jnp.moveaxis(image, axis, 0)
        size = rows.shape[0]
        rows = jnp.pad(rows, [(2, 2)] + [(0, 0)] * (rows.ndim - 1), mode="reflect")
        taps = [rows[k : k + size : 2] for k in range(5)]
        image = jnp.moveaxis((taps[0] + taps[4] + 4.0 * (taps[1] + taps[3]) + 6.0 * taps[2]) / 16.0, 0, axis)
    return image


def up(image: Float[Array, "*n h w c"]) -> Float[Array, "*n 2*h 2*w c"]:
    """Twice the size: zeros between the pixels, then four times the filter of `down`."""
    for axis in (-3, -2):
        rows = jnp.moveaxis(image, axis, 0)
        padded = jnp.concatenate([rows[1:2], rows, rows[-1:]])
        even = (padded[:-2] + 6.0 * padded[1:-1] + padded[2:]) / 8.0
        odd = (padded[1:-1] + padded[2:]) / 2.0
        both = jnp.stack([even, odd], axis=1).reshape(2 * rows.shape[0], *rows.shape[1:])
        image = jnp.moveaxis(both, 0, axis)
    return image


def gaussian(image: Float[Array, "*n h w c"], levels: int) -> list[Float[Array, "..."]]:
    """The image and its `levels - 1` smaller versions, largest first."""
    found = [image]
    for _ in range(levels - 1):
        found.append(down(found[-1]))
    return found


def laplacian(image: Float[Array, "*n h w c"], levels: int) -> list[Float[Array, "..."]]:
    """`levels - 1` bands of detail, the finest first, and the small image that is left."""
    sizes = gaussian(image, levels)
    return [fine - up(coarse) for fine, coarse in pairwise(sizes)] + sizes[-1:]


def collapse(bands: Sequence[Float[Array, "..."]]) -> Float[Array, "*n h w c"]:
    """The image whose `laplacian` is `bands`."""
    image = bands[-1]
    for band in reversed(bands[:-1]):
        image = band + up(image)
    return image
