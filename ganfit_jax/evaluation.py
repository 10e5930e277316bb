"""Is it the same person? Judges that took no part in the fit, views to judge, and synthetic people as truth."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ganfit_jax import morphable, texture
from ganfit_jax.energy import GREY, random_view
from ganfit_jax.landmarks import Detector
from ganfit_jax.metrics import Surface, SurfaceError, surface_error
from ganfit_jax.observe import choose_face
from ganfit_jax.recognition import aligned_chip, features
from ganfit_jax.render import render
from ganfit_jax.types import Camera, Identity, Light, Models, Params, Recogniser, ShapeModel, View

SIDE_YAW = np.radians(26.0)
SIDE_LIGHT = Light(jnp.array([-0.6, 0.4, 0.8]), jnp.full(3, 0.6), jnp.full(3, 0.55))


class Judgement(NamedTuple):
    """What a judge says of pairs of photos and renders; row and column i belong to person i."""

    similarity: Float[np.ndarray, "n n"]  # cosine, or minus the distance
    own: Float[np.ndarray, "n"]
    right: Float[np.ndarray, "n"]  # 1 where the render's most similar photo is its own


def side_view(params: Params, photo: int = 0) -> View:
    """A view that the photo does not show: turned by 26 degrees, neutral expression, lit from the other side."""
    view = jax.tree.map(lambda x: x[photo], params.views)
    distance = view.camera.translation[2]
    camera = Camera(jnp.array([0.0, SIDE_YAW, 0.0]), jnp.stack([0.0 * distance, -25.0 + 0.0 * distance, distance]),
                    view.camera.log_focal)  # fmt: skip
    return View(jnp.zeros_like(view.expression), camera, SIDE_LIGHT)


def embed(
    image: Float[np.ndarray, "h w 3"], judge: Recogniser, find: Detector
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "68 2"]]:
    """The judge's embedding of the largest face, detected anew, and the face's landmarks (pixels).

    Raises InputError where no face is found.
    """
    face, _ = choose_face(find.detect(image), None, "image")
    chip = aligned_chip(judge.spec, jnp.asarray(image), jnp.asarray(face.landmarks))
    return np.asarray(features(judge, chip).embedding), face.landmarks


def dlib_descriptor(image: Float[np.ndarray, "h w 3"], model: Any, landmarks: Float[np.ndarray, "68 2"]) -> np.ndarray:
    """dlib's own descriptor (its library, its chip) of a face with known landmarks."""
    import dlib

    library, pixels = dlib, np.uint8(np.round(255 * np.clip(image, 0, 1)))
    low, high = landmarks.min(0), landmarks.max(0)
    box = library.rectangle(*(int(v) for v in (*low, *high)))
    points = library.points([library.point(round(x - 0.5), round(y - 0.5)) for x, y in landmarks.tolist()])
    shape = library.full_object_detection(box, points)
    return np.asarray(model.compute_face_descriptor(pixels, shape))


def judge_pairs(photos: Float[np.ndarray, "n d"], renders: Float[np.ndarray, "n d"], metric: str) -> Judgement:
    """Compares every render with every photo; rows are renders. A row of NaN (no face found) is wrong."""
    if metric == "cosine":
        unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (renders, photos)]
        similarity = unit[0] @ unit[1].T
    else:
        similarity = -np.linalg.norm(renders[:, None] - photos[None], axis=-1)
    own = np.diagonal(similarity)
    nearest = np.argmax(np.nan_to_num(similarity, nan=-np.inf), axis=1)
    right = (nearest == np.arange(len(own))) & np.isfinite(own)
    return Judgement(similarity, own, right.astype(np.float64))


def synthetic_person(key: PRNGKeyArray, models: Models, spread: dict[str, Array], photos: int) -> Params:
    """A random person of the models in random poses, expressions and lights: the truth of a synthetic photo."""
    first, second, views = jax.random.split(key, 3)
    identity = Identity(
        jax.random.normal(first, models.shape.identity_basis.shape[:1]),
        jax.random.normal(second, (texture.latent_size(models.texture),)),
    )
    count = models.shape.expression_basis.shape[0]
    drawn = [random_view(k, count, spread) for k in jax.random.split(views, photos)]
    return Params(identity, jax.tree.map(lambda *x: jnp.stack(x), *drawn))


def photograph(models: Models, params: Params, photo: int, size: int) -> Float[Array, "s s 3"]:
    """Renders one view of a person on plain grey."""
    view = jax.tree.map(lambda x: x[photo], params.views)
    return render(models, params.identity, view, size, GREY).image


def shape_error(model: ShapeModel, vertices: Float[np.ndarray, "v 3"], truth: Float[np.ndarray, "v 3"]) -> SurfaceError:
    """Surface error (mm) between two neutral shapes of one model; eyes and the inside of the mouth are left out."""
    hidden = np.asarray(model.regions.eyes + model.regions.mouth) > 0
    faces = np.asarray(model.faces)
    faces = faces[~hidden[faces].any(1)]
    marks = [np.asarray(morphable.landmarks(model, jnp.asarray(v), jnp.zeros(3)))[17:] for v in (vertices, truth)]
    return surface_error(Surface(vertices, faces), marks[0], Surface(truth, faces), marks[1], marks[1][13])
