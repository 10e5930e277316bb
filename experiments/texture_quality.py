"""A texture model beside linear ones built from the same maps, judged on maps that neither has seen.

  python experiments/texture_quality.py --maps=CORPUS/maps --held_out=held_out_maps.txt --model=texture.npz \\
      --output=runs/quality

Expected: some minutes on two CPU cores. Writes results.json, reconstructions.png (original | model | linear with as
many coefficients, or what its maps allow | linear with 100 | the model with as few) and neighbours.png (samples beside
their closest maps).
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from ganfit_jax import assets, picture, quality, texture
from ganfit_jax.__main__ import cache_compilations
from ganfit_jax.results import prepare_folder
from ganfit_jax.swd import swd
from ganfit_jax.types import GanTexture

FLAGS = flags.FLAGS
flags.DEFINE_string("maps", None, "Folder of maps (optional: detail.json, their true resolution).", required=True)
flags.DEFINE_string("held_out", None, "Names of maps that no model has seen, one a line.", required=True)
flags.DEFINE_string("model", None, "Texture model (name or npz) to judge.", required=True)
flags.DEFINE_string("output", "runs/quality", "Folder for the results.")
flags.DEFINE_integer("steps", 100, "Steps of the reconstruction; it starts from least squares.")
flags.DEFINE_float("rate", 0.02, "Its step size.")
flags.DEFINE_float("prior", 0.0, "Weight of the latent's mean square in it.")
flags.DEFINE_integer("samples", 200, "Samples of each model.")


def main(_) -> None:
    cache_compilations()
    output, key = prepare_folder(FLAGS.output), jax.random.key(0)
    model, info = assets.load_texture(FLAGS.model)
    width = texture.latent_size(model)
    side = texture.decode(model, jnp.ones(width)).shape[0]
    held, train = quality.split(Path(FLAGS.maps), Path(FLAGS.held_out).read_text().split(), side)
    models, counts = {"model": model}, {"linear": width, "linear_100": 100}
    models |= {name: quality.linear_model(train, count) for name, count in counts.items()}
    fewest = [texture.latent_size(models[name]) for name in counts]  # the maps may not allow as many as the model has
    models |= {f"model_{count}": quality.first_axes(model, count) for count in fewest if count < width}
    table: dict = {"judged": info.name, "sha256": info.sha256, "side": side}
    table |= {"held_out": len(held.names), "training": len(train.names)}
    table |= {"coefficients": {name: texture.latent_size(one) for name, one in models.items()}}
    originals = quality.high_frequency_energy(held.albedo, held.weight, 1)
    drawn, rebuilt = {}, {}
    for name, one in models.items():
        size, decode = texture.latent_size(one), jax.tree_util.Partial(texture.decode, one)
        drawn[name] = jax.lax.map(decode, jax.random.normal(key, (FLAGS.samples, size)))
        starts = [quality.best_linear(quality.linearised(decode, size), held.albedo, held.weight)]
        path = quality.linear_path(one) if isinstance(one, GanTexture) else None
        if path is not None:
            small = quality.shrink(held, path.mean.shape[0])
            starts.append(quality.best_linear(path, small.albedo, small.weight, 1e-5))
        effort = FLAGS.steps, FLAGS.rate, FLAGS.prior
        found = quality.reconstruct(decode, jnp.stack(starts), held.albedo, held.weight, *effort)
        rebuilt[name] = found.maps
        energy = quality.high_frequency_energy(found.maps, held.weight, 1) / originals
        alike, apart = (f(held.albedo, found.maps, held.weight) for f in (quality.ssim, quality.mean_difference))
        table[name] = {
            "energy_ratio_median": float(jnp.median(energy)),
            "ssim_mean": float(alike.mean()),
        }
        distance = swd(key, held.albedo, drawn[name], held.weight)
        table[name] |= {"l1_mean": float(apart.mean()), "swd_1000": quality.thousandths(distance)}
        print(name, json.dumps(table[name]), flush=True)
    table["training_swd_1000"] = quality.thousandths(swd(key, held.albedo, train.albedo, held.weight, train.weight))
    near = quality.nearest(drawn["model"], train.albedo, train.weight)
    scale = quality.nearest(held.albedo, train.albedo, train.weight, held.weight)
    for name, one in (("samples", near), ("held_out_maps", scale)):
        table[f"nearest_to_{name}"] = {"min": float(one.distance.min()), "median": float(np.median(one.distance))}
    (output / "results.json").write_text(json.dumps(table, indent=2) + "\n")
    print(json.dumps(table, indent=2))
    order = np.argsort(near.distance)[:: max(1, FLAGS.samples // 32)]  # the closest first
    pairs = [picture.strip([drawn["model"][n], train.albedo[near.which[n]]], side, gap=0) for n in order]
    picture.save_png(output / "neighbours.png", picture.contact_sheet(pairs, 4))
    rows = [picture.strip([held.albedo[n], *(rebuilt[k][n] for k in rebuilt)], side) for n in range(len(held.names))]
    picture.save_png(output / "reconstructions.png", picture.contact_sheet(rows[:24], 2))


if __name__ == "__main__":
    app.run(main)
