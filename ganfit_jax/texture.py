"""The albedo of a person (paper: T(p_t), or G(p_t) with a GAN): one signature for every texture model."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from ganfit_jax.types import GanTexture, LinearTexture


def decode(model: LinearTexture | GanTexture, latent: Float[Array, "n_t"]) -> Float[Array, "s s 3"]:
    """Albedo in sRGB, [0, 1]: ``clip(mean + basis . p_t, 0, 1)``, or of a generator
    ``clip((G(mean + basis . p_t) + 1) / 2, 0, 1)``.

    The gradient passes through the clip as if it were not there, so that a texel that has left the range can return.
    """
    raw = _generated(model, latent) if isinstance(model, GanTexture) else _linear(model, latent)
    return raw + lax.stop_gradient(jnp.clip(raw, 0.0, 1.0) - raw)


def _linear(model: LinearTexture, latent: Float[Array, "n_t"]) -> Float[Array, "s s 3"]:
    # One row a component: on a CPU, XLA is forty times slower with the basis in its own shape.
    return model.mean + jnp.dot(latent, model.basis.reshape(latent.shape[0], -1)).reshape(model.mean.shape)


def _generated(model: GanTexture, latent: Float[Array, "n_t"]) -> Float[Array, "s s 3"]:
    graph: Any = model.spec.graph
    network = nnx.merge(graph, model.weights)
    z = model.mean + jnp.dot(latent, model.basis)
    return 0.5 + 0.5 * network(z[None], model.spec.side, jnp.ones(()))[0]


def latent_size(model: LinearTexture | GanTexture) -> int:
    """Length of the latent that `decode` takes."""
    return model.basis.shape[0]
