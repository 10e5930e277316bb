"""Times the renderer beside a plain C++ z-buffer: ``python experiments/benchmark.py --output=benchmark.json``.

Milliseconds per call, [least, median] of many, in one run of two minutes. Needs g++ for the comparison.
"""

import ctypes
import functools
import json
import pathlib
import subprocess
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import trimesh
from absl import app, flags

from ganfit_jax import camera, raster, render, types

SIZE = flags.DEFINE_integer("size", 256, "Side of the image, pixels.")
FACES = flags.DEFINE_multi_integer("faces", [20_000, 25_000, 50_000], "Numbers of faces, about.")
REPEATS = flags.DEFINE_integer("repeats", 50, "Calls of each function.")
OUTPUT = flags.DEFINE_string("output", "benchmark.json", "File for the figures.")


def head(count):
    """A head-sized ellipsoid that the renderer takes for a shape model; it has nothing but geometry and a chart."""
    ball = trimesh.creation.uv_sphere(count=[int(np.sqrt(count / 8)), 2 * int(np.sqrt(count / 8))])
    vertices, faces = jnp.asarray(ball.vertices * [75, 110, 95], jnp.float32), jnp.asarray(ball.faces, jnp.int32)
    uv, marks = jnp.asarray(ball.vertices[:, :2] / 2 + 0.5, jnp.float32), jnp.zeros((17, 1), int)
    marks = (marks[:, 0], jnp.ones((17, 3)), marks, jnp.ones((17, 1, 3)))
    return types.ShapeModel(vertices, None, None, faces, uv, faces, *marks, None, raster.neighbours(faces))  # type: ignore


def milliseconds(function, *arguments):
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(REPEATS.value):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(1e3 * (time.perf_counter() - start))
    return [round(min(times), 2), round(float(np.median(times)), 2)]


def measure(count, size, library):
    model, albedo = head(count), jnp.full((256, 256, 3), 0.5)
    pose = types.Camera(jnp.array([0.1, 0.35, 0.0]), jnp.array([0.0, 0.0, 1000.0]), jnp.log(4.2))
    light = types.Light(jnp.array([0.3, 0.4, 1.0]), jnp.full(3, 0.7), jnp.full(3, 0.4))
    screen, ids = camera.project(pose, model.mean, size), np.empty((size, size), np.int32)
    host = [np.asarray(screen), np.asarray(model.faces), ids]
    points, corners, found = (ctypes.c_void_p(x.ctypes.data) for x in host)
    plain = functools.partial(library.zbuffer, points, corners, len(host[1]), size, found)
    visible = functools.partial(raster.rasterize, screen, model.faces, size)
    draw = jax.jit(functools.partial(render.draw, size=size))
    gradient = jax.jit(jax.grad(lambda v, a, p, i, m: jnp.sum(draw(m, v, a, p, i).image ** 2), argnums=(0, 1, 2, 3)))
    return {
        "faces": len(host[1]),
        "C++ z-buffer": milliseconds(plain),
        "winners that differ": int(np.sum(ids != np.asarray(visible().faces[..., 0]))),
        "visibility": milliseconds(visible),
        "visibility, back faces culled": milliseconds(functools.partial(visible, cull=True)),
        "render, forward": milliseconds(draw, model, model.mean, albedo, pose, light),
        "render, forward and backward": milliseconds(gradient, model.mean, albedo, pose, light, model),
    }


def main(_):
    source = pathlib.Path(__file__).with_name("zbuffer.cpp")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(f"g++ -O3 -march=native -shared -fPIC {source} -o {folder}/zbuffer.so".split(), check=True)
        rows = [measure(count, SIZE.value, ctypes.CDLL(f"{folder}/zbuffer.so")) for count in FACES.value]
    for name in rows[0]:
        print(f"{name:32}" + "".join(f"{row[name]!s:>18}" for row in rows))
    pathlib.Path(OUTPUT.value).write_text(json.dumps({"devices": str(jax.devices()), "rows": rows}, indent=1))


if __name__ == "__main__":
    app.run(main)
