"""Proof: how good are the fits, against scans, photos and synthetic truth? One command, one page.

  python experiments/evaluate.py                                      # the example: a photo and synthetic people
  python experiments/evaluate.py --task=geometry --manifest=people.csv --judge=mobilefacenet.npz
  python experiments/evaluate.py --task=geometry --micc=MICC --micc_landmarks=MICC_landmarks
  python experiments/evaluate.py --task=identity --photos=PHOTOS --judge=mobilefacenet.npz --fits=runs/rival
  python experiments/evaluate.py --task=synthetic --people=20 --counts=1,4     (leaves a manifest for other programs)
  python experiments/evaluate.py --task=scan --mesh=head.obj --colours=head.jpg

Expected: about 40 s a person and photo on one CPU core; the example takes six minutes. Resumable; what fails is
listed and stops nothing. Writes results.json, results.md, index.html, gallery.png and plots. Columns of the
manifest and folders of MICC: ganfit_jax/cases.py; rivals' files (--fits): ganfit_jax/scans.py. The exit code is 1 if
everything failed.
"""

import shlex
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from ganfit_jax import cases, headscan, measure, people, results, tasks, truth
from ganfit_jax.__main__ import cache_compilations
from ganfit_jax.config import Config
from ganfit_jax.errors import InputError, one_line
from ganfit_jax.export import hashes

FLAGS = flags.FLAGS
PHOTO = Path(__file__).resolve().parents[1] / "examples" / "astronaut.png"
flags.DEFINE_enum("task", "example", ["example", "geometry", "identity", "synthetic", "scan"], "What to evaluate.")
flags.DEFINE_string("manifest", None, "CSV file of photos and scans (geometry).")
flags.DEFINE_string("micc", None, "Folder of MICC Florence (geometry).")
flags.DEFINE_string("micc_landmarks", None, "Folder of its landmarks, where they lie elsewhere.")
flags.DEFINE_string("photos", None, "Folder of photos, or of a folder for each person (identity).")
flags.DEFINE_string("judge", None, "Recognition network that the fit does not use (npz).")
flags.DEFINE_multi_string("fits", [], "Folder of another program's NAME.obj and NAME.png; =UNIT: mm in a unit.")
flags.DEFINE_integer("people", None, "Number of synthetic people; 3 in the example, 20 in the task of that name.")
flags.DEFINE_list("counts", ["1"], "Numbers of photos a person, each of which is fitted (synthetic).")
flags.DEFINE_list("sizes", ["512"], "Sides of the photos, pixels (synthetic).")
flags.DEFINE_integer("first_seed", 1000, "Another number draws other people (synthetic).")
flags.DEFINE_string("people_model", "", "Whose people they are: a shape model; the fit's own by default (synthetic).")
flags.DEFINE_string("people_maps", "", "Folder of their albedo maps; drawn by default (synthetic).")
flags.DEFINE_string("mesh", None, "A head's scan with texture coordinates, y up, facing +z (scan).")
flags.DEFINE_string("colours", None, "Its picture (scan).")
flags.DEFINE_integer("limit", 0, "Only the first so many people; 0 = all.")
flags.DEFINE_string("output", None, "Folder for the results; runs/TASK by default.")
config_flags.DEFINE_config_dataclass("config", Config())


def people_task(tools: measure.Tools, output: Path) -> tasks.Task:
    if FLAGS.task == "example":
        chosen, failed = tasks.example_cases(output / "data", PHOTO, FLAGS.people or 3, tools)
    else:
        chosen, failed = cases.chosen_cases(FLAGS.photos, FLAGS.manifest, FLAGS.micc, FLAGS.micc_landmarks)
    return tasks.people_task(f"Evaluation: {FLAGS.task}", chosen[: FLAGS.limit or None], failed, tools)


def whole_numbers(name: str, given: list[str]) -> tuple[int, ...]:
    if not all(text.strip().isdigit() and int(text) for text in given):
        raise InputError(f"--{name}={','.join(given)}: expected whole numbers above 0")
    return tuple(int(text) for text in given)


def truth_task(tools: measure.Tools) -> tasks.Task:
    models, infos, find, config = tools.models, tools.infos, tools.find, FLAGS.config
    sources = find.name, hashes(infos)
    if FLAGS.task == "scan":
        if not (FLAGS.mesh and FLAGS.colours):
            raise InputError("--task=scan: found no --mesh or no --colours, expected a scan and its picture")
        head = Path(FLAGS.mesh), Path(FLAGS.colours)
        names, work = headscan.scan(models, infos, find, config, *head)
        return tasks.plain_task("A scanned head", names, work, str((head, config, sources)), headscan.finished)
    counts, sizes = whole_numbers("counts", FLAGS.counts), whole_numbers("sizes", FLAGS.sizes)
    settings = people.Settings(
        FLAGS.people or 20,
        counts,
        sizes,
        shape_model=FLAGS.people_model,
        texture_maps=FLAGS.people_maps,
        first_seed=FLAGS.first_seed,
    )
    names, work = truth.synthetic(models, infos, find, config, settings)
    chosen = str((truth.drawing(settings), config, sources))
    return tasks.plain_task("Synthetic people", names, work, chosen, truth.finished)


@one_line
def main(_) -> None:
    cache_compilations()
    output = results.prepare_folder(FLAGS.output or f"runs/{FLAGS.task}")
    tools = measure.load_tools(FLAGS.config, FLAGS.judge, FLAGS.fits)
    task = truth_task(tools) if FLAGS.task in ("synthetic", "scan") else people_task(tools, output)
    sys.exit(not tasks.run(task, output, shlex.join(["python", *sys.argv]), lambda names: tqdm(names, unit="item")))


if __name__ == "__main__":
    app.run(main)
