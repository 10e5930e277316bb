"""Looks into a training run of the texture GAN: painted maps, codes, sheets of samples, distances to held-out maps."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ganfit_jax import gan, picture, swd, texture_data
from ganfit_jax.texture_data import MapFile

if TYPE_CHECKING:
    from ganfit_jax.training import Place, Training

LEAST = 96  # samples that distances are measured with

encoded = jax.jit(gan.encode, static_argnames=("graph", "side", "kind"))


@partial(jax.jit, static_argnames=("graph", "side"))
def painted(graph: Any, weights: Any, latents: Float[Array, "n d"], side: int, alpha: Float[Array, ""]) -> Array:
    """Maps [n, side, side, 3], sRGB in [0, 1]."""
    return jnp.clip(0.5 + 0.5 * gan.generate(graph, weights, latents, side, alpha), 0.0, 1.0)


def drawn(
    graphs: gan.Networks,
    state: gan.GanState,
    training: "Training",
    files: Sequence[MapFile],
    where: "Place",
    count: int,
) -> Float[Array, "count d"]:
    """Always the same random latents, as the training draws them: normal, or mixtures of the codes of 64 maps."""
    key = jax.random.key(training.seed + 1)
    if state.weights.encoder is None:
        return jax.random.normal(key, (count, training.latent))
    maps = jnp.stack([jnp.asarray(texture_data.read_map(file, where.side), jnp.float32) for file in files[:64]])
    images = gan.seen(2.0 * maps[..., :3] - 1.0, maps[..., 3])
    kind, alpha = gan.dtype(training.settings()), jnp.float32(where.alpha)
    return gan.mixtures(
        key, encoded(graphs.encoder, state.weights.encoder, images, training.encoder, alpha, kind), count
    )


def sheet(
    graphs: gan.Networks, state: gan.GanState, training: "Training", files: Sequence[MapFile], where: "Place"
) -> np.ndarray:
    """Samples of the averaged generator, always the same latents; below them three of them through the fade."""
    latents = drawn(graphs, state, training, texture_data.teachers(files, where.side), where, 18)
    samples = painted(graphs.generator, state.average, latents, where.side, jnp.float32(where.alpha))
    fades = [painted(graphs.generator, state.average, latents[:3], where.side, jnp.float32(a / 5)) for a in range(6)]
    rows = [*np.asarray(samples), *(np.asarray(f[n]) for n in range(3) for f in fades)]
    return picture.contact_sheet([picture.resize(x, 128, 128) for x in rows], 6)


def distances(
    graphs: gan.Networks,
    state: gan.GanState,
    training: "Training",
    files: Sequence[MapFile],
    held_out: Sequence[MapFile],
    where: "Place",
) -> dict[str, float]:
    """Sliced Wasserstein distances of samples, `LEAST` or twice as many as maps, to held-out maps, by level of the
    pyramid."""
    chosen = texture_data.teachers(held_out, where.side)[:64]
    maps = np.stack([np.float32(texture_data.read_map(file, where.side)) for file in chosen])
    count = max(2 * len(maps), LEAST)
    latents = drawn(graphs, state, training, texture_data.teachers(files, where.side), where, count)
    parts, alpha = jnp.array_split(latents, -(-count // 32)), jnp.float32(where.alpha)
    fake = np.concatenate([painted(graphs.generator, state.average, part, where.side, alpha) for part in parts])
    found = swd.swd(jax.random.key(0), maps[..., :3], fake, maps[..., 3])
    return {f"swd/{side}": float(value) for side, value in found.items()}
