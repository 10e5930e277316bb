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

import numpy as np
from absl import app, flags
from tqdm import tqdm

from ganfit_jax import cases, results, scans
from ganfit_jax.detectors import detector
from ganfit_jax.errors import InputError, one_line
from ganfit_jax.evaluation import attempt
from ganfit_jax.landmarks import OUTER_EYE_CORNERS
from ganfit_jax.metrics import Surface
from ganfit_jax.observe import choose_face
from ganfit_jax.photo import read_photo

FLAGS = flags.FLAGS
EYES_APART = 90.0  # mm
# MediaPipe's numbers of the 68 points: jaw, brows, nose, eyes, mouth.
MEDIAPIPE = """162 234 93 58 172 136 149 148 152 377 378 365 397 288 323 454 389 71 63 105 66 107 336 296 334 293 301
168 197 5 4 75 97 2 326 305 33 160 158 133 153 144 362 385 387 263 373 380
61 39 37 0 267 269 291 405 314 17 84 181 78 82 13 312 308 317 14 87"""
flags.DEFINE_enum("program", "eos", ["eos", "mediapipe"], "Which program.")
flags.DEFINE_string("share", None, "Folder `share` of eos's sources.")
flags.DEFINE_string("manifest", None, "CSV file of photos, as evaluate.py takes it.")
flags.DEFINE_string("photos", None, "Folder of photos.")
flags.DEFINE_string("output", None, "Folder for the meshes.", required=True)


def eos_program():
    import eos  # pyright: ignore[reportMissingImports]

    share = Path(FLAGS.share or "--share")
    if not (share / "sfm_shape_3448.bin").is_file():
        raise InputError(f"{share}: no sfm_shape_3448.bin, expected the folder share of eos's sources")
    file = {name: str(share / name) for name in (p.name for p in share.iterdir())}
    shapes = eos.morphablemodel.load_model(file["sfm_shape_3448.bin"])
    moods = eos.morphablemodel.load_blendshapes(file["expression_blendshapes_3448.bin"])
    model = eos.morphablemodel.MorphableModel(
        shapes.get_shape_model(), moods, eos.morphablemodel.PcaModel(), None, shapes.get_texture_coordinates()
    )
    mapper = eos.core.LandmarkMapper(file["ibug_to_sfm.txt"])
    edges = eos.morphablemodel.load_edge_topology(file["sfm_3448_edge_topology.json"])
    contour = eos.fitting.ContourLandmarks.load(file["ibug_to_sfm.txt"])
    outline = eos.fitting.ModelContour.load(file["sfm_model_contours.json"])
    pairs = [line.split("#")[0].split("=") for line in Path(file["ibug_to_sfm.txt"]).read_text().splitlines()]
    known = {int(a): int(b) for a, b in (pair for pair in pairs if len(pair) == 2 and pair[0].strip().isdigit())}
    find = detector()

    def face(image: np.ndarray, name: str) -> scans.Marked:
        points = choose_face(find.detect(image), None, name)[0].landmarks
        marks = [eos.core.Landmark(str(i), [float(x), float(y)]) for i, (x, y) in enumerate(points, 1)]
        width, height = image.shape[1], image.shape[0]
        found = eos.fitting.fit_shape_and_pose(model, marks, mapper, width, height, edges, contour, outline)
        neutral = np.asarray(shapes.get_shape_model().draw_sample(found[2]), float).reshape(-1, 3)
        landmarks = np.array([neutral[known[i]] if i in known else np.full(3, np.nan) for i in range(1, 69)])
        return scans.Marked(Surface(neutral, np.asarray(found[0].tvi, int)), landmarks)

    return face


def mediapipe_program():
    import mediapipe  # pyright: ignore[reportMissingImports]

    mesh = mediapipe.solutions.face_mesh
    network = mesh.FaceMesh(static_image_mode=True, max_num_faces=1)
    near: dict[int, set[int]] = {}
    for a, b in mesh.FACEMESH_TESSELATION:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    corners = [(a, b, c) for a in near for b in near[a] if b > a for c in near[a] & near[b] if c > b]

    def face(image: np.ndarray, name: str) -> scans.Marked:
        found = network.process(np.ascontiguousarray(np.round(image * 255).astype(np.uint8))).multi_face_landmarks
        if not found:
            raise InputError(f"{name}: MediaPipe finds no face, expected one")
        sides = np.array([image.shape[1], -image.shape[0], -image.shape[1]])
        points = np.array([(p.x, p.y, p.z) for p in found[0].landmark]) * sides
        marks = points[[int(number) for number in MEDIAPIPE.split()]]
        right, left = marks[list(OUTER_EYE_CORNERS)]
        unit = EYES_APART / np.linalg.norm(right - left)
        return scans.Marked(Surface(points * unit, facing(points, np.array(corners))), marks * unit)

    return face


def facing(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The triangles wound so that they look at the camera (+z)."""
    a, b, c = (points[faces[:, i]] for i in range(3))
    back = np.cross(b - a, c - a)[:, 2] < 0
    return np.where(back[:, None], faces[:, ::-1], faces)


@one_line
def main(_) -> None:
    output = results.prepare_folder(FLAGS.output)
    face = eos_program() if FLAGS.program == "eos" else mediapipe_program()
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
