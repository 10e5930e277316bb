"""Times what fits are made of on this device: ``python experiments/benchmark.py --task=renderer --output=FILE.json``.

renderer: beside a plain C++ z-buffer (where there is g++), [least, median] of many calls; two minutes. batches: renders
under vmap, --faces x --sizes x --batch, three programs a row. fits: whole fits of --people synthetic people at once.
step: a step of the full stage beside its networks. Rows go to --output as they come; device memory's peak only grows,
so give fits a run of its own. A GPU that is full gives a note and the next row, a laptop ends: choose small --batch.
"""

import ctypes
import itertools
import json
import pathlib
import shutil
import subprocess
import tempfile
from functools import partial

import numpy as np
from absl import app, flags

from ganfit_jax import config, errors, files, fit_timing, timing

FLAGS = flags.FLAGS
flags.DEFINE_list("task", ["renderer"], "Some of renderer, batches, fits, step; in this order.")
flags.DEFINE_integer("size", 256, "Side of the renderer's image, pixels.")
flags.DEFINE_list("faces", ["20000", "25000", "50000"], "Numbers of faces, about.")
flags.DEFINE_list("sizes", ["256", "512", "1024"], "Sides of the images in batches, pixels.")
flags.DEFINE_list("batch", ["1", "8", "64"], "Numbers of images.")
flags.DEFINE_list("people", ["1", "8", "32", "128"], "Numbers of people that are fitted at once.")
flags.DEFINE_enum("preset", "fast", list(config.PRESETS), "Settings of fits and of the step.")
flags.DEFINE_string("recogniser", None, "Name or npz (default: the preset's).")
flags.DEFINE_string("texture", None, "Name or npz of the texture model (default: the preset's).")
flags.DEFINE_integer("steps", None, "Steps of every stage of fits (default: the preset's).", lower_bound=1)
flags.DEFINE_integer("repeats", 50, "Calls of each function, or what 20 s allow.", lower_bound=1)
flags.DEFINE_integer("repeats_fits", 3, "Fits, and chunks of ten steps, after the first one.", lower_bound=1)
flags.DEFINE_string("output", "benchmark.json", "File for the figures.")


def numbers(name):
    return sorted(int(text) for text in FLAGS[name].value or ())


def winners(library, screen, faces, size):
    ids = np.empty((size, size), np.int32)
    library.zbuffer(screen.ctypes, faces.ctypes, len(faces), size, ids.ctypes)
    return ids


def zbuffer(folder):
    """The C++ z-buffer: screen points, faces and size -> ids; None without a compiler."""
    if shutil.which("g++") is None:
        return print("no g++ found: the C++ z-buffer is left out")
    source = pathlib.Path(__file__).with_name("zbuffer.cpp")
    subprocess.run(f"g++ -O3 -march=native -shared -fPIC {source} -o {folder}/zbuffer.so".split(), check=True)
    return partial(winners, ctypes.CDLL(f"{folder}/zbuffer.so"))


def renderer():
    with tempfile.TemporaryDirectory() as folder:
        plain = zbuffer(folder)
    for model in [timing.ellipsoid(count) for count in numbers("faces")]:
        yield {"faces": len(model.faces)}, partial(timing.renderer_row, model, FLAGS.size, plain, FLAGS.repeats)


def batches():
    for count, size, batch in itertools.product(*(numbers(name) for name in ("faces", "sizes", "batch"))):
        model = timing.ellipsoid(count)
        known = {"faces": len(model.faces), "size": size, "batch": batch}
        yield known, partial(timing.batch_row, model, size, batch, FLAGS.repeats)


def with_people(counts, function):
    everybody = fit_timing.loaded(max(counts), FLAGS.preset, FLAGS.recogniser, FLAGS.texture, FLAGS.steps)
    for case in [fit_timing.some(everybody, count) for count in counts]:
        yield case.known, partial(function, case, FLAGS.repeats_fits)


TASKS = {
    "renderer": renderer,
    "batches": batches,
    "fits": lambda: with_people(numbers("people"), fit_timing.fit_row),
    "step": lambda: with_people([1], fit_timing.step_row),
}
flags.register_validator("task", lambda names: set(names) <= TASKS.keys(), f"expected some of {', '.join(TASKS)}")


@errors.one_line
def main(_):
    result = timing.device() | {"tasks": {}}
    for task in FLAGS.task:
        rows = result["tasks"][task] = []
        for known, work in TASKS[task]():
            rows.append(timing.attempted(work, known))
            files.write_bytes(FLAGS.output, (json.dumps(result, indent=1) + "\n").encode())
        print(f"{task}\n{timing.table(rows)}", flush=True)


if __name__ == "__main__":
    app.run(main)
