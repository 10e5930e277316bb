"""The tables and plots of synthetic people whose truth is known."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ganfit_jax import plots
from ganfit_jax.gallery import Row

BANDS = (0.0, 15.0, 30.0, 45.0, 60.0, 90.0)  # degrees of yaw
ASIDE, DARK = 35.0, 2.8  # degrees between light and camera; density of the skin: where tables divide the people
COLUMNS = ("error_mm", "mean_face_mm", "expression_mm", "no_expression_mm", "pose_degrees", "light_degrees", "seconds")


def tables(rows: Mapping[str, Row]) -> dict[str, list[dict[str, Any]]]:
    """Means over the items: by number of photos and size, and for single photos of the largest size by yaw, by the
    light's direction, by how dark the skin is (`pigment.level`) and by what hides the face."""
    figures = [row.figures for row in rows.values()]
    largest = max((f["size"] for f in figures), default=0)
    singles = [f for f in figures if f["photos"] == 1 and f["size"] == largest]
    found = {
        "By number of photos and size": grouped(figures, lambda f: f"{f['photos']} x {f['size']} px"),
        "By yaw, one photo": grouped(singles, band),
        "By light, one photo": grouped(singles, lambda f: bound(f["aside"], ASIDE, "degrees from the camera")),
        "By skin, one photo": grouped(singles, lambda f: bound(f["skin"], DARK, "density of melanin")),
        "By what hides the face, one photo": grouped(
            singles, lambda f: "glasses or hand" if f["hidden"] else "nothing"
        ),
    }
    return {title: table for title, table in found.items() if table}


def band(figures: Mapping[str, Any]) -> str:
    """The band of yaw, degrees."""
    index = int(np.clip(np.searchsorted(BANDS, figures["yaw"], side="right"), 1, len(BANDS) - 1))
    return f"{BANDS[index - 1]:g} to {BANDS[index]:g} degrees"


def bound(value: float, limit: float, what: str) -> str:
    """On which side of a limit a value is."""
    return f"{'up to' if value <= limit else 'more than'} {limit:g} {what}"


def grouped(figures: Sequence[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], str]) -> list[dict[str, Any]]:
    """A row of means for each group, and the standard deviation of the error."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for each in sorted(figures, key=lambda f: (f["photos"], f["size"], f["yaw"])):
        groups.setdefault(key(each), []).append(each)
    return [
        {
            "group": name,
            "items": len(members),
            **{c: float(np.mean([m[c] for m in members])) for c in COLUMNS},
            "error_std": float(np.std([m["error_mm"] for m in members])),
        }
        for name, members in groups.items()
    ]


def fixed(figures: Mapping[str, Any], usual: Mapping[str, Any], varied: str) -> bool:
    """Whether an item has the usual number of photos and size, but for the one that is `varied`."""
    return all(figures[name] == value for name, value in usual.items() if name != varied)


def charts(rows: Mapping[str, Row], output: Path) -> dict[str, str]:
    """Writes plots of the error against yaw, size and number of photos where these differ, and of how many items have
    which error; title -> file name."""
    figures = [row.figures for row in rows.values()]
    largest = max((f["size"] for f in figures), default=0)
    kinds = {"yaw": "yaw, degrees", "size": "side of the photo, pixels", "photos": "photos of a person"}
    made = {}
    for kind, label in kinds.items():
        chosen = [f for f in figures if fixed(f, {"photos": 1, "size": largest}, kind)]
        places = [float(f[kind]) if kind != "yaw" else 5.0 * round(float(f["yaw"]) / 5.0) for f in chosen]
        if len(set(places)) < 2:
            continue
        lines: dict[str, dict[float, list[float]]] = {"fit": {}, "mean face": {}}
        for place, each in zip(places, chosen, strict=True):
            lines["fit"].setdefault(place, []).append(float(each["error_mm"]))
            lines["mean face"].setdefault(place, []).append(float(each["mean_face_mm"]))
        plots.error_lines(output / f"error_{kind}.png", lines, label)
        made[f"Error by {label.split(',')[0]}"] = f"error_{kind}.png"
    large = [f for f in figures if f["size"] == largest]
    for photos in sorted({int(f["photos"]) for f in large}):
        chosen = [f for f in large if f["photos"] == photos]
        methods = {"fit": "error_mm", "mean face": "mean_face_mm"}
        errors = {name: np.array([float(f[figure]) for f in chosen]) for name, figure in methods.items()}
        file = f"errors_{photos}.png"
        plots.cumulative_curve(output / file, errors, "mean error of a person, mm", 4.0, of="people")
        made[f"People by error, {photos} photo{'s' * (photos > 1)}"] = file
    return made
