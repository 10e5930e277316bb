"""Fits a list of portraits and asks judges that took no part in the fits whether photo and render show one person.

  python experiments/portraits.py --photos=PHOTOS --list=experiments/configs/held_out.txt --judge=mobilefacenet.npz \\
      --output=runs/portraits

Resumable. Expected: about 25 s a portrait on two CPU cores. Writes photo, render, side view and comparison of each
portrait, results.json and sheet.png. The judges detect the face anew in every picture; dlib's library judges too.
"""

import json
from pathlib import Path
from typing import Any

import dlib
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from ganfit_jax import evaluation, files, photo, picture, pipeline, recognition, results, texture
from ganfit_jax.__main__ import cache_compilations
from ganfit_jax.config import Config
from ganfit_jax.detectors import detector
from ganfit_jax.errors import InputError
from ganfit_jax.recognition.load import DLIB_FILE

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
    library: Any = dlib
    network = library.face_recognition_model_v1(str(files.dlib_file(DLIB_FILE)))
    seen = {kind: [] for kind in ("photo", "render", "side")}
    described, points, strips, failed = {k: [] for k in seen}, {k: [] for k in seen}, [], []
    for name in names:
        own = output / Path(name).stem
        strips.append(photo.read_photo(own / "comparison.png"))
        for kind in seen:
            image = photo.read_photo(Path(FLAGS.photos) / name if kind == "photo" else own / f"{kind}.png")
            try:
                embedding, landmarks = evaluation.embed(image, judge, find)
                described[kind].append(evaluation.dlib_descriptor(image, network, landmarks))
            except InputError:
                failed.append(f"{name}: no face in {kind}")
                embedding, landmarks = np.full(128, np.nan), np.full((68, 2), np.nan)
                described[kind].append(np.full(128, np.nan))
            seen[kind].append(embedding)
            points[kind].append(landmarks)
    table = {"portraits": len(names), "failed": failed}
    for kind in ("render", "side"):
        judged = evaluation.judge_pairs(np.stack(seen["photo"]), np.stack(seen[kind]), judge.spec.metric)
        distance = np.linalg.norm(np.stack(described["photo"]) - np.stack(described[kind]), axis=-1)
        table[f"{kind}_dlib_distance_median"] = float(np.nanmedian(distance))
        table[f"{kind}_judge_cosine_median"] = float(np.nanmedian(judged.own))
        table[f"{kind}_judge_nearest_is_own"] = float(judged.right.mean())
        table[f"{kind}_per_portrait"] = dict(zip(names, np.round(judged.own, 3).tolist(), strict=True))
    metrics = [json.loads((output / Path(n).stem / "metrics.json").read_text()) for n in names]
    errors = [next(iter(m["photos"].values()))["landmark_error_percent"] for m in metrics]
    table["landmark_error_percent_median"] = float(np.median(errors))
    table["fit_seconds_median"] = float(np.median([m["seconds"]["fit"] for m in metrics]))
    (output / "results.json").write_text(json.dumps(table, indent=2) + "\n")
    picture.save_png(output / "sheet.png", picture.contact_sheet(strips, 2))
    print(json.dumps({k: v for k, v in table.items() if not isinstance(v, dict)}, indent=2))


if __name__ == "__main__":
    app.run(main)
