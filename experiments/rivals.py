"""Other programs' faces from the same photos, as files that `evaluate.py --fits=FOLDER` puts beside ours.

  python experiments/rivals.py --program=eos --share=eos/share --manifest=runs/synthetic/manifest.csv \\
      --output=runs/rivals/eos
  python experiments/rivals.py --program=mediapipe --photos=PHOTOS --output=runs/rivals/mediapipe

eos (Huber et al., VISAPP 2016; pip install eos-py) fits the Surrey Face Model, which comes with eos's sources in
`share` for non-commercial use, to the 68 landmarks that our detector finds. MediaPipe Face Mesh (Kartynnik et al.,
2019; pip install mediapipe==0.10.14) is a network that predicts 468 points. Install either in an environment of its
own, beside ganfit-jax; neither is needed otherwise. Writes NAME.obj and NAME.ljson (68 landmarks) for each case, from
its first photo, in millimetres as far as the program knows them: MediaPipe does not, its outer eye corners are set
90 mm apart. eos's face is neutral; MediaPipe's has the photo's expression. Expected: under a second a photo.
"""

import sys
from pathlib import Path

from absl import app, flags
from tqdm import tqdm

from ganfit_jax import cases, results, rivals, scans
from ganfit_jax.errors import one_line
from ganfit_jax.evaluation import attempt
from ganfit_jax.photo import read_photo

FLAGS = flags.FLAGS
flags.DEFINE_enum("program", "eos", ["eos", "mediapipe"], "Which program.")
flags.DEFINE_string("share", None, "Folder `share` of eos's sources.")
flags.DEFINE_string("manifest", None, "CSV file of photos, as evaluate.py takes it.")
flags.DEFINE_string("photos", None, "Folder of photos.")
flags.DEFINE_string("output", None, "Folder for the meshes.", required=True)


@one_line
def main(_) -> None:
    output = results.prepare_folder(FLAGS.output)
    share = Path(FLAGS.share or "--share")
    face = rivals.eos_program(share) if FLAGS.program == "eos" else rivals.mediapipe_program()
    chosen, failed = cases.chosen_cases(FLAGS.photos, FLAGS.manifest, None, None)

    by_name = {case.name: case for case in chosen}

    def one(name: str) -> None:
        case = by_name[name]
        scans.write_scan(output, case.name, face(read_photo(case.photos[0]), str(case.photos[0])))

    done, broken = attempt(tqdm(list(by_name), unit="photo"), one)
    print(f"{len(done)} faces in {output}", *(failed | broken).items(), sep="\n")
    sys.exit(not done)


if __name__ == "__main__":
    app.run(main)
