"""Fits a list of portraits and asks judges that took no part in the fits whether photo and render show one person.

  python experiments/portraits.py --photos=PHOTOS --list=experiments/configs/held_out.txt --judge=mobilefacenet.npz \\
      --output=runs/portraits

Resumable. Expected: about 50 s a portrait on one CPU core. Writes what the command `ganfit` writes for each portrait,
the four pictures that are judged (judged_*.png), results.json and sheet.png. The judges detect the face anew in every
picture; dlib's library judges too. Portraits that fail are listed in results.json with the reason; the exit code is 1
if all did.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from ganfit_jax import detail, evaluation, photo, picture, pipeline, recognition, results, texture
from ganfit_jax.__main__ import cache_compilations
from ganfit_jax.config import Config
from ganfit_jax.detectors import detector
from ganfit_jax.files import write_bytes
from ganfit_jax.measure import stored_fit

FLAGS = flags.FLAGS
KINDS = ("render", "side", "detail", "detail_side")  # the fit's albedo, and completed with the photo's detail
flags.DEFINE_string("photos", None, "Folder that the names in the list refer to.", required=True)
flags.DEFINE_string("list", None, "Text file with one photo's name a line.", required=True)
flags.DEFINE_string("judge", None, "Recognition network that the fit does not use (npz).", required=True)
flags.DEFINE_string("output", "runs/portraits", "Folder for the results.")
flags.DEFINE_integer("limit", 0, "Only the first so many photos; 0 = all.")
config_flags.DEFINE_config_dataclass("config", Config())


def main(_) -> None:
    cache_compilations()
    output, names = results.prepare_folder(FLAGS.output), Path(FLAGS.list).read_text().split()
    models, infos = pipeline.load_models(FLAGS.config)
    find, judge = detector(FLAGS.config.detector), recognition.load(FLAGS.judge)[0]
    network = evaluation.dlib_network()

    def portrait(name: str) -> dict[str, Any]:
        folder, file = results.prepare_folder(output / Path(name).stem), Path(FLAGS.photos) / name
        metrics = folder / "metrics.json"  # written last
        files = {"photo": file} | {kind: folder / f"judged_{kind}.png" for kind in KINDS}
        drawn = metrics.exists() and all(path.exists() for path in files.values())
        if not drawn or stored_fit(folder, [file], infos, FLAGS.config) is None:
            fitted = pipeline.fit_with(models, infos, [file], FLAGS.config, find)
            params = fitted.fit.params
            front, side = jax.tree.map(lambda x: x[0], params.views), evaluation.side_view(params)
            plain = texture.decode(models.texture, params.identity.texture)
            full = jax.numpy.asarray(detail.with_detail(models, params, [file], fitted.observations))
            shown = ((front, plain), (side, plain), (front, full), (side, full))
            for kind, (view, albedo) in zip(KINDS, shown, strict=True):
                image = results.draw_person(models, params, view, view.light, albedo, FLAGS.config.size).image
                picture.save_png(files[kind], image)
            results.write_results(fitted, folder, full)
        seen = {k: evaluation.describe(photo.read_photo(f), judge, find, network) for k, f in files.items()}
        return {"strip": photo.read_photo(folder / "comparison.png"), **seen,
                "metrics": json.loads(metrics.read_text())}  # fmt: skip

    done, failed = evaluation.attempt(tqdm(names[: FLAGS.limit or None], unit="portrait"), portrait)
    table: dict[str, object] = {"portraits": len(done), "failed": failed}
    if done:
        seen = {k: [d[k] for d in done.values()] for k in ("photo", *KINDS)}
        table |= {k: evaluation.compare(seen["photo"], seen[k], judge.spec.metric) for k in KINDS}
        errors = [next(iter(d["metrics"]["photos"].values()))["landmark_error_percent"] for d in done.values()]
        table["landmark_error_percent_median"] = float(np.median(errors))
        table["fit_seconds_median"] = float(np.median([d["metrics"]["seconds"]["fit"] for d in done.values()]))
        picture.save_png(output / "sheet.png", picture.contact_sheet([d["strip"] for d in done.values()], 2))
    write_bytes(output / "results.json", (json.dumps(table, indent=2) + "\n").encode())
    print(json.dumps(table, indent=2))
    sys.exit(not done)


if __name__ == "__main__":
    app.run(main)
