"""The terms of the energy: one pure function each, scaled to be independent of image size; no weights in here.

The paper is Gecer et al., "GANFIT: Generative Adversarial Network Fitting for High Fidelity 3D Face Reconstruction",
CVPR 2019, arXiv 1902.05978.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganfit_jax.types import Features, Light


def identity(rendered: Features, observed: Features, metric: str = "cosine") -> Float[Array, ""]:
    """Distance between two identity embeddings (paper: L_id = 1 - cos(F^n(I^0), F^n(I^R))).

    ``metric="euclidean"`` gives the squared distance instead, for networks that were trained with a Euclidean margin
    (dlib's). Range: [0, 2] for the cosine, [0, inf) otherwise.
    """
    if metric == "euclidean":
        return jnp.sum((rendered.embedding - observed.embedding) ** 2)
    norms = jnp.linalg.norm(rendered.embedding) * jnp.linalg.norm(observed.embedding)
    return 1.0 - jnp.dot(rendered.embedding, observed.embedding) / (norms + 1e-8)


def content(rendered: Features, observed: Features) -> Float[Array, ""]:
    """Distance between intermediate activations (paper: L_con = sum_j ||F^j(I^0) - F^j(I^R)||_2 / size(F^j)).

    The squared norm is used, relative to the photo's own activation, so that layers of every scale count alike; the
    mean over layers. Range: [0, inf), 0 for equal maps, 1 for a map of zeros.
    """
    pairs = zip(rendered.activations, observed.activations, strict=True)
    return jnp.mean(jnp.stack([jnp.mean((r - o) ** 2) / (jnp.mean(o**2) + 1e-8) for r, o in pairs]))


def pixel(
    rendered: Float[Array, "h w 3"],
    observed: Float[Array, "h w 3"],
    weight: Float[Array, "h w"],
    saturation: float = 0.1,
) -> Float[Array, ""]:
    """Weighted mean of a saturating L1 distance (paper: L_pix = ||I^0 - I^R||_1).

    Every colour difference d counts as ``c (1 - exp(-|d| / c))`` with c = `saturation`: L1 for small ones, bounded for
    occluders. Images in [0, 1]; `weight` >= 0 and constant (no gradient flows into it). Range: [0, saturation).
    """
    weight = jax.lax.stop_gradient(weight)
    # sqrt(x^2 + e) - sqrt(e): L1 with a gradient of 0, not +-1, where the images agree.
    distance = jnp.sqrt((rendered - observed) ** 2 + 1e-6) - 1e-3
    penalty = saturation * (1.0 - jnp.exp(-distance / saturation))
    return jnp.sum(weight * jnp.mean(penalty, axis=-1)) / (jnp.sum(weight) + 1e-6)


def landmark(
    projected: Float[Array, "68 2"],
    observed: Float[Array, "68 2"],
    confidence: Float[Array, "68"],
    size: int,
) -> Float[Array, ""]:
    """Weighted mean squared distance of the 68 points, in squared percents of the image side (paper: L_lan).

    Points in pixels of an image of side `size`; a point of confidence 0 is ignored. Range: [0, inf).
    """
    squared = jnp.sum((100.0 / size * (projected - observed)) ** 2, axis=-1)
    return jnp.sum(confidence * squared) / (jnp.sum(confidence) + 1e-6)


def gaussian_prior(coefficients: Float[Array, "n"]) -> Float[Array, ""]:
    """Sum of squares of standard normal coefficients (paper: Reg on p_s and p_e)."""
    return jnp.sum(coefficients**2)


def latent_prior(latent: Float[Array, "n"], norm: float = 0.0) -> Float[Array, ""]:
    """``(|z| - norm sqrt(n))^2``: the Gaussian prior with norm 0; with norm 1 it keeps the latent at the length that
    nearly all standard normal vectors have, where a generator was trained."""
    if not norm:
        return gaussian_prior(latent)
    return (jnp.sqrt(jnp.sum(latent**2) + 1e-8) - norm * latent.shape[0] ** 0.5) ** 2


def expression_prior(expression: Float[Array, "n_e"], stiffness: Float[Array, "n_e"]) -> Float[Array, ""]:
    """Weighted sum of squares of blendshape weights; `stiffness` marks units that are rarely seen."""
    return jnp.sum(stiffness * expression**2)


def light_prior(light: Light) -> Float[Array, ""]:
    """Keeps light neutral and near unit strength, so that skin colour is left to the texture.

    Squared chroma of ambient and colour (deviation of each channel from the channels' mean), plus the squared
    deviation of a frontal surface's total light, ``ambient + colour / 2``, from 1, plus negative light.
    """
    chroma = jnp.sum((light.ambient - jnp.mean(light.ambient)) ** 2)
    chroma += jnp.sum((light.colour - jnp.mean(light.colour)) ** 2)
    total = jnp.mean(light.ambient) + 0.5 * jnp.mean(light.colour)
    negative = jnp.sum(jax.nn.relu(-light.colour) ** 2) + jnp.sum(jax.nn.relu(0.05 - light.ambient) ** 2)
    return 4.0 * chroma + 0.2 * (total - 1.0) ** 2 + 10.0 * negative
