"""What a fit costs: seconds and memory of each of its phases."""

import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ganfit_jax.fit import Callback
from ganfit_jax.gallery import Row

TITLE = "Time and memory"


def peak_megabytes() -> float:
    """The most memory that this process has held so far, in megabytes: on the accelerator where there is one."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e6
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def recorder() -> tuple[Callback, dict[str, tuple[float, float]]]:
    """A callback for a fit, and what it records: stage -> (time at its end, `peak_megabytes` until then)."""
    ends: dict[str, tuple[float, float]] = {}

    def callback(stage: str, done: int, total: int, terms: dict[str, float]) -> None:
        ends[stage] = (time.perf_counter(), peak_megabytes())

    return callback, ends


def figures(
    ends: Mapping[str, tuple[float, float]], started: float, seconds: Mapping[str, float], photos: int
) -> dict[str, float]:
    """Seconds per photo of every phase, and the peak memory (MB) by its end.

    Args:
      ends: what `recorder` recorded.
      started: time.perf_counter() when the fit was called for.
      seconds: of other phases: "observe" (before the first stage), "write" and the like.
      photos: number of photos.
    """
    found, before = {}, started + seconds.get("observe", 0.0)
    for stage, (end, peak) in ends.items():
        found |= {f"{stage} s": (end - before) / photos, f"{stage} MB": peak}
        before = end
    return found | {f"{name} s": value / photos for name, value in seconds.items()}


def is_cost(figure: str) -> bool:
    """Whether a figure of this name says what a fit cost."""
    return figure.endswith((" s", " MB"))


def tables(rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """`table` of these items under its title; nothing where no item says what its fit cost."""
    found = [{name: value for name, value in row.figures.items() if is_cost(name)} for row in rows]
    costs = [cost for cost in found if cost]
    return {TITLE: table(costs)} if costs else {}


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each phase: median seconds per photo, those of the first person (with compilation), peak memory.

    The peak is that of the process by the end of the phase, as the first person left it.
    """
    phases = dict.fromkeys(name.removesuffix(" s") for row in rows for name in row if name.endswith(" s"))
    lines = []
    for phase in phases:
        seconds = [float(row[f"{phase} s"]) for row in rows if f"{phase} s" in row]
        peaks = [float(row[f"{phase} MB"]) for row in rows if f"{phase} MB" in row]
        line = {"phase": phase, "seconds a photo": float(np.median(seconds)), "first, s": seconds[0]}
        lines.append(line | {"peak memory, MB": min(peaks) if peaks else None})
    return lines
