"""Fits a list of portraits and asks judges that took no part in the fits whether photo and render show one person.

  python experiments/portraits.py --photos=PHOTOS --list=experiments/configs/held_out.txt --judge=mobilefacenet.npz \\
      --output=runs/portraits

Resumable. Expected: about 25 s a portrait on two CPU cores. Writes photo, render, side view and comparison of each
portrait, results.json and sheet.png. The judges detect the face anew in every picture; dlib's library judges too.
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from ganfit_jax import evaluation, photo, picture, pipeline, recognition, results, texture
from ganfit_jax.__main__ import cache_compilations
from ganfit_jax.config import Config
from ganfit_jax.detectors import detector

FLAGS = flags.FLAGS
flags.DEFINE_string("photos", None, "Folder that the names in the list refer to.", required=True)
flags.DEFINE_string("list", None, "Text file with one photo's name a line.", required=True)
flags.DEFINE_string("judge", None, "Recognition network that the fit does not use (npz).", required=True)
flags.DEFINE_string("output", "runs/portraits", "Folder for the results.")
flags.DEFINE_integer("limit", 0, "Only the first so many photos; 0 = all.")
config_flags.DEFINE_config_dataclass("config", Config())


def main(_) -> None:
    cache_compilations()
    output, names = Path(FLAGS.output), Path(FLAGS.list).read_text().split()
    names = names[: FLAGS.limit or None]
    models, infos = pipeline.load_models(FLAGS.config)
    find, judge = detector(FLAGS.config.detector), recognition.load(FLAGS.judge)[0]
    for name in tqdm(names, unit="portrait"):
        folder = results.prepare_folder(output / Path(name).stem)
        if not (folder / "metrics.json").exists():
            fitted = pipeline.fit_with(models, infos, [Path(FLAGS.photos) / name], FLAGS.config, find)
            side = evaluation.side_view(fitted.fit.params)
            albedo = texture.decode(models.texture, fitted.fit.params.identity.texture)
            drawn = results.draw_person(models, fitted.fit.params, side, side.light, albedo, FLAGS.config.size)
            picture.save_png(folder / "side.png", drawn.image)
            results.write_results(fitted, folder)
    network, seen = evaluation.dlib_network(), {}
    for kind in ("photo", "render", "side"):
        files = [Path(FLAGS.photos) / n if kind == "photo" else output / Path(n).stem / f"{kind}.png" for n in names]
        seen[kind] = [evaluation.describe(photo.read_photo(file), judge, find, network) for file in files]
    table: dict[str, object] = {"portraits": len(names)}
    table |= {k: evaluation.compare(seen["photo"], seen[k], judge.spec.metric) for k in ("render", "side")}
    metrics = [json.loads((output / Path(n).stem / "metrics.json").read_text()) for n in names]
    errors = [next(iter(m["photos"].values()))["landmark_error_percent"] for m in metrics]
    table["landmark_error_percent_median"] = float(np.median(errors))
    table["fit_seconds_median"] = float(np.median([m["seconds"]["fit"] for m in metrics]))
    (output / "results.json").write_text(json.dumps(table, indent=2) + "\n")
    strips = [photo.read_photo(output / Path(name).stem / "comparison.png") for name in names]
    picture.save_png(output / "sheet.png", picture.contact_sheet(strips, 2))
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    app.run(main)
