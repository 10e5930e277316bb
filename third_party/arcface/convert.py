"""ArcFace checkpoints -> the flat npz that ``ganfit_jax.recognition.load`` reads.

    python third_party/arcface/convert.py --source=w600k_r50.onnx --output=w600k_r50.npz

Reads iResNet-18/34/50/100 as ONNX (batch normalisations folded or not) or as a PyTorch state dict (``.pt``, ``.pth``;
torch is not needed), and MobileFaceNet "y1" as an npz of raw MXNet tensors. Normalisations that follow a linear layer
are folded into it. The result is loaded once, so that a wrong one is found here.
"""

import sys
from pathlib import Path

import numpy as np
from absl import app, flags
from fold import Arrays, norm, put_conv, put_dense
from onnx_graph import from_onnx
from torch_state import from_state_dict, read_state_dict

from ganfit_jax.recognition import load
from ganfit_jax.recognition.mobilefacenet import STAGES


def from_mxnet(tensors: Arrays, source: str) -> tuple[str, float, Arrays]:
    """Network name, pixel divisor and weights of MobileFaceNet "y1" from its raw MXNet tensors."""
    out: Arrays = {}

    def get(key: str) -> np.ndarray:
        if key not in tensors:
            raise ValueError(f"{source}: no tensor {key}, expected MobileFaceNet y1 by its MXNet names")
        return tensors[key]

    def put(ours: str, theirs: str, prelu: str | None = None) -> None:
        bn = [get(f"{theirs}_batchnorm_{part}") for part in ("gamma", "beta", "moving_mean", "moving_var")]
        put_conv(out, ours, get(f"{theirs}_conv2d_weight"), None, norm(bn, 1e-3))
        if prelu is not None:
            out[f"{prelu}.slope"] = get(f"{theirs}_relu_gamma")

    put("stem", "conv_1", "stem_prelu")
    put("depthwise", "conv_2_dw", "depthwise_prelu")
    for stage, (*_, count) in enumerate(STAGES):
        units = [f"dconv_{stage + 2}{stage + 3}", *(f"res_{stage + 3}_block{index}" for index in range(count))]
        for index, theirs in enumerate(units):
            ours = f"stage{stage}.layers.{index}"
            put(f"{ours}.expand", f"{theirs}_conv_sep", f"{ours}.expand_prelu")
            put(f"{ours}.depthwise", f"{theirs}_conv_dw", f"{ours}.depthwise_prelu")
            put(f"{ours}.project", f"{theirs}_conv_proj")
    put("separate", "conv_6sep", "separate_prelu")
    put("pool", "conv_6dw7_7")
    beta, mean, variance = (get(f"fc1_{part}") for part in ("beta", "moving_mean", "moving_var"))
    last = norm((np.ones_like(beta), beta, mean, variance), 2e-5)  # gamma is fixed to 1
    put_dense(out, "head", get("fc1_weight"), get("pre_fc1_bias"), last, 512)
    return "mobilefacenet", 128.0, out


def convert(source: Path, output: Path, licence: str) -> str:
    """Write ``output`` from ``source``; the network's name. Raises FileNotFoundError or ValueError with one line."""
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    if source.suffix == ".onnx":
        name, divisor, weights = from_onnx(source)
    elif source.suffix in (".pt", ".pth"):
        name, divisor, weights = from_state_dict(read_state_dict(source), str(source))
    elif source.suffix == ".npz":
        with np.load(source, allow_pickle=False) as archive:
            name, divisor, weights = from_mxnet(dict(archive), str(source))
    else:
        raise ValueError(f"{source}: unknown kind of file, expected .onnx, .pt, .pth or .npz")
    floats = {key: value.astype(np.float32) for key, value in weights.items()}
    np.savez(output, name=name, divisor=np.float32(divisor), licence=licence, **floats)  # pyright: ignore[reportArgumentType]
    load(output)
    return name


def main(_: list[str]) -> None:
    source, output = Path(flags.FLAGS.source), Path(flags.FLAGS.output)
    try:
        print(f"{output}: {convert(source, output, flags.FLAGS.licence)}")
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    flags.DEFINE_string(
        "source", None, "an insightface .onnx, .pt or .pth file, or an npz of MXNet tensors", required=True
    )
    flags.DEFINE_string("output", None, "the npz to write", required=True)
    flags.DEFINE_string("licence", "non-commercial research only", "the licence that the npz states")
    app.run(main)
