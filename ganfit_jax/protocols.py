"""How far a reconstruction of any topology is from a scan: the MICC protocol and the NoW protocol. Plain numpy.

Every mean is weighted by area, so that it does not depend on the vertices of either mesh. Where the authors' scripts
differ: MICC scans there are first registered to a template, and errors are those of the template's size; here they are
those of the raw scan in its own millimetres, and one alignment serves both directions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ganfit_jax.errors import InputError
from ganfit_jax.landmarks import INNER, NOSE_TIP
from ganfit_jax.metrics import Similarity, Surface, crop, icp, searcher, umeyama, vertex_areas
from ganfit_jax.scans import Marked

KINDS = ("similarity", "rigid", "landmarks")  # ICP with scale, ICP without, landmark alignment alone
SEVEN = (36, 39, 42, 45, 33, 48, 54)  # eye corners, base of the nose, mouth corners
ICP_POINTS = (400, 3000)  # of the scan, that take part in the alignment, about; all of its points are measured


class Field(NamedTuple):
    """Distances (mm) at the vertices of a surface, and the area (mm^2) that each stands for."""

    distances: Float[np.ndarray, "n"]
    areas: Float[np.ndarray, "n"]

    def mean(self) -> float:
        """Mean over the area, mm."""
        return float(np.average(self.distances, weights=self.areas))


class Compared(NamedTuple):
    """A reconstruction against a scan."""

    part: Surface  # of the scan
    forward: Field  # part -> reconstruction
    backward: Field  # reconstruction, cropped likewise -> scan
    alignment: Similarity  # reconstruction -> scan

    def mean(self) -> float:
        """The error: mean of the mean distances in both directions, mm."""
        return 0.5 * (self.forward.mean() + self.backward.mean())


def landmark_alignment(
    reconstruction: Marked, scan: Marked, scaled: bool = True, chosen: tuple[int, ...] = tuple(range(68))[INNER]
) -> Similarity:
    """Brings the reconstruction's landmarks to the scan's; those that either lacks are left out.

    By default the 51 inner ones: the jaw's have no fixed place.
    """
    source, target = reconstruction.landmarks[list(chosen)], scan.landmarks[list(chosen)]
    known = np.isfinite(source).all(-1) & np.isfinite(target).all(-1)
    if known.sum() < 4:
        raise InputError(f"{known.sum()} landmarks in common, expected at least 4")
    return umeyama(source[known], target[known], scaled)


def micc(
    reconstruction: Marked, scan: Marked, radius: float = 95.0, kinds: tuple[str, ...] = KINDS
) -> dict[str, Compared]:
    """The MICC protocol for each kind of alignment (`KINDS`).

    Landmark alignment; crop of the scan to `radius` mm around its nose tip; ICP from the crop to the closest points of
    the reconstruction until the gain is under 0.001 mm; distances to the closest point of the other surface, both ways.
    """
    tip = scan.landmarks[NOSE_TIP]
    if not np.isfinite(tip).all():
        raise InputError("the scan's nose tip (landmark 31 of 68) is not known, expected it")
    part = crop(scan.surface, tip, radius)
    if not len(part.faces):
        raise InputError(f"no triangle of the scan within {radius:g} mm of its nose tip, expected a face")
    to_scan, compared = searcher(scan.surface), {}
    for kind in kinds:
        first = landmark_alignment(reconstruction, scan, kind != "rigid")
        motion = first if kind == "landmarks" else refined(first, part, reconstruction.surface, kind == "similarity")
        moved = Surface(motion(reconstruction.surface.vertices), reconstruction.surface.faces)
        own = crop(moved, tip, radius)
        if not len(own.faces):
            raise InputError(f"no triangle of the reconstruction within {radius:g} mm of the nose tip, expected a face")
        compared[kind] = Compared(part, _field(part, searcher(moved)), _field(own, to_scan), motion)
    return compared


def now(reconstruction: Marked, scan: Marked, refine: bool = True) -> Field:
    """The NoW protocol: distances from the face of a scan to a reconstruction, which may have any size.

    Similarity from seven points; crop of the scan around the middle of the face; then, as in the challenge's script
    (`refine`), the similarity that makes the distances smallest. Statistics: `summary`.
    """
    missing = [number for number in SEVEN if not np.isfinite(scan.landmarks[number]).all()]
    if missing:
        raise InputError(f"the scan's landmark {missing[0] + 1} of 68 is not known, expected it")
    part = crop(scan.surface, *now_region(scan.landmarks))
    if not len(part.faces):
        raise InputError("no triangle of the scan around its landmarks, expected a face")
    motion = landmark_alignment(reconstruction, scan, chosen=SEVEN)
    if refine:
        motion = refined(motion, part, reconstruction.surface)
    moved = Surface(motion(reconstruction.surface.vertices), reconstruction.surface.faces)
    return _field(part, searcher(moved))


def now_region(landmarks: Float[np.ndarray, "68 3"]) -> tuple[Float[np.ndarray, "3"], float]:
    """Centre and radius (mm) of what the NoW challenge compares: 0.3 of the way from the base of the nose up to its
    bridge; 0.7 times the sum of the outer eye distance and the length of the nose."""
    outer_right, inner_right, inner_left, outer_left, base = landmarks[list(SEVEN[:5])]
    bridge = 0.5 * (inner_right + inner_left)
    across, along = (float(np.linalg.norm(x)) for x in (outer_left - outer_right, bridge - base))
    return base + 0.3 * (bridge - base), 0.7 * (across + along)


def refined(start: Similarity, part: Surface, target: Surface, scaled: bool = True) -> Similarity:
    """The alignment of `target` to the scan's `part` improved by ICP from the part to the target, first from few points
    of the part, then from more. It runs in the scan's frame, so that the target's unit does not matter."""
    moved, areas = Surface(start(target.vertices), target.faces), vertex_areas(part)
    motion = Similarity(1.0, np.eye(3), np.zeros(3))
    for count in ICP_POINTS:
        points, weights = thinned(part.vertices, areas, count)
        motion = icp(points, moved, motion, scaled, weights=weights)
    return motion.inverse().after(start)


def thinned(
    points: Float[np.ndarray, "n 3"], weights: Float[np.ndarray, "n"], count: int
) -> tuple[Float[np.ndarray, "m 3"], Float[np.ndarray, "m"]]:
    """About `count` of the points of a surface, one for each cell of a grid, and the weights of the cells.

    Points of no weight are left out; where there are not more than `count`, all others are kept.
    """
    points, weights = points[weights > 0], weights[weights > 0]
    if len(points) <= count:
        return points, weights
    side = float(np.sqrt(weights.sum() / count))  # the weights of a surface are areas
    cell = np.unique(np.floor(points / side).astype(np.int64), axis=0, return_inverse=True)[1].reshape(-1)
    total = np.bincount(cell, weights)
    middle = np.stack([np.bincount(cell, weights * points[:, axis]) for axis in range(3)], axis=-1) / total[:, None]
    order = np.lexsort((*points.T, np.linalg.norm(points - middle[cell], axis=-1), cell))
    first = np.searchsorted(cell[order], np.arange(len(total)))
    return points[order[first]], total


def summary(fields: list[Field]) -> dict[str, float]:
    """Median, mean and standard deviation (mm) of the distances of all fields together, weighted by area."""
    values, areas = (np.concatenate(each) for each in zip(*fields, strict=True))
    order = np.argsort(values)
    half = np.searchsorted(np.cumsum(areas[order]), 0.5 * areas.sum())
    mean = float(np.average(values, weights=areas))
    std = float(np.sqrt(np.average((values - mean) ** 2, weights=areas)))
    return {"median": float(values[order][min(half, len(values) - 1)]), "mean": mean, "std": std}


def _field(surface: Surface, search: Callable[[np.ndarray], np.ndarray]) -> Field:
    return Field(np.linalg.norm(search(surface.vertices) - surface.vertices, axis=-1), vertex_areas(surface))
