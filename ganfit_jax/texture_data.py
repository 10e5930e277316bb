"""Folders of UV maps -> training batches, the same ones after every restart.

A folder holds square PNG or JPEG maps of any size, optionally

* a visibility of each, ``NAME.weight.png`` beside it or a file of the same name in ``masks/`` (white = seen);
* ``detail.json``: ``{"NAME": 130, ...}``, the side in texels up to which a map shows true detail. A portrait of few
  pixels fills a large map with blur, which must not be taught as skin. A map that is not named there has its own side.

Maps whose name begins with ``skin_`` count as synthetic, with ``varied_`` as varied, all others as real.
"""

import functools
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float16
from PIL import Image

from ganfit_jax import pigment
from ganfit_jax.errors import InputError

if TYPE_CHECKING:
    import grain

KINDS = (".png", ".jpg", ".jpeg")
PREFIXES = {"skin_": "synthetic", "varied_": "varied"}
ENOUGH = 0.9  # share of a level's side that a map must truly resolve to teach it
UNSEEN = 1e-3  # weight of unseen texels among their neighbours: they only count where nothing else is there
CACHE = 2 << 30  # bytes of maps that a dataset keeps in memory


class MapFile(NamedTuple):
    """One UV map on disk."""

    path: Path
    weight: Path | None  # its visibility; None = all seen
    detail: int  # texels: the largest level that it may teach
    kind: str  # "real", "varied" or "synthetic"

    def teaches(self, resolution: int) -> bool:
        """Whether it truly has so many texels a side."""
        return self.detail >= ENOUGH * resolution


def find_maps(folders: Sequence[str | Path], leave_out: Collection[str] = ()) -> tuple[MapFile, ...]:
    """All maps of the folders but those named in `leave_out` (held-out people), in order of folder and name.

    Raises ``InputError`` where a folder is missing or empty, a map is not square or ``detail.json`` is no such table.
    """
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder}: not found, expected a folder of UV maps (PNG or JPEG)")
        detail = _details(folder / "detail.json")
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in KINDS and not p.stem.endswith(".weight"))
        if not files:
            raise InputError(f"{folder}: found no maps, expected PNG or JPEG files")
        masks = {p.stem: p for p in (folder / "masks").glob("*") if p.suffix.lower() in KINDS}
        for file in files:
            if file.stem in leave_out:
                continue
            beside = file.with_name(f"{file.stem}.weight.png")
            weight = beside if beside.exists() else masks.get(file.stem)
            side = _side(file)
            kind = next((kind for prefix, kind in PREFIXES.items() if file.stem.startswith(prefix)), "real")
            found.append(MapFile(file, weight, min(side, detail.get(file.stem, side)), kind))
    if not found:
        raise InputError(f"{', '.join(map(str, folders))}: no maps are left, expected some that are not held out")
    return tuple(found)


def teachers(files: Sequence[MapFile], resolution: int) -> tuple[MapFile, ...]:
    """The maps that truly have `resolution` texels a side; ``InputError`` where there are none."""
    chosen = tuple(f for f in files if f.teaches(resolution))
    if not chosen:
        best = max((f.detail for f in files), default=0)
        raise InputError(
            f"no map has the detail for {resolution} x {resolution}: the best of {len(files)} maps has {best} texels, "
            f"expected at least {ENOUGH * resolution:.0f}"
        )
    return chosen


def read_map(file: MapFile, resolution: int) -> Float16[np.ndarray, "r r 4"]:
    """sRGB colour and visibility of a map, [0, 1], as means over the area of the texels of a level.

    Colours are weighted by their visibility, so that what fills unseen texels does not bleed into seen ones.
    """
    colour = _pixels(file.path, "RGB")
    side = len(colour)
    if file.weight is None:
        weight = np.ones((side, side), np.float32)
    else:
        weight = _pixels(file.weight, "L")
        weight = _resample(weight[..., None], side)[..., 0] if len(weight) != side else weight
    say = np.maximum(weight, UNSEEN)[..., None]
    mixed = _resample(np.concatenate([colour * say, say, weight[..., None]], axis=-1), resolution)
    return np.concatenate([mixed[..., :3] / mixed[..., 3:4], mixed[..., 4:]], axis=-1).astype(np.float16)


def mean_map(files: Sequence[MapFile], resolution: int, mirror: bool = True) -> Float[np.ndarray, "r r 3"]:
    """The mean of the maps that have this resolution, as `corpus.weighted_mean`, and of their mirror images."""
    total, weight, tones = np.zeros((resolution, resolution, 3)), np.zeros((resolution, resolution, 1)), []
    for file in teachers(files, resolution):
        values = read_map(file, resolution).astype(np.float64)
        seen = np.maximum(values[..., 3:], UNSEEN)
        tones.append((values[..., :3] * seen).sum((0, 1)) / seen.sum())
        total += seen * values[..., :3] / np.maximum(tones[-1], 1e-3)
        weight += seen
    if mirror:
        total, weight = total + total[:, ::-1], weight + weight[:, ::-1]
    return np.clip(total / weight * np.mean(tones, axis=0), 0.0, 1.0).astype(np.float32)


def dataset(
    files: Sequence[MapFile], resolution: int, seed: int, mirror: bool = True, pigments: float = 0.0
) -> "grain.MapDataset":
    """Endless shuffled maps with random access; element i is a function of the arguments and i alone.

    An element is ``{"albedo": [r r 3] sRGB in [0, 1], "weight": [r r] in [0, 1]}``, float32. Only maps that have the
    resolution take part. `mirror`: half of them are mirrored (the chart is symmetric). `pigments`: probability with
    which an element's skin is given another tone (`pigment.retone`).
    """
    import grain

    chosen = teachers(files, resolution)
    read = functools.lru_cache(max(1, CACHE // (8 * resolution**2)))(functools.partial(read_map, resolution=resolution))
    skin = pigment.skin_texels(resolution) if pigments > 0 else np.zeros((resolution, resolution), np.float32)

    def element(file: MapFile, rng: np.random.Generator) -> dict[str, np.ndarray]:
        values = read(file).astype(np.float32)
        albedo, weight = values[..., :3], values[..., 3]
        if rng.random() < pigments:
            albedo = pigment.retone(rng, albedo, weight, skin)
        if mirror and rng.random() < 0.5:
            albedo, weight = albedo[:, ::-1], weight[:, ::-1]
        return {"albedo": albedo, "weight": weight}

    return grain.MapDataset.source(chosen).seed(seed).shuffle().repeat().random_map(element)


def batches(
    files: Sequence[MapFile],
    resolution: int,
    batch: int,
    seed: int,
    start: int = 0,
    mirror: bool = True,
    pigments: float = 0.0,
    threads: int = 1,
    prefetch: int = 4,
) -> Iterator[dict[str, Any]]:
    """The endless batches of `dataset` from number `start` on; a run that was killed goes on as if it had not been.

    ``{"albedo": [b r r 3], "weight": [b r r]}``, float32. `threads` read ahead, up to `prefetch` batches; 0 threads
    read when asked.
    """
    import grain

    whole = dataset(files, resolution, seed, mirror, pigments).batch(batch, drop_remainder=True)
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
    return iter(whole[start:].to_iter_dataset(ahead))


def _details(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    try:
        table = json.loads(path.read_text())
        return {str(name): int(side) for name, side in table.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f'{path}: cannot be used ({line}), expected {{"NAME": texels, ...}}') from None


def _side(path: Path) -> int:
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}), expected a UV map") from None
    if width != height:
        raise InputError(f"{path}: {width} x {height} texels, expected a square UV map")
    return width


def _pixels(path: Path, mode: str) -> Float[np.ndarray, "s s *c"]:
    _side(path)
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode), np.float32) / 255
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path}: broken image ({' '.join(str(error).split())}), expected a UV map") from None


def _resample(values: Float[np.ndarray, "s s c"], side: int) -> Float[np.ndarray, "r r c"]:
    """Means over the area of each new texel; bilinear where there are more new texels than old."""
    for axis in (0, 1):
        values = np.moveaxis(_rows(np.moveaxis(values, axis, 0), side), 0, axis)
    return values


def _rows(values: Float[np.ndarray, "a b c"], count: int) -> Float[np.ndarray, "n b c"]:
    scale = len(values) / count
    if scale == 1:
        return values
    if scale < 1:
        place = np.clip((np.arange(count) + 0.5) * scale - 0.5, 0, len(values) - 1)
        first = np.minimum(place.astype(int), max(len(values) - 2, 0))
        second, part = np.minimum(first + 1, len(values) - 1), (place - first).astype(np.float32)[:, None, None]
        return values[first] * (1 - part) + values[second] * part
    # The integral over the old texels, read at the borders of the new ones.
    integral = np.concatenate([np.zeros_like(values[:1], np.float64), np.cumsum(values, 0, np.float64)])
    place = np.arange(count + 1) * scale
    whole = np.minimum(place.astype(int), len(values) - 1)
    border = integral[whole] + (place - whole)[:, None, None] * values[whole]
    return (np.diff(border, axis=0) / scale).astype(np.float32)
