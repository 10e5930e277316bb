"""MobileFaceNet (Chen et al., 2018) in the variant "y1" of the InsightFace authors."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..types import Features
from .layers import Conv, Dense, Depthwise, PReLU

STAGES = ((64, 128, 128, 4), (128, 256, 256, 6), (128, 512, 256, 2))  # channels, expansion down, expansion, units


class Unit(nnx.Module):
    """Inverted bottleneck: 1x1 expansion, 3x3 depthwise, 1x1 linear projection; ``residual`` adds the input."""

    def __init__(self, inputs: int, expansion: int, channels: int, stride: int):
        self.expand = Conv(inputs, expansion, 1)
        self.expand_prelu = PReLU(expansion)
        self.depthwise = Depthwise(expansion, 3, stride=stride, padding=1)
        self.depthwise_prelu = PReLU(expansion)
        self.project = Conv(expansion, channels, 1)
        self.residual = stride == 1

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        y = self.depthwise_prelu(self.depthwise(self.expand_prelu(self.expand(x))))
        return self.project(y) + x if self.residual else self.project(y)


class MobileFaceNet(nnx.Module):
    """112 x 112 RGB in [0, 1] -> an embedding compared by cosine; activations: the outputs of the three stages.

    Pixels enter as ``(255 x - 127.5) / divisor``. Every batch normalisation follows a linear layer and is folded.
    """

    def __init__(self, outputs: int = 128, divisor: float = 128.0):
        self.divisor = divisor
        self.stem = Conv(3, 64, 3, stride=2, padding=1)
        self.stem_prelu = PReLU(64)
        self.depthwise = Depthwise(64, 3, padding=1)
        self.depthwise_prelu = PReLU(64)
        inputs = 64
        for index, (channels, down, expansion, units) in enumerate(STAGES):
            layers = [Unit(inputs, down, channels, 2)]
            layers += [Unit(channels, expansion, channels, 1) for _ in range(units)]
            setattr(self, f"stage{index}", nnx.Sequential(*layers))
            inputs = channels
        self.separate = Conv(128, 512, 1)
        self.separate_prelu = PReLU(512)
        self.pool = Depthwise(512, 7)
        self.head = Dense(512, outputs)

    def __call__(self, chips: Float[Array, "n 112 112 3"]) -> Features:
        x = self.stem_prelu(self.stem((chips * 255.0 - 127.5) / self.divisor))
        x = self.depthwise_prelu(self.depthwise(x))
        activations = []
        for index in range(len(STAGES)):
            x = getattr(self, f"stage{index}")(x)
            activations.append(x)
        x = self.pool(self.separate_prelu(self.separate(x)))
        return Features(self.head(jnp.reshape(x, (x.shape[0], -1))), tuple(activations))
