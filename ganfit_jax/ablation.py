"""Which part of the fit does what: every item fitted with every variant of the settings, in one resumable grid.

The weight of a term is an argument of the compiled program, its absence is not: a variant without some term compiles
its own programs, once for all items with equally many photos. So the grid runs variant by variant.
"""

import copy
import dataclasses
import json
import re
import runpy
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ganfit_jax import texture
from ganfit_jax.config import Config
from ganfit_jax.errors import InputError
from ganfit_jax.evaluation import attempt, side_view
from ganfit_jax.export import hashes, save_fit
from ganfit_jax.gallery import Row, kept
from ganfit_jax.landmarks import Detector, landmark_error
from ganfit_jax.observe import choose_face
from ganfit_jax.photo import read_photo
from ganfit_jax.picture import save_png
from ganfit_jax.pipeline import check, fit_with, load_models
from ganfit_jax.recognition import aligned_chip, features
from ganfit_jax.results import draw_person, pictures
from ganfit_jax.subjects import Item, truth_figures
from ganfit_jax.types import ModelInfo, Models, Recogniser

FULL = "full"
PHOTOS = "photos"  # the one key of a variant that is no setting: it uses the first so many photos of each item


class Variant(NamedTuple):
    """One way to fit."""

    config: Config
    photos: int | None  # uses the first so many photos of an item; None = all


class Judges(NamedTuple):
    """Who looks at photos and renders."""

    find: Detector
    networks: dict[str, Recogniser]  # "own": the fit's; "unseen": one that takes no part in any fit


def read_variants(path: str | Path) -> dict[str, dict[str, Any]]:
    """What ``get_variants()`` of a Python file returns: name -> {dotted key of a setting, or "photos": value}."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file, expected a Python file with get_variants()")
    try:
        found = runpy.run_path(str(path))["get_variants"]()
        return {str(name): dict(changes) for name, changes in found.items()}
    except Exception as error:  # whatever a user's file does wrong is one line here
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: {reason}; expected get_variants() -> {{name: {{setting: value}}}}") from None


def changed(base: Config, changes: Mapping[str, Any], name: str = "variant") -> Config:
    """A copy of the settings with some changed; raises `InputError` for unknown keys and values of another type."""
    config = copy.deepcopy(base)
    for key, value in changes.items():
        *path, last = key.split(".")
        record: Any = config
        for part in path:
            record = getattr(record, part, None)
        fields = {f.name for f in dataclasses.fields(record)} if dataclasses.is_dataclass(record) else set()
        if last not in fields:
            raise InputError(f"{name}: unknown setting {key}, expected one of config.py, for example weights.pixel")
        old = getattr(record, last)
        number = isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool)
        if not number and type(value) is not type(old):
            raise InputError(f"{name}: {key} is {value!r}, expected {type(old).__name__} like {old!r}")
        setattr(record, last, float(value) if number else value)
    check(config)
    return config


def make_variants(base: Config, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Variant]:
    """The variants to run, "full" (the settings as they are) first; those that change nothing are left out."""
    made = {FULL: Variant(copy.deepcopy(base), None)}
    for name, changes in table.items():
        photos = changes.get(PHOTOS)
        if photos is not None and not (isinstance(photos, int) and photos > 0):
            raise InputError(f"{name}: {PHOTOS} is {photos!r}, expected a number of photos")
        settings = {key: value for key, value in changes.items() if key != PHOTOS}
        variant = Variant(changed(base, settings, name), photos)
        if variant != made[FULL]:
            made[name] = variant
    folders = [folder_name(name) for name in made]
    if len(set(folders)) < len(folders):
        raise InputError(f"variants {', '.join(made)}: two have one folder, expected names that differ in letters")
    return made


def folder_name(name: str) -> str:
    """The name as that of a folder."""
    return re.sub(r"\W+", "_", name).strip("_")


def seen(image: Float[np.ndarray, "h w 3"], judges: Judges) -> dict[str, Float[np.ndarray, "d"]]:
    """The embedding of the largest face by every judge; the face is detected anew. Empty where there is none."""
    try:
        face, _ = choose_face(judges.find.detect(image), None, "image")
    except InputError:
        return {}
    points = jnp.asarray(face.landmarks)
    chips = {name: aligned_chip(network.spec, jnp.asarray(image), points) for name, network in judges.networks.items()}
    return {name: np.asarray(features(judges.networks[name], chip).embedding) for name, chip in chips.items()}


def likeness(
    photo: dict[str, Float[np.ndarray, "d"]],
    render: dict[str, Float[np.ndarray, "d"]],
    judges: Judges,
    where: str = "",
) -> dict[str, float]:
    """What every judge says of a photo and a render: their cosine, or their distance; NaN where no face is found."""
    figures = {}
    for name, network in judges.networks.items():
        cosine = network.spec.metric == "cosine"
        value = np.nan
        if name in photo and name in render:
            a, b = photo[name], render[name]
            value = a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) if cosine else np.linalg.norm(a - b)
        figures[f"{name} {'cosine' if cosine else 'distance'}{where}"] = float(value)
    return figures


def measure(
    item: Item,
    variant: Variant,
    models: Models,
    infos: dict[str, ModelInfo],
    judges: Judges,
    photo: dict[str, Float[np.ndarray, "_"]],
    folder: Path,
    compiles: bool = False,
) -> Row:
    """Fits one item with one variant; every figure is of the item's first photo. Writes fit.npz and pictures.

    `photo` is what the judges have `seen` in the first photo.

    Figures: what the judges say of photo and render and of photo and turned render (26 degrees, neutral, relit), the
    landmark error in percent of the outer eye distance, errors against the truth (`subjects.truth_figures`), seconds
    ("first fit s" where the fit `compiles` its programs, "fit s" where it does not).
    """
    started = time.perf_counter()
    result = fit_with(models, infos, item.photos[: variant.photos], variant.config, judges.find)
    params, observed = result.fit.params, jax.tree.map(lambda x: x[0], result.observations)
    view, side = jax.tree.map(lambda x: x[0], params.views), side_view(params)
    albedo = jax.jit(texture.decode)(models.texture, params.identity.texture)
    shown = pictures(models, params, view, observed.image, albedo)
    turned = draw_person(models, params, side, side.light, albedo, variant.config.size).image
    images = {"photo": observed.image, "render": shown.render, "turned": turned, "geometry": shown.geometry}
    for name, image in images.items():
        save_png(folder / f"{name}.png", image)
    trace = {f"trace.{name.replace('/', '.')}": values for name, values in result.fit.trace.items()}
    save_fit(folder / "fit.npz", params, infos, dataclasses.asdict(variant.config), trace)
    # The judges look at the files, so that they see what people see.
    front, other = (seen(read_photo(folder / name), judges) for name in ("render.png", "turned.png"))
    figures: dict[str, float | str] = {**likeness(photo, front, judges), **likeness(photo, other, judges, ", turned")}
    figures["landmarks %"] = landmark_error(np.asarray(shown.landmarks), np.asarray(observed.landmarks))
    if item.truth is not None:
        figures |= truth_figures(models.shape, params, item.truth)
    figures |= {"rejected": "no" if result.fit.ok else "yes"}
    figures["first fit s" if compiles else "fit s"] = result.seconds["fit"]
    figures["cell s"] = time.perf_counter() - started
    return Row(figures, {name: f"{name}.png" for name in images})


def cells(items: Mapping[str, Item], variants: Mapping[str, Variant]) -> list[tuple[str, str]]:
    """(item, variant), variant by variant; an item without more photos than a variant uses has no such cell."""
    return [
        (item, name)
        for name, variant in variants.items()
        for item, content in items.items()
        if variant.photos is None or len(content.photos) > variant.photos
    ]


def run(
    items: Mapping[str, Item],
    variants: Mapping[str, Variant],
    judges: Judges,
    output: Path,
    progress: Callable[[list[str]], Iterable[str]] = iter,
) -> tuple[dict[tuple[str, str], Row], dict[str, str]]:
    """Fills the grid; returns the cells that are there, and of those that failed the reason.

    Each cell has its folder, ``output/item/variant``, and is not done again while its settings, models, photos and
    judges stay the same.
    """
    folders = {folder_name(item) for item in items}
    if len(folders) < len(items):
        raise InputError(f"{len(items)} items have {len(folders)} folders, expected names that differ in letters")
    grid = {f"{item}, {variant}": (item, variant) for item, variant in cells(items, variants)}
    compiled: set[tuple[str, int]] = set()
    loaded: dict[str, tuple[Models, dict[str, ModelInfo]]] = {}
    faces: dict[Path, dict[str, np.ndarray]] = {}

    def cell(name: str) -> Row:
        item, variant = items[grid[name][0]], variants[grid[name][1]]
        if grid[name][1] not in loaded:
            loaded.clear()
            jax.clear_caches()  # the programs of all variants together need more memory maps than Linux grants
            loaded[grid[name][1]] = load_models(variant.config)
        models, infos = loaded[grid[name][1]]
        photos = item.photos[: variant.photos]
        folder = output / folder_name(grid[name][0]) / folder_name(grid[name][1])

        def work() -> Row:
            if photos[0] not in faces:
                faces[photos[0]] = seen(read_photo(photos[0]), judges)
            program, photo = (grid[name][1], len(photos)), faces[photos[0]]
            row = measure(item, variant, models, infos, judges, photo, folder, compiles=program not in compiled)
            compiled.add(program)
            return row

        settings = {
            "config": dataclasses.asdict(variant.config),
            "models": hashes(infos),
            "photos": [(path.name, path.stat().st_size) for path in photos],
            "judges": {name: network.spec.name for name, network in judges.networks.items()} | {"": judges.find.name},
            "truth": item.truth is not None,
        }
        return kept(folder, work, json.dumps(settings))

    done, failed = attempt(progress(list(grid)), cell)
    return {grid[name]: row for name, row in done.items()}, failed
