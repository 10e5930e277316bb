"""One person: fit, scans and rivals compared, pictures judged, all of it kept; and the tables and plots of many."""

import dataclasses
import glob
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ganfit_jax import energy, geometry, likeness, phases, pipeline, recognition, results, scans, texture
from ganfit_jax.cases import Case
from ganfit_jax.config import Config
from ganfit_jax.detectors import detector
from ganfit_jax.errors import InputError
from ganfit_jax.evaluation import attempt, describe, dlib_network, side_view
from ganfit_jax.export import hashes, load_fit
from ganfit_jax.files import write_arrays, write_bytes
from ganfit_jax.gallery import Row, plain
from ganfit_jax.landmarks import Detector
from ganfit_jax.likeness import Seen
from ganfit_jax.metrics import Similarity
from ganfit_jax.photo import read_photo
from ganfit_jax.picture import save_png
from ganfit_jax.protocols import Field, landmark_alignment
from ganfit_jax.results import name_of
from ganfit_jax.scans import Marked
from ganfit_jax.subjects import neutral_face
from ganfit_jax.types import ModelInfo, Models, Params, Recogniser

OURS, MEAN, SIDE = "ganfit", "mean face", "ganfit, side"
# Files and figures have these names.
RESERVED = (OURS, MEAN, SIDE, "fit", "photo", "render", "geometry", "mean", "side", "scan")
ARRAYS = "measured.npz"


class Rival(NamedTuple):
    """Another program's results: NAME.obj (.ply, .glb, .stl) and NAME.png (a render) for each case, all optional."""

    name: str
    folder: Path
    unit: float  # millimetres in one unit of its meshes


class Tools(NamedTuple):
    """What is loaded once for all people."""

    models: Models
    infos: dict[str, ModelInfo]
    config: Config
    find: Detector
    judge: Recogniser  # compares photos and renders
    network: Any  # dlib's own
    rivals: tuple[Rival, ...] = ()
    judge_sha256: str = ""


def load_tools(config: Config, judge: str | None = None, fits: Sequence[str] = ()) -> Tools:
    """Loads everything that a configuration names; raises `InputError` with one line.

    Args:
      config: of the fits.
      judge: npz of a recognition network that the fit does not use; by default the fit's own judges.
      fits: other programs' folders, as `read_rival` takes them.
    """
    pipeline.check(config)
    rivals = tuple(read_rival(text) for text in fits)
    names = [*RESERVED, *(rival.name for rival in rivals)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"--fits: {', '.join(sorted(twice))} twice, expected folders of different names, none of them of "
            f"{', '.join(RESERVED)}"
        )
    models, infos = pipeline.load_models(config)
    try:
        network, info = recognition.load(judge) if judge else (energy.recogniser_of(models), infos["recogniser"])
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"--judge={judge}: {error}") from None
    return Tools(models, infos, config, detector(config.detector), network, dlib_network(), rivals, info.sha256)


def read_rival(text: str) -> Rival:
    """``FOLDER`` or ``FOLDER=UNIT`` with the millimetres in one unit of the meshes (a number; 1 by default)."""
    folder, _, unit = text.partition("=")
    if not Path(folder).is_dir():
        raise InputError(f"--fits={text}: {folder} is not a folder, expected one with meshes")
    if unit and not re.fullmatch(r"\d+(\.\d*)?|\.\d+", unit):
        raise InputError(f"--fits={text}: found '{unit}' behind the folder, expected millimetres a unit")
    return Rival(Path(folder).resolve().name, Path(folder), float(unit or 1.0))


class Person(NamedTuple):
    """What is kept of one person."""

    row: Row
    fields: dict[str, Field]  # method -> NoW distances
    seen: dict[str, Float[np.ndarray, "n d"]]  # "photo" or kind of render -> embeddings
    phases: dict[str, float]  # what the fit cost


def read_person(row: Row, folder: Path) -> Person:
    """What `measure` left in the folder."""
    with np.load(folder / ARRAYS, allow_pickle=False) as file:
        arrays = {tuple(name.split("|", 1)): file[name] for name in file.files}
    fields = {key: Field(a, arrays["areas", key]) for (part, key), a in arrays.items() if part == "distances"}
    seen = {key: a for (part, key), a in arrays.items() if part == "seen"}
    costs = folder / "fit" / "phases.json"
    return Person(row, fields, seen, json.loads(costs.read_text()) if costs.is_file() else {})


def settings_of(case: Case, tools: Tools) -> str:
    """What the figures of a case depend on: photos, scans, rivals' files, settings, models, judges."""
    theirs = [path for rival in tools.rivals for path in sorted(rival.folder.glob(f"{glob.escape(case.name)}.*"))]
    files = [*case.photos, *(file for pair in case.scans for file in pair), *theirs]
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime) for file in files if file.is_file()]
    judges = [tools.judge.spec.name, tools.judge_sha256, tools.find.name]
    values = [plain(case._replace(source="")), stamps, dataclasses.asdict(tools.config), hashes(tools.infos), judges]
    return json.dumps([*values, plain(tools.rivals)])


def measure(case: Case, tools: Tools, folder: Path) -> Row:
    """Fits, compares with the scans and with the photos; writes pictures and `ARRAYS` into the folder."""
    case, unseen = with_faces(case, tools)
    params = fitted(case, tools, folder / "fit")
    nobody = params._replace(identity=jax.tree.map(jnp.zeros_like, params.identity))
    metric = tools.judge.spec.metric
    name, sign = ("cosine", 1) if metric == "cosine" else ("distance", -1)
    seen, shown, failures = compare_pictures(case, tools, params, nobody, folder)
    arrays = {f"seen|{kind}": values for kind, values in seen.items()}
    pictures = {kind: Seen(("",) * len(each), each) for kind, each in seen.items()}
    own = {kind: likeness.judged(each, pictures["photo"], metric).own for kind, each in pictures.items()}
    figures: dict[str, float | str] = {
        f"{kind}: {name}": sign * float(np.median(x[np.isfinite(x)])) if np.isfinite(x).any() else np.nan
        for kind, x in own.items()
        if kind != "photo"
    }
    figures |= {"photos without a face": ", ".join(unseen)} if unseen else {}
    if case.scans:
        faces, unread = reconstructions(case, tools, params, nobody)
        truth = [scans.read_scan(scan, marks, case.unit) for scan, marks in case.scans]
        found = {method: geometry.measured(faces[method], truth, case.radius) for method in (OURS, MEAN)}
        theirs = [method for method in faces if method not in found]
        more, unmeasured = attempt(theirs, lambda method: geometry.measured(faces[method], truth, case.radius))
        found, failures = found | more, failures | unread | unmeasured
        drawn = geometry.write_scan_picture(
            folder, found[OURS].scan, case.radius, upright(faces[OURS], found[OURS].scan)
        )
        for method, each in found.items():
            frame = upright(faces[OURS], each.scan)
            figures |= {f"{method}: {figure}": value for figure, value in geometry.figures(each).items()}
            drawn |= geometry.write_pictures(folder, method, faces[method], each, case.radius, frame)
            arrays[f"distances|{method}"] = np.asarray(each.field.distances, np.float32)
            arrays[f"areas|{method}"] = np.asarray(each.field.areas, np.float32)
        first = ("photo", "render", f"{OURS}: geometry", "scan", f"{OURS}: {geometry.error_title()}")
        shown = {title: (shown | drawn)[title] for title in first} | shown | drawn
    figures |= {f"{method} failed": reason for method, reason in failures.items()}
    write_arrays(folder / ARRAYS, arrays)
    return Row(figures, shown)


def upright(face: Marked, scan: Marked) -> Similarity:
    """Turns a scan so that it looks along +z with y up, as our face does."""
    return Similarity(1.0, landmark_alignment(face, scan).inverse().rotation, np.zeros(3))


def with_faces(case: Case, tools: Tools) -> tuple[Case, list[str]]:
    """Of several photos those in which the detector finds a face (all of them where it finds none, so that the fit says
    what is wrong), and the names of the others."""
    if len(case.photos) == 1:
        return case, []
    seen, _ = attempt([str(photo) for photo in case.photos], lambda name: tools.find.detect(read_photo(name)))
    kept = tuple(photo for photo in case.photos if seen.get(str(photo)))
    return (case._replace(photos=kept), [p.name for p in case.photos if p not in kept]) if kept else (case, [])


def reconstructions(
    case: Case, tools: Tools, params: Params, nobody: Params
) -> tuple[dict[str, Marked], dict[str, str]]:
    """The faces to measure by method, and what is wrong with rivals' meshes that cannot be measured."""
    faces = {method: neutral_face(tools.models.shape, p) for method, p in ((OURS, params), (MEAN, nobody))}
    failures: dict[str, str] = {}
    for rival in tools.rivals:
        files = [rival.folder / f"{case.name}{suffix}" for suffix in scans.MESHES]
        mesh = next((file for file in files if file.is_file()), None)
        try:
            if mesh is not None:
                faces[rival.name] = scans.read_reconstruction(mesh, rival.unit)
        except InputError as error:
            failures[rival.name] = str(error)
    return faces, failures


def stored_fit(folder: Path, photos: Sequence[Path], infos: dict[str, ModelInfo], config: Config) -> Params | None:
    """The fit that an earlier run left in the folder, if it is of these photos, models and settings."""
    settings = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    try:
        stored = load_fit(folder / "fit.npz")
        names = [str(photo) for photo in photos]
        same = hashes(stored.infos) == hashes(infos) and stored.config == settings
        return stored.params if same and stored.extra["photos"].tolist() == names else None
    except (InputError, KeyError):
        return None


def fitted(case: Case, tools: Tools, folder: Path) -> Params:
    """The fit in the folder, made where there is none of these photos with these settings."""
    if (stored := stored_fit(folder, case.photos, tools.infos, tools.config)) is not None:
        return stored
    results.prepare_folder(folder)
    (callback, ends), started = phases.recorder(), time.perf_counter()
    result = pipeline.fit_with(tools.models, tools.infos, case.photos, tools.config, tools.find, callback=callback)
    ready = time.perf_counter()
    results.write_results(result, folder)
    seconds = {"observe": result.seconds["observe"], "write": time.perf_counter() - ready}
    seconds["total"] = time.perf_counter() - started
    cost = phases.figures(ends, started, seconds, len(case.photos))
    cost |= dict.fromkeys(("write MB", "total MB"), phases.peak_megabytes())
    write_bytes(folder / "phases.json", (json.dumps(cost, indent=2) + "\n").encode())
    return result.fit.params


def compare_pictures(
    case: Case, tools: Tools, params: Params, nobody: Params, folder: Path
) -> tuple[dict[str, Float[np.ndarray, "_ d"]], dict[str, str], dict[str, str]]:
    """Draws the mean face in every fitted view and the person from the side; describes photos and renders. Returns what
    was described, the pictures, and of rivals' renders that cannot be read the reason."""
    models, size = tools.models, tools.config.size
    views = [jax.tree.map(lambda x, n=n: x[n], params.views) for n in range(len(case.photos))]
    decode = jax.jit(texture.decode)
    own, mean = (decode(models.texture, shown.identity.texture) for shown in (params, nobody))
    drawn = {name_of("mean", n, len(views)): (nobody, view, mean) for n, view in enumerate(views)}
    drawn["side.png"] = (params, side_view(params), own)
    for name, (shown, view, albedo) in drawn.items():
        save_png(folder / name, results.draw_person(models, shown, view, view.light, albedo, size).image)
    save_png(folder / "geometry.png", results.geometry(models, params, views[0], own, size))
    counts = range(len(views))
    files = {
        "photo": list(case.photos),
        OURS: [folder / "fit" / name_of("render", n, len(views)) for n in counts],
        MEAN: [folder / name_of("mean", n, len(views)) for n in counts],
        SIDE: [folder / "side.png"],
    }
    theirs = {r.name: r.folder / f"{case.name}.png" for r in tools.rivals}
    read, failed = attempt([n for n, file in theirs.items() if file.is_file()], lambda name: read_photo(theirs[name]))
    for name, image in read.items():
        files[name] = [theirs[name]]
        save_png(folder / f"{name}.png", image)
    seen = {kind: np.stack([embedding(tools, path) for path in paths]) for kind, paths in files.items()}
    pictures = {"photo": "fit/photo.png", "render": "fit/render.png", "geometry": "geometry.png"}
    pictures |= {"side, relit": "side.png", MEAN: "mean.png"}
    return seen, pictures | {name: f"{name}.png" for name in read}, failed


def embedding(tools: Tools, path: Path) -> Float[np.ndarray, "d"]:
    """What the judge sees in a picture; NaN where no face is found."""
    return describe(read_photo(path), tools.judge, tools.find, tools.network).embedding
