"""Times fits of one photo and of four photos of the same person in turns: ``python experiments/time_photos.py``.

Seconds of the fit itself (programs compiled before), median of --repeats, and the ratio. Expected: five minutes on
two CPU cores, most of it compilation where no earlier run has filled the cache.
"""

import json
import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from ganfit_jax import evaluation, picture, pipeline
from ganfit_jax.__main__ import cache_compilations
from ganfit_jax.config import Config, SecondRender
from ganfit_jax.detectors import detector
from ganfit_jax.files import write_bytes
from ganfit_jax.fit import as_arrays

FLAGS = flags.FLAGS
flags.DEFINE_integer("repeats", 3, "Fits of each kind that count.")
flags.DEFINE_string("output", "time_photos.json", "File for the figures.")
config_flags.DEFINE_config_dataclass("config", Config())
VIEWS = SecondRender(yaw=0.2, pitch=0.1, roll=0.05, expression=0.4, expressed=0.1, light=0.2)


def main(_) -> None:
    cache_compilations()
    models, infos = pipeline.load_models(FLAGS.config)
    find = detector(FLAGS.config.detector)
    person = evaluation.synthetic_person(jax.random.key(7), models, as_arrays(VIEWS), 4)
    seconds: dict[int, list[float]] = {1: [], 4: []}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{n}.png" for n in range(4)]
        for number, path in enumerate(paths):
            picture.save_png(path, np.asarray(evaluation.photograph(models, person, photo=number, size=512)))
        for turn in tqdm(range(FLAGS.repeats + 1), unit="turn"):
            for count, found in seconds.items():
                result = pipeline.fit_with(models, infos, paths[:count], FLAGS.config, find)
                if turn:  # the first turn compiles
                    found.append(result.seconds["fit"])
    medians = {count: float(np.median(found)) for count, found in seconds.items()}
    table = {"seconds": seconds, "medians": medians, "ratio": medians[4] / medians[1]}
    write_bytes(FLAGS.output, (json.dumps(table, indent=2) + "\n").encode())
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    app.run(main)
