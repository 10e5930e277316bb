"""Differentiable augmentation for small corpora (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN
Training"): the discriminator sees real and generated maps through the same random changes, so that it cannot learn the
few real ones by heart, and the generator's gradient passes through them.

The first three channels of an image are its colour in [-1, 1]; further channels (the visibility) are moved and cut with
it but not coloured.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

POLICIES = ("colour", "translation", "cutout")
BRIGHTNESS = 0.5  # shift of all channels, uniform in +-
SATURATION = (0.0, 2.0)  # factor of the colours' distance from grey
CONTRAST = (0.5, 1.5)  # factor of the distance from the image's mean
SHIFT = 1 / 8  # largest translation, sides of the image
HOLE = 1 / 2  # side of what is cut out, sides of the image


def augment(key: Key[Array, ""], images: Float[Array, "n h h c"], policy: tuple[str, ...]) -> Float[Array, "n h h c"]:
    """Applies the operations of `policy`, in order, with numbers drawn for each image from its own part of the key.

    Real and generated batches take the same function with different keys. Linear in the images, so that gradients of
    any order exist. ``ValueError`` on an unknown name; an empty policy changes nothing.
    """
    known = {"colour": colour, "translation": translate, "cutout": cut_out}
    for number, name in enumerate(policy):
        if name not in known:
            raise ValueError(f"augmentation '{name}', expected some of {', '.join(POLICIES)}")
        keys = jax.random.split(jax.random.fold_in(key, number), images.shape[0])
        images = jax.vmap(known[name])(keys, images)
    return images


def colour(key: Key[Array, ""], image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Brightness, then saturation, then contrast, each drawn evenly from its range."""
    shift, saturation, contrast = jax.random.uniform(key, (3,), image.dtype)
    rgb = image[..., :3] + (2.0 * shift - 1.0) * BRIGHTNESS
    grey = rgb.mean(-1, keepdims=True)
    rgb = grey + (rgb - grey) * _between(saturation, SATURATION)
    middle = rgb.mean((0, 1, 2), keepdims=True)
    rgb = middle + (rgb - middle) * _between(contrast, CONTRAST)
    return jnp.concatenate([rgb, image[..., 3:]], axis=-1)


def translate(key: Key[Array, ""], image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Moves the image by whole pixels, evenly up to `SHIFT` of its side each way; zeros move in."""
    height, width = image.shape[:2]
    most = [int(side * SHIFT + 0.5) for side in (height, width)]
    down, right = jax.random.randint(key, (2,), -jnp.asarray(most), jnp.asarray(most) + 1)
    padded = jnp.pad(image, [(most[0], most[0]), (most[1], most[1]), (0, 0)])
    return jax.lax.dynamic_slice(padded, (most[0] - down, most[1] - right, jnp.zeros_like(down)), image.shape)


def cut_out(key: Key[Array, ""], image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Sets a square of `HOLE` of the side to 0; its centre is anywhere in the image, so that it may reach over."""
    height, width = image.shape[:2]
    middle = jax.random.randint(key, (2,), jnp.zeros(2, jnp.int32), jnp.asarray([height, width]))
    inside = jnp.ones((height, width), bool)
    for axis, side in enumerate((height, width)):
        size = int(side * HOLE + 0.5)
        first = middle[axis] - size // 2
        line = jnp.arange(side)
        hit = (line >= first) & (line < first + size)
        inside = inside & (hit[:, None] if axis == 0 else hit[None])
    return jnp.where(inside[..., None], jnp.zeros((), image.dtype), image)


def _between(share: Float[Array, ""], ends: tuple[float, float]) -> Float[Array, ""]:
    return ends[0] + (ends[1] - ends[0]) * share
