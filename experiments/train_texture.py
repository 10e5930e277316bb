"""Trains the texture GAN on folders of UV maps; a run that was stopped, even by ``kill -9``, goes on where it was.

  python experiments/train_texture.py --maps=CORPUS/maps --output=runs/texture
  python experiments/train_texture.py --maps=CORPUS/maps --output=runs/paper --training.side=512 \\
      --training.base=8192 --training.widest=512 --training.critic=1 --training.bfloat16

Needs the extra [train]. Expected on two CPU cores: 20 images a second at 64 x 64, 11 at 128 x 128 with the narrow
default; hundreds of thousands are needed, so take a GPU. Watch it with ``tensorboard --logdir=runs``, or open
``samples/*.png``. At the end, and with --export at any time, the averaged generator is written to ``texture.npz``,
which ``ganfit --config.texture_model=runs/texture/texture.npz`` takes.
"""

from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from ganfit_jax import texture_data, texture_export, training
from ganfit_jax.errors import one_line

FLAGS = flags.FLAGS
flags.DEFINE_list("maps", None, "Folders of UV maps, with optional masks.", required=True)
flags.DEFINE_string("held_out", None, "Text file with the names of maps to leave out, one a line; they measure.")
flags.DEFINE_string("output", "runs/texture", "Folder for checkpoints, logs, samples and texture.npz.")
flags.DEFINE_string("licence", "unknown", "Licence of the weights, stored in them.")
flags.DEFINE_string("begin", None, "A run's folder or a texture model (npz, or 'gan') whose networks a new run takes.")
flags.DEFINE_bool("new_path", False, "With --begin: a new linear path, of these maps, its latents turned to the old.")
flags.DEFINE_bool("export", False, "Only write texture.npz from the newest checkpoint.")
config_flags.DEFINE_config_dataclass("training", training.Training())


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)  # orbax reports every write
    names = Path(FLAGS.held_out).read_text().split() if FLAGS.held_out else []
    everything = texture_data.find_maps(FLAGS.maps)
    files = [file for file in everything if file.path.stem not in names]
    held_out = [file for file in everything if file.path.stem in names]
    output, settings = Path(FLAGS.output), FLAGS.training
    begin = Path(FLAGS.begin) if FLAGS.begin else None
    if FLAGS.export:
        settings, graphs, state = training.restored(output)
    else:
        kinds = {kind: sum(file.kind == kind for file in files) for kind in ("real", "varied", "synthetic")}
        print(f"maps: {kinds}, held out: {len(held_out)}", flush=True)
        graphs, state = training.train(settings, files, held_out, output, begin, FLAGS.new_path)
    kept = None if FLAGS.new_path else begin
    texture_export.export(output / "texture.npz", graphs, state, settings, files, FLAGS.licence, kept)


if __name__ == "__main__":
    app.run(one_line(main))
