"""The pyramid against plain convolutions, and back."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ganfit_jax import pyramid

IMAGE = np.random.default_rng(0).uniform(size=(2, 16, 24, 3)).astype(np.float32)
TAPS = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def by_convolution(image, factor=1.0):
    return np.stack([ndimage.convolve(image[..., c], factor * TAPS, mode="mirror") for c in range(3)], -1)


def test_down_and_up_against_convolutions():
    found = pyramid.down(jnp.asarray(IMAGE))
    assert found.shape == (2, 8, 12, 3)
    for one, image in zip(found, IMAGE, strict=True):
        assert np.asarray(one) == pytest.approx(by_convolution(image)[::2, ::2], abs=1e-6)
    found = pyramid.up(jnp.asarray(IMAGE))
    for one, image in zip(found, IMAGE, strict=True):
        sparse = np.zeros((32, 48, 3))
        sparse[::2, ::2] = image
        assert np.asarray(one) == pytest.approx(by_convolution(sparse, 4.0), abs=1e-6)


def test_bands_collapse_to_the_image():
    bands = pyramid.laplacian(jnp.asarray(IMAGE), 4)
    assert [band.shape[1:3] for band in bands] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert np.asarray(pyramid.collapse(bands)) == pytest.approx(IMAGE, abs=1e-5)


def test_detail_bands_of_a_smooth_image_are_nearly_empty():
    flat = jnp.full((32, 32, 3), 0.7)
    for band in pyramid.laplacian(flat, 3)[:-1]:
        assert np.abs(np.asarray(band)).max() < 1e-6
