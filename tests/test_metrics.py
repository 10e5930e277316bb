"""Closest points, alignments and areas against plain numpy and an independent library."""

import numpy as np
import pytest
import trimesh

from ganfit_jax import metrics
from ganfit_jax.metrics import Similarity, Surface

RNG = np.random.default_rng(0)


def sphere(radius=80.0, subdivisions=3):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Surface(np.asarray(mesh.vertices, float), np.asarray(mesh.faces))


def bumpy(seed=0):
    """A closed surface without symmetry, so that registrations have one answer."""
    base = sphere(subdivisions=4)
    unit = base.vertices / 80.0
    waves = np.random.default_rng(seed).normal(size=(6, 3))
    radius = 80.0 + 8.0 * np.sin(3.0 * unit @ waves.T).mean(1)
    return Surface(unit * radius[:, None], base.faces)


def rotation(angle):
    axis = np.array([1.0, 2.0, 3.0]) / 14**0.5
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def test_closest_in_triangles_against_dense_sampling():
    triangles = RNG.normal(size=(20, 1, 3, 3))
    points = 2 * RNG.normal(size=(20, 3))
    found = metrics.closest_in_triangles(points, triangles)[:, 0]
    u, v = np.meshgrid(np.linspace(0, 1, 201), np.linspace(0, 1, 201))
    weights = np.stack([1 - u - v, u, v], -1)[u + v <= 1]
    for point, triangle, best in zip(points, triangles[:, 0], found, strict=True):
        sampled = np.linalg.norm(weights @ triangle - point, axis=-1).min()
        distance = np.linalg.norm(best - point)
        assert distance <= sampled + 1e-9
        assert distance == pytest.approx(sampled, abs=2e-2)


def test_distances_agree_with_an_independent_library():
    surface = bumpy()
    points = surface.vertices[::7] * RNG.uniform(0.9, 1.1, size=(len(surface.vertices[::7]), 1))
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    expected = trimesh.proximity.closest_point_naive(mesh, points[:40])[1]
    assert metrics.distances(points[:40], surface) == pytest.approx(expected, abs=1e-6)


def test_umeyama_recovers_a_similarity():
    points = RNG.normal(size=(30, 3))
    truth = Similarity(1.7, rotation(0.8), np.array([3.0, -2.0, 5.0]))
    found = metrics.umeyama(points, truth(points))
    assert found.scale == pytest.approx(1.7)
    assert found.rotation == pytest.approx(truth.rotation)
    rigid = metrics.umeyama(points, truth(points), scaled=False)
    assert rigid.scale == 1.0 and rigid.rotation == pytest.approx(truth.rotation)


def test_triangles_of_very_different_sizes_agree_with_an_independent_library():
    """The closest triangle may be huge, with its centroid further away than that of many small ones."""
    box, ball = trimesh.creation.box((100, 100, 100)), trimesh.creation.icosphere(subdivisions=3, radius=45)
    both = trimesh.util.concatenate([box, ball])
    points = RNG.uniform(-70, 70, size=(300, 3))
    points[0] = 0  # as far from every triangle of the ball
    found = metrics.distances(points, Surface(np.asarray(both.vertices, float), np.asarray(both.faces)))
    assert found == pytest.approx(trimesh.proximity.closest_point_naive(both, points)[1], abs=1e-9)
    with pytest.raises(ValueError, match="without triangles"):
        metrics.searcher(Surface(np.zeros((3, 3)), np.zeros((0, 3), int)))


def test_weighted_alignment_and_areas():
    points, weights = RNG.normal(size=(20, 3)), RNG.integers(1, 4, 20).astype(float)
    moved = points @ rotation(0.4).T + RNG.normal(0, 0.1, size=(20, 3))
    repeated = np.repeat(np.arange(20), weights.astype(int))
    for scaled in (True, False):
        one = metrics.umeyama(points, moved, scaled, weights)
        other = metrics.umeyama(points[repeated], moved[repeated], scaled)
        for a, b in zip(one, other, strict=True):
            assert a == pytest.approx(b)
        assert one.inverse()(one(points)) == pytest.approx(points)
        assert one.after(other)(points) == pytest.approx(one(other(points)))
    areas = metrics.vertex_areas(sphere(10.0, 4))
    assert areas.sum() == pytest.approx(4 * np.pi * 100, rel=0.01)
    assert metrics.vertex_areas(Surface(np.eye(3), np.array([[0, 1, 2]]))) == pytest.approx(np.full(3, 3**0.5 / 6))
