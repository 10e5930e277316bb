import gc
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# GPUs round the factors of products to ten bits by default; equations are checked as they are written.
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(scope="module", autouse=True)
def programs_end_with_their_module():
    """Every compiled program holds memory maps, of which Linux grants a process 65,530; past that it crashes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True)
def no_cache_outside(monkeypatch):
    """Commands that run inside the tests' process leave the user's cache of compiled programs alone."""
    monkeypatch.setattr("ganfit_jax.__main__.cache_compilations", lambda: None)


@pytest.fixture(scope="session")
def shared():
    """The optional folder with development data; tests that need it skip where it is absent."""
    from pathlib import Path

    root = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not root.is_dir():
        pytest.skip("development data is absent")
    return root


@pytest.fixture(scope="session")
def tiny_recogniser():
    """A random network that compiles in no time: two convolutions on a chip of 32 pixels."""
    from flax import nnx

    from ganfit_jax.recognition.align import MEAN_FIVE
    from ganfit_jax.recognition.layers import Conv, Dense
    from ganfit_jax.types import Features, Recogniser, RecogniserSpec

    class Tiny(nnx.Module):
        def __init__(self):
            self.first, self.second = Conv(3, 8, 3, stride=2, padding=1), Conv(8, 8, 3, stride=2, padding=1)
            self.head = Dense(8 * 8 * 8, 16)

        def __call__(self, chips):
            first = jnp.tanh(self.first(chips - 0.5))
            second = jnp.tanh(self.second(first))
            return Features(self.head(second.reshape(len(chips), -1)), (first, second))

    graph, weights = nnx.split(Tiny())
    leaves, tree = jax.tree.flatten(weights)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    weights = jax.tree.unflatten(tree, [0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])
    scale = 32 / 150
    template = tuple((scale * x, scale * y) for x, y in MEAN_FIVE)
    return Recogniser(weights, RecogniserSpec("tiny", 32, template, "euclidean", graph))
