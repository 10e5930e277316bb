"""Curves against counting, and meshes where they must be seen."""

import numpy as np
import pytest

from ganfit_jax import plots
from ganfit_jax.metrics import Surface
from ganfit_jax.photo import read_photo

RNG = np.random.default_rng(0)


def test_cumulative_shares_against_counting():
    values, weights, grid = RNG.uniform(0, 3, 50), RNG.uniform(0.1, 2, 50), np.array([0.0, 1.0, 2.5, 9.0])
    expected = [weights[values <= x].sum() / weights.sum() for x in grid]
    assert plots.cumulative(values, weights, grid) == pytest.approx(expected)
    assert plots.cumulative(values, None, grid) == pytest.approx([(values <= x).mean() for x in grid])
    assert plots.cumulative(np.zeros(0), None, grid) == pytest.approx(0)


def test_plots_are_written_and_hold_their_colours(tmp_path):
    plots.cumulative_curve(tmp_path / "a.png", {"ours": RNG.uniform(0, 3, 50), "mean": RNG.uniform(0, 6, 50)})
    plots.histograms(
        tmp_path / "b.png", {"same": np.array([0.5, 0.6, np.nan]), "none": np.zeros(0)}, "cosine", {"t": 0.3}
    )
    plots.histograms(tmp_path / "c.png", {"one": np.array([0.5])}, "cosine")
    plots.error_lines(tmp_path / "d.png", {"one photo": {45.0: [1.0, np.nan], 0.0: [0.5, 0.7], 9.0: [np.nan]}}, "yaw")
    for name in "abcd":
        image = read_photo(tmp_path / f"{name}.png")
        blue = np.abs(image - np.array([0x2B, 0x6C, 0xB0]) / 255).max(-1) < 0.05
        assert image.shape[1] > 500 and blue.sum() > 20, name


def test_error_colours_run_from_blue_to_red():
    colours = plots.error_colours(np.array([0.0, 5.0, 50.0, np.nan]))
    assert colours[0, 2] > 0.6 > colours[0, 0] and colours[1, 0] > 0.6 > colours[1, 2]
    assert (colours[1] == colours[2]).all() and (colours[3] == 0.6).all()


def test_the_nearer_triangle_is_seen_where_it_lies():
    """A red square of 40 mm before a green one of 80 mm: both fill what they must, whatever their order."""
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    vertices = np.concatenate([20 * square + [0, 10, 5.0], 40 * square])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    colours = np.repeat([[1.0, 0, 0], [0, 1.0, 0]], 4, axis=0)
    for order in (np.arange(4), np.arange(4)[::-1]):
        image = plots.mesh_picture(Surface(vertices, faces[order]), colours, np.zeros(3), 50.0, 100)
        y, x = np.mgrid[:100, :100] + 0.5
        inside = (np.abs(x - 50) < 40) & (np.abs(y - 50) < 40)
        front = (np.abs(x - 50) < 20) & (np.abs(y - 40) < 20)  # up in space is up in the picture
        expected = np.where(front[..., None], [1.0, 0, 0], np.where(inside[..., None], [0, 1.0, 0], 1.0))
        rim = (np.abs(np.abs(x - 50) - 40) < 1) | (np.abs(np.abs(y - 50) - 40) < 1)
        rim |= (np.abs(np.abs(x - 50) - 20) < 1) | (np.abs(np.abs(y - 40) - 20) < 1)
        assert np.abs(image - expected)[~rim].max() < 1e-9
    whole = plots.mesh_picture(Surface(vertices, faces), size=64)
    assert (whole < 1).all(-1).mean() > 0.9, "by default the surface fills the picture"
