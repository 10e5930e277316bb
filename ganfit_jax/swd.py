"""Sliced Wasserstein distance between two sets of maps, level by level of a Laplacian pyramid.

Karras et al., "Progressive Growing of GANs for Improved Quality, Stability, and Variation", ICLR 2018, section 5.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ganfit_jax.pyramid import gaussian, laplacian

SIDE = 7  # of a patch, pixels

AnyArray = Array | np.ndarray

_laplacian = jax.jit(laplacian, static_argnames="levels")
_gaussian = jax.jit(gaussian, static_argnames="levels")


def swd(
    key: PRNGKeyArray,
    real: Float[AnyArray, "n s s 3"],
    fake: Float[AnyArray, "m s s 3"],
    real_weights: Float[AnyArray, "n s s"] | None = None,
    fake_weights: Float[AnyArray, "m s s"] | None = None,
    patches: int = 128,
    directions: int = 512,
    smallest: int = 16,
    seen: float = 0.8,
) -> dict[int, float]:
    """Distance of the patches of two sets at every level, by the level's side in pixels; 0 = alike.

    Reports give it times 1000. The finest level has the side of the maps, the last one (`smallest` pixels or less than
    twice that) is the low-pass image. Every level compares `patches` x max(n, m) patches of 7 x 7 pixels along
    `directions` random directions; the channels of each set are brought to mean 0 and standard deviation 1 first, as
    in the paper, so that contrast as such does not count.

    Maps may be seen in part only. Real and fake maps are paired (the smaller set is used again), and both maps of a
    pair are read at the same places, drawn among those where the mean weight of the patch in the real map, and in the
    fake map if it has weights, is at least `seen`: what differs is never the place. Raises ValueError where no pair
    shows a common patch.
    """
    levels = int(np.log2(real.shape[1] / smallest)) + 1
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    pairs = max(len(real), len(fake))
    first, second = (_deal(generator, len(maps), pairs) for maps in (real, fake))
    bands = [_laplacian(jnp.asarray(maps, jnp.float32), levels=levels) for maps in (real, fake)]
    shown = [_shown(maps, weights, levels) for maps, weights in ((real, real_weights), (fake, fake_weights))]
    found = {}
    for level in range(levels):
        allowed = [np.asarray(shown[0][level])[first] >= seen, np.asarray(shown[1][level])[second] >= seen]
        pair, row, column = _places(generator, allowed[0] & allowed[1], patches)
        sets = [
            normalised(cut(np.asarray(band[level]), which[pair], row, column))
            for band, which in zip(bands, (first, second), strict=True)
        ]
        axes = generator.normal(size=(sets[0].shape[1], directions)).astype(np.float32)
        found[int(bands[0][level].shape[1])] = sliced(sets[0], sets[1], axes / np.linalg.norm(axes, axis=0))
    return found


def sliced(one: Float[np.ndarray, "k d"], other: Float[np.ndarray, "k d"], axes: Float[np.ndarray, "d a"]) -> float:
    """Mean over unit directions of the Wasserstein-1 distance between the projections of two sets of k points."""
    sorted_ = [np.sort(axes.T @ points.T, axis=1) for points in (one, other)]
    return float(np.abs(sorted_[0] - sorted_[1]).mean())


def cut(
    maps: Float[np.ndarray, "n s s 3"],
    which: Int[np.ndarray, "k"],
    row: Int[np.ndarray, "k"],
    column: Int[np.ndarray, "k"],
) -> Float[np.ndarray, "k 7 7 3"]:
    """Patches of the given maps with their top left corners at the given pixels."""
    rows, columns = (place[:, None] + np.arange(SIDE)[None] for place in (row, column))
    return maps[which[:, None, None], rows[:, :, None], columns[:, None]]


def normalised(patches: Float[np.ndarray, "k 7 7 3"]) -> Float[np.ndarray, "k 147"]:
    """Patches as rows, with mean 0 and standard deviation 1 of every channel over the whole set."""
    mean, deviation = patches.mean((0, 1, 2)), patches.std((0, 1, 2))
    return ((patches - mean[None, None, None]) / (deviation[None, None, None] + 1e-8)).reshape(len(patches), -1)


def _deal(generator: np.random.Generator, count: int, pairs: int) -> Int[np.ndarray, "k"]:
    """Numbers below `count` in random order, each about equally often."""
    rounds = -(-pairs // count)
    return np.concatenate([generator.permutation(count) for _ in range(rounds)])[:pairs]


def _shown(
    maps: Float[AnyArray, "n s s 3"], weights: Float[AnyArray, "n s s"] | None, levels: int
) -> list[Float[Array, "n t t"]]:
    """Mean weight of the patch at every top left corner, level by level."""
    whole = jnp.ones(maps.shape[:3]) if weights is None else jnp.asarray(weights, jnp.float32)

    def mean(weight: Float[Array, "n r r 1"]) -> Float[Array, "n t t"]:
        total = jax.lax.reduce_window(weight[..., 0], 0.0, jax.lax.add, (1, SIDE, SIDE), (1, 1, 1), "VALID")
        return total / SIDE**2 + 1e-5

    return [mean(weight) for weight in _gaussian(whole[..., None], levels=levels)]


def _places(
    generator: np.random.Generator, allowed: np.ndarray, patches: int
) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"], Int[np.ndarray, "k"]]:
    """`patches` random places of each pair that has any: number of the pair, row and column."""
    pair, place = [], []
    for number, one in enumerate(allowed.reshape(len(allowed), -1)):
        candidates = np.flatnonzero(one)
        if len(candidates):
            place.append(candidates[generator.integers(len(candidates), size=patches)])
            pair.append(np.full(patches, number))
    if not pair:
        raise ValueError("no map shows a patch of 7 x 7 pixels at a common place, expected weights near 1 somewhere")
    row, column = np.divmod(np.concatenate(place), allowed.shape[2])
    return np.concatenate(pair), row, column
