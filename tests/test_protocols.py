"""Known offsets of known shapes give the known error, whatever the meshes are made of."""

import numpy as np
import pytest
import trimesh
from test_metrics import bumpy, rotation

from ganfit_jax import protocols
from ganfit_jax.errors import InputError
from ganfit_jax.metrics import Similarity, Surface, crop
from ganfit_jax.protocols import Field
from ganfit_jax.scans import Marked

RNG = np.random.default_rng(0)
MOTION = Similarity(0.001, rotation(0.5), np.array([10.0, 20.0, 30.0]))  # a mesh in metres
RIGID = Similarity(1.0, rotation(0.5), np.array([10.0, 20.0, 30.0]))
HEAD = bumpy(0)


def marks_of(surface, seed=3):
    """Landmarks on the front of the ball; the nose tip is the point furthest in front."""
    front = np.flatnonzero(surface.vertices[:, 2] > 20.0)
    chosen = np.random.default_rng(seed).choice(front, 68, replace=False)
    chosen[30] = surface.vertices[:, 2].argmax()
    return surface.vertices[chosen]


def marked(surface, motion=None):
    scan = Marked(surface, marks_of(surface))
    return scan if motion is None else moved(scan, motion)


def moved(scan, motion):
    return Marked(Surface(motion(scan.surface.vertices), scan.surface.faces), motion(scan.landmarks))


def grown(scan, by):
    """Every vertex moved outwards by so many millimetres; the landmarks stay."""
    length = np.linalg.norm(scan.surface.vertices, axis=-1, keepdims=True)
    return Marked(Surface(scan.surface.vertices * (1 + by / length), scan.surface.faces), scan.landmarks)


def subdivided(scan, half=False):
    """The same surface from more triangles; with `half`, only where x > 0, so that the density changes across it."""
    mesh = trimesh.Trimesh(scan.surface.vertices, scan.surface.faces, process=False)
    chosen = np.flatnonzero(mesh.triangles_center[:, 0] > 0) if half else None
    mesh = mesh.subdivide(chosen)
    return Marked(Surface(np.asarray(mesh.vertices, float), np.asarray(mesh.faces)), scan.landmarks)


def half_subdivided(scan):
    return subdivided(scan, half=True)


def turned(scan):
    return moved(scan, RIGID)


def turned_and_scaled(scan):
    return moved(scan, MOTION)


def shuffled(scan):
    order = RNG.permutation(len(scan.surface.vertices))
    faces = np.argsort(order)[scan.surface.faces][RNG.permutation(len(scan.surface.faces))]
    return Marked(Surface(scan.surface.vertices[order], np.roll(faces, 1, axis=1)), scan.landmarks)


@pytest.mark.parametrize("motion", [None, RIGID, MOTION])
def test_a_copy_of_the_scan_scores_zero(motion):
    scan = marked(HEAD)
    found = protocols.micc(marked(HEAD, motion), scan, 60.0)
    for kind in protocols.KINDS if motion is not MOTION else ("similarity", "landmarks"):
        assert found[kind].mean() < 1e-6, kind
    assert protocols.now(marked(HEAD, motion), scan).mean() < 1e-6
    if motion is MOTION:
        assert found["rigid"].mean() > 1.0, "without scale a face of another size is not the same"
        assert found["similarity"].alignment.scale == pytest.approx(1000.0)


@pytest.mark.parametrize("by", [0.5, -1.5])
def test_a_known_offset_gives_the_known_error(by):
    """All of it where the alignment has no freedom to take it up: landmarks alone, without scale."""
    scan = marked(HEAD)
    ball = trimesh.creation.icosphere(subdivisions=5, radius=80.0)
    round_ = marked(Surface(np.asarray(ball.vertices, float), np.asarray(ball.faces)))
    for each, tolerance in ((round_, 0.02), (scan, 0.12)):  # of a bumpy surface the normals do not point outwards
        found = protocols.micc(grown(each, by), each, 60.0)["landmarks"]
        assert found.forward.mean() == pytest.approx(abs(by), rel=tolerance)
        assert found.backward.mean() == pytest.approx(abs(by), rel=tolerance)
        assert found.mean() == 0.5 * (found.forward.mean() + found.backward.mean())
        assert protocols.now(grown(each, by), each, refine=False).mean() == pytest.approx(abs(by), rel=tolerance)
    whole = protocols.micc(grown(round_, by), round_, 200.0)
    assert whole["rigid"].mean() == pytest.approx(abs(by), rel=0.02)
    assert whole["similarity"].mean() < 0.02, "a ball of another size is the same ball"


def test_a_step_gives_the_error_of_its_share():
    """A plane whose right half is 2 mm higher: the mean is half of it, whatever the density of the vertices."""

    def plane(count, step):
        x, y = np.meshgrid(np.linspace(-50, 50, count), np.linspace(-50, 50, count))
        z = np.where(x > 0, step, 0.0) if step else np.zeros_like(x)
        ids = np.arange(count * count).reshape(count, count)
        a, b, c, d = (i.ravel() for i in (ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1]))
        faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
        marks = np.zeros((68, 3))
        marks[17:, :2] = np.random.default_rng(0).uniform(-40, 40, (51, 2))
        marks[30] = 0
        return Marked(Surface(np.stack([x, y, z], -1).reshape(-1, 3), faces), marks)

    flat, stepped = plane(60, 0.0), plane(61, 2.0)
    for one, other in ((flat, stepped), (stepped, flat), (half_subdivided(flat), stepped)):
        assert protocols.micc(one, other, 200.0, ("landmarks",))["landmarks"].mean() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("change", [shuffled, subdivided, half_subdivided, turned_and_scaled])
def test_the_error_does_not_depend_on_how_the_reconstruction_is_meshed_or_placed(change):
    scan, guess = marked(HEAD), marked(bumpy(1))
    one, other = (protocols.micc(each, scan, 60.0) for each in (guess, change(guess)))
    kinds = ("similarity", "landmarks") if change is turned_and_scaled else protocols.KINDS
    for kind in kinds:
        assert one[kind].mean() > 0.5
        assert other[kind].mean() == pytest.approx(one[kind].mean(), rel=0.01), kind
    assert protocols.now(change(guess), scan).mean() == pytest.approx(protocols.now(guess, scan).mean(), rel=0.01)


@pytest.mark.parametrize("change", [shuffled, subdivided, half_subdivided, turned])
def test_the_error_does_not_depend_on_how_the_scan_is_meshed_or_placed(change):
    scan, guess = marked(HEAD), marked(bumpy(1))
    one, other = (protocols.micc(guess, each, 60.0) for each in (scan, change(scan)))
    for kind in protocols.KINDS:
        assert other[kind].mean() == pytest.approx(one[kind].mean(), rel=0.015), kind
    summaries = [protocols.summary([protocols.now(guess, each)]) for each in (scan, change(scan))]
    for name, value in summaries[0].items():
        assert summaries[1][name] == pytest.approx(value, rel=0.03), name


def test_distances_agree_with_an_independent_library():
    scan, guess = marked(HEAD), marked(bumpy(1), MOTION)
    found = protocols.micc(guess, scan, 60.0, ("similarity",))["similarity"]
    aligned = trimesh.Trimesh(found.alignment(guess.surface.vertices), guess.surface.faces, process=False)
    points = found.part.vertices[::29]
    expected = trimesh.proximity.closest_point_naive(aligned, points)[1]
    assert found.forward.distances[::29] == pytest.approx(expected, abs=1e-9)
    own = crop(Surface(np.asarray(aligned.vertices), guess.surface.faces), scan.landmarks[30], 60.0)
    truth = trimesh.Trimesh(scan.surface.vertices, scan.surface.faces, process=False)
    expected = trimesh.proximity.closest_point_naive(truth, own.vertices[::31])[1]
    assert found.backward.distances[::31] == pytest.approx(expected, abs=1e-9)


def test_icp_makes_it_better_and_scale_more_so():
    scan, guess = marked(HEAD), marked(bumpy(1), MOTION)
    found = protocols.micc(guess, scan, 60.0)
    assert found["similarity"].forward.mean() < found["landmarks"].forward.mean()
    assert found["similarity"].mean() < found["rigid"].mean()


def test_missing_landmarks_are_left_out_or_named():
    scan, copy = marked(HEAD), marked(HEAD, MOTION)
    holes = copy.landmarks.copy()
    holes[20:29] = np.nan
    assert protocols.micc(copy._replace(landmarks=holes), scan, 60.0, ("similarity",))["similarity"].mean() < 1e-6
    for number, match in ((30, "nose tip"), (33, "landmark 34")):
        lost = scan.landmarks.copy()
        lost[number] = np.nan
        with pytest.raises(InputError, match=match):
            protocols.micc(copy, scan._replace(landmarks=lost), 60.0)
            protocols.now(copy, scan._replace(landmarks=lost))
    few = np.full((68, 3), np.nan)
    few[30:33] = copy.landmarks[30:33]
    with pytest.raises(InputError, match="3 landmarks in common"):
        protocols.micc(copy._replace(landmarks=few), scan, 60.0)
    with pytest.raises(InputError, match="no triangle of the scan"):
        protocols.micc(copy, scan, 0.1)


def test_thinning_keeps_weight_and_place():
    points, weights = 30 * RNG.normal(size=(5000, 3)), RNG.uniform(0, 2, 5000)
    weights[:10] = 0
    few, total = protocols.thinned(points, weights, 300)
    assert 100 < len(few) < 5000 and total.sum() == pytest.approx(weights.sum())
    assert {tuple(p) for p in few.tolist()} <= {tuple(p) for p in points.tolist()}
    order = RNG.permutation(5000)
    again, _ = protocols.thinned(points[order], weights[order], 300)
    assert again == pytest.approx(few)
    assert len(protocols.thinned(points, weights, 9000)[0]) == 4990


def test_summary_against_repeated_values():
    fields = [Field(RNG.uniform(0, 3, 40), RNG.integers(1, 5, 40).astype(float)) for _ in range(3)]
    every = np.concatenate([np.repeat(f.distances, f.areas.astype(int)) for f in fields])
    found = protocols.summary(fields)
    assert found["mean"] == pytest.approx(every.mean()) and found["std"] == pytest.approx(every.std())
    assert found["median"] == pytest.approx(np.median(every), abs=0.02)
