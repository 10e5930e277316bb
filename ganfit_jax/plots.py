"""Plots of evaluations, written as PNG files: cumulative curves, histograms, error against something; meshes in colour.

matplotlib is imported only where it draws; no display is needed.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ganfit_jax.files import write_bytes
from ganfit_jax.gltf import vertex_normals
from ganfit_jax.metrics import Surface

COLOURS = ("#2b6cb0", "#dd6b20", "#38a169", "#805ad5", "#c53030", "#718096", "#b7791f", "#0987a0")
BINS = 40


def cumulative_curve(
    path: str | Path,
    errors: Mapping[str, Float[np.ndarray, "_"]],
    label: str = "distance, mm",
    limit: float = 7.0,
    weights: Mapping[str, Float[np.ndarray, "_"]] | None = None,
    of: str = "points",
) -> None:
    """Share (percent) of the points (or of what `of` names) whose error is at most x, a curve for each name; x runs
    from 0 to `limit`."""
    grid = np.linspace(0.0, limit, 400)

    def draw(axes: Any) -> None:
        for (name, values), colour in zip(errors.items(), _colours(len(errors)), strict=True):
            share = 100.0 * cumulative(values, None if weights is None else weights[name], grid)
            axes.plot(grid, share, label=name, color=colour, linewidth=1.6)
        axes.set(xlabel=label, ylabel=f"{of}, %", xlim=(0, limit), ylim=(0, 101))

    _figure(path, draw, len(errors))


def cumulative(
    values: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n"] | None, grid: Float[np.ndarray, "g"]
) -> Float[np.ndarray, "g"]:
    """Weight of the values that are at most each number of the grid, as a share of the whole."""
    order = np.argsort(values)
    each = np.ones(len(values)) if weights is None else weights[order]
    total = np.concatenate([[0.0], np.cumsum(each)])
    return total[np.searchsorted(values[order], grid, side="right")] / max(float(total[-1]), 1e-30)


def histograms(
    path: str | Path, values: Mapping[str, Float[np.ndarray, "_"]], label: str, marks: Mapping[str, float] | None = None
) -> None:
    """Densities of several sets of numbers over the same bins in one plot; `marks` are named vertical lines."""
    known = {name: np.asarray(each)[np.isfinite(each)] for name, each in values.items()}
    every = np.concatenate([*known.values(), list((marks or {}).values())])
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)

    def draw(axes: Any) -> None:
        for (name, each), colour in zip(known.items(), _colours(len(known)), strict=True):
            density = np.histogram(each, edges)[0] / max(1, len(each))
            axes.stairs(100.0 * density, edges, fill=True, alpha=0.35, color=colour)
            axes.stairs(100.0 * density, edges, color=colour, label=f"{name} ({len(each)})", linewidth=1.4)
        for name, place in (marks or {}).items():
            axes.axvline(place, color="#444444", linewidth=1.0, linestyle="--", label=f"{name} {place:.3g}")
        axes.set(xlabel=label, ylabel="pairs, %")

    _figure(path, draw, len(known) + len(marks or {}))


def error_lines(
    path: str | Path,
    lines: Mapping[str, Mapping[float, Sequence[float]]],
    xlabel: str,
    ylabel: str = "error, mm",
) -> None:
    """Mean and spread against x: ``lines[name][x]`` holds the values measured at x; whiskers show one std."""

    def draw(axes: Any) -> None:
        for (name, points), colour in zip(lines.items(), _colours(len(lines)), strict=True):
            seen = {x: np.asarray(v, float)[np.isfinite(v)] for x, v in sorted(points.items())}
            seen = {x: v for x, v in seen.items() if len(v)}
            mean, std = ([float(f(v)) for v in seen.values()] for f in (np.mean, np.std))
            axes.errorbar(
                list(seen), mean, std, label=name, color=colour, marker="o", markersize=4, capsize=3, linewidth=1.4
            )
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.set_ylim(bottom=0)

    _figure(path, draw, len(lines))


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _figure(path: str | Path, draw: Callable[[Any], None], names: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(alpha=0.25)
    if names:
        axes.legend(fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110, format="png")
    write_bytes(path, stream.getvalue())


def error_colours(values: Float[np.ndarray, "n"], limit: float = 5.0) -> Float[np.ndarray, "n 3"]:
    """Blue (0) over green and yellow to red (`limit` and more); grey where a value is NaN."""
    stops = np.array(
        [[0.23, 0.30, 0.75], [0.25, 0.70, 0.75], [0.45, 0.78, 0.35], [0.95, 0.83, 0.25], [0.80, 0.12, 0.13]]
    )
    place = np.clip(np.nan_to_num(values) / limit, 0.0, 1.0)
    colours = np.stack([np.interp(place, np.linspace(0, 1, len(stops)), stops[:, c]) for c in range(3)], axis=-1)
    return np.where(np.isnan(values)[:, None], 0.6, colours)


def mesh_picture(
    surface: Surface,
    colours: Float[np.ndarray, "v 3"] | None = None,
    centre: Float[np.ndarray, "3"] | None = None,
    radius: float | None = None,
    size: int = 256,
) -> Float[np.ndarray, "{size} {size} 3"]:
    """A surface of any topology seen along -z without perspective, with a lamp at the viewer, on white.

    Args:
      surface: +x to the right of the picture, +y up, +z towards the viewer.
      colours: of the vertices, in [0, 1]; light grey by default.
      centre, radius: what the picture shows: a square of twice the radius; by default the whole surface.
      size: side of the picture, pixels.

    Every triangle is filled with points no further apart than about half a pixel; the nearest one is seen.
    """
    vertices = surface.vertices
    low, high = vertices.min(0), vertices.max(0)
    centre = (low + high) / 2 if centre is None else centre
    radius = float(max(high[:2] - low[:2])) / 2 if radius is None else radius
    colours = np.full(vertices.shape, 0.75) if colours is None else colours
    place = (vertices - centre) * np.array([1.0, -1.0, 1.0]) * (size / (2.0 * max(radius, 1e-9)))
    corners = place[surface.faces] + np.array([size / 2, size / 2, 0.0])
    lit = colours * (0.25 + 0.75 * np.abs(vertex_normals(vertices, surface.faces)[:, 2:]))
    edges = (corners - np.roll(corners, 1, axis=1))[..., :2]
    steps = np.clip(np.ceil(2.0 * np.abs(edges).max((1, 2))), 1, 4 * size).astype(int)
    steps = 2 ** np.ceil(np.log2(steps)).astype(int)
    depth, picture = np.full(size * size, -np.inf), np.ones((size * size, 3))
    for step in np.unique(steps):
        u, v = (x.ravel() for x in np.meshgrid(np.arange(step + 1) / step, np.arange(step + 1) / step))
        weights = np.stack([1 - u - v, u, v], -1)[u + v <= 1 + 1e-9]
        chosen = np.flatnonzero(steps == step)
        for part in np.array_split(chosen, max(1, len(chosen) * len(weights) // 1_000_000)):
            points = np.einsum("sk,fkc->fsc", weights, corners[part]).reshape(-1, 3)
            tint = np.einsum("sk,fkc->fsc", weights, lit[surface.faces[part]])
            inside = ((points[:, :2] >= 0) & (points[:, :2] < size)).all(-1)
            pixel = points[inside, 1].astype(int) * size + points[inside, 0].astype(int)
            height, tint = points[inside, 2], tint.reshape(-1, 3)[inside]
            order = np.argsort(height)
            best = np.full(size * size, -1)
            best[pixel[order]] = order
            seen = np.flatnonzero(best >= 0)
            nearer = seen[height[best[seen]] > depth[seen]]
            depth[nearer], picture[nearer] = height[best[nearer]], tint[best[nearer]]
    return picture.reshape(size, size, 3)
