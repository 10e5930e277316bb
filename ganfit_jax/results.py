"""A finished fit -> a folder of results that people can open."""

import dataclasses
import json
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ganfit_jax import losses, morphable, texture
from ganfit_jax.energy import GREY, chip_of, recogniser_of
from ganfit_jax.errors import InputError
from ganfit_jax.export import save_fit, write_glb, write_obj
from ganfit_jax.files import write_bytes
from ganfit_jax.gltf import glb_bytes
from ganfit_jax.landmarks import landmark_error
from ganfit_jax.picture import comparison, losses_plot, save_png
from ganfit_jax.pipeline import Result
from ganfit_jax.recognition import features
from ganfit_jax.render import draw
from ganfit_jax.report import ReportPhoto, write_report
from ganfit_jax.types import Features, Light, Models, Observation, Params, Rendering, View

LAMP = Light(jnp.array([0.3, 0.5, 1.0]), jnp.full(3, 0.75), jnp.full(3, 0.25))
UNLIT = Light(jnp.array([0.0, 0.0, 1.0]), jnp.zeros(3), jnp.ones(3))


class Pictures(NamedTuple):
    """The pictures of one fitted photo, [h, w, 3] in [0, 1]."""

    render: Float[Array, "h w 3"]  # the fitted face alone on plain grey
    composite: Float[Array, "h w 3"]  # the render over the photo
    geometry: Float[Array, "h w 3"]
    albedo: Float[Array, "h w 3"]
    landmarks: Float[Array, "68 2"]


@partial(jax.jit, static_argnames="size")
def draw_person(
    models: Models, params: Params, view: View, light: Light, albedo: Float[Array, "s s 3"], size: int
) -> Rendering:
    """Renders a fitted person with any albedo map on plain grey; compiled once for all pictures."""
    vertices = morphable.vertices(models.shape, params.identity.shape, view.expression)
    return draw(models.shape, vertices, albedo, view.camera, light, size, background=GREY)


def geometry(
    models: Models, params: Params, view: View, albedo: Float[Array, "s s 3"], size: int
) -> Float[Array, "{size} {size} 3"]:
    """The person's shape in plain grey under a lamp; of the albedo only the size counts."""
    return draw_person(models, params, view, LAMP, jnp.full_like(albedo, 0.75), size).image


def pictures(
    models: Models, params: Params, view: View, image: Float[Array, "h w 3"], albedo: Float[Array, "s s 3"]
) -> Pictures:
    """Everything that is shown of one photo of a person with this albedo map."""
    size = image.shape[0]
    lit = draw_person(models, params, view, view.light, albedo, size)
    cover = lit.coverage[..., None]
    return Pictures(
        lit.image,
        jnp.clip(lit.image + (image - GREY) * (1.0 - cover), 0.0, 1.0),
        geometry(models, params, view, albedo, size),
        draw_person(models, params, view, UNLIT, albedo, size).image,
        lit.landmarks,
    )


@jax.jit
def seen_in(models: Models, image: Float[Array, "h w 3"], landmarks: Float[Array, "68 2"]) -> Features:
    """What the fit's recogniser sees in a render."""
    return features(recogniser_of(models), chip_of(models, image, landmarks))


def photo_metrics(models: Models, shown: Pictures, observed: Observation) -> dict[str, float]:
    """Identity distance of render and photo (as the recogniser's authors compare), landmark error in percent of the
    outer eye distance (median over the 51 inner points)."""
    metric = recogniser_of(models).spec.metric
    seen = seen_in(models, shown.render, shown.landmarks)
    distance = float(losses.identity(seen, observed.features, metric))
    return {
        f"identity_distance_{metric}": distance**0.5 if metric == "euclidean" else distance,
        "landmark_error_percent": landmark_error(np.asarray(shown.landmarks), np.asarray(observed.landmarks)),
    }


def versions() -> dict[str, str]:
    """Versions of Python, this package and what it computes with, and the device."""
    packages = ("ganfit-jax", "jax", "jaxlib", "flax", "optax", "numpy", "dm-pix")
    found = {name: metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found, "device": str(jax.devices()[0].device_kind)}


def prepare_folder(folder: str | Path) -> Path:
    """Makes the folder and checks that it can be written to; raises `InputError` with one line."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # a name of its own: several processes may begin here at once
            pass
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror}), expected a writable folder") from None
    return folder


def keep_photos(photos: Sequence[str | Path], folder: Path) -> None:
    """Raises `InputError` with one line where `write_results` would write a picture over one of the photos."""
    bases = ("photo", "render", "comparison")
    names = {name_of(base, number, len(photos)) for base in bases for number in range(len(photos))}
    written = {(folder / name).resolve() for name in names | {"albedo.png", "losses.png"}}
    for photo in photos:
        if Path(photo).exists() and Path(photo).resolve() in written:
            raise InputError(f"{photo}: the results would be written over it, expected another folder for them")


def name_of(base: str, number: int, count: int) -> str:
    """``base.png`` for one photo; ``base.png``, ``base_2.png``, ... for several."""
    return f"{base}.png" if number == 0 or count == 1 else f"{base}_{number + 1}.png"


def write_results(
    result: Result, folder: str | Path, albedo: Float[Array | np.ndarray, "s s 3"] | None = None
) -> dict[str, Any]:
    """Writes meshes, parameters, pictures, metrics and the report; returns the metrics.

    The metrics' seconds are the result's, the time it took to write all but the last two files, and the total.

    Files: mesh.glb, mesh.obj + mesh.mtl + albedo.png, fit.npz, photo.png, render.png and comparison.png (further photos
    as photo_2.png and so on), losses.png, metrics.json, report.html.

    With an `albedo` (``detail.with_detail``), meshes and pictures show it instead of the fit's own; the figures of the
    metrics and fit.npz are always the fit's.
    """
    started, folder = time.perf_counter(), prepare_folder(folder)
    models, params, count = result.models, result.fit.params, len(result.photos)
    fitted = jax.jit(texture.decode)(models.texture, params.identity.texture)
    albedo = fitted if albedo is None else jnp.asarray(albedo)
    views = [jax.tree.map(lambda x, n=n: x[n], params.views) for n in range(count)]
    shown = [pictures(models, params, views[n], result.observations.image[n], albedo) for n in range(count)]
    metrics: dict[str, Any] = {"photos": {}, "faces": {}, "ok": bool(result.fit.ok)}
    metrics["albedo"] = {"figures": "fitted", "pictures": "fitted" if albedo is fitted else "completed from the photos"}
    pages = []
    for n, (photo, picture) in enumerate(zip(result.photos, shown, strict=True)):
        observed = jax.tree.map(lambda x, n=n: x[n], result.observations)
        strip = comparison(observed.image, picture.composite, picture.geometry, picture.albedo)
        for base, image in (("photo", observed.image), ("render", picture.render), ("comparison", strip)):
            save_png(folder / name_of(base, n, count), image)
        name = Path(photo).name if count == 1 else f"{n + 1}: {Path(photo).name}"
        if albedo is not fitted:
            plain = draw_person(models, params, views[n], views[n].light, fitted, observed.image.shape[0])
            picture = picture._replace(render=plain.image)
        metrics["photos"][name] = photo_metrics(models, picture, observed)
        metrics["faces"][name] = result.notes[n]
        pages.append(ReportPhoto(Path(photo).name, observed.image, shown[n].render, strip))
    metrics["terms"] = {name: float(values[-1]) for name, values in result.fit.trace.items()}
    neutral = morphable.vertices(models.shape, params.identity.shape, jnp.zeros_like(params.views.expression[0]))
    expression, names = params.views.expression[0], result.infos["shape"].expressions
    write_glb(folder / "mesh.glb", models.shape, neutral, expression, albedo, names)
    write_obj(folder, models.shape, neutral, expression, albedo)
    config = dataclasses.asdict(result.config)
    extra = {
        "photos": np.asarray(result.photos),
        "photo_from_window": np.asarray(result.observations.photo_from_window),
    }
    save_fit(folder / "fit.npz", params, result.infos, config, extra)
    stages = [(stage.name, stage.steps) for stage in result.config.stages()]
    losses_plot(joined(result.fit.trace, stages), folder / "losses.png", stages)
    small = glb_bytes(models.shape, neutral, expression, albedo, names, morph_normals=False)
    title = " + ".join(Path(photo).name for photo in result.photos)
    losses_png = (folder / "losses.png").read_bytes()
    seconds = {**result.seconds, "write": time.perf_counter() - started}
    seconds["total"] = sum(seconds.values())
    metrics["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
    metrics["versions"] = versions()
    write_bytes(folder / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    write_report(folder / "report.html", title, pages, metrics, config, result.infos, losses_png, small)
    return metrics


def joined(trace: Mapping[str, Array | np.ndarray], stages: list[tuple[str, int]]) -> dict[str, np.ndarray]:
    """The trace by term over all stages; NaN where a stage has no such term."""
    terms = dict.fromkeys(name.split("/", 1)[1] for name in trace)
    return {
        term: np.concatenate([trace.get(f"{stage}/{term}", np.full(steps, np.nan)) for stage, steps in stages])
        for term in terms
    }
