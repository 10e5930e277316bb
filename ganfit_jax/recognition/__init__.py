"""Identity networks F behind one signature: an aligned chip in, an embedding and activations out."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from ..types import Features, Recogniser
from .align import aligned_chip
from .load import load

__all__ = ["aligned_chip", "features", "load"]


def features(recogniser: Recogniser, chip: Float[Array, "*b s s 3"]) -> Features:
    """Embedding and activations of an aligned chip, RGB in [0, 1], of side ``recogniser.spec.chip`` (paper: F).

    The network's own normalisation of pixels happens inside. The embedding is as the network gives it: compare it by
    ``recogniser.spec.metric``. Leading axes are batch axes and stay in front in every output. Differentiable; the
    weights are ordinary arguments, so that new weights need no new compilation.
    """
    side = recogniser.spec.chip
    if chip.shape[-3:] != (side, side, 3):
        raise ValueError(f"{recogniser.spec.name}: chip of shape {chip.shape}, expected [..., {side}, {side}, 3]")
    batch = chip.shape[:-3]
    graph: Any = recogniser.spec.graph
    out = nnx.merge(graph, recogniser.weights)(chip.reshape(-1, side, side, 3))
    return Features(out.embedding.reshape(*batch, -1), tuple(x.reshape(*batch, *x.shape[1:]) for x in out.activations))
