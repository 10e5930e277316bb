"""Inference-only layers shared by the recognition networks: NHWC, float32, batch normalisation folded."""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Conv(nnx.Module):
    """2D convolution with bias: ``y = W * x + b``, ``padding`` pixels of zeros on every side."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, padding: int = 0):
        self.kernel = nnx.Param(jnp.zeros((side, side, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))
        self.stride, self.padding = stride, padding

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        y: Any = convolve(x, self.kernel[...], self.stride, self.padding)
        return y + self.bias[...][None, None, None, :]


def _convolve(x: Any, kernel: Any, stride: int, low: int, high: tuple[int, int], dilation: int) -> Any:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(low, high[0]), (low, high[1])],
        lhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"], stride: int, padding: int
) -> Float[Array, "n h2 w2 o"]:
    """Convolution (cross-correlation) with ``padding`` zeros on every side. Reverse mode only.

    Its gradient is written out with the kernel turned round explicitly: XLA's CPU backend runs the form that
    autodiff gives in a loop body several times slower.
    """
    return _convolve(x, kernel, stride, padding, (padding, padding), 1)


def _convolve_forward(x: Any, kernel: Any, stride: int, padding: int) -> tuple[Any, Any]:
    return convolve(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(stride: int, padding: int, saved: Any, cotangent: Any) -> tuple[Any, Any]:
    x, kernel = saved
    high = _dilated_padding(x, cotangent, stride, padding)
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    x_cotangent = _convolve(cotangent, turned, 1, kernel.shape[0] - 1 - padding, high, stride)
    _, pull = jax.vjp(lambda k: _convolve(x, k, stride, padding, (padding, padding), 1), kernel)
    return x_cotangent, pull(cotangent)[0]


convolve.defvjp(_convolve_forward, _convolve_backward)


def _dilated_padding(x: Any, cotangent: Any, stride: int, padding: int) -> tuple[int, int]:
    """Zeros behind the dilated cotangent (rows, columns) that make its convolution as large as ``x``."""
    sizes = zip(x.shape[1:3], cotangent.shape[1:3], strict=True)
    rows, columns = (n + padding - (m - 1) * stride - 1 for n, m in sizes)
    return rows, columns


class Depthwise(nnx.Module):
    """Depthwise 2D convolution with bias: every channel has its own ``side`` x ``side`` filter."""

    def __init__(self, channels: int, side: int, stride: int = 1, padding: int = 0):
        self.kernel = nnx.Param(jnp.zeros((side, side, channels), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.stride, self.padding = stride, padding

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        y: Any = depthwise(x, self.kernel[...], self.stride, self.padding)
        return y + self.bias[...][None, None, None, :]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k c"], stride: int, padding: int
) -> Float[Array, "n h2 w2 c"]:
    """Depthwise convolution as a sum of shifted products; its gradient is one again, of the dilated cotangent.

    On CPU a grouped convolution and its gradient take many times longer. Reverse mode only.
    """
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    side = kernel.shape[0]
    products = (
        _window(x, i, j, side, stride) * kernel[i, j][None, None, None, :] for i in range(side) for j in range(side)
    )
    return reduce(jnp.add, products)


def _window(x: Float[Array, "n h w c"], i: int, j: int, side: int, stride: int) -> Float[Array, "n h2 w2 c"]:
    """What the filter's element (i, j) meets in a map that is already padded."""
    n, height, width, channels = x.shape
    rows, columns = ((size - side) // stride * stride + 1 for size in (height, width))
    return jax.lax.slice(x, (0, i, j, 0), (n, i + rows, j + columns, channels), (1, stride, stride, 1))


def _depthwise_forward(x: Any, kernel: Any, stride: int, padding: int) -> tuple[Any, Any]:
    return depthwise(x, kernel, stride, padding), (x, kernel)


def _depthwise_backward(stride: int, padding: int, saved: Any, cotangent: Any) -> tuple[Any, Any]:
    x, kernel = saved
    side = kernel.shape[0]
    low = side - 1 - padding
    high = _dilated_padding(x, cotangent, stride, padding)
    dilated = ((0, 0, 0), (low, high[0], stride - 1), (low, high[1], stride - 1), (0, 0, 0))
    x_cotangent = depthwise(jax.lax.pad(cotangent, jnp.zeros((), x.dtype), dilated), kernel[::-1, ::-1], 1, 0)
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    products = [
        jnp.sum(_window(padded, i, j, side, stride) * cotangent, axis=(0, 1, 2))
        for i in range(side)
        for j in range(side)
    ]
    return x_cotangent, jnp.stack(products).reshape(kernel.shape)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


class Affine(nnx.Module):
    """A batch normalisation with fixed statistics: ``y = scale x + bias`` per channel (last axis)."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return x * self.scale[...][None, None, None, :] + self.bias[...][None, None, None, :]


class PReLU(nnx.Module):
    """``y = x`` where x > 0, ``slope x`` elsewhere; one slope per channel."""

    def __init__(self, channels: int):
        self.slope = nnx.Param(jnp.zeros((channels,), jnp.float32))

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return jnp.where(x > 0, x, x * self.slope[...][None, None, None, :])


class Dense(nnx.Module):
    """``y = x W + b``."""

    def __init__(self, inputs: int, outputs: int):
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))

    def __call__(self, x: Float[Array, "n i"]) -> Float[Array, "n o"]:
        return jnp.dot(x, self.kernel[...]) + self.bias[...][None, :]


def _every_second(x: Float[Array, "n h w c"], start: int, count: int, axis: int) -> Float[Array, "n h2 w2 c"]:
    return jax.lax.slice_in_dim(x, start, start + 2 * (count - 1) + 1, stride=2, axis=axis)


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """3x3 maximum, stride 2, no padding.

    Written as maxima of strided slices: the gradient of ``reduce_window`` is a scatter, which is slow on CPU.
    """
    for axis in (1, 2):
        count = (x.shape[axis] - 3) // 2 + 1
        first, second, third = (_every_second(x, start, count, axis) for start in range(3))
        x = jnp.maximum(jnp.maximum(first, second), third)
    return x


def average_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """2x2 mean, stride 2, no padding: an odd last row or column is left out."""
    for axis in (1, 2):
        count = x.shape[axis] // 2
        x = (_every_second(x, 0, count, axis) + _every_second(x, 1, count, axis)) * 0.5
    return x


def add_padded(a: Float[Array, "n h1 w1 c1"], b: Float[Array, "n h2 w2 c2"]) -> Float[Array, "n h w c"]:
    """The sum of two maps, each padded with zeros at the end of every axis to the larger of the two sizes."""
    target = tuple(max(m, n) for m, n in zip(a.shape, b.shape, strict=True))
    a, b = (jnp.pad(x, [(0, t - s) for t, s in zip(target, x.shape, strict=True)]) for x in (a, b))
    return a + b
