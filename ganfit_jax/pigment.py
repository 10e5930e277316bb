"""Skin of another tone: more or less melanin and haemoglobin in an albedo map.

Pigments absorb: in linear RGB the optical density of skin, ``-log(linear)``, is a sum over its pigments of amount times
absorption (Tsumura et al. 1999, 2003: independent components of skin colour). So a change of tone is a shift of the
density along two fixed axes, and pores, freckles, brows and baked light keep their contrast.

The axes are unit vectors measured on our own maps, in red, green and blue:

* `MELANIN` is the first principal component of the cheeks' densities over people, (0.42, 0.58, 0.70) in 354 portraits
  and (0.41, 0.59, 0.69) in 20 painted skins. Eumelanin alone absorbs as wavelength^-3.3 (Krishnaswamy and Baranoski
  2004), which is steeper towards the blue; light that never enters the skin flattens it.
* `HAEMOGLOBIN` is how lips and nose differ from the cheeks of the same painted skin, (0.28, 0.72, 0.63) and
  (0.19, 0.74, 0.64); blood absorbs green and blue and lets red pass.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.ndimage import grey_closing

from ganfit_jax import assets, morphable, unwrap

MELANIN = np.array([0.42, 0.58, 0.70], np.float32) / np.float32(np.linalg.norm([0.42, 0.58, 0.70]))
HAEMOGLOBIN = np.array([0.24, 0.73, 0.64], np.float32) / np.float32(np.linalg.norm([0.24, 0.73, 0.64]))
LIPS = 0.8  # share of a change of melanin that reaches the lips: measured between light and dark people's
LEVELS = (1.5, 5.2)  # density of the skin along MELANIN, from the lightest to the darkest people's
LIGHTEN, DARKEN = 0.6, 3.2  # largest changes of that density; more would show the photo's noise, or drown detail
FLUSH = 0.1  # standard deviation of the change of haemoglobin
DARKEST = 1e-3  # linear; keeps the logarithm finite


def to_linear(srgb: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The sRGB curve (IEC 61966-2-1) undone; both sides in [0, 1]."""
    values = np.clip(np.asarray(srgb, np.float32), 0.0, 1.0)
    # exp and log are several times as fast as powers.
    return np.where(values <= 0.04045, values / 12.92, np.exp(2.4 * np.log((values + 0.055) / 1.055)))


def to_srgb(linear: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The sRGB curve; both sides in [0, 1]."""
    values = np.clip(np.asarray(linear, np.float32), 0.0, 1.0)
    bent = 1.055 * np.exp(np.log(np.maximum(values, 1e-6)) / 2.4) - 0.055
    return np.where(values <= 0.0031308, 12.92 * values, bent)


def vary(
    albedo: Float[np.ndarray, "*n 3"],
    melanin: float | Float[np.ndarray, "*n"],
    haemoglobin: float | Float[np.ndarray, "*n"],
) -> Float[np.ndarray, "*n 3"]:
    """``-log(linear) + melanin * MELANIN + haemoglobin * HAEMOGLOBIN`` of an sRGB albedo, back in sRGB, [0, 1].

    The amounts are optical densities, of one number or one a texel; negative ones take pigment away. From the lightest
    to the darkest skin are about 4 of melanin; cheeks and lips differ by about 0.8 of haemoglobin.
    """
    melanin, haemoglobin = (np.asarray(x, np.float32)[..., None] for x in (melanin, haemoglobin))
    density = -np.log(np.maximum(to_linear(albedo), DARKEST))
    return to_srgb(np.exp(-(density + melanin * MELANIN + haemoglobin * HAEMOGLOBIN)))


def level(albedo: Float[np.ndarray, "s s 3"], skin: Float[np.ndarray, "s s"]) -> float:
    """How dark a map's skin is: the median over texels with `skin` > 0.5 of their density along `MELANIN`."""
    chosen = albedo[skin > 0.5]
    if not len(chosen):
        return float(np.mean(LEVELS))
    return float(np.median(-np.log(np.maximum(to_linear(chosen), DARKEST)) @ MELANIN))


def retone(
    rng: np.random.Generator,
    albedo: Float[np.ndarray, "s s 3"],
    weight: Float[np.ndarray, "s s"],
    skin: Float[np.ndarray, "s s"],
) -> Float[np.ndarray, "s s 3"]:
    """The map with a tone drawn evenly from those of all people, as near to it as `LIGHTEN` and `DARKEN` allow.

    `weight`: visibility, `skin`: from `skin_texels`. A corpus of mostly light people becomes one of all tones.
    """
    wanted = rng.uniform(*LEVELS)
    change = float(np.clip(wanted - level(albedo, weight * skin), -LIGHTEN, DARKEN))
    return vary(albedo, change * skin, float(rng.normal(0.0, FLUSH)) * skin)


@functools.lru_cache(8)
def skin_texels(size: int) -> Float[np.ndarray, "s s"]:
    """How much of a change of pigment each texel of the canonical chart takes: skin and its hair 1, lips `LIPS`, eyes
    and the inside of the mouth 0. `size` is a power of two."""
    model, _ = assets.load_shape()
    fine = max(size, 256)
    texels = jax.jit(unwrap.texel_map, static_argnames="size")(model, size=fine)
    patches = (model.regions.eyes + model.regions.mouth)[:, None]
    inside = grey_closing(
        np.asarray(unwrap.at_texels(texels, model.faces, patches))[..., 0], fine // 32
    )  # the gum's rim
    points = np.asarray(unwrap.at_texels(texels, model.faces, model.mean))
    outline = np.asarray(morphable.landmarks(model, model.mean, jnp.zeros(3)))[48:60]
    lips = _inside(points[..., :2], outline[:, :2]) * (points[..., 2] > 0)
    skin = np.clip(1.0 - inside, 0.0, 1.0) * (1.0 - (1.0 - LIPS) * lips)
    return skin.reshape(size, fine // size, size, fine // size).mean((1, 3)).astype(np.float32)


def _inside(points: Float[np.ndarray, "s s 2"], polygon: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "s s"]:
    """1 for points inside a polygon: a ray to the right crosses its sides an odd number of times."""
    x, y = points[..., 0, None], points[..., 1, None]
    (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, axis=0).T
    rise = np.where(y1 == y0, 1.0, y1 - y0)
    crossed = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) / rise * (x1 - x0))
    return (crossed.sum(-1) % 2).astype(np.float32)
