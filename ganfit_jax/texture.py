"""The albedo of a person (paper: T(p_t), or G(p_t) with a GAN): one signature for every texture model."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from ganfit_jax.types import GanTexture, LinearTexture


def decode(
    model: LinearTexture | GanTexture, latent: Float[Array, "n_t"], detail: bool = True
) -> Float[Array, "s s 3"]:
    """Albedo in sRGB, [0, 1]: ``clip(mean + basis . p_t, 0, 1)``, or of a generator
    ``clip((G(mean + basis . p_t) + 1) / 2, 0, 1)``.

    Without `detail`, a generator that has a linear path draws that path alone, at the path's side: the same tones and
    features in a tenth of the time, without what its networks add.

    The gradient passes through the clip as if it were not there, so that a texel that has left the range can return.
    """
    raw = _generated(model, latent, detail) if isinstance(model, GanTexture) else _linear(model, latent)
    return raw + lax.stop_gradient(jnp.clip(raw, 0.0, 1.0) - raw)


def _linear(model: LinearTexture, latent: Float[Array, "n_t"]) -> Float[Array, "s s 3"]:
    # One row a component: on a CPU, XLA is forty times slower with the basis in its own shape.
    return model.mean + jnp.dot(latent, model.basis.reshape(latent.shape[0], -1)).reshape(model.mean.shape)


def _generated(model: GanTexture, latent: Float[Array, "n_t"], detail: bool) -> Float[Array, "s s 3"]:
    graph: Any = model.spec.graph
    network = nnx.merge(graph, model.weights)
    z = model.mean + jnp.dot(latent, model.basis)
    if network.linear is not None and not detail:
        return 0.5 + 0.5 * network.linear(z[None])[0]
    return 0.5 + 0.5 * network(z[None], model.spec.side, None)[0]


def latent_size(model: LinearTexture | GanTexture) -> int:
    """Length of the latent that `decode` takes."""
    return model.basis.shape[0]
