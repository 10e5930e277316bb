"""How good is a texture model? Sharpness, likeness of reconstructions of people it has not seen, memorising.

Maps are sRGB in [0, 1]; weights in [0, 1] say how well a texel was seen, and what was not seen never counts.
"""

import dataclasses
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from PIL import Image

from ganfit_jax.corpus import LUMA, Maps, linear_basis, with_mirror
from ganfit_jax.pyramid import gaussian, laplacian
from ganfit_jax.texture_data import find_maps, read_map, teachers
from ganfit_jax.types import GanTexture, LinearTexture

WINDOW = 11  # side of SSIM's window, texels
REACH = 9  # side of the square that a texel of a detail band depends on

AnyArray = Array | np.ndarray
Decode = Callable[..., Array]


class Reconstruction(NamedTuple):
    latents: Float[Array, "n d"]
    maps: Float[Array, "n s s 3"]
    losses: Float[Array, "n"]


class Nearest(NamedTuple):
    """The closest map of a set to each sample."""

    which: Int[np.ndarray, "n"]
    mirrored: Bool[np.ndarray, "n"]  # whether it is closest when its left and right are exchanged
    distance: Float[np.ndarray, "n"]


@partial(jax.jit, static_argnames="levels")
def high_frequency_energy(
    maps: Float[AnyArray, "n s s 3"], weights: Float[AnyArray, "n s s"], levels: int = 1
) -> Float[Array, "n"]:
    """Energy of the finest `levels` bands of each map's Laplacian pyramid: mean square over seen texels, summed.

    One band holds, roughly, what is shorter than four texels, two bands what is shorter than eight.
    A texel counts by the lowest weight within the filter's reach, so that borders of what was seen do not count.
    """
    total = jnp.zeros(maps.shape[0])
    bands = laplacian(jnp.asarray(maps), levels + 1)[:-1]
    for band, weight in zip(bands, gaussian(jnp.asarray(weights)[..., None], levels), strict=True):
        sure = -jax.lax.reduce_window(-weight[..., 0], -jnp.inf, jax.lax.max, (1, REACH, REACH), (1, 1, 1), "SAME")
        total += jnp.sum(sure * jnp.mean(band**2, axis=-1), (1, 2)) / (jnp.sum(sure, (1, 2)) + 1e-6)
    return total


@jax.jit
def ssim(
    one: Float[AnyArray, "n s s 3"], other: Float[AnyArray, "n s s 3"], weights: Float[AnyArray, "n s s"]
) -> Float[Array, "n"]:
    """Structural similarity of the luma of each pair of maps (Wang et al., 2004), by dm_pix: Gaussian windows of 11
    texels inside the map, each counted by the mean weight under it. Range: [-1, 1], 1 = equal."""
    luma = jnp.asarray(LUMA)
    grey = [jnp.einsum("nhwc,c->nhw", jnp.asarray(maps), luma)[..., None] for maps in (one, other)]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        similarity = dm_pix.ssim(*grey, filter_size=WINDOW, return_map=True)
    shape = (1, WINDOW, WINDOW)
    seen = jax.lax.reduce_window(jnp.asarray(weights), 0.0, jax.lax.add, shape, (1, 1, 1), "VALID")
    return jnp.sum(seen * jnp.asarray(similarity).reshape(seen.shape), (1, 2)) / (jnp.sum(seen, (1, 2)) + 1e-6)


@jax.jit
def mean_difference(
    one: Float[AnyArray, "n s s 3"], other: Float[AnyArray, "n s s 3"], weights: Float[AnyArray, "n s s"]
) -> Float[Array, "n"]:
    """Weighted mean absolute difference of each pair of maps (L1)."""
    apart = jnp.mean(jnp.abs(jnp.asarray(one) - jnp.asarray(other)), axis=-1)
    return jnp.sum(weights * apart, (1, 2)) / (jnp.sum(jnp.asarray(weights), (1, 2)) + 1e-6)


def explains(
    found: Float[Array, "s s 3"], target: Float[Array, "s s 3"], weight: Float[Array, "s s"], levels: int = 4
) -> Float[Array, ""]:
    """What `reconstruct` minimises: weighted L1 of the colours at half the resolution plus that of the difference's
    detail bands, all but the finest.

    The finest band is left to the model. There, L1 prefers no detail to detail that lies a texel beside its place, so
    that it would measure how well a model can blur.
    """
    weight = weight[..., None]
    sizes, weights = (gaussian(x, levels)[1:] for x in (weight * (found - target), weight))  # unseen: no difference

    def mean(difference: Float[Array, "..."], counted: Float[Array, "..."]) -> Float[Array, ""]:
        return jnp.sum(counted * jnp.sqrt(difference**2 + 1e-8)) / (3.0 * jnp.sum(counted) + 1e-6)

    whole, bands = mean(sizes[0], weights[0]), laplacian(sizes[0], levels - 1)[:-1]
    return whole + sum((mean(band, seen) for band, seen in zip(bands, weights, strict=False)), jnp.zeros(()))


def linearised(decode: Decode, size: int, reach: float = 0.5) -> LinearTexture:
    """Any texture model as a linear one about latent 0: ``T(0)`` and the slopes ``(T(reach e_i) - T(-reach e_i)) / (2
    reach)``. With `best_linear` it gives the first guess of a reconstruction, a step of Gauss and Newton. `decode` as
    in `reconstruct`, its latent of length `size`."""
    slopes = jax.lax.map(lambda z: (decode(z) - decode(-z)) / (2.0 * reach), reach * jnp.eye(size))
    return LinearTexture(decode(jnp.zeros(size)), slopes)


def linear_path(model: GanTexture) -> LinearTexture | None:
    """The linear path inside a generator as a linear model of the same latents, at the path's side; None without one.

    With `best_linear` it gives a closer first guess of a reconstruction than `linearised`: what the networks add near
    latent 0 is not what they add for people far from the average.
    """
    graph: Any = model.spec.graph
    path = nnx.merge(graph, model.weights).linear
    if path is None:
        return None
    latents = model.mean[None] + jnp.concatenate([jnp.zeros_like(model.basis[:1]), model.basis])
    maps = 0.5 + 0.5 * path(latents)
    return LinearTexture(maps[0], maps[1:] - maps[:1])


def reconstruct(
    decode: Decode,
    starts: Float[AnyArray, "r n d"],
    targets: Float[AnyArray, "n s s 3"],
    weights: Float[AnyArray, "n s s"],
    steps: int = 300,
    rate: float = 0.05,
    prior: float = 0.0,
    batch: int = 8,
) -> Reconstruction:
    """Explains maps where they are seen, by any texture model: Adam with a cosine schedule on the latent.

    Args:
      decode: latent [d] -> map [s s 3]. Give a model's arrays by ``jax.tree_util.Partial(texture.decode, model)``:
        arrays in a closure would be compiled in as constants.
      starts: `r` latents to start from for each map; the best result of each map is kept.
      targets, weights: the maps; what is minimised is `explains` plus `prior` times the latent's mean square.
      batch: maps optimised together, which bounds the memory.
    """
    if not isinstance(decode, jax.tree_util.Partial):
        decode = jax.tree_util.Partial(decode)
    parts, count = [], len(targets)
    for first in range(0, count, batch):
        rows = np.minimum(np.arange(first, first + batch), count - 1)  # one shape, one compilation
        begin, target, weight = (jnp.asarray(x, jnp.float32) for x in (starts[:, rows], targets[rows], weights[rows]))
        found = [
            _descend(decode, start, target, weight, jnp.float32(rate), jnp.float32(prior), steps) for start in begin
        ]
        best = jnp.argmin(jnp.stack([one.losses for one in found]), axis=0)
        kept = jax.tree.map(lambda *x, b=best: jnp.stack(x)[b, jnp.arange(len(b))], *found)
        parts.append(kept)
    return jax.tree.map(lambda *x: jnp.concatenate(x)[:count], *parts)


@partial(jax.jit, static_argnames="steps")
def _descend(
    decode: jax.tree_util.Partial,
    latents: Float[Array, "n d"],
    targets: Float[Array, "n s s 3"],
    weights: Float[Array, "n s s"],
    rate: Float[Array, ""],
    prior: Float[Array, ""],
    steps: int,
) -> Reconstruction:
    def misfit(latent: Float[Array, "d"], target: Float[Array, "s s 3"], weight: Float[Array, "s s"]) -> Array:
        return explains(decode(latent), target, weight) + prior * jnp.mean(latent**2)

    adam = optax.scale_by_adam()
    value_and_gradient = jax.vmap(jax.value_and_grad(misfit))

    def step(carry: tuple, number: Int[Array, ""]) -> tuple[tuple, None]:
        latents, state, best, lowest = carry
        losses, gradient = value_and_gradient(latents, targets, weights)
        better = losses < lowest
        best, lowest = jnp.where(better[:, None], latents, best), jnp.minimum(losses, lowest)
        with jax.numpy_dtype_promotion("standard"):
            update, state = adam.update(gradient, state)
        pace = 0.5 * rate * (1.0 + jnp.cos(jnp.pi * number.astype(rate.dtype) / steps))
        return (latents - pace * jnp.asarray(update), state, best, lowest), None

    begin = (latents, adam.init(latents), latents, jnp.full(latents.shape[0], jnp.inf))
    (_, _, best, lowest), _ = jax.lax.scan(step, begin, jnp.arange(steps + 1))
    return Reconstruction(best, jax.vmap(decode)(best), lowest)


@jax.jit
def best_linear(
    model: LinearTexture,
    targets: Float[AnyArray, "n s s 3"],
    weights: Float[AnyArray, "n s s"],
    ridge: float | Float[AnyArray, ""] = 1e-4,
) -> Float[Array, "n d"]:
    """The linear model's latents in closed form: weighted least squares with a penalty on the latent.

    Minimises ``mean(w (mean + basis . z - target)^2) + ridge * mean(z^2)``, colours not clipped.
    """
    basis = model.basis.reshape(model.basis.shape[0], -1)
    count = basis.shape[0]
    ridge = jnp.asarray(ridge, basis.dtype) / count

    def solve(pair: tuple[Float[Array, "s s 3"], Float[Array, "s s"]]) -> Float[Array, "d"]:
        target, weight = pair
        trust = jnp.broadcast_to(weight[..., None], target.shape).reshape(1, -1) / (3.0 * jnp.sum(weight) + 1e-6)
        weighted = basis * trust
        gram = jnp.matmul(weighted, basis.T, precision=jax.lax.Precision.HIGHEST) + ridge * jnp.eye(count)
        return jnp.linalg.solve(gram, weighted @ (target - model.mean).reshape(-1))

    return jax.lax.map(solve, (jnp.asarray(targets), jnp.asarray(weights)))


def nearest(
    samples: Float[AnyArray, "n s s 3"],
    maps: Float[AnyArray, "m s s 3"],
    weights: Float[AnyArray, "m s s"],
    sample_weights: Float[AnyArray, "n s s"] | None = None,
) -> Nearest:
    """Which map each sample is closest to, mirror images included; a generator that memorises is close to one.

    Distance: root of ``2 - 2 r`` with the weighted correlation r of both maps, each channel less its mean: the root
    mean squared difference of maps of equal tone and contrast, so that these do not decide. Range: [0, 2]. The weight
    of a texel is the product of both weights.
    """
    count = len(samples)
    ones = np.ones(np.shape(samples)[:3]) if sample_weights is None else np.asarray(sample_weights)
    ours, own = np.asarray(samples, np.float32), np.asarray(ones, np.float32)
    distances = []
    for flip in (1, -1):
        theirs, other = np.asarray(maps, np.float32)[:, :, ::flip], np.asarray(weights, np.float32)[:, :, ::flip]
        mine, yours = own.reshape(count, -1), other.reshape(len(maps), -1)
        total = mine @ yours.T + 1e-6
        together, variances = np.zeros_like(total), [np.zeros_like(total), np.zeros_like(total)]
        for channel in range(3):
            a, b = ours[..., channel].reshape(count, -1), theirs[..., channel].reshape(len(maps), -1)
            means = (mine * a) @ yours.T / total, mine @ (yours * b).T / total
            squares = (mine * a**2) @ yours.T / total, mine @ (yours * b**2).T / total
            together += (mine * a) @ (yours * b).T / total - means[0] * means[1]
            variances = [v + s - m**2 for v, s, m in zip(variances, squares, means, strict=True)]
        correlation = together / np.sqrt(np.maximum(variances[0] * variances[1], 1e-12))
        distances.append(np.sqrt(np.clip(2.0 - 2.0 * correlation, 0.0, 4.0)))
    index = np.minimum(*distances).argmin(1)
    plain, turned = (d[np.arange(count), index] for d in distances)
    return Nearest(index, turned < plain, np.minimum(plain, turned))


def split(folder: Path, held_out: Collection[str], side: int) -> tuple[Maps, Maps]:
    """The maps of a folder (`texture_data.find_maps`) at `side` texels: those named in `held_out`, and all others.

    Left out of both are maps with less than 90 % of that detail, and variations of other maps (``varied_*``). Raises
    ValueError where nothing is left of either.
    """
    files = [file for file in teachers(find_maps([folder]), side) if file.kind != "varied"]
    groups = [f for f in files if f.path.stem in held_out], [f for f in files if f.path.stem not in held_out]
    for group, what in zip(groups, ("that are held out", "to build models from"), strict=True):
        if not group:
            raise ValueError(f"{folder}: found no maps of {side} texels {what}, expected some ({len(files)} in all)")
    held, train = (np.stack([np.float32(read_map(file, side)) for file in group]) for group in groups)
    names = [tuple(file.path.stem for file in group) for group in groups]
    return Maps(names[0], held[..., :3], held[..., 3]), Maps(names[1], train[..., :3], train[..., 3])


def first_axes(model: LinearTexture | GanTexture, count: int) -> LinearTexture | GanTexture:
    """The model with only the first `count` of its latents."""
    if isinstance(model, GanTexture):
        return dataclasses.replace(model, basis=model.basis[:count])
    return model._replace(basis=model.basis[:count])


def shrink(maps: Maps, side: int) -> Maps:
    """Maps and weights at `side` texels, by averaging; raises ValueError where the maps are smaller."""
    found = maps.albedo.shape[1]
    if found < side:
        raise ValueError(f"maps of {found} texels, expected at least {side}")

    def smaller(plane: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "t t"]:
        return np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BOX))

    albedo = np.stack([np.stack([smaller(one[..., c]) for c in range(3)], -1) for one in maps.albedo])
    return Maps(maps.names, albedo, np.stack([smaller(one) for one in maps.weight]))


def linear_model(maps: Maps, components: int) -> LinearTexture:
    """The linear model of maps and their mirror images; it has at most one component less than these."""
    mean, basis, _ = linear_basis(*with_mirror(maps), components)
    return LinearTexture(jnp.asarray(mean, jnp.float32), jnp.asarray(basis, jnp.float32))


def thousandths(distances: dict[int, float]) -> dict[str, float]:
    """Distances as reports give them: times 1000, with text for keys."""
    return {str(side): round(1000.0 * distance, 2) for side, distance in distances.items()}
