"""Fits whose truth is known: synthetic people photographed by `studio`, and what all such fits leave behind."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ganfit_jax import (
    assets,
    deviations,
    people,
    phases,
    picture,
    pigment,
    plots,
    results,
    scans,
    studio,
    texture,
    truth_report,
)
from ganfit_jax.cases import REQUIRED
from ganfit_jax.config import Config
from ganfit_jax.deviations import Head, Pose
from ganfit_jax.errors import InputError
from ganfit_jax.export import save_fit
from ganfit_jax.gallery import Row
from ganfit_jax.landmarks import NOSE_TIP, Detector
from ganfit_jax.metrics import Similarity, Surface, distances
from ganfit_jax.people import Person, Settings, Shot
from ganfit_jax.photo import read_photo
from ganfit_jax.pipeline import Result, fit_with
from ganfit_jax.scans import Marked
from ganfit_jax.types import ModelInfo, Models

CASE = "case.csv"
CANDIDATES = 3  # views drawn for each photo, as the detector finds no face in some

Work = Callable[[str, Path], Row]


def synthetic(
    models: Models, infos: Mapping[str, ModelInfo], find: Detector, config: Config, settings: Settings
) -> tuple[list[str], Work]:
    """Synthetic people to fit: the items' names "PERSON-PHOTOSxSIZE", and what measures one of them into its folder.

    Photos are kept in a folder "photos-..." beside the items', one for each choice of settings and models, and shared
    by all items of a person. A view in which the detector finds no face is passed over (figure ``passed_over``); the
    first photo is the same in all items. Each item's line for a manifest (`cases.manifest_cases`) lies in its folder as
    `CASE`, the true neutral face beside the photos: `write_manifest` joins them.

    Raises `InputError` where mitsuba, a model or the maps are absent.
    """
    studio.mitsuba()
    model, info = models.shape, infos["shape"]
    if settings.shape_model:
        model, info = assets.load_shape(settings.shape_model)
    textures, painted = models.texture, infos["texture"]
    if settings.texture_model:
        textures, painted = assets.load_texture(settings.texture_model)
    kept = f"photos-{digest(drawing(settings), info.sha256, painted.sha256)}"
    if settings.texture_maps:
        people.map_names(settings.texture_maps)

    def work(name: str, folder: Path) -> Row:
        number, count, size = (int(x) for x in name.replace("x", "-").split("-"))
        person = people.draw_person(settings, number, model, textures)
        shots: list[Shot] = []
        paths: list[Path] = []
        tried = 0
        while len(paths) < count and tried < CANDIDATES * count:
            shot = people.draw_shot(settings, number, tried, info.expressions, model)
            path = photo_of(folder.parent / kept, f"{number:03d}-{tried}", person, shot, size, settings)
            if find.detect(read_photo(path)):
                shots.append(shot)
                paths.append(path)
            tried += 1
        if len(paths) < count:
            raise InputError(f"{name}: {len(paths)} views with a face, expected {count}")
        neutral = people.vertices(person)
        marks = deviations.marks(model, neutral)
        truth = Surface(neutral, deviations.skin(model))
        write_case(folder, name, paths, Marked(truth, marks))
        poses = [
            Pose(people.vertices(person, s.expression) - neutral, s.camera, studio.main_direction(s.lighting))
            for s in shots
        ]
        result, costs = fitted(models, infos, paths, config, find)
        found, error = deviations.figures(
            deviations.fitted(models.shape, result.fit.params), Head(model, neutral, tuple(poses))
        )
        figures: dict[str, float | str] = {
            **found,
            **costs,
            "photos": count,
            "size": size,
            "yaw": float(np.mean([abs(shot.yaw) for shot in shots])),
            "passed_over": tried - count,
            "aside": float(np.mean([deviations.degrees(float(pose.light[2])) for pose in poses])),
            "skin": darkness(person.albedo),
            "hidden": float(np.mean([shot.hand is not None or person.frame is not None for shot in shots])),
        }
        return Row(figures, show(result, folder, truth, marks[NOSE_TIP], error.alignment))

    return [
        f"{number:03d}-{count}x{size}"
        for count in settings.photos
        for size in settings.sizes
        for number in range(settings.people)
    ], work


def fitted(
    models: Models, infos: Mapping[str, ModelInfo], paths: Sequence[Path], config: Config, find: Detector
) -> tuple[Result, dict[str, float]]:
    """Fits the photos; also returns the ``seconds`` that it took, and the figures of `phases`."""
    (callback, ends), started = phases.recorder(), time.perf_counter()
    result = fit_with(models, dict(infos), paths, config, find, callback=callback)
    spent = {"observe": result.seconds["observe"]}
    costs = phases.figures(ends, started, spent, len(paths))
    return result, {"seconds": spent["observe"] + result.seconds["fit"], **costs}


def darkness(albedo: np.ndarray) -> float:
    """`pigment.level` of a map."""
    small = albedo[:: albedo.shape[0] // 256, :: albedo.shape[0] // 256] if albedo.shape[0] > 256 else albedo
    return pigment.level(small, pigment.skin_texels(small.shape[0]))


def drawing(settings: Settings) -> Settings:
    """What of the settings a photo depends on: not how many people and photos are asked for."""
    return dataclasses.replace(settings, people=0, photos=(), sizes=(max(settings.sizes),))


def write_case(folder: Path, name: str, photos: Sequence[Path], truth: Marked) -> None:
    """Writes the true face into the photos' folder and the manifest's line of it (paths relative to the folder above)
    into the item's."""
    place = photos[0].parent
    mesh, marks = scans.write_scan(place, photos[0].name.split("-")[0], truth)
    where = [f"{place.name}/{file.name}" for file in (*photos, mesh, marks)]
    (folder / CASE).write_text(",".join([name, ";".join(where[:-2]), *where[-2:]]) + "\n")


def write_manifest(names: Sequence[str], output: Path) -> None:
    """Joins the items' lines to `output`/manifest.csv, on which other programs and `--task=geometry` can be run."""
    lines = [path.read_text() for path in (output / name / CASE for name in names) if path.is_file()]
    (output / "manifest.csv").write_text("".join([",".join(REQUIRED) + "\n", *lines]))


def digest(*settings: Any) -> str:
    """Eight letters that differ for other settings."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]


def photo_of(folder: Path, name: str, person: Person, shot: Shot, size: int, settings: Settings) -> Path:
    """The photo's file; it is taken once, at the largest size, and scaled down for the others."""
    path, largest = folder / f"{name}x{size}.png", max(settings.sizes)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if size == largest:
            image = people.take(person, shot, size, settings.samples)
        else:
            image = picture.resize(read_photo(photo_of(folder, name, person, shot, largest, settings)), size, size)
        picture.save_png(path, image)
    return path


def show(
    result: Result,
    folder: Path,
    truth: Surface,
    tip: np.ndarray,
    alignment: Similarity,
    radius: float = 95.0,
    limit: float = 4.0,
) -> dict[str, str]:
    """Keeps the fit (fit.npz) and writes pictures: of the first photo what was fitted; the true shape, the found one
    (neutral, aligned), its distance to the truth within `radius` mm of the nose tip in colours from blue (0) to red
    (`limit` mm)."""
    models, params = result.models, result.fit.params
    save_fit(folder / "fit.npz", params, result.infos, dataclasses.asdict(result.config))
    view = jax.tree.map(lambda x: x[0], params.views)
    albedo = jax.jit(texture.decode)(models.texture, params.identity.texture)
    seen = results.pictures(models, params, view, result.observations.image[0], albedo)
    head = deviations.fitted(models.shape, params)
    found = Surface(alignment(head.vertices), deviations.skin(models.shape))
    apart = np.full(len(found.vertices), np.nan)
    near = np.linalg.norm(found.vertices - tip, axis=1) < radius
    apart[near] = distances(found.vertices[near], truth)
    centre = tip - np.array([0.0, 5.0, 0.0])
    images = {
        "photo": result.observations.image[0],
        "render": seen.composite,
        "geometry": seen.geometry,
        "truth": plots.mesh_picture(truth, None, centre, 110.0),
        "found": plots.mesh_picture(found, None, centre, 110.0),
        f"error, 0 to {limit:g} mm": plots.mesh_picture(found, plots.error_colours(apart, limit), centre, 110.0),
    }
    files = {title: f"{title.split(',')[0]}.png" for title in images}
    for title, image in images.items():
        picture.save_png(folder / files[title], image)
    if len(result.photos) > 1:
        photos = [np.asarray(image) for image in result.observations.image]
        picture.save_png(folder / "photos.png", picture.contact_sheet(photos, min(4, len(photos))))
        files = {"photo": files.pop("photo"), "all photos": "photos.png", **files}
    return files


def finished(rows: Mapping[str, Row], output: Path) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """The tables of `synthetic` and its plots; leaves the manifest of its items in `output`."""
    write_manifest(list(rows), output)
    return truth_report.tables(rows) | phases.tables(rows.values()), truth_report.charts(rows, output)
