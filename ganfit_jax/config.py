"""Settings of a fit: plain dataclasses, their defaults and the presets.

A setting that a term of the energy weighs with lives in `Weights` and nowhere else. A weight of 0 removes the term,
and the network it needs, from the compiled program.
"""

import dataclasses

TERMS = (
    "identity",
    "second_identity",
    "content",
    "pixel",
    "landmark",
    "shape",
    "expression",
    "texture",
    "light",
)


@dataclasses.dataclass
class Weights:
    """The lambdas of E(p) = sum_k lambda_k L_k(p); each loss is scaled as its function in `losses` says."""

    identity: float = 4.0
    second_identity: float = 5.0
    content: float = 0.5
    pixel: float = 25.0
    landmark: float = 0.05
    shape: float = 0.002
    expression: float = 0.12
    texture: float = 0.0007
    light: float = 0.6


@dataclasses.dataclass
class Rates:
    """Learning rates of Adam per parameter group, in the units of the group; 0 keeps the group fixed."""

    shape: float = 0.0
    texture: float = 0.0
    expression: float = 0.0
    rotation: float = 0.0
    translation: float = 0.0  # metres sideways; five times as much in depth
    focal: float = 0.0
    light: float = 0.0


@dataclasses.dataclass
class Stage:
    """One record of the schedule: which terms act, for how many steps, on which parameters."""

    name: str = "fit"
    steps: int = 100
    terms: tuple[str, ...] = TERMS
    rates: Rates = dataclasses.field(default_factory=Rates)
    final_rate: float = 0.1  # the cosine schedule ends at this fraction of the rates
    landmark: float = 1.0  # multiplies the landmark weight in this stage
    pixel: float = 1.0  # multiplies the pixel weight
    detail: bool = True  # False: of a generator with a linear path, the path alone is fitted


@dataclasses.dataclass
class SecondRender:
    """How the second render's pose, expression and light are drawn at each step."""

    size: int = 160  # side of the render, pixels
    yaw: float = 0.25  # standard deviations, radians
    pitch: float = 0.10
    roll: float = 0.05
    expression: float = 0.4  # largest blendshape weight
    expressed: float = 0.06  # share of blendshapes that are not zero
    light: float = 0.15  # standard deviation of light colours
    focal: float = 4.0  # image sides


def _align() -> Stage:
    rates = Rates(shape=0.07, expression=0.02, rotation=0.01, translation=0.005)
    return Stage("align", 80, ("landmark", "shape", "expression"), rates, landmark=3.3)


def _colour() -> Stage:
    rates = Rates(
        shape=0.07, texture=0.08, expression=0.015, rotation=0.003, translation=0.001, focal=0.005, light=0.04
    )
    terms = ("pixel", "landmark", "shape", "expression", "texture", "light")
    return Stage("colour", 160, terms, rates, final_rate=0.5, landmark=0.25, pixel=4.0, detail=False)


def _full() -> Stage:
    rates = Rates(
        shape=0.006, texture=0.08, expression=0.01, rotation=0.002, translation=0.0006, focal=0.002, light=0.012
    )
    return Stage("full", 70, TERMS, rates)


@dataclasses.dataclass
class Config:
    """Everything that a fit needs beside the photos."""

    size: int = 256  # side of the fitting window, pixels
    focal: float = 4.0  # first guess of the focal length, window sides
    shape_model: str = "face"
    texture_model: str = "gan"  # "albedo": linear
    recogniser: str = "dlib"
    detector: str = "auto"
    moving_jaw: bool = True  # the jaw's landmarks follow the visible contour; False = they stay on the frontal one
    seed: int = 0
    chunk: int = 10  # steps between two reports
    texture_norm: float = 0.0  # the texture term draws the latent's length to so many sqrt(n); 1 = as drawn in training
    saturation: float = 0.1  # colour difference, in [0, 1], about which the pixel term stops growing; large = plain L1
    stiffness: float = 8.0  # multiplies the expression prior of the units named next
    stiff: tuple[str, ...] = ("noseSneer", "eyeLook", "jawForward", "cheekPuff", "tongueOut")
    weights: Weights = dataclasses.field(default_factory=Weights)
    second: SecondRender = dataclasses.field(default_factory=SecondRender)
    align: Stage = dataclasses.field(default_factory=_align)
    colour: Stage = dataclasses.field(default_factory=_colour)
    full: Stage = dataclasses.field(default_factory=_full)

    def stages(self) -> tuple[Stage, ...]:
        """The stages that have steps, in order."""
        return tuple(stage for stage in (self.align, self.colour, self.full) if stage.steps)


def fast() -> Config:
    """The default: 256 px window, the texture GAN, dlib's network; made for a laptop's processor."""
    return Config()


def paper() -> Config:
    """The published method as far as it is known; the paper's figures are recalled, not verified.

    ArcFace iResNet-50, whose weights the user supplies as ``arcface_iresnet50.npz``; the resolution of the texture
    comes with the texture model that is named. Recalled: Adam at 0.01; weights identity 2, second identity 2, content
    50, pixel 1, landmarks 0.001, regularisers 0.05 (taken for shape) and 0.01. What each of them multiplies is not
    recalled; these readings are assumed, because with them no term drowns the others, and converted to our losses:

    * pixel: images in [-1, 1], summed over three channels; ours are in [0, 1], and their mean is taken.
    * landmarks: the mean of squared pixels of this preset's window of 512; ours counts squared percents of its side.
    * content: per layer the norm, not its square, over the number of entries. Ours is the mean relative square e: for
      the four layers of iResNet-50, with entries of order 1, the slope of 50 ||d|| / size at e = 0.7 is 0.5.
    * shape, texture: the mean square of 158 and 100 coefficients; ours are sums.
    * expression: the mean square of 29 coefficients in standard deviations; ours is a sum over blendshape weights,
      whose standard deviation is taken as 0.25. The second render's N(0, 0.5) is converted likewise.

    Not the paper's: the rates of the camera, which is parametrised otherwise; the weight of light, because our prior
    keeps light neutral instead of small (relative to the pixel term as in `fast`).
    """
    rate = 0.01
    rates = Rates(rate, rate, rate, rotation=0.002, translation=0.0006, focal=0.002, light=rate)
    return Config(
        size=512,
        saturation=10.0,
        recogniser="arcface_iresnet50.npz",
        detector="face-alignment",
        weights=Weights(
            identity=2.0,
            second_identity=2.0,
            content=50.0 * 0.01,
            pixel=1.0 * 2 * 3,
            landmark=0.001 * 5.12**2,
            shape=0.05 / 158,
            expression=0.01 / 29 / 0.25**2,
            texture=0.01 / 100,
            light=0.144,
        ),
        second=SecondRender(size=224, expression=0.5, expressed=0.19),
        align=Stage("align", 200, ("landmark", "shape", "expression"), rates),
        colour=Stage("colour", 0),
        full=Stage("full", 400, TERMS, rates),
    )


PRESETS = {"fast": fast, "paper": paper}
