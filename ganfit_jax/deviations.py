"""How far a fit is from a truth that is known wholly: shape, expression, pose and light, for models of any topology."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from ganfit_jax import camera, morphable
from ganfit_jax.metrics import Similarity, Surface
from ganfit_jax.protocols import Compared, micc
from ganfit_jax.scans import Marked
from ganfit_jax.types import Camera, Params, ShapeModel

FLIP = np.array([1.0, -1.0, -1.0])


class Pose(NamedTuple):
    """What is true, or was found, of one photo."""

    offsets: Float[np.ndarray, "v 3"]  # of the expression, mm, in the head's frame
    camera: Camera
    light: Float[np.ndarray, "3"]  # unit, towards the light, view frame


class Head(NamedTuple):
    """A neutral head and its photos."""

    model: ShapeModel
    vertices: Float[np.ndarray, "v 3"]  # mm
    poses: tuple[Pose, ...]


def fitted(model: ShapeModel, params: Params) -> Head:
    """The head that a fit found."""
    none = jnp.zeros_like(params.views.expression[0])
    neutral = np.asarray(morphable.vertices(model, params.identity.shape, none), np.float64)
    poses = []
    for photo in range(len(params.views.expression)):
        view = jax.tree.map(lambda x, photo=photo: x[photo], params.views)
        posed = np.asarray(morphable.vertices(model, params.identity.shape, view.expression), np.float64)
        direction = np.asarray(view.light.direction, np.float64)
        poses.append(Pose(posed - neutral, view.camera, direction / max(float(np.linalg.norm(direction)), 1e-9)))
    return Head(model, neutral, tuple(poses))


def skin(model: ShapeModel) -> Int[np.ndarray, "f 3"]:
    """The faces without eyes and the inside of the mouth."""
    hidden = np.asarray(model.regions.eyes + model.regions.mouth) > 0
    faces = np.asarray(model.faces)
    return faces[~hidden[faces].any(1)]


def marks(model: ShapeModel, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "68 3"]:
    """The 68 landmarks, the jaw's as seen from the front."""
    return np.asarray(morphable.landmarks(model, jnp.asarray(vertices, jnp.float32), jnp.zeros(3)), np.float64)


def marked(model: ShapeModel, vertices: Float[np.ndarray, "v 3"]) -> Marked:
    """The skin of a head and its landmarks."""
    return Marked(Surface(np.asarray(vertices, np.float64), skin(model)), marks(model, vertices))


def shape_error(found: Head, truth: Head) -> Compared:
    """`protocols.micc` with similarity ICP of the neutral skins, within 95 mm of the true nose tip."""
    kind = "similarity"
    return micc(marked(found.model, found.vertices), marked(truth.model, truth.vertices), kinds=(kind,))[kind]


def figures(found: Head, truth: Head) -> tuple[dict[str, float], Compared]:
    """The errors of a fit, and its shape error with the alignment (found -> truth).

    ``error_mm`` and ``mean_face_mm`` of the neutral shape and of the fitting model's mean face (`shape_error`), and
    means over the photos of ``expression_mm`` (`expression_error`; ``no_expression_mm``: what finding none would
    give), ``pose_degrees`` and ``light_degrees`` (`pose_error`).
    """
    error = shape_error(found, truth)
    mean = shape_error(found._replace(vertices=np.asarray(found.model.mean, np.float64)), truth)
    pairs = list(zip(found.poses, truth.poses, strict=True))
    expressions = [expression_error(found, truth, a.offsets, b.offsets, error.alignment) for a, b in pairs]
    none = [expression_error(found, truth, 0 * a.offsets, b.offsets, error.alignment) for a, b in pairs]
    angles = [pose_error(a, b, error.alignment) for a, b in pairs]
    return {
        "error_mm": error.mean(),
        "mean_face_mm": mean.mean(),
        "expression_mm": float(np.mean(expressions)),
        "no_expression_mm": float(np.mean(none)),
        "pose_degrees": float(np.mean([pose for pose, _ in angles])),
        "light_degrees": float(np.mean([light for _, light in angles])),
    }, error


def expression_error(
    found: Head,
    truth: Head,
    offsets: Float[np.ndarray, "v 3"],
    true_offsets: Float[np.ndarray, "w 3"],
    alignment: Similarity,
) -> float:
    """Mean distance (mm) of the two expressions' offsets over the truth's face region, turned and scaled alike.

    With one model vertex is compared with vertex; otherwise with the vertex of the aligned skin that is closest.
    """
    region = np.flatnonzero(np.asarray(truth.model.regions.face) > 0.5)
    match = region
    if found.model is not truth.model:
        used = np.unique(skin(found.model))
        tree = KDTree(alignment(found.vertices[used]))
        match = used[np.asarray(tree.query(truth.vertices[region])[1])]
    turned = alignment.scale * offsets[match] @ alignment.rotation.T
    return float(np.linalg.norm(turned - true_offsets[region], axis=1).mean())


def pose_error(found: Pose, truth: Pose, alignment: Similarity) -> tuple[float, float]:
    """Angles (degrees) between the two rotations of the head and between the two directions of light.

    The frames of the heads are brought together by `alignment` (found -> truth), those of the cameras by the ray to
    the true head's origin: the fit sees a window of the photo whose centre is not the photo's.
    """
    origin = alignment.inverse()(np.zeros((1, 3)))[0]
    theirs, ours = aimed(truth.camera, np.zeros(3)), aimed(found.camera, origin)
    apart = ours[0] @ (theirs[0] @ alignment.rotation).T
    cosine = float(np.trace(apart) - 1) / 2
    light = float((ours[1] @ found.light) @ (theirs[1] @ truth.light))
    return degrees(cosine), degrees(light)


def degrees(cosine: float) -> float:
    """The angle whose cosine this is."""
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def aimed(view: Camera, point: Float[np.ndarray, "3"]) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]:
    """World -> view frame of a camera that is turned, by the shortest way, to look straight at a point; the turn."""
    turn = np.asarray(camera.rotation_matrix(view.rotation), np.float64)
    ray = turn @ point + FLIP * np.asarray(view.translation, np.float64)  # in the view frame: x right, y up
    ray = ray / np.linalg.norm(ray)
    axis = np.cross(ray, [0.0, 0.0, -1.0])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    shortest = np.eye(3) + cross + cross @ cross / (1 - ray[2])
    return shortest @ turn, shortest
