"""The ablation: every item fitted with every variant of the settings; one table, the paper's figure, a page.

  python experiments/ablate.py --output=runs/ablation_small

fits the photos of --photos (a folder: each photo a person, each folder in it a person with several photos; a truth.npz
or NAME.npz beside them gives errors in mm) and --synthetic people drawn from the model. Resumable, cell by cell.
Expected: about 45 s a cell on one CPU core, and two minutes more for the first cell of each variant (compilation).
Writes results.json, results.md, index.html, gallery.png, cells.csv, ablation_render.png and ablation_turned.png. Cells
that fail are listed with the reason; the exit code is 1 if all did.
"""

import shlex
import sys
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from ganfit_jax import (
    ablation,
    ablation_report,
    assets,
    energy,
    evaluation,
    gallery,
    pipeline,
    recognition,
    results,
    subjects,
)
from ganfit_jax.__main__ import cache_compilations
from ganfit_jax.config import Config
from ganfit_jax.detectors import detector
from ganfit_jax.errors import one_line
from ganfit_jax.fit import as_arrays

FLAGS = flags.FLAGS
HERE = Path(__file__).resolve().parent
flags.DEFINE_string("photos", str(HERE.parent / "examples"), "Folder of photos; empty = none.")
flags.DEFINE_string("list", None, "Text file with the names in that folder to use, one a line.")
flags.DEFINE_integer("limit", 0, "Only the first so many photos; 0 = all.")
flags.DEFINE_integer("synthetic", 2, "Number of synthetic people.")
flags.DEFINE_integer("synthetic_photos", 1, "Photos of each synthetic person.")
flags.DEFINE_string("variants", str(HERE / "configs" / "ablation_small.py"), "Python file with get_variants().")
flags.DEFINE_string("generator", None, 'Texture model (npz) of one more variant, "generator texture".')
flags.DEFINE_string("judge", None, "Recognition network that no fit uses (npz).")
flags.DEFINE_string("output", "runs/ablation_small", "Folder for the results.")
config_flags.DEFINE_config_dataclass("config", Config())


@one_line
def main(_) -> None:
    cache_compilations()
    changes = ablation.read_variants(FLAGS.variants)
    if FLAGS.generator:
        changes["generator texture"] = {"texture_model": FLAGS.generator}
    variants, output = ablation.make_variants(FLAGS.config, changes), results.prepare_folder(FLAGS.output)
    models, find = pipeline.load_models(FLAGS.config)[0], detector(FLAGS.config.detector)
    drawn = models._replace(texture=assets.load_texture("albedo")[0])  # the same people for all texture models
    judges = ablation.Judges(find, {"own": energy.recogniser_of(models)})
    if FLAGS.judge:
        judges.networks["unseen"] = recognition.load(FLAGS.judge)[0]
    folder, names = Path(FLAGS.photos), []
    if FLAGS.photos:
        names = Path(FLAGS.list).read_text().split() if FLAGS.list else subjects.names_in(folder)
    people = [f"synthetic {number:03d} x{FLAGS.synthetic_photos}" for number in range(FLAGS.synthetic)]
    draw = jax.jit(evaluation.photograph, static_argnames=("photo", "size"))

    def item(name: str) -> subjects.Item:
        if name not in people:
            return subjects.read_item(folder / name)
        place, seed = output / "people" / ablation.folder_name(name), 1000 + int(name.split()[1])
        return subjects.synthetic_item(
            place, drawn, draw, find, seed, as_arrays(evaluation.VIEWS), FLAGS.synthetic_photos
        )

    items, failed = evaluation.attempt([*names[: FLAGS.limit or None], *people], item)
    found, broken = ablation.run(items, variants, judges, output, lambda cells: tqdm(cells, unit="cell"))
    figures, title = {cell: row.figures for cell, row in found.items()}, f"Ablation: {len(items)} items"
    ablation_report.write_cells(output / "cells.csv", figures)
    tables = ablation_report.tables(figures, [name for name, content in items.items() if content.truth])
    rows, plots = ablation_report.item_rows(found), ablation_report.write_figures(found, output)
    command, failed = shlex.join(["python", *sys.argv]), failed | broken
    gallery.write_gallery(output, title, rows, failed, tables, plots, command)
    print(*(gallery.markdown_table(table) for table in tables.values()), *failed.items(), sep="\n")
    sys.exit(not found)


if __name__ == "__main__":
    app.run(main)
