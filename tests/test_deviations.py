"""Errors whose value is known: moved copies, turned poses, other directions of light, other topologies."""

import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from ganfit_jax import assets, camera, deviations, morphable, people
from ganfit_jax.deviations import FLIP, Head, Pose
from ganfit_jax.metrics import Similarity, Surface
from ganfit_jax.protocols import micc
from ganfit_jax.types import Camera

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    return assets.load_shape()[0]


@pytest.fixture(scope="module")
def truth(model):
    shape = jnp.asarray(RNG.normal(size=len(model.identity_basis)), jnp.float32)
    neutral = np.asarray(morphable.vertices(model, shape, jnp.zeros(len(model.expression_basis))), np.float64)
    offsets = np.asarray(0.5 * model.expression_basis[24], np.float64)
    turn = people.rotation(0.5, 0.2, 0.1)
    return Head(model, neutral, (Pose(offsets, pose(turn, [10.0, -30.0, 1200.0]), np.array([0.6, 0.0, 0.8])),))


def pose(turn, translation):
    vector = camera.rotation_vector(jnp.asarray(turn, jnp.float32))
    return Camera(vector, jnp.asarray(translation, jnp.float32), jnp.log(jnp.array(4.0)))


def moved(truth, motion):
    """The same photo of the same head, told in another frame of the head."""
    inverse, found = motion.inverse(), truth.poses[0]
    turn = np.asarray(camera.rotation_matrix(found.camera.rotation), np.float64) @ motion.rotation
    shift = np.asarray(found.camera.translation, np.float64)
    shift = (shift + FLIP * (turn @ motion.rotation.T @ motion.shift)) / motion.scale
    own = Pose(found.offsets @ motion.rotation / motion.scale, pose(turn, shift), found.light)
    return Head(truth.model, inverse(truth.vertices), (own,))


def test_the_same_head_in_another_frame_has_no_error(truth):
    motion = Similarity(1.1, people.rotation(0.1, -0.2, 0.05), np.array([3.0, -5.0, 8.0]))
    figures, error = deviations.figures(moved(truth, motion), truth)
    assert error.alignment.rotation == pytest.approx(motion.rotation, abs=1e-3)
    assert figures["error_mm"] < 0.01 and figures["expression_mm"] < 0.01
    assert figures["pose_degrees"] < 0.1 and figures["light_degrees"] < 0.1
    assert figures["mean_face_mm"] > 0.3 and figures["no_expression_mm"] > 0.3


def test_shape_error_of_a_moved_copy_is_zero_and_does_not_depend_on_the_mesh(model):
    vertices = np.asarray(morphable.vertices(model, 0.8 * jnp.ones(len(model.identity_basis)),
                                             jnp.zeros(len(model.expression_basis))), np.float64)  # fmt: skip
    truth, mean = Head(model, vertices, ()), Head(model, np.asarray(model.mean, np.float64), ())
    turn = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
    moved = truth._replace(vertices=1.2 * vertices @ turn.T + np.array([5.0, -8.0, 20.0]))
    assert deviations.shape_error(moved, truth).mean() == pytest.approx(0, abs=5e-3)
    found = deviations.shape_error(mean, truth)
    assert 0.3 < found.mean() < 20
    assert found.mean() == pytest.approx(0.5 * (found.forward.mean() + found.backward.mean()))
    # The same surface with every triangle below the eyes cut into four: the model's vertices lie densely at the eyes.
    ours, theirs = deviations.marked(model, mean.vertices), deviations.marked(model, vertices)
    faces = theirs.surface.faces
    low = theirs.surface.vertices[faces].mean(1)[:, 1] < -15.0
    mesh = trimesh.Trimesh(theirs.surface.vertices, faces, process=False).subdivide(np.flatnonzero(low))
    finer = theirs._replace(surface=Surface(np.asarray(mesh.vertices), np.asarray(mesh.faces)))
    assert len(finer.surface.vertices) > 1.5 * len(theirs.surface.vertices)
    again = micc(ours, finer, kinds=("similarity",))["similarity"]
    assert again.mean() == pytest.approx(found.mean(), rel=0.02)
    plain = [each.forward.distances.mean() for each in (found, again)]
    assert abs(plain[1] / plain[0] - 1) > 0.05, "means over vertices do depend on it"


def test_known_angles_are_found(truth):
    still = Similarity(1.0, np.eye(3), np.zeros(3))
    own = truth.poses[0]
    turn = np.asarray(camera.rotation_matrix(own.camera.rotation), np.float64)
    more = people.rotation(np.radians(12.0), 0.0, 0.0)
    other = own._replace(camera=pose(turn @ more, own.camera.translation), light=np.array([0.0, 0.6, 0.8]))
    angle, light = deviations.pose_error(other, own, still)
    assert angle == pytest.approx(12.0, abs=0.05)
    assert light == pytest.approx(np.degrees(np.arccos(0.64)), abs=1e-3)


def test_a_window_that_looks_aside_changes_no_angle(truth):
    """The camera turned about its own centre: another window of the same photo."""
    own = truth.poses[0]
    turn, aside = np.asarray(camera.rotation_matrix(own.camera.rotation), np.float64), people.rotation(0.06, 0.04, 0)
    shift = FLIP * (aside @ (FLIP * np.asarray(own.camera.translation, np.float64)))
    window = Pose(own.offsets, pose(aside @ turn, shift), aside @ own.light)
    angle, light = deviations.pose_error(window, own, Similarity(1.0, np.eye(3), np.zeros(3)))
    assert angle < 0.6 and light < 0.6, "roll about the ray is all that may remain"


def test_aimed_looks_straight_at_the_point():
    view = pose(people.rotation(0.3, 0.1, 0.2), [80.0, -60.0, 900.0])
    point = np.array([20.0, 10.0, 50.0])
    whole, turn = deviations.aimed(view, point)
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-9) and np.linalg.det(turn) == pytest.approx(1)
    ray = whole @ point + turn @ (FLIP * np.asarray(view.translation, np.float64))
    assert ray[:2] == pytest.approx([0, 0], abs=1e-3) and ray[2] < 0


def test_expression_error_against_a_loop_and_for_another_topology(truth, model):
    found = truth._replace(vertices=1.0 * truth.vertices)
    offsets = truth.poses[0].offsets + RNG.normal(size=(1, 3))
    still = Similarity(1.0, np.eye(3), np.zeros(3))
    region = np.asarray(model.regions.face) > 0.5
    expected = np.mean(
        [np.linalg.norm(a - b) for a, b in zip(offsets[region], truth.poses[0].offsets[region], strict=True)]
    )
    error = deviations.expression_error(found, truth, offsets, truth.poses[0].offsets, still)
    assert error == pytest.approx(expected)
    other = found._replace(model=model._replace(mean=1.0 * model.mean))  # another object: matched by closeness
    error = deviations.expression_error(other, truth, offsets, truth.poses[0].offsets, still)
    assert error == pytest.approx(expected, rel=0.05)
