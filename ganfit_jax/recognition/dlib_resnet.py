"""dlib's face recognition ResNet and the reader of its ``.dat`` file (no dlib needed)."""

import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ..types import Features
from .layers import Conv, Dense, add_padded, average_pool, max_pool

STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))  # channels, blocks, down
PIXEL_MEAN = (122.782, 117.001, 104.298)


class Block(nnx.Module):
    """Residual block: ``relu(conv(relu(conv(x))) + skip)``.

    A down block halves the resolution: its first convolution has stride 2 and no padding, its skip is a 2x2 mean,
    and whichever of the two is smaller (in space or in channels) is padded with zeros at the end.
    """

    def __init__(self, inputs: int, channels: int, down: bool):
        self.first = Conv(inputs, channels, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.second = Conv(channels, channels, 3, padding=1)
        self.down = down

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        y = self.second(jax.nn.relu(self.first(x)))
        return jax.nn.relu(add_padded(y, average_pool(x) if self.down else x))


class DlibResNet(nnx.Module):
    """150 x 150 RGB in [0, 1] -> a 128-dimensional embedding, compared by Euclidean distance (same person < 0.6).

    Activations: the output of each stage, 35x35x32, 17x17x64, 8x8x128, 4x4x256 and 2x2x256.
    Source: the network ``dlib_face_recognition_resnet_model_v1`` of Davis King; layers as in his file.
    """

    def __init__(self):
        self.stem = Conv(3, 32, 7, stride=2)
        inputs = 32
        for index, (channels, blocks, down) in enumerate(STAGES):
            layers = []
            for block in range(blocks):
                layers.append(Block(inputs, channels, down and block == 0))
                inputs = channels
            setattr(self, f"stage{index}", nnx.Sequential(*layers))
        self.head = Dense(256, 128)

    def __call__(self, chips: Float[Array, "n 150 150 3"]) -> Features:
        x = (chips * 255.0 - jnp.asarray(PIXEL_MEAN, jnp.float32)[None, None, None, :]) / 256.0
        x = max_pool(jax.nn.relu(self.stem(x)))
        activations = []
        for index in range(len(STAGES)):
            x = getattr(self, f"stage{index}")(x)
            activations.append(x)
        return Features(self.head(jnp.mean(x, axis=(1, 2))), tuple(activations))


def read(data: bytes, source: str) -> dict[str, np.ndarray]:
    """The weights in dlib's serialised network, by dotted path of ``DlibResNet``; affine layers folded.

    Layers come input side first: ``con_`` (filters, then biases) and ``affine_`` (gamma, then beta) in turns, at the
    end ``fc_``. Raises ValueError naming ``source`` where the bytes are something else.
    """
    tags = [(m.group(1), m.end()) for m in re.finditer(rb"(con_\d|affine_|fc_\d)", data)]
    names = list(_conv_names())
    expected = [tag for _ in names for tag in (b"con_", b"affine_")] + [b"fc_"]
    if [tag[: tag.index(b"_") + 1] for tag, _ in tags] != expected:
        found = f"{len(tags)} layers with weights"
        raise ValueError(f"{source}: {found}, expected dlib's face recognition network with {len(expected)}")
    weights: dict[str, np.ndarray] = {}
    for index, (name, inputs, channels, side) in enumerate(names):
        conv = _tensor(data, tags[2 * index][1], source)
        affine = _tensor(data, tags[2 * index + 1][1], source)
        count = channels * inputs * side * side
        if conv.size != count + channels or affine.size != 2 * channels:
            found = f"{conv.size} and {affine.size} numbers in layer {index}"
            raise ValueError(f"{source}: {found}, expected {count + channels} and {2 * channels}")
        gamma, beta = affine[:channels], affine[channels:]
        filters = conv[:count].reshape(channels, inputs, side, side) * gamma[:, None, None, None]
        weights[f"{name}.kernel"] = np.ascontiguousarray(filters.transpose(2, 3, 1, 0))
        weights[f"{name}.bias"] = conv[count:] * gamma + beta
    offset = tags[-1][1]
    for _ in range(2):  # number of outputs, number of inputs
        _, offset = _integer(data, offset)
    kernel = _tensor(data, offset, source)
    if kernel.size != 256 * 128:
        raise ValueError(f"{source}: {kernel.size} numbers in the last layer, expected {256 * 128}")
    weights["head.kernel"] = kernel.reshape(256, 128)
    weights["head.bias"] = np.zeros(128, np.float32)
    return weights


def _conv_names() -> Iterator[tuple[str, int, int, int]]:
    """Path, input channels, output channels and side of every convolution, input side first."""
    yield "stem", 3, 32, 7
    inputs = 32
    for index, (channels, blocks, _) in enumerate(STAGES):
        for block in range(blocks):
            yield f"stage{index}.layers.{block}.first", inputs, channels, 3
            yield f"stage{index}.layers.{block}.second", channels, channels, 3
            inputs = channels


def _integer(data: bytes, offset: int) -> tuple[int, int]:
    """dlib's integer: a control byte (low 4 bits: number of bytes, top bit: sign), then little-endian bytes."""
    count = data[offset] & 0x0F
    value = int.from_bytes(data[offset + 1 : offset + 1 + count], "little")
    return (-value if data[offset] & 0x80 else value), offset + 1 + count


def _tensor(data: bytes, offset: int, source: str) -> np.ndarray:
    """dlib's tensor, flat: the version 2, four dimensions, then raw float32."""
    version, offset = _integer(data, offset)
    shape = []
    for _ in range(4):
        size, offset = _integer(data, offset)
        shape.append(size)
    count = int(np.prod(shape))
    if version != 2 or count <= 0 or offset + 4 * count > len(data):
        raise ValueError(f"{source}: tensor of version {version} and shape {shape}, expected version 2 inside the file")
    return np.frombuffer(data, "<f4", count, offset).astype(np.float32)
