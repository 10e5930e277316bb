"""Reconstructions against the scans of a person: figures, pictures, and the tables of many people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ganfit_jax.metrics import Similarity, Surface
from ganfit_jax.picture import save_png
from ganfit_jax.plots import error_colours, mesh_picture
from ganfit_jax.protocols import KINDS, Compared, Field, micc, now, summary
from ganfit_jax.scans import Marked

RED = 5.0  # mm: the end of the error maps' scale
FORWARD, BACKWARD = "scan to mesh mm", "mesh to scan mm"
SHOWN = 1.15  # radii of the crop in half a picture


class Measured(NamedTuple):
    """One reconstruction against the scan on which it does best."""

    compared: dict[str, Compared]  # by kind of alignment
    field: Field  # NoW
    scan: Marked


def measured(reconstruction: Marked, scans: Sequence[Marked], radius: float) -> Measured:
    """Both protocols; of several scans of a person the one with the smallest error after similarity ICP counts."""
    found = [Measured(micc(reconstruction, scan, radius), now(reconstruction, scan), scan) for scan in scans]
    return min(found, key=lambda each: each.compared["similarity"].mean())


def figures(found: Measured) -> dict[str, float]:
    """The figures of one reconstruction in millimetres: for every alignment the mean of both directions, and each."""
    compared = found.compared.items()
    return {
        **{f"{kind} mm": each.mean() for kind, each in compared},
        **{f"{kind}, {FORWARD}": each.forward.mean() for kind, each in compared},
        **{f"{kind}, {BACKWARD}": each.backward.mean() for kind, each in compared},
        **{f"NoW {name} mm": value for name, value in summary([found.field]).items()},
    }


def write_pictures(
    folder: Path, name: str, reconstruction: Marked, found: Measured, radius: float, frame: Similarity
) -> dict[str, str]:
    """Writes geometry and error map (blue 0, red 5 mm, on the scan, after similarity ICP) of a reconstruction.

    Args:
      folder: existing folder.
      name: of the method; becomes part of the files' names.
      reconstruction: as it was measured.
      found: what was measured.
      radius: of the crop, mm.
      frame: brings scans into the frame in which the picture is taken, looking along -z.
    """
    best, tip = found.compared["similarity"], found.scan.landmarks[30]
    moved = frame(best.alignment(reconstruction.surface.vertices))
    centre, shown = frame(tip[None])[0], SHOWN * radius * frame.scale
    near = np.linalg.norm(moved - centre[None], axis=-1) <= 1.5 * shown
    seen = Surface(moved, reconstruction.surface.faces[near[reconstruction.surface.faces].all(1)])
    coloured = error_colours(best.forward.distances, RED)
    files = {f"{name}: geometry": f"{name}_geometry.png", f"{name}: {error_title()}": f"{name}_error.png"}
    pictures = (
        mesh_picture(seen, None, centre, shown),
        mesh_picture(Surface(frame(best.part.vertices), best.part.faces), coloured, centre, shown),
    )
    for file, image in zip(files.values(), pictures, strict=True):
        save_png(folder / file, image)
    return files


def error_title() -> str:
    """What error maps are called: with the ends of their scale."""
    return f"error, 0 to {RED:g} mm"


def write_scan_picture(folder: Path, scan: Marked, radius: float, frame: Similarity) -> dict[str, str]:
    """Writes the picture of a scan as `write_pictures` shows it."""
    surface, centre = Surface(frame(scan.surface.vertices), scan.surface.faces), frame(scan.landmarks[30:31])[0]
    save_png(folder / "scan.png", mesh_picture(surface, None, centre, SHOWN * radius * frame.scale))
    return {"scan": "scan.png"}


def table(
    rows: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, str],
    methods: Sequence[str],
    fields: Mapping[str, Sequence[Field]],
) -> list[dict[str, Any]]:
    """Mean and standard deviation over the people of each group, a line for each group and method.

    Args:
      rows: person -> figures, named ``"METHOD: FIGURE"``.
      groups: person -> group.
      methods: names of the methods.
      fields: ``"GROUP METHOD"`` -> NoW distances of its people, which are pooled.
    """
    lines = []
    for group in sorted(set(groups[name] for name in rows)):
        for method in methods:
            own = [row for name, row in rows.items() if groups[name] == group and f"{method}: {KINDS[0]} mm" in row]
            if not own:
                continue
            line: dict[str, Any] = {"group": group} if group else {}
            line |= {"method": method, "people": len(own)}
            for kind in KINDS:
                for figure in (f"{kind} mm", f"{kind}, {FORWARD}", f"{kind}, {BACKWARD}"):
                    values = np.array([float(row[f"{method}: {figure}"]) for row in own])
                    line[figure] = f"{values.mean():.3f} ± {values.std():.3f}"
            line |= {f"NoW {name} mm": value for name, value in summary(list(fields[f"{group} {method}"])).items()}
            lines.append(line)
    return lines
