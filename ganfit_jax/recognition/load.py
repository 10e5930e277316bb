"""Recognition networks from files: dlib's ``.dat`` (built in) and our flat ``.npz``."""

import hashlib
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..files import dlib_file
from ..types import ModelInfo, Recogniser, RecogniserSpec
from .align import MEAN_FIVE
from .dlib_resnet import DlibResNet, read
from .iresnet import BLOCKS, IResNet
from .mobilefacenet import MobileFaceNet

DLIB_FILE = "dlib_face_recognition_resnet_model_v1.dat"
DLIB_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
# The five points of the ArcFace authors' chip; pixel centres at +0.5.
ARCFACE_TEMPLATE = (
    (38.7946, 52.1963),
    (74.0318, 52.0014),
    (56.5252, 72.2366),
    (42.0493, 92.8655),
    (71.2299, 92.7041),
)
NETWORKS: dict[str, Callable[..., Any]] = {
    "mobilefacenet": MobileFaceNet,
    **{name: partial(IResNet, blocks) for name, blocks in BLOCKS.items()},
}


def load(name_or_path: str | Path) -> tuple[Recogniser, ModelInfo]:
    """A recogniser: ``"dlib"`` (from the installed package face-recognition-models) or the path of an npz file.

    An npz file holds ``name`` (a key of ``NETWORKS``), ``divisor`` (of the centred pixels, e.g. 127.5), optionally
    ``licence``, and the weights by dotted path, as the converter in ``third_party/arcface`` writes it.
    Raises FileNotFoundError or ValueError with one line.
    """
    if str(name_or_path) == "dlib":
        return _load_dlib(dlib_file(DLIB_FILE))
    return _load_npz(Path(name_or_path))


def _load_dlib(path: Path) -> tuple[Recogniser, ModelInfo]:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != DLIB_SHA256:
        warnings.warn(f"{path}: sha256 {sha256}, expected {DLIB_SHA256}; used all the same", stacklevel=3)
    graph, weights = fill(DlibResNet, read(data, str(path)), str(path))
    spec = RecogniserSpec("dlib", 150, MEAN_FIVE, "euclidean", graph)
    return Recogniser(weights, spec), ModelInfo("dlib", str(path), sha256, (), "CC0-1.0")


def _load_npz(path: Path) -> tuple[Recogniser, ModelInfo]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such recogniser; expected 'dlib' or the path of an npz file (ArcFace: convert one)"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            tensors = {key: archive[key] for key in archive.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, AttributeError, zlib.error) as error:
        raise ValueError(f"{path}: not a readable npz file ({error})") from None
    name = str(tensors.pop("name", "missing"))
    if name not in NETWORKS:
        raise ValueError(f"{path}: the entry 'name' is {name}, expected one of {', '.join(sorted(NETWORKS))}")
    licence = str(tensors.pop("licence", "unknown"))
    divisor = tensors.pop("divisor", np.float32(127.5))
    if divisor.size != 1 or not divisor.dtype.kind == "f" or not divisor > 0:
        raise ValueError(f"{path}: the entry 'divisor' is {divisor}, expected one positive number")
    head = tensors.get("head.bias", np.zeros(0))
    network = partial(NETWORKS[name], outputs=head.size, divisor=float(divisor))
    graph, weights = fill(network, tensors, str(path))
    spec = RecogniserSpec(name, 112, ARCFACE_TEMPLATE, "cosine", graph)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Recogniser(weights, spec), ModelInfo(name, str(path), sha256, (), licence)


def fill(network: Callable[[], Any], tensors: dict[str, np.ndarray], source: str) -> tuple[Any, Any]:
    """The network's static graph and its weights, float32, filled from arrays by dotted path."""
    graph, state = nnx.split(nnx.eval_shape(network))
    leaves = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    if missing := sorted(leaves.keys() - tensors.keys()):
        raise ValueError(f"{source}: {len(missing)} missing weights, the first is {missing[0]}")
    if unknown := sorted(tensors.keys() - leaves.keys()):
        raise ValueError(f"{source}: {len(unknown)} unknown weights, the first is {unknown[0]}")
    filled = []
    for name, (path, leaf) in leaves.items():
        tensor = tensors[name]
        if tensor.shape != leaf.shape or tensor.dtype.kind != "f":
            found = f"{tensor.dtype} of shape {tensor.shape}"
            raise ValueError(f"{source}: {name} is {found}, expected float of shape {leaf.shape}")
        if not np.isfinite(tensor).all():
            raise ValueError(f"{source}: {name} holds values that are not finite")
        filled.append((path, leaf.replace(jnp.asarray(tensor, jnp.float32))))
    return graph, nnx.from_flat_state(filled)
