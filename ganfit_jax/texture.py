"""The albedo of a person (paper: T(p_t)): one signature for every texture model."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ganfit_jax.types import LinearTexture


def decode(model: LinearTexture, latent: Float[Array, "n_t"]) -> Float[Array, "s s 3"]:
    """Albedo in sRGB, [0, 1]: ``clip(mean + basis . p_t, 0, 1)``.

    The gradient passes through the clip as if it were not there, so that a texel that has left the range can return.
    """
    # One row a component: on a CPU, XLA is forty times slower with the basis in its own shape.
    raw = model.mean + jnp.dot(latent, model.basis.reshape(latent.shape[0], -1)).reshape(model.mean.shape)
    return raw + lax.stop_gradient(jnp.clip(raw, 0.0, 1.0) - raw)


def latent_size(model: LinearTexture) -> int:
    """Length of the latent that `decode` takes."""
    return model.basis.shape[0]
