"""The progressive GAN of textures (paper: G): generator, discriminator and encoder, 4 x 4 to any power of two.

Karras et al., Progressive Growing of GANs, ICLR 2018, arXiv 1710.10196, appendix A: equalised learning rate, pixel
norm, leaky ReLU with slope 0.2, minibatch standard deviation, fade-in by alpha. Images are NHWC; colours are in
[-1, 1] (0 = mid-grey), not clipped. Every network takes any side up to its own and any alpha with one set of weights.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from ganfit_jax.errors import InputError
from ganfit_jax.pyramid import down, up
from ganfit_jax.recognition.layers import convolve

SLOPE = 0.2
AROUND = 9  # side of the neighbourhood that bounds fine detail, pixels


def channels(side: int, base: int, widest: int, narrowest: int = 1) -> tuple[int, ...]:
    """Channels of the levels 4, 8, ... `side`: ``min(widest, base / level)``, at least `narrowest`. Paper size: base
    8192, widest 512."""
    if side < 4 or side & (side - 1):
        raise InputError(f"side {side}: expected a power of two of at least 4")
    return tuple(min(widest, max(1, narrowest, base // (4 << level))) for level in range(levels(side)))


def levels(side: int) -> int:
    """Number of levels of a network: 4 x 4 is one, 8 x 8 is two."""
    return side.bit_length() - 2


def leaky(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """``x`` where positive, ``0.2 x`` elsewhere."""
    return jnp.where(x > 0, x, SLOPE * x)


def pixel_norm(x: Float[Array, "*s c"]) -> Float[Array, "*s c"]:
    """``x / sqrt(mean over channels of x^2 + 1e-8)``."""
    mean = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(mean + 1e-8).astype(x.dtype)


def enlarge(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """Every pixel becomes 2 x 2."""
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)


def shrink(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """The mean of every 2 x 2 pixels."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def resized(maps: Float[Array, "n s s c"], side: int) -> Float[Array, "n h h c"]:
    """Maps of another side (a power of two, as theirs): means of the texels, or bilinear between them."""
    while maps.shape[1] > side:
        maps = shrink(maps)
    n, now, _, c = maps.shape
    return maps if now == side else jax.image.resize(maps, (n, side, side, c), "linear")


def fine(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """What is finer than about eight pixels: all but the third level of a Gaussian pyramid; below 16 x 16, all."""
    return x - up(up(down(down(x)))) if x.shape[1] >= 16 else x


def bounded(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """``s tanh(x / s)`` with s the root of the mean square over the `AROUND` x `AROUND` pixels around each and over the
    channels (0 beyond the border): nothing stands out of its neighbourhood by more, which specks do and skin does not.
    Below 16 x 16, x."""
    if x.shape[1] < 16:
        return x
    square = jnp.mean(x * x, axis=-1, keepdims=True) / AROUND**2
    for window in ((1, AROUND, 1, 1), (1, 1, AROUND, 1)):
        square = jax.lax.reduce_window(square, 0.0, jax.lax.add, window, (1, 1, 1, 1), "SAME")
    scale = jnp.sqrt(square + 1e-8)
    return scale * jnp.tanh(x / scale)


def mix(old: Float[Array, "*s"], new: Float[Array, "*s"], alpha: Float[Array, ""]) -> Float[Array, "*s"]:
    """``old`` at alpha 0, ``new`` at 1; exactly so."""
    alpha = alpha.astype(new.dtype)
    return (1 - alpha) * old + alpha * new


def deviation(x: Float[Array, "n h w c"], group: int = 4) -> Float[Array, "n h w c1"]:
    """Minibatch standard deviation: one more channel, the standard deviation over groups of images, averaged over all
    pixels and channels. Groups hold the images i, i + n/group, ...; a batch not divisible is one group."""
    n, h, w, c = x.shape
    group = group if n % group == 0 else n
    y = x.astype(jnp.float32).reshape(group, n // group, h, w, c)
    spread = jnp.sqrt(jnp.mean(jnp.square(y - y.mean(0, keepdims=True)), axis=0) + 1e-8).mean((1, 2, 3))
    spread = jnp.broadcast_to(jnp.tile(spread, group)[:, None, None, None], (n, h, w, 1))
    return jnp.concatenate([x, spread.astype(x.dtype)], axis=-1)


class Scaled(nnx.Module):
    """A convolution (`side` 3 or 1, zero padding) or, with `side` 0, a dense layer, with equalised learning rate:
    standard normal weights, multiplied by ``gain / sqrt(inputs x side^2)`` whenever they act."""

    def __init__(self, inputs: int, outputs: int, side: int, rngs: nnx.Rngs, gain: float = 2**0.5):
        shape = (side, side, inputs, outputs) if side else (inputs, outputs)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))
        self.side, self.scale = side, gain / (inputs * max(side, 1) ** 2) ** 0.5

    def __call__(self, x: Float[Array, "n ... i"], twice: bool = False) -> Float[Array, "n ... o"]:
        """`twice` = the result's gradient will be differentiated once more (the gradient penalty)."""
        kernel = (self.kernel[...] * self.scale).astype(x.dtype)
        if self.side == 3:
            y: Any = plain_convolution(x, kernel) if twice else convolve(x, kernel, 1, 1)
        else:
            y = jnp.dot(x, kernel.reshape(kernel.shape[-2:]))
        return y + self.bias[...].astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def plain_convolution(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h w o"]:
    """The same as `layers.convolve` with stride 1 and padding 1; XLA differentiates it any number of times."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=numbers)


class Pair(nnx.Module):
    """The two convolutions of a level."""

    def __init__(self, inputs: int, middle: int, outputs: int, rngs: nnx.Rngs):
        self.first, self.second = Scaled(inputs, middle, 3, rngs), Scaled(middle, outputs, 3, rngs)


class Linear(nnx.Module):
    """A linear model of maps, ``mean + latent . basis``, colours in [-1, 1]; fixed while networks train."""

    def __init__(self, latent: int, side: int):
        self.mean = nnx.Param(jnp.zeros((side, side, 3), jnp.float32))
        self.basis = nnx.Param(jnp.zeros((latent, side, side, 3), jnp.float32))

    def __call__(self, latent: Float[Array, "n d"]) -> Float[Array, "n s s 3"]:
        """The model's own maps; `resized` gives them any side."""
        mean, basis = jax.lax.stop_gradient((self.mean[...], self.basis[...]))
        flat = jnp.dot(latent, basis.reshape(basis.shape[0], -1))
        return (mean.reshape(1, -1) + flat).reshape(-1, *mean.shape)

    def codes(self, images: Float[Array, "n s s 4"], noise: float = 0.1) -> Float[Array, "n d"]:
        """The most probable latents of partly seen maps (``(visibility x colour, visibility)``, of the model's side),
        standard normal beforehand, texels with independent errors of deviation `noise`: probabilistic PCA."""
        mean, basis = jax.lax.stop_gradient((self.mean[...], self.basis[...]))
        flat = basis.reshape(basis.shape[0], -1)
        # Accelerators would round the products to ten bits, far above the noise.
        exact = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
        weight = jnp.repeat(images[..., 3:], 3, axis=-1)
        delta = (images[..., :3] - weight * mean[None]).reshape(images.shape[0], -1)

        def solve(delta: Float[Array, "t"], weight: Float[Array, "t"]) -> Float[Array, "d"]:
            normal = exact(flat * weight[None], flat.T) + noise**2 * jnp.eye(flat.shape[0])
            return jnp.linalg.solve(normal, exact(flat, delta))

        return jax.vmap(solve)(delta, weight.reshape(images.shape[0], -1))


class Generator(nnx.Module):
    """Latent -> image. The latent is normalised first, so that only its direction matters.

    With a linear path of side `linear` > 0, the networks' colours are added to a linear model's, which takes the latent
    as it is. The linear model gives tone and features; of the networks' colours counts only what is finer than about
    eight texels (from 16 x 16 on), so that a critic that still errs cannot pull tones away, and it is `bounded`. Every
    block sees the linear model's map and its fine part, eight times as strong: to sharpen what lies there is learned
    far sooner than to draw it anew. Where few of the training's maps are seen, nothing tells the networks what to draw:
    `taught`, in [0, 1] and fixed like the linear model, multiplies the fine part of their colours at each texel.
    """

    def __init__(self, latent: int, widths: Sequence[int], rngs: nnx.Rngs, colours: int = 3, linear: int = 0):
        self.widths = tuple(widths)
        self.linear = Linear(latent, linear) if linear else None
        if linear:
            self.taught = nnx.Param(jnp.ones((linear, linear, 1), jnp.float32))
        self.dense = Scaled(latent, 16 * widths[0], 0, rngs, gain=2**0.5 / 4)
        self.first = Scaled(widths[0], widths[0], 3, rngs)
        more = 2 * colours if linear else 0
        self.blocks = nnx.List([Pair(narrow + more, wide, wide, rngs) for narrow, wide in pairwise(widths)])
        self.colours = nnx.List([Scaled(width, colours, 1, rngs, gain=1.0) for width in widths])
        if linear:  # begin with the linear model alone
            for layer in self.colours:
                layer.kernel[...] = jnp.zeros_like(layer.kernel[...])

    def __call__(
        self, latent: Float[Array, "n d"], side: int, alpha: Float[Array, ""] | None, dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "n s s c"]:
        """Images of `side`; alpha < 1 mixes in the enlarged image of the level below (None = 1, and that image is not
        computed). Computed in `dtype`."""
        # Once for all levels: so that their slopes are summed before they meet the large basis.
        path = None if self.linear is None else self.linear(latent)
        x = pixel_norm(latent).astype(dtype)
        x = pixel_norm(leaky(self.dense(x).reshape(-1, 4, 4, self.widths[0])))
        x = pixel_norm(leaky(self.first(x)))
        before = x
        for level, block in enumerate(self.blocks[: levels(side) - 1], start=1):
            before, x = x, enlarge(x)
            if path is not None:
                maps = resized(path, 4 << level)
                x = jnp.concatenate([x, maps.astype(dtype), (8.0 * fine(maps)).astype(dtype)], axis=-1)
            x = pixel_norm(leaky(block.first(x)))
            x = pixel_norm(leaky(block.second(x)))
        image = self.coloured(x, path, side)
        if side > 4 and alpha is not None:
            image = mix(enlarge(self.coloured(before, path, side // 2)), image, alpha)
        return image

    def coloured(
        self, x: Float[Array, "n s s w"], path: Float[Array, "n p p c"] | None, side: int
    ) -> Float[Array, "n s s c"]:
        """The colours of a level's features; `path` is the linear path's map."""
        image = self.colours[levels(side) - 1](x).astype(jnp.float32)
        if path is None:
            return image
        taught = jax.lax.stop_gradient(self.taught[...])
        return resized(path, side) + resized(taught[None], side) * bounded(fine(image))


class Discriminator(nnx.Module):
    """Image -> `outputs` numbers; the mirror image of the generator. With one output it is the critic D of the GAN,
    which compares the images of a minibatch; otherwise the encoder, which looks at each alone and gives numbers of mean
    square 1.

    With `local`, every level's features are scored place by place as well (Isola et al. 2017, arXiv 1611.07004), and
    the sums of these scores, over the root of the number of places, added; and the colours' finest band, four times as
    strong, is looked at besides the colours: fine detail is learned far sooner.
    """

    def __init__(self, inputs: int, widths: Sequence[int], rngs: nnx.Rngs, outputs: int = 1, local: bool = False):
        self.compares = outputs == 1
        inputs += 3 * local
        self.colours = nnx.List([Scaled(inputs, width, 1, rngs) for width in widths])
        self.blocks = nnx.List([Pair(wide, wide, narrow, rngs) for narrow, wide in pairwise(widths)])
        self.last = Scaled(widths[0] + self.compares, widths[0], 3, rngs)
        hidden = widths[0] if self.compares else outputs  # the encoder must not squeeze people through few numbers
        self.dense = Scaled(16 * widths[0], hidden, 0, rngs)
        self.head = Scaled(hidden, outputs, 0, rngs, gain=1.0)
        self.local = nnx.List([Scaled(wide, 1, 1, rngs, gain=1.0) for wide in widths[1:]]) if local else None
        for layer in self.local or ():  # slopes then grow where they tell real from painted, none has to be unlearned
            layer.kernel[...] = jnp.zeros_like(layer.kernel[...])

    def __call__(
        self, images: Float[Array, "n s s c"], alpha: Float[Array, ""], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "n o"]:
        """alpha < 1 mixes in, behind the first level, what the level below makes of the shrunken image."""
        top, images = levels(images.shape[1]) - 1, images.astype(dtype)
        x, places = leaky(self.colours[top](self.banded(images))), jnp.zeros(())
        for level in range(top, 0, -1):
            block = self.blocks[level - 1]
            x = leaky(block.first(x, twice=self.compares))
            if self.local is not None:
                scores = self.local[level - 1](x).astype(jnp.float32).sum((1, 2)) / (4.0 * 2**level)
                places = places + (alpha if level == top else 1.0) * scores
            x = shrink(leaky(block.second(x, twice=self.compares)))
            if level == top:
                x = mix(leaky(self.colours[level - 1](self.banded(shrink(images)))), x, alpha)
        x = deviation(x) if self.compares else x
        x = leaky(self.last(x, twice=self.compares))
        x = leaky(self.dense(x.reshape(x.shape[0], -1)))
        x = self.head(x).astype(jnp.float32) + places
        return x if self.compares else pixel_norm(x)

    def banded(self, images: Float[Array, "n s s c"]) -> Float[Array, "n s s d"]:
        """Images, with `local` followed by the finest band of their first three channels, times 4."""
        if self.local is None:
            return images
        colours = images[..., :3]
        band = colours - enlarge(shrink(colours)) if images.shape[1] > 4 else jnp.zeros_like(colours)
        return jnp.concatenate([images, 4.0 * band], axis=-1)


class Projection(nnx.Module):
    """An encoder without networks: the latents of the generator's linear path that explain a map best."""

    def __init__(self, latent: int, side: int):
        self.linear = Linear(latent, side)

    def __call__(
        self, images: Float[Array, "n s s 4"], alpha: Float[Array, ""], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "n d"]:
        """Maps of another side than the model's are enlarged or shrunk; `alpha` and `dtype` play no part."""
        side = self.linear.mean[...].shape[0]
        while images.shape[1] != side:
            images = enlarge(images) if images.shape[1] < side else shrink(images)
        return self.linear.codes(images)
