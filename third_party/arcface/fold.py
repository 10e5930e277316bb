"""Layers of the checkpoints as our inference layers: normalisations folded, NHWC layouts."""

from collections.abc import Sequence

import numpy as np

from ganfit_jax.recognition.iresnet import BLOCKS

Arrays = dict[str, np.ndarray]
Norm = tuple[np.ndarray, np.ndarray]  # scale and bias of a normalisation with fixed statistics


def norm(statistics: Sequence[np.ndarray], epsilon: float) -> Norm:
    """``gamma (x - mean) / sqrt(variance + epsilon) + beta`` as scale and bias, of (gamma, beta, mean, variance)."""
    gamma, beta, mean, variance = statistics
    scale = gamma / np.sqrt(variance.astype(np.float64) + epsilon)
    return scale, beta - mean * scale


def put_conv(out: Arrays, name: str, kernel: np.ndarray, bias: np.ndarray | None, after: Norm | None) -> None:
    """Store a convolution (kernel in OIHW order; depthwise where I = 1) with the normalisation after it folded in."""
    scale, shift = after if after is not None else (np.ones(len(kernel)), np.zeros(len(kernel)))
    folded = (kernel * scale[:, None, None, None]).transpose(2, 3, 1, 0)
    out[f"{name}.kernel"] = folded[:, :, 0] if kernel.shape[1] == 1 else folded
    out[f"{name}.bias"] = shift + (0.0 if bias is None else bias * scale)


def put_dense(out: Arrays, name: str, matrix: np.ndarray, bias: np.ndarray, after: Norm | None, channels: int) -> None:
    """Store a dense layer (outputs, inputs); its inputs, flattened in CHW order, are reordered to HWC."""
    scale, shift = after if after is not None else (np.ones(len(matrix)), np.zeros(len(matrix)))
    side = round((matrix.shape[1] / channels) ** 0.5)
    kernel = (matrix * scale[:, None]).reshape(-1, channels, side, side).transpose(2, 3, 1, 0)
    out[f"{name}.kernel"] = kernel.reshape(matrix.shape[1], -1)
    out[f"{name}.bias"] = shift + bias * scale


def put_affine(out: Arrays, name: str, affine: Norm) -> None:
    out[f"{name}.scale"], out[f"{name}.bias"] = affine


def network_name(blocks: list[int], source: str) -> str:
    for name, counts in BLOCKS.items():
        if list(counts) == blocks:
            return name
    raise ValueError(f"{source}: stages of {blocks} blocks, expected one of {sorted(BLOCKS.values())}")
