"""The iResNets of ArcFace (Deng et al., CVPR 2019; pre-activation blocks of Duta et al., 2020)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..types import Features
from .layers import Affine, Conv, Dense, PReLU

BLOCKS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}


class Block(nnx.Module):
    """``conv(prelu(conv(norm(x)))) + skip``; normalisations that follow a convolution are folded into it."""

    def __init__(self, inputs: int, channels: int, stride: int):
        self.norm = Affine(inputs)
        self.first = Conv(inputs, channels, 3, padding=1)
        self.prelu = PReLU(channels)
        self.second = Conv(channels, channels, 3, stride=stride, padding=1)
        self.skip = Conv(inputs, channels, 1, stride=stride) if stride != 1 or inputs != channels else None

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        y = self.second(self.prelu(self.first(self.norm(x))))
        return y + (x if self.skip is None else self.skip(x))


class IResNet(nnx.Module):
    """112 x 112 RGB in [0, 1] -> an embedding compared by cosine; activations: the outputs of the four stages.

    Pixels enter as ``(255 x - 127.5) / divisor``. The dense layer's input is flattened in HWC order.
    """

    def __init__(self, blocks: tuple[int, int, int, int], outputs: int = 512, divisor: float = 127.5):
        self.divisor = divisor
        self.stem = Conv(3, 64, 3, padding=1)
        self.prelu = PReLU(64)
        inputs = 64
        for index, (count, channels) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True)):
            layers = [Block(inputs if i == 0 else channels, channels, 2 if i == 0 else 1) for i in range(count)]
            setattr(self, f"stage{index}", nnx.Sequential(*layers))
            inputs = channels
        self.norm = Affine(512)
        self.head = Dense(7 * 7 * 512, outputs)

    def __call__(self, chips: Float[Array, "n 112 112 3"]) -> Features:
        x = self.prelu(self.stem((chips * 255.0 - 127.5) / self.divisor))
        activations = []
        for index in range(4):
            x = getattr(self, f"stage{index}")(x)
            activations.append(x)
        x = self.norm(x)
        return Features(self.head(jnp.reshape(x, (x.shape[0], -1))), tuple(activations))
