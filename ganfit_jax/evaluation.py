"""Is it the same person? Judges that took no part in the fit, views to judge, and synthetic people as truth."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ganfit_jax import texture
from ganfit_jax.config import SecondRender
from ganfit_jax.energy import GREY, random_view
from ganfit_jax.errors import InputError
from ganfit_jax.files import dlib_file
from ganfit_jax.landmarks import Detector
from ganfit_jax.observe import choose_face
from ganfit_jax.recognition import aligned_chip, features
from ganfit_jax.recognition.load import DLIB_FILE
from ganfit_jax.render import render
from ganfit_jax.types import Camera, Identity, Light, Models, Params, Recogniser, View

SIDE_YAW = np.radians(26.0)
SIDE_LIGHT = Light(jnp.array([-0.6, 0.4, 0.8]), jnp.full(3, 0.6), jnp.full(3, 0.55))
VIEWS = SecondRender(yaw=0.35, pitch=0.15, roll=0.1, expression=0.6, expressed=0.1, light=0.25)  # of synthetic people


T = TypeVar("T")


def attempt(names: Iterable[str], work: Callable[[str], T]) -> tuple[dict[str, T], dict[str, str]]:
    """Does the work for every name: what it gives, and of those that fail the reason; a failure stops no other."""
    done, failed = {}, {}
    for name in names:
        try:
            done[name] = work(name)
        except Exception as error:  # whatever goes wrong with one photo belongs in the list
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            failed[name] = kind + " ".join(str(error).split())
    return done, failed


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


class Described(NamedTuple):
    """What two judges see in one picture; NaN where no face is found."""

    embedding: Float[np.ndarray, "d"]  # by a network that the fit does not use
    descriptor: Float[np.ndarray, "128"]  # by dlib's own library


def describe(image: Float[np.ndarray, "h w 3"], judge: Recogniser, find: Detector, network: Any) -> Described:
    """Detects the largest face anew and describes it; `network` is a ``dlib.face_recognition_model_v1``."""
    try:
        face, _ = choose_face(find.detect(image), None, "image")
    except InputError:
        width = features(judge, jnp.zeros((judge.spec.chip, judge.spec.chip, 3))).embedding.shape[0]
        return Described(np.full(width, np.nan), np.full(128, np.nan))
    chip = aligned_chip(judge.spec, jnp.asarray(image), jnp.asarray(face.landmarks))
    embedding = np.asarray(features(judge, chip).embedding)
    return Described(embedding, dlib_descriptor(image, network, face.landmarks))


def dlib_network() -> Any:
    """dlib's face recognition network, run by its own library."""
    import dlib

    library: Any = dlib
    return library.face_recognition_model_v1(str(dlib_file(DLIB_FILE)))


def dlib_descriptor(image: Float[np.ndarray, "h w 3"], model: Any, landmarks: Float[np.ndarray, "68 2"]) -> np.ndarray:
    """dlib's own descriptor (its library, its chip) of a face with known landmarks."""
    import dlib

    library: Any = dlib
    pixels = np.uint8(np.round(255 * np.clip(image, 0, 1)))
    low, high = landmarks.min(0), landmarks.max(0)
    box = library.rectangle(*(int(v) for v in (*low, *high)))
    points = library.points([library.point(round(x - 0.5), round(y - 0.5)) for x, y in landmarks.tolist()])
    shape = library.full_object_detection(box, points)
    return np.asarray(model.compute_face_descriptor(pixels, shape))


def compare(photos: list[Described], renders: list[Described], metric: str) -> dict[str, Any]:
    """Figures for renders of the people in the photos, in the same order: medians, share of nearest photos that are
    the right ones, cosine or minus distance of each pair, number of pictures without a face."""
    ours, theirs = (np.stack([d.embedding for d in list_]) for list_ in (photos, renders))
    judged = judge_pairs(ours, theirs, metric)
    apart = np.stack([p.descriptor - r.descriptor for p, r in zip(photos, renders, strict=True)])
    distance = np.linalg.norm(apart, axis=1)
    return {
        "dlib_distance_median": float(np.nanmedian(distance)),
        "judge_similarity_median": float(np.nanmedian(judged.own)),
        "judge_nearest_is_own": float(judged.right.mean()),
        "without_face": int(np.isnan(judged.own).sum()),
        "judge_similarities": np.round(judged.own, 3).tolist(),
    }


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
