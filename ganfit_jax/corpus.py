"""A folder of unwrapped photos -> a linear texture model."""

import collections
import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from ganfit_jax.assets import LUMA
from ganfit_jax.files import write_bytes
from ganfit_jax.landmarks import OUTER_EYE_CORNERS
from ganfit_jax.pigment import level, skin_texels
from ganfit_jax.texture_data import ENOUGH, MapFile, find_maps, read_map
from ganfit_jax.types import ShapeModel

LINEAR_DETAIL = 116  # texels that a map must truly resolve to count for the linear model: 42 px between the eyes


class Maps(NamedTuple):
    """Albedo maps with visibility weights, as `experiments/build_corpus.py` writes them."""

    names: tuple[str, ...]
    albedo: Float[np.ndarray, "n s s 3"]  # sRGB, [0, 1]
    weight: Float[np.ndarray, "n s s"]  # [0, 1]


def write_map(folder: Path, name: str, albedo: Float[np.ndarray, "s s 3"], weight: Float[np.ndarray, "s s"]) -> None:
    """Writes ``NAME.png`` (RGB) and ``NAME.weight.png`` (grey); the colour goes last and marks the pair complete."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, values in ((f"{name}.weight.png", weight), (f"{name}.png", albedo)):
        stream = io.BytesIO()
        Image.fromarray(np.uint8(np.round(255 * np.clip(values, 0, 1)))).save(stream, "PNG")
        write_bytes(folder / file, stream.getvalue())


def read_maps(folder: Path, names: list[str] | None = None) -> Maps:
    """Reads all maps of a folder, or those named, in order of name; a map without a weight file counts as all seen."""
    if names is None:
        names = sorted(p.stem for p in folder.glob("*.png") if not p.stem.endswith(".weight"))
    if not names:
        raise ValueError(f"{folder}: found no maps, expected NAME.png files with optional NAME.weight.png")
    albedo = [np.asarray(Image.open(folder / f"{n}.png").convert("RGB"), np.float32) / 255 for n in names]
    weight = []
    for name, image in zip(names, albedo, strict=True):
        file = folder / f"{name}.weight.png"
        seen = np.asarray(Image.open(file), np.float32) / 255 if file.exists() else np.ones(image.shape[:2], np.float32)
        weight.append(seen)
    return Maps(tuple(names), np.stack(albedo), np.stack(weight))


def eye_span(model: ShapeModel, corners: Float[np.ndarray, "f 3 2"] | None = None) -> float:
    """Distance of the outer eye corners in a chart, as a share of its side: the canonical chart, or the one in which
    `corners` are the faces' corners."""
    eyes = list(OUTER_EYE_CORNERS)
    faces = np.asarray(model.landmark_faces)[eyes]
    places = np.asarray(model.uv)[np.asarray(model.uv_faces)[faces]] if corners is None else corners[faces]
    right, left = np.einsum("lk,lkc->lc", np.asarray(model.landmark_barycentric)[eyes], places)
    return float(np.linalg.norm(right - left))


def write_details(folder: Path, details: dict[str, int]) -> None:
    """Enters the true resolutions of maps (texels a side) into the folder's ``detail.json``; others' stay."""
    file = folder / "detail.json"
    table = json.loads(file.read_text()) if file.exists() else {}
    write_bytes(file, (json.dumps(dict(sorted((table | details).items())), indent=1) + "\n").encode())


def report(output: Path) -> dict[str, Any]:
    """Counts of a corpus: photos kept and dropped and why, maps by kind, those that teach each level, half-seen ones.

    ``half_seen`` maps show one half of the face and teach the other by its mirror image at half weight. ``tones``
    counts the real maps by the density of their skin (`pigment.level`): 1 is very light, 5 very dark. Variation by
    pigment is drawn while training (`texture_data.dataset`), so only maps on disk that were varied count as such.
    """
    reasons = collections.Counter()
    for file in (output / "fits").glob("*.npz"):
        with np.load(file) as stored:
            reasons[str(stored["dropped"])] += 1
    kept = reasons.pop("", 0)
    files = find_maps([output / "maps"]) if any((output / "maps").glob("*.png")) else ()
    kinds = collections.Counter(file.kind for file in files)
    side = max((file.detail for file in files), default=4)
    levels = {}
    for size in (2**power for power in range(2, 12) if ENOUGH * 2**power <= side):
        counted = collections.Counter(file.kind for file in files if file.detail >= ENOUGH * size)
        levels[str(size)] = {kind: counted[kind] for kind in ("real", "varied", "synthetic")}
    real = [file for file in files if file.kind == "real"]
    tones = collections.Counter(str(round(tone(file))) for file in real)
    return {
        "photos": kept + sum(reasons.values()),
        "kept": kept,
        "dropped": dict(sorted(reasons.items())),
        **{kind: kinds[kind] for kind in ("real", "varied", "synthetic")},
        "half_seen": sum(half_seen(file) for file in real),
        "levels": levels,
        "tones": dict(sorted(tones.items(), key=lambda item: int(item[0]))),
    }


def tone(file: MapFile) -> float:
    """`pigment.level` of a map's seen skin."""
    values = read_map(file, 64).astype(np.float32)
    return level(values[..., :3], values[..., 3] * skin_texels(64))


def half_seen(file: MapFile) -> bool:
    """Whether a tenth or more of what a map shows is known from the other half of the face alone (weight about 1/2
    against a mirror image of more than 3/4)."""
    weight = read_map(file, 64)[..., 3].astype(np.float32)
    mirrored = (np.abs(weight - 0.45) < 0.15) & (weight[:, ::-1] > 0.75)
    return bool(mirrored.sum() >= 0.1 * (weight > 0.3).sum() > 0)


def weighted_mean(
    maps: Float[np.ndarray, "n s s 3"], weights: Float[np.ndarray, "n s s"]
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "s s"]]:
    """The mean map and the total weight of each texel; each map is first brought to the common tone.

    A texel that only some people show (the scalp) would otherwise take the tone of just those: the mean of the ratio
    to each map's own tone is multiplied by the mean tone.
    """
    total = weights.sum(0)
    tones = (maps * weights[..., None]).sum((1, 2)) / np.maximum(weights.sum((1, 2)), 1e-6)[:, None]
    ratios = maps / np.maximum(tones[:, None, None], 1e-3)
    return (ratios * weights[..., None]).sum(0) / np.maximum(total, 1e-6)[..., None] * tones.mean(0), total


def principal_components(
    maps: Float[np.ndarray, "n d"], weights: Float[np.ndarray, "n d"], components: int, rounds: int = 12
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "k d"], Float[np.ndarray, "k"]]:
    """Mean, basis scaled by the standard deviations, and the share of the variance of each component.

    PCA of partly seen vectors: unseen entries are replaced by the model's own reconstruction until it settles (hard
    expectation-maximisation; Roweis 1998), with components added gradually. `weights` in [0, 1].
    """
    n = len(maps)
    mean = (maps * weights).sum(0) / np.maximum(weights.sum(0), 1e-6)
    filled = weights * maps + (1.0 - weights) * mean[None]
    basis, variance = np.zeros((0, maps.shape[1]), np.float32), np.zeros(0)
    total = 1.0
    for number in range(rounds):
        mean = filled.mean(0)
        centred = filled - mean[None]
        values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
        order = np.argsort(values)[::-1][: min(components, n - 1)]
        variance, total = values[order] / n, values.sum() / n
        basis = (vectors[:, order] / np.sqrt(n)).T.astype(np.float32) @ centred
        # Shrinking by the noise that the dropped components measure keeps unseen texels from running wild.
        active = max(4, int(len(order) * (number + 1) / rounds))
        noise = (total - variance[:active].sum()) / max(n - active, 1)
        scores = vectors[:, order[:active]] * np.sqrt(n) * (variance[:active] / (variance[:active] + noise))[None]
        if number + 1 < rounds:
            reconstruction = mean[None] + scores.astype(np.float32) @ basis[:active]
            filled = weights * maps + (1.0 - weights) * reconstruction
    signs = np.sign(basis[np.arange(len(basis)), np.abs(basis).argmax(1)])
    return mean, basis * signs[:, None], variance / total


def with_mirror(maps: Maps) -> tuple[Float[np.ndarray, "m s s 3"], Float[np.ndarray, "m s s"]]:
    """Albedo and weight of maps, then of their mirror images."""
    albedo, weight = (np.concatenate([x, x[:, :, ::-1]]) for x in (maps.albedo, maps.weight))
    return albedo, weight


def linear_basis(
    albedo: Float[np.ndarray, "n s s 3"], weight: Float[np.ndarray, "n s s"], components: int
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "k s s 3"], Float[np.ndarray, "k"]]:
    """`principal_components` of maps: their mean, basis, and the components' shares of the variance."""
    # What nobody shows is the completed maps' average, not nothing.
    spread = np.repeat(np.maximum(weight, 0.02).reshape(len(albedo), -1), 3, axis=1)
    mean, basis, share = principal_components(albedo.reshape(len(albedo), -1), spread, components)
    return mean.reshape(albedo.shape[1:]), basis.reshape(-1, *albedo.shape[1:]), share


def write_linear_model(path: str | Path, maps: Maps, components: int, licence: str = "unknown") -> float:
    """Builds the linear texture model from maps and their mirror images and writes it; returns the share of the
    variance that the components explain.

    File: ``mean`` (uint8, s s 3), ``luma`` (int8, k s s) and ``chroma`` (int8, k s/2 s/2 2) of the basis in YCbCr with
    chroma at half resolution, and ``luma_scale``, ``chroma_scale`` (k) that multiply them; `name`, `licence`.
    """
    mean, basis, share = linear_basis(*with_mirror(maps), components)
    arrays = {
        "name": np.asarray("albedo"),
        "licence": np.asarray(licence),
        "mean": np.uint8(np.round(255 * np.clip(mean, 0, 1))),
        "share": np.float32(share),
    }
    write_npz(path, arrays | small_basis(basis))
    return float(share.sum())


def small_basis(basis: Float[np.ndarray, "k s s 3"]) -> dict[str, np.ndarray]:
    """A basis as files store it (`write_linear_model`): luma and chroma in int8, with their scales; an eighth of the
    bytes of float32."""
    luma, chroma = to_luma_chroma(basis)
    luma_scale, chroma_scale = (np.abs(x).reshape(len(x), -1).max(1) / 127 + 1e-12 for x in (luma, chroma))
    return {
        "luma": np.asarray(np.round(luma / luma_scale[:, None, None]), np.int8),
        "chroma": np.asarray(np.round(chroma / chroma_scale[:, None, None, None]), np.int8),
        "luma_scale": np.asarray(luma_scale, np.float32),
        "chroma_scale": np.asarray(chroma_scale, np.float32),
    }


def to_luma_chroma(
    rgb: Float[np.ndarray, "k s s 3"],
) -> tuple[Float[np.ndarray, "k s s"], Float[np.ndarray, "k h h 2"]]:
    """Luma at full and colour differences (red - luma, blue - luma) at half resolution."""
    luma = rgb @ LUMA
    difference = rgb[..., [0, 2]] - luma[..., None]
    k, s = luma.shape[:2]
    return luma, difference.reshape(k, s // 2, 2, s // 2, 2, 2).mean((2, 4))


def write_npz(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """A compressed npz whose bytes depend on the arrays alone (no time stamps), written whole or not at all."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.asarray(array, order="C"), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, stream.getvalue())
    write_bytes(path, whole.getvalue())
