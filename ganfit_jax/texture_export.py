"""A trained texture GAN -> the texture model of a fit (`assets.load_texture`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from ganfit_jax import assets, gan, texture_data
from ganfit_jax.corpus import small_basis, write_npz
from ganfit_jax.generator import channels
from ganfit_jax.samples import encoded, painted
from ganfit_jax.texture_data import MapFile
from ganfit_jax.training import Training
from ganfit_jax.types import GanTexture


def latents_of(
    graphs: gan.Networks, state: gan.GanState, training: Training, files: Sequence[MapFile], count: int = 1024
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "k d"]]:
    """Mean and principal axes (one standard deviation each) of the latents of the run's maps, as the encoder finds
    them: a fit then begins at an average map and walks in standard deviations of people. A linear path's codes come
    from maps of its own side, of which there are more than of the finished one.

    Without an encoder: of 256 random latents the one whose map is nearest to the mean map, and the latent's own axes.
    """
    settings, side = training.settings(), min(training.side, training.linear or training.side)
    if state.weights.encoder is None:
        drawn = jax.random.normal(jax.random.key(training.seed + 3), (256, training.latent))
        mean = texture_data.mean_map(texture_data.teachers(files, side), side)
        found = [painted(graphs.generator, state.average, part, side, jnp.ones(())) for part in jnp.split(drawn, 16)]
        errors = np.abs(np.concatenate(found) - mean[None]).mean((1, 2, 3))
        return np.asarray(drawn[int(errors.argmin())]), np.eye(training.latent, dtype=np.float32)
    stream = texture_data.batches(files, side, 16, training.seed, 0, training.mirror, training.pigments)
    found = []
    for _ in range(count // 16):
        batch = gan.Batch(**next(stream))
        maps = gan.seen(2.0 * jnp.asarray(batch.albedo) - 1.0, jnp.asarray(batch.weight))
        code = encoded(graphs.encoder, state.weights.encoder, maps, training.encoder, jnp.ones(()), gan.dtype(settings))
        found.append(np.asarray(code))
    codes = np.concatenate(found)
    mean = codes.mean(0)
    _, sizes, axes = np.linalg.svd(codes - mean[None], full_matrices=False)
    return mean, np.asarray(axes * sizes[:, None] / len(codes) ** 0.5, np.float32)


def export(
    path: Path,
    graphs: gan.Networks,
    state: gan.GanState,
    training: Training,
    files: Sequence[MapFile],
    licence: str = "unknown",
    begin: Path | None = None,
) -> None:
    """Writes the averaged generator as a texture model (`assets.load_texture`), float16; the basis of a linear path as
    `corpus.small_basis` makes it. Where the run kept the linear path of the texture model `begin`, latents keep that
    model's mean and axes: they were found on its maps, which may be more than the run's."""
    model = assets.load_texture(begin)[0] if begin is not None and not begin.is_dir() and training.linear else None
    if isinstance(model, GanTexture) and model.mean.size == training.latent:
        mean, basis = np.asarray(model.mean), np.asarray(model.basis)
    else:
        mean, basis = latents_of(graphs, state, training, files)
    widths = channels(training.side, training.base, training.widest, training.narrowest)
    arrays: dict[str, Any] = {"name": "generator", "licence": licence, "widths": np.asarray(widths, np.int32)}
    arrays |= {"latent_mean": np.float16(mean), "latent_basis": np.float16(basis)}
    for keys, leaf in nnx.to_flat_state(state.average):
        name = "generator." + ".".join(map(str, keys))
        if name == "generator.linear.basis":
            small = small_basis(np.asarray(leaf[...], np.float32))
            arrays |= {f"generator.linear.{key}": value for key, value in small.items()}
        else:
            arrays[name] = np.float16(leaf[...])
    write_npz(path, {name: np.asarray(value) for name, value in arrays.items()})
