"""PyTorch state dicts of iResNets, read without torch."""

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from fold import Arrays, Norm, network_name, norm, put_affine, put_conv, put_dense


def read_state_dict(path: Path) -> Arrays:
    """The tensors of a zip-format PyTorch state dict, without torch and without running what the pickle asks for.

    Only tensors, their storages and ordered dictionaries are understood; anything else raises ValueError.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a zip-format PyTorch file (torch.save since version 1.6 writes one)")
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"{path}: {len(pickles)} entries named data.pkl, expected 1")
        root = pickles[0].removesuffix("data.pkl")

        class Reader(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                if f"{module}.{name}" in ALLOWED:
                    return ALLOWED[f"{module}.{name}"]
                raise ValueError(f"{path}: asks for {module}.{name}, expected a state dict of tensors only")

            def persistent_load(self, pid: Any) -> np.ndarray:
                _, dtype, key, _, count = pid
                return np.frombuffer(archive.read(f"{root}data/{key}"), dtype, count)

        try:
            state = Reader(io.BytesIO(archive.read(pickles[0]))).load()
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{path}: not a readable state dict ({error})") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise ValueError(f"{path}: holds {type(state).__name__}, expected a state dict of tensors only")
    return {key.removeprefix("module.").removeprefix("backbone."): value for key, value in state.items()}


def _rebuild_tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if offset < 0 or min((*stride, 0)) < 0 or (0 not in size and last >= storage.size):
        raise ValueError(f"a tensor of size {size} reaches beyond its storage of {storage.size} numbers")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
}


def from_state_dict(state: Arrays, source: str) -> tuple[str, float, Arrays]:
    """Network name, pixel divisor and weights from an iResNet state dict with the names of arcface_torch."""

    def get(key: str) -> np.ndarray:
        if key not in state:
            raise ValueError(f"{source}: no tensor {key}, expected an iResNet of arcface_torch")
        return state[key]

    def bn(key: str) -> Norm:
        return norm([get(f"{key}.{part}") for part in ("weight", "bias", "running_mean", "running_var")], 1e-5)

    out: Arrays = {}
    put_conv(out, "stem", get("conv1.weight"), None, bn("bn1"))
    out["prelu.slope"] = get("prelu.weight")
    blocks = []
    for stage in range(4):
        indices = {key.split(".")[1] for key in state if key.startswith(f"layer{stage + 1}.")}
        blocks.append(len(indices))
        for index in range(len(indices)):
            theirs, ours = f"layer{stage + 1}.{index}", f"stage{stage}.layers.{index}"
            put_affine(out, f"{ours}.norm", bn(f"{theirs}.bn1"))
            put_conv(out, f"{ours}.first", get(f"{theirs}.conv1.weight"), None, bn(f"{theirs}.bn2"))
            out[f"{ours}.prelu.slope"] = get(f"{theirs}.prelu.weight")
            put_conv(out, f"{ours}.second", get(f"{theirs}.conv2.weight"), None, bn(f"{theirs}.bn3"))
            if index == 0:
                kernel = get(f"{theirs}.downsample.0.weight")
                put_conv(out, f"{ours}.skip", kernel, None, bn(f"{theirs}.downsample.1"))
    put_affine(out, "norm", bn("bn2"))
    put_dense(out, "head", get("fc.weight"), get("fc.bias"), bn("features"), 512)
    return network_name(blocks, source), 127.5, out
