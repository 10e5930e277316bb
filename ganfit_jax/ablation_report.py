"""What an ablation found: its table, its figure, the rows of its page."""

import csv
import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ganfit_jax.ablation import FULL, folder_name
from ganfit_jax.files import write_bytes
from ganfit_jax.gallery import Row
from ganfit_jax.picture import labelled_sheet, save_png

SECONDS = ("fit s", "first fit s", "cell s")
Cell = tuple[str, str]  # item, variant
Figures = Mapping[str, float | str]


def paired(values: Float[np.ndarray, "n"], full: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Mean difference from full over the items, and its standard error (NaN for one item)."""
    difference = values - full
    error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else np.nan
    return float(difference.mean()), float(error)


def table(found: Mapping[Cell, Figures]) -> list[dict[str, Any]]:
    """A row for each variant: the mean of every measure over its items and, in brackets, the mean difference from full
    on the same items +- its paired standard error. Seconds are medians. What could not be measured is left out.
    """
    names = dict.fromkeys(name for figures in found.values() for name, v in figures.items() if isinstance(v, float))
    names = sorted(names, key=lambda name: name in SECONDS)  # keeps the order otherwise
    rows = []
    for variant in dict.fromkeys(variant for _, variant in found):
        own = {item: figures for (item, v), figures in found.items() if v == variant}
        row: dict[str, Any] = {"variant": variant, "items": len(own)}
        for name in names:
            values = {item: float(f[name]) for item, f in own.items() if np.isfinite(float(f.get(name, np.nan)))}
            row[name] = _entry(name, variant, values, found) if values else None
        rows.append(row)
    return rows


def _entry(name: str, variant: str, values: dict[str, float], found: Mapping[Cell, Figures]) -> str:
    if name in SECONDS:
        return f"{np.median(list(values.values())):.1f}"
    text = f"{np.mean(list(values.values())):.3f}"
    full = {item: float(found.get((item, FULL), {}).get(name, np.nan)) for item in values}
    both = [item for item in values if np.isfinite(full[item])]
    if variant == FULL or not both:
        return text
    mean, error = paired(np.array([values[i] for i in both]), np.array([full[i] for i in both]))
    return f"{text} ({mean:+.3f}" + (f" ± {error:.3f})" if np.isfinite(error) else ")")


def tables(found: Mapping[Cell, Figures], with_truth: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Title -> `table` of all items, and of the items with and without truth where there are both."""
    groups = {
        "without truth": {cell: f for cell, f in found.items() if cell[0] not in with_truth},
        "with truth": {cell: f for cell, f in found.items() if cell[0] in with_truth},
    }
    if not found:
        return {}
    made = {"All items: mean (difference from full ± its paired standard error)": table(found)}
    if all(groups.values()):
        made |= {f"Items {name}": table(group) for name, group in groups.items()}
    return made


def write_cells(path: Path, found: Mapping[Cell, Figures]) -> None:
    """All figures as CSV, a line a cell."""
    names = dict.fromkeys(name for figures in found.values() for name in figures)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["item", "variant", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"item": item, "variant": variant, **figures} for (item, variant), figures in found.items())
    write_bytes(path, stream.getvalue().encode())


def write_figures(found: Mapping[Cell, Row], output: Path) -> dict[str, str]:
    """The ablation figure (rows photos, columns variants, first the photo) of the render and of the turned render."""
    if not found:
        return {}
    items, variants = (list(dict.fromkeys(cell[i] for cell in found)) for i in (0, 1))
    plots = {"Renders": "render", "Turned by 26 degrees, neutral, relit": "turned"}
    names = [Path(item).stem for item in items]
    for base in plots.values():
        grid = []
        for item in items:
            own = [output / folder_name(item) / folder_name(v) for v in variants if (item, v) in found]
            cells = [output / folder_name(item) / folder_name(v) / f"{base}.png" for v in variants]
            grid.append([own[0] / "photo.png", *cells])
        save_png(output / f"ablation_{base}.png", labelled_sheet(grid, ["photo", *variants], names))
    return {title: f"ablation_{base}.png" for title, base in plots.items()}


def item_rows(found: Mapping[Cell, Row]) -> dict[str, Row]:
    """A row of the page for each item's folder: the photo, every variant's render, and what the unseen network says
    of it (the fit's own where there is no other)."""
    rows: dict[str, Row] = {}
    for (item, variant), cell in found.items():
        row = rows.setdefault(folder_name(item), Row({}, {"photo": f"{folder_name(variant)}/photo.png"}))
        said = [name for role in ("unseen", "own") for name in cell.figures if name.startswith(role)]
        row.figures[f"{variant}: {said[0]}"] = cell.figures[said[0]]
        row.pictures[variant] = f"{folder_name(variant)}/render.png"
    return rows
