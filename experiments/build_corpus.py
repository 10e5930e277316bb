"""A folder of photos -> UV albedo maps with visibility weights, a contact sheet and counts of what was dropped and why.

  python experiments/build_corpus.py --photos=PHOTOS --output=CORPUS
  python experiments/build_corpus.py --photos=PHOTOS --output=CORPUS2 --texture_model=albedo.npz --model=albedo2.npz

Resumable: photos that are done are not done again. Expected: about 0.5 s a photo and round on two CPU cores. The first
round aligns by landmarks; with a texture model from an earlier run, every photo is also aligned by its colours.
Small portraits (down to --smallest) become maps whose true resolution ``maps/detail.json`` tells: they teach a
generator its low levels only, and the linear model leaves them out (--linear_detail).
"""

import itertools
import json
from pathlib import Path

import numpy as np
from absl import app, flags
from tqdm import tqdm

from ganfit_jax import corpus, photo, picture, skins, workshop

FLAGS = flags.FLAGS
flags.DEFINE_string("photos", None, "Folder of photos, searched recursively.", required=True)
flags.DEFINE_string("output", None, "Folder for maps/, fits/, report.json and sheet.png.", required=True)
flags.DEFINE_string("skip", None, "Text file with the file names of photos to leave out, one a line.")
flags.DEFINE_string("skins", None, "Folder of MakeHuman skins (body UV, PNG) to map in as well.")
flags.DEFINE_string("skin_uv", "third_party/makehuman/skin_uv.npz", "The chart of those skins.")
flags.DEFINE_string("texture_model", None, "Texture model (name or path) that refines the alignment by colour.")
flags.DEFINE_float("smallest", 24.0, "Smallest distance of the outer eye corners, pixels of the photo.")
flags.DEFINE_bool("obey_landmarks", False, "Meshes obey landmarks more (not those in --output already).")
flags.DEFINE_integer("size", 256, "Side of the maps, texels.")
flags.DEFINE_integer("batch", 16, "Photos fitted together.")
flags.DEFINE_string("model", None, "Where to write the linear texture model (npz); none by default.")
flags.DEFINE_string("licence", "unknown", "Licence of that model, stored in it.")
flags.DEFINE_integer("linear_detail", corpus.LINEAR_DETAIL, "Texels that maps of that model must truly resolve.")
flags.DEFINE_integer("components", 100, "Components of the linear texture model.")


def main(_) -> None:
    root, output = Path(FLAGS.photos), Path(FLAGS.output)
    skip = {Path(name).name for name in Path(FLAGS.skip).read_text().split()} if FLAGS.skip else set()
    paths = [p for p in sorted(root.rglob("*")) if p.suffix.lower() in photo.PHOTO_KINDS]
    paths, found = workshop.distinct(paths, skip), len(paths)
    print(f"{found} photos, {found - len(paths)} of them skipped or copies of others", flush=True)
    shop = workshop.open_shop(root, output, FLAGS.texture_model, FLAGS.smallest, FLAGS.size, FLAGS.obey_landmarks)
    photos = workshop.name_photos(shop, paths)
    for start in tqdm(range(0, len(photos), FLAGS.batch), desc="fit", unit="batch"):
        batch = dict(itertools.islice(photos.items(), start, start + FLAGS.batch))
        workshop.fit_batch(shop, batch, FLAGS.batch)
    names = workshop.fitted(shop)
    mean = workshop.mean_map(shop, tqdm(names, desc="mean", unit="photo"))
    for name in tqdm(names, desc="maps", unit="photo"):
        workshop.write_map(shop, name, mean)
    details = {name: workshop.detail(shop, name) for name in names}
    for path in sorted(Path(FLAGS.skins).glob("*.png")) if FLAGS.skins else []:
        details |= skins.write_skin(shop, path, np.load(FLAGS.skin_uv)["skin_uv"])
    corpus.write_details(output / "maps", details)
    counts = json.dumps(corpus.report(output), indent=2)
    (output / "report.json").write_text(counts + "\n")
    print(counts)
    shown = corpus.read_maps(output / "maps", sorted(details)[::7][:96])
    shown = [m * (0.3 + 0.7 * w[..., None]) for m, w in zip(shown.albedo, shown.weight, strict=True)]
    picture.save_png(output / "sheet.png", picture.contact_sheet(shown, 12))
    if FLAGS.model:
        sharp = sorted(name for name, side in details.items() if side >= FLAGS.linear_detail)
        maps = corpus.read_maps(output / "maps", sharp)
        explained = corpus.write_linear_model(FLAGS.model, maps, FLAGS.components, FLAGS.licence)
        print(f"{FLAGS.model}: {FLAGS.components} components explain {100 * explained:.1f} % of the variance")


if __name__ == "__main__":
    app.run(main)
