"""Every pytree and every convention of ganfit-jax, on one screen.

World
    Millimetres, right-handed: +x to the subject's left, +y up, +z out of the face; origin between the eyes' centres.
Camera frame
    ``points_camera = FLIP @ (R @ points_world) + translation`` with ``FLIP = diag(1, -1, -1)`` and ``R`` the matrix
    of the rotation vector: x to the right of the image, y down, z away from the camera (visible points have z > 0).
    A zero rotation looks straight into the face.
View frame
    ``points_view = FLIP @ points_camera``: x right, y up, z towards the camera. Light directions live here.
Image
    float32 RGB in [0, 1], HWC, sRGB. Row 0 is the top row; the centre of pixel (row, column) is (x, y) =
    (column + 0.5, row + 0.5). Screen y points down.
UV
    [0, 1]^2, origin at the top left of the texture image, u to the right (towards the subject's left), v down.
Angles are radians. Everything here belongs to one person or one photo; batching is ``jax.vmap``.
"""

import dataclasses
from collections.abc import Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int


class Identity(NamedTuple):
    """What every photo of a person shares (paper: p_s, p_t), in standard deviations."""

    shape: Float[Array, "*b n_s"]
    texture: Float[Array, "*b n_t"]


class Camera(NamedTuple):
    """A pinhole camera with square pixels and its principal point at the image centre (paper: p_c)."""

    rotation: Float[Array, "*b 3"]  # rotation vector, radians
    translation: Float[Array, "*b 3"]  # millimetres, camera frame; z > 0
    log_focal: Float[Array, "*b"]  # log of (focal length / image side)


class Light(NamedTuple):
    """One distant light and an ambient term (paper: p_l): ``ambient + colour * max(0, <n, direction>)``."""

    direction: Float[Array, "*b 3"]  # towards the light, view frame; normalised where it is used
    colour: Float[Array, "*b 3"]
    ambient: Float[Array, "*b 3"]


class View(NamedTuple):
    """What belongs to one photo."""

    expression: Float[Array, "*b n_e"]  # p_e, blendshape weights in [0, 1]
    camera: Camera
    light: Light


class Params(NamedTuple):
    """Everything a fit optimises (paper: p)."""

    identity: Identity
    views: View  # leading photo axis


class Regions(NamedTuple):
    """Vertex masks in [0, 1] of a shape model."""

    face: Float[Array, "v"]  # skin of the face: no ears, no neck, no eyeballs, no inside of the mouth
    eyes: Float[Array, "v"]  # the eyeball patches
    mouth: Float[Array, "v"]  # the patch that closes the mouth
    ears: Float[Array, "v"]
    neck: Float[Array, "v"]


class ShapeModel(NamedTuple):
    """Linear 3D morphable model: ``mean + identity_basis . p_s + expression_basis . p_e``, in millimetres."""

    mean: Float[Array, "v 3"]
    identity_basis: Float[Array, "n_s v 3"]  # scaled by the standard deviations
    expression_basis: Float[Array, "n_e v 3"]
    faces: Int[Array, "f 3"]  # counter-clockwise seen from outside
    uv: Float[Array, "t 2"]
    uv_faces: Int[Array, "f 3"]
    landmark_faces: Int[Array, "68"]  # iBUG order; the 17 jaw points hold the frontal contour
    landmark_barycentric: Float[Array, "68 3"]
    contour_faces: Int[Array, "17 c"]  # candidates for each jaw point, from the frontal contour outwards to the ear
    contour_barycentric: Float[Array, "17 c 3"]
    regions: Regions
    neighbours: Int[Array, "f 3"] | None = None  # `raster.neighbours(faces)`; None = found whenever it is drawn (slow)


class LinearTexture(NamedTuple):
    """Linear albedo model ``clip(mean + basis . p_t, 0, 1)``, sRGB."""

    mean: Float[Array, "s s 3"]
    basis: Float[Array, "n_t s s 3"]  # scaled by the standard deviations


@dataclasses.dataclass(frozen=True)
class GeneratorSpec:
    """The static half of a texture generator; hashable."""

    side: int  # of its maps, texels
    graph: Hashable  # flax.nnx graph definition


@partial(jax.tree_util.register_dataclass, data_fields=["weights", "mean", "basis"], meta_fields=["spec"])
@dataclasses.dataclass(frozen=True)
class GanTexture:
    """Albedo from a generator, ``(G(mean + basis . p_t) + 1) / 2``, sRGB; `generator.Generator` is G."""

    weights: Any  # pytree of G's weights
    mean: Float[Array, "d"]  # latent of an average map
    basis: Float[Array, "n_t d"]  # latents of one standard deviation
    spec: GeneratorSpec


class Fragments(NamedTuple):
    """Result of rasterization; integers only, no gradient."""

    faces: Int[Array, "h w k"]  # face ids, nearest first; -1 = none


class Rendering(NamedTuple):
    image: Float[Array, "h w 3"]  # colour over the background, [0, 1]
    coverage: Float[Array, "h w"]  # soft foreground mask, [0, 1]
    depth: Float[Array, "h w"]  # millimetres; 0 = background
    normals: Float[Array, "h w 3"]  # unit, view frame; 0 = background
    landmarks: Float[Array, "68 2"]  # image pixels (x, y)


class Features(NamedTuple):
    """What a recognition network says of one chip."""

    embedding: Float[Array, "d"]  # as the network gives it (not normalised)
    activations: tuple[Float[Array, "..."], ...]  # intermediate maps for the content loss


class Observation(NamedTuple):
    """A photo, cut and scaled to the fitting window."""

    image: Float[Array, "*b h w 3"]
    landmarks: Float[Array, "*b 68 2"]  # window pixels (x, y)
    confidence: Float[Array, "*b 68"]  # 0 = ignore
    mask: Float[Array, "*b h w"]  # weight of each pixel in the pixel term, [0, 1]
    photo_from_window: Float[Array, "*b 2 3"]  # similarity: window pixels -> photo pixels
    features: Any  # Features of the photo's aligned chip, computed once (leading axes *b), or None
    weight: Float[Array, "*b"]  # weight of the photo; 0 = changes nothing


class Fit(NamedTuple):
    params: Params
    trace: dict[str, Float[Array, "steps"]]
    ok: Any  # scalar bool: no step was rejected


@dataclasses.dataclass(frozen=True)
class RecogniserSpec:
    """The static half of a recogniser; hashable, so that compiled programs can be cached by it."""

    name: str
    chip: int  # side of the aligned chip, pixels
    template: tuple[tuple[float, float], ...]  # five points on the chip: eye centres, nose tip, mouth corners
    metric: str  # "cosine" or "euclidean": how the network's authors compare its embeddings
    graph: Hashable  # flax.nnx graph definition


@partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["spec"])
@dataclasses.dataclass(frozen=True)
class Recogniser:
    """A face recognition network: weights (pytree) and static description."""

    weights: Any
    spec: RecogniserSpec


class Models(NamedTuple):
    """The frozen parts of a fit."""

    shape: ShapeModel
    texture: LinearTexture | GanTexture
    recogniser: Recogniser | None
    stiffness: Any = None  # [n_e] multiplies the expression prior, unit by unit; None = 1


class ModelInfo(NamedTuple):
    """Where a model came from."""

    name: str
    path: str
    sha256: str
    expressions: tuple[str, ...]  # names of the expression components ("" for other models)
    licence: str
