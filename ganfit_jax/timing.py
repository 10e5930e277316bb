"""How long calls and renders take on this device.

A row is what is told of one measurement, by name: milliseconds where a name ends in "ms", seconds in "s".
"""

import datetime
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ganfit_jax import camera, raster, render
from ganfit_jax.types import Camera, Light, Regions, ShapeModel

Row = dict[str, Any]
Plain = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # screen points [v, 3], faces, size -> ids [size, size]


class Timing(NamedTuple):
    """Seconds of the calls of one function."""

    first: float  # with its compilation, unless it was compiled before
    least: float  # of the further calls
    median: float
    calls: int  # further calls


def timed(function: Callable[..., Any], *arguments: Any, repeats: int = 50, limit: float = 20.0) -> Timing:
    """Calls a function once and then `repeats` times, or as often as `limit` seconds allow (once at least); waits each
    time until the device is done."""
    times: list[float] = []
    while len(times) < 2 or (len(times) <= repeats and sum(times[1:]) < limit):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return Timing(times[0], min(times[1:]), float(np.median(times[1:])), len(times) - 1)


def peak_gigabytes() -> float | None:
    """Largest device memory since the process began, 10^9 bytes; None where the backend does not count (CPU)."""
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if peak is None else round(peak / 1e9, 3)


def device() -> dict[str, Any]:
    """What figures belong to: the device's name, the number of host processors, jax's version and the date."""
    one = jax.devices()[0]
    name = one.device_kind if one.platform != "cpu" else platform.processor() or platform.machine()
    date = datetime.datetime.now().isoformat(timespec="minutes")
    return {"device": name, "platform": one.platform, "cpus": os.cpu_count(), "jax": jax.__version__, "date": date}


def attempted(work: Callable[[], Row], known: Row) -> Row:
    """`known` and the row that the work gives; where the device's memory does not suffice, a note that says so."""
    try:
        return known | work()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return known | {"note": "out of memory"}


def table(rows: Sequence[Row], columns: int = 6) -> str:
    """Names down the left, rows side by side, in blocks of so many."""
    lines = []
    for start in range(0, len(rows), columns):
        block = rows[start : start + columns]
        for name in dict.fromkeys(name for row in block for name in row):
            lines.append(f"{name:36}" + "".join(f"{row.get(name, '')!s:>18}" for row in block))
        lines.append("")
    return "\n".join(lines)


def ellipsoid(count: int) -> ShapeModel:
    """A head-sized ellipsoid of about so many faces, mm; a shape model with nothing to change and empty landmarks."""
    rings = int(np.sqrt(count / 8))
    columns, rings = 4 * rings, rings + rings % 2
    polar = np.linspace(0, np.pi, rings)[1:-1, None]
    around = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    belts = np.stack(np.broadcast_arrays(np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)))
    points = np.concatenate([belts.reshape(3, -1).T, [[0, 0, 1], [0, 0, -1]]])
    grid = np.arange(len(points) - 2).reshape(-1, columns)
    right, top, bottom = np.roll(grid, -1, axis=1), len(points) - 2, len(points) - 1
    faces = [np.stack([grid[:-1], grid[1:], right[1:]], -1), np.stack([grid[:-1], right[1:], right[:-1]], -1)]
    caps = [[grid[0], right[0]], [right[-1], grid[-1]]]
    faces += [np.stack([np.full(columns, p), *c], -1) for p, c in zip((top, bottom), caps, strict=True)]
    faces = jnp.asarray(np.concatenate([f.reshape(-1, 3) for f in faces]), jnp.int32)
    mean, uv = jnp.asarray(points * [75, 110, 95], jnp.float32), jnp.asarray(points[:, :2] / 2 + 0.5, jnp.float32)
    none, corners = jnp.zeros((0, *mean.shape)), jnp.full((68, 3), 1 / 3)
    marks = (jnp.zeros(68, jnp.int32), corners, jnp.zeros((17, 1), jnp.int32), corners[:17, None])
    regions = Regions(*(jnp.zeros(len(mean)) for _ in Regions._fields))
    return ShapeModel(mean, none, none, faces, uv, faces, *marks, regions, raster.neighbours(faces))


class Scene(NamedTuple):
    """What `render.draw` takes beside the shape model."""

    vertices: Float[Array, "*b v 3"]  # mm
    albedo: Float[Array, "*b s s 3"]
    camera: Camera
    light: Light


def scene(model: ShapeModel, side: int = 256) -> Scene:
    """A grey head in a 3/4 view, lit from one side; `side` of its albedo map, texels."""
    pose = Camera(jnp.array([0.1, 0.35, 0.0]), jnp.array([0.0, 0.0, 1000.0]), jnp.log(4.2))
    light = Light(jnp.array([0.3, 0.4, 1.0]), jnp.full(3, 0.7), jnp.full(3, 0.4))
    return Scene(model.mean, jnp.full((side, side, 3), 0.5), pose, light)


def scenes(model: ShapeModel, batch: int) -> Scene:
    """`scene` so many times, each turned a little further; every array has a leading batch axis."""
    many = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (batch, *x.shape)), scene(model))
    turn = -0.7 / batch * jnp.arange(batch, dtype=jnp.float32)[:, None] * jnp.array([[0.0, 1.0, 0.0]])
    return many._replace(camera=many.camera._replace(rotation=many.camera.rotation + turn))


def visible(model: ShapeModel, scene: Scene, size: int) -> Array:
    """Ids of the visible faces, [size, size], back faces culled as in a render."""
    screen = camera.project(scene.camera, scene.vertices, size)
    return raster.rasterize(screen, model.faces, size, cull=True).faces[..., 0]


@partial(jax.jit, static_argnames="size")
def image(model: ShapeModel, scene: Scene, size: int) -> Float[Array, "size size 3"]:
    """The render over black."""
    return render.draw(model, *scene, size).image


@partial(jax.jit, static_argnames="size")
def image_gradient(model: ShapeModel, scene: Scene, size: int) -> Scene:
    """The gradient of the sum of the render's squares, with respect to all of the scene."""
    return jax.grad(lambda s: jnp.sum(image(model, s, size) ** 2))(scene)


def renderer_row(model: ShapeModel, size: int, plain: Plain | None, repeats: int) -> Row:
    """[least, median] milliseconds of visibility and of renders of `scene`, and of another rasterizer."""
    one = scene(model)
    screen = camera.project(one.camera, one.vertices, size)
    visibility = partial(raster.rasterize, screen, model.faces, size)
    calls: dict[str, Callable[[], Any]] = {
        "visibility": visibility,
        "visibility, back faces culled": partial(visibility, cull=True),
        "render, forward": partial(image, model, one, size),
        "render, forward and backward": partial(image_gradient, model, one, size),
    }
    row: Row = {"size": size}
    if plain is not None:
        other = partial(plain, np.asarray(screen), np.asarray(model.faces), size)
        calls = {"C++ z-buffer": other, **calls}
        row["winners that differ"] = int(np.sum(other() != np.asarray(visibility().faces[..., 0])))
    for name, function in calls.items():
        found = timed(function, repeats=repeats)
        row[name] = [round(1e3 * found.least, 2), round(1e3 * found.median, 2)]
    return row


def batch_row(model: ShapeModel, size: int, batch: int, repeats: int) -> Row:
    """Median milliseconds of visibility, render and render with gradient under `jax.vmap`; `size` in pixels."""
    many, row = scenes(model, batch), {}
    for name, function in (("visibility", visible), ("forward", image), ("forward and backward", image_gradient)):
        run = jax.jit(jax.vmap(partial(function, size=size), in_axes=(None, 0)))
        median = 1e3 * timed(run, model, many, repeats=repeats).median
        row |= {f"{name}, ms": round(median, 3), f"{name}, ms per image": round(median / batch, 3)}
    return row
