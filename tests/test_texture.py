import jax
import jax.numpy as jnp
import numpy as np

from ganfit_jax import texture
from ganfit_jax.types import LinearTexture


def _model():
    rng = np.random.default_rng(0)
    return LinearTexture(
        jnp.asarray(rng.uniform(0.2, 0.9, (6, 6, 3)), jnp.float32),
        jnp.asarray(rng.normal(0, 0.2, (4, 6, 6, 3)), jnp.float32),
    )


def test_decode_equals_a_plain_loop_and_is_clipped():
    model, latent = _model(), np.array([0.5, -1.0, 2.0, 0.3], np.float32)
    albedo = np.asarray(texture.decode(model, jnp.asarray(latent)))
    raw = np.asarray(model.mean, np.float64)
    for weight, component in zip(latent, model.basis, strict=True):
        raw = raw + weight * np.asarray(component)
    assert raw.min() < 0 and raw.max() > 1
    np.testing.assert_allclose(albedo, np.clip(raw, 0, 1), atol=1e-6)
    assert albedo.min() >= 0 and albedo.max() <= 1


def test_gradient_passes_the_clip():
    model = _model()
    gradient = jax.grad(lambda p: jnp.sum(texture.decode(model, p)))(jnp.array([9.0, 9.0, 9.0, 9.0]))
    np.testing.assert_allclose(gradient, np.asarray(model.basis).sum((1, 2, 3)), rtol=1e-4)
