"""Fits synthetic people, rendered from the built-in model with random pose, light and expression, and measures shape.

  python experiments/synthetic.py --people=20 --photos=1 --output=runs/synthetic1
  python experiments/synthetic.py --people=20 --photos=4 --output=runs/synthetic4

Resumable. Expected: about 25 s a person and photo on two CPU cores; errors in mm (similarity ICP, 95 mm crop around the
nose tip, both directions averaged), of the neutral faces, beside the mean face's error. People that fail are listed in
results.json with the reason; the exit code is 1 if all did.
"""

import json
import sys

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from ganfit_jax import assets, evaluation, export, morphable, picture, pipeline, results
from ganfit_jax.__main__ import cache_compilations
from ganfit_jax.config import Config
from ganfit_jax.detectors import detector
from ganfit_jax.deviations import Head, shape_error
from ganfit_jax.errors import InputError
from ganfit_jax.files import write_bytes
from ganfit_jax.fit import as_arrays

FLAGS = flags.FLAGS
flags.DEFINE_integer("people", 20, "Number of people.")
flags.DEFINE_integer("photos", 1, "Photos of each person.")
flags.DEFINE_integer("size", 512, "Side of the rendered photos, pixels.")
flags.DEFINE_integer("first_seed", 1000, "Seed of the first person.")
flags.DEFINE_string("output", "runs/synthetic", "Folder for the results.")
config_flags.DEFINE_config_dataclass("config", Config())


def main(_) -> None:
    cache_compilations()
    output = results.prepare_folder(FLAGS.output)
    models, infos = pipeline.load_models(FLAGS.config)
    find = detector(FLAGS.config.detector)
    drawn = models._replace(texture=assets.load_texture("albedo")[0])  # the same people for all texture models
    photograph = jax.jit(evaluation.photograph, static_argnames=("photo", "size"))

    def person(name: str) -> dict[str, float]:
        folder, key = results.prepare_folder(output / name), jax.random.key(FLAGS.first_seed + int(name))
        truth = evaluation.synthetic_person(key, drawn, as_arrays(evaluation.VIEWS), 3 * FLAGS.photos)
        neutral = morphable.vertices(models.shape, truth.identity.shape, 0 * truth.views.expression[0])
        if not (folder / "fit.npz").exists():
            paths = []
            for photo in range(3 * FLAGS.photos):  # a view in which the detector finds no face is passed over
                image = np.asarray(photograph(drawn, truth, photo=photo, size=FLAGS.size))
                if len(paths) < FLAGS.photos and find.detect(image):
                    paths.append(folder / f"view_{photo}.png")
                    picture.save_png(paths[-1], image)
            if len(paths) < FLAGS.photos:
                raise InputError(f"{len(paths)} views with a face, expected {FLAGS.photos}")
            results.write_results(pipeline.fit_with(models, infos, paths, FLAGS.config, find), folder)
        found = export.load_fit(folder / "fit.npz").params.identity.shape
        fitted = morphable.vertices(models.shape, found, 0 * truth.views.expression[0])
        heads = [Head(models.shape, np.asarray(x, np.float64), ()) for x in (fitted, models.shape.mean, neutral)]
        errors = [shape_error(head, heads[2]).mean() for head in heads[:2]]
        return {"error_mm": errors[0], "mean_face_mm": errors[1]}

    people = tqdm([f"{number:03d}" for number in range(FLAGS.people)], unit="person")
    done, failed = evaluation.attempt(people, person)
    table = {"photos": FLAGS.photos, "people": len(done), "failed": failed}
    if done:
        fit_mm, mean_mm = (float(np.mean([r[k] for r in done.values()])) for k in ("error_mm", "mean_face_mm"))
        table |= {"error_mm": fit_mm, "mean_face_mm": mean_mm, "reduction_percent": 100 * (1 - fit_mm / mean_mm)}
        table["rows"] = [{"person": int(name), **row} for name, row in done.items()]
    write_bytes(output / "results.json", (json.dumps(table, indent=2) + "\n").encode())
    print(json.dumps({k: v for k, v in table.items() if k != "rows"}, indent=2))
    sys.exit(not done)


if __name__ == "__main__":
    app.run(main)
