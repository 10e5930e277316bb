"""Trains the texture GAN: the schedule of resolutions, checkpoints, scalars and pictures around `gan.step`.

A run is a pure function of its settings, its maps and its seed: every step's batch and random key come from the
step's number. What a killed run had reached lies in ``checkpoints/``; started again, it goes on with the same losses.
"""

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from ganfit_jax import assets, gan, picture, texture_data
from ganfit_jax.checkpoints import Checkpoints
from ganfit_jax.corpus import linear_basis
from ganfit_jax.errors import InputError
from ganfit_jax.files import write_bytes
from ganfit_jax.generator import levels
from ganfit_jax.samples import distances, sheet
from ganfit_jax.texture_data import MapFile
from ganfit_jax.types import GanTexture

SHOWN = ("distance", "reconstruction")  # losses beside the progress bar


@dataclasses.dataclass
class Training(gan.Settings):
    """A run: networks, data, schedule. Entry i of `batches` and `images` is for level i: 4 x 4, 8 x 8, and so on."""

    batches: tuple[int, ...] = (16, 16, 16, 16, 8, 8, 8, 4)
    images: tuple[int, ...] = (10000, 20000, 30000, 40000, 40000, 40000, 40000, 40000)  # shown to a level; 0 = skip it
    fade: float = 0.4  # share of a level's images during which it fades in
    mirror: bool = True
    pigments: float = 0.3  # share of maps whose skin is given another tone
    seed: int = 0
    every: int = 500  # steps between two checkpoints
    look: int = 1000  # steps between two sheets of samples and distances
    threads: int = 1  # that read maps

    def settings(self) -> gan.Settings:
        """What `gan` needs of it."""
        return gan.Settings(**{f.name: getattr(self, f.name) for f in dataclasses.fields(gan.Settings)})


def stored(folder: Path) -> Training:
    """The settings of the run in a folder; raises InputError where there is none."""
    try:
        read = json.loads((folder / "settings.json").read_text())
        values: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in read.items()}
        return Training(**values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}/settings.json: {error}; expected the settings of a training run") from None


class Place(NamedTuple):
    """Where a step lies in the schedule."""

    side: int
    batch: int
    number: int  # step within its level
    steps: int  # steps of the level
    alpha: float  # 0 = the level below, 1 = faded in


def level_steps(training: Training) -> list[int]:
    """Steps of each level; a level that is shown no images has none."""
    count = levels(training.side)
    for name, least in (("batches", 1), ("images", 0)):
        found = getattr(training, name)
        if len(found) < count or min(found[:count]) < least or not found[count - 1]:
            kind = "positive numbers" if least else "numbers of at least 0, the last of them positive"
            raise InputError(f"{name} = {found}: expected {count} {kind}, one for each level up to the side")
    pairs = zip(training.images[:count], training.batches[:count], strict=True)
    return [max(1, n // b) if n else 0 for n, b in pairs]


def place(training: Training, step: int) -> Place | None:
    """The level and fade of a step; None when the run is over."""
    for level, steps in enumerate(level_steps(training)):
        if step < steps:
            fading = 0 if level == 0 else max(1, int(training.fade * steps))
            alpha = min(1.0, step / fading) if fading else 1.0
            return Place(4 << level, training.batches[level], step, steps, alpha)
        step -= steps
    return None


def on_devices(devices: Sequence[Any]) -> tuple[NamedSharding, NamedSharding]:
    """How arrays lie on the devices: the same on each, and split along the first axis."""
    mesh = Mesh(np.asarray(devices), ("data",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))


def steps(
    training: Training, files: Sequence[MapFile], state: gan.GanState, graphs: gan.Networks, start: int = 0
) -> Iterator[tuple[int, Place, gan.GanState, dict[str, Array]]]:
    """Trains from step `start` on and yields after each step: the number of steps done, the step's place, the state,
    the losses. Data-parallel over all devices; a batch that they do not divide stays on one."""
    settings, key = training.settings(), jax.random.key(training.seed)
    done, stream, devices = start, None, jax.devices()
    same, split = on_devices(devices[:1])
    while where := place(training, done):
        if stream is None or where.number == 0:
            seed = 1000 * training.seed + where.side
            stream = texture_data.batches(
                files, where.side, where.batch, seed, where.number, training.mirror, training.pigments, training.threads
            )
            used = devices if where.batch % len(devices) == 0 else devices[:1]
            same, split = on_devices(used)
            state = jax.device_put(state, same)
        if where.number == 0 and done:
            state = state._replace(moments=jax.device_put(gan.fresh_moments(state.weights), same))
        batch = jax.device_put(gan.Batch(**next(stream)), split)
        alpha, own = jax.device_put((jnp.float32(where.alpha), jax.random.fold_in(key, done)), same)
        state, losses = gan.step(state, batch, own, alpha, graphs=graphs, settings=settings)
        done += 1
        yield done, where, state, losses


def linear_path(training: Training, files: Sequence[MapFile], count: int = 1500) -> tuple[Array, Array]:
    """Mean [s, s, 3] and basis [latent, s, s, 3] of maps as the training shows them, sRGB."""
    stream = texture_data.batches(files, training.linear, 10, training.seed, 0, training.mirror, training.pigments)
    batches = [next(stream) for _ in range(-(-count // 10))]
    maps, weight = (np.concatenate([batch[key] for batch in batches]) for key in ("albedo", "weight"))
    mean, basis, _ = linear_basis(maps, weight, training.latent)
    if len(basis) < training.latent:
        raise InputError(
            f"latent = {training.latent}: expected at most {len(basis)} with a linear path of {count} maps"
        )
    return jnp.asarray(mean, jnp.float32), jnp.asarray(basis, jnp.float32)


def taught(training: Training, files: Sequence[MapFile]) -> Float[Array, "s s 1"]:
    """Where the networks may add to the linear path, by the mean visibility of the maps of its side: 0 = nothing, up to
    a quarter, 1 = all that they draw, from three quarters on. What the maps do not show, no loss tells them."""
    maps = texture_data.teachers(files, training.linear)
    share = np.mean([texture_data.read_map(file, training.linear)[..., 3:].astype(np.float64) for file in maps], axis=0)
    share = (share + share[:, ::-1]) / 2 if training.mirror else share
    return jnp.asarray(np.clip(2.0 * share - 0.5, 0.0, 1.0), jnp.float32)


def turned(basis: Float[Array, "d s s c"], old: Float[Array, "d s s c"]) -> Float[Array, "d s s c"]:
    """A basis whose latents mean what those of an `old` one meant, as nearly as may be: ``R basis`` with the
    orthogonal R of least ``|R basis - old|`` (Schoenemann 1966). Its maps and their density stay the same, and networks
    that were trained with the old basis understand it."""
    flat = basis.reshape(len(basis), -1)
    left, _, right = np.linalg.svd(np.asarray(old).reshape(len(old), -1) @ np.asarray(flat).T)
    return jnp.asarray((left @ right) @ np.asarray(flat), jnp.float32).reshape(basis.shape)


def restored(folder: Path) -> tuple[Training, gan.Networks, gan.GanState]:
    """Settings, graphs and newest state of the run in a folder; raises `InputError` where there is none."""
    training = stored(folder)
    graphs, state = gan.create(training.settings(), training.seed)
    checkpoints = Checkpoints(folder / "checkpoints")
    done, state = checkpoints.restore(state)
    checkpoints.close()
    if not done:
        raise InputError(f"{folder}/checkpoints: found none, expected those of a training run")
    return training, graphs, state


def inherited(state: gan.GanState, begin: Path) -> gan.GanState:
    """The state before the first step with the networks of another run, a folder, where they have the same shape; or
    with the generator of a texture model, an npz file or a built-in name, while the critic begins anew. A linear path
    goes over too (`kept_path`). Raises `InputError` where there is neither."""
    if begin.is_dir():
        old = restored(begin)[2]
        weights, average = gan.inherit(state.weights, old.weights), gan.inherit(state.average, old.average)
        return state._replace(weights=weights, average=average)
    try:
        model = assets.load_texture(begin)[0]
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{error}; --begin takes a run's folder too") from None
    if not isinstance(model, GanTexture):
        raise InputError(f"{begin}: a linear texture model, expected a generator or a run's folder")
    weights = state.weights._replace(generator=gan.inherit(state.weights.generator, model.weights))
    return state._replace(weights=weights, average=gan.inherit(state.average, model.weights))


def kept_path(state: gan.GanState) -> tuple[Array, Array] | None:
    """Mean and basis, sRGB as `linear_path` gives them, that a state has inherited; None where its path is empty."""
    path = state.average["linear"]
    mean, basis = path["mean"][...], path["basis"][...]
    return (0.5 + 0.5 * mean, 0.5 * basis) if jnp.any(basis != 0) else None


def train(
    training: Training,
    files: Sequence[MapFile],
    held_out: Sequence[MapFile],
    output: Path,
    begin: Path | None = None,
    new_path: bool = False,
) -> tuple[gan.Networks, gan.GanState]:
    """Trains to the end of the schedule, from where an earlier run into `output` stopped; a new run begins with random
    networks or with those of another run or model, `begin` (`inherited`). With `new_path` their linear path is made
    anew from the run's maps and `turned` to the old one. Where networks add to a path (`taught`) is by the run's maps.

    Writes ``checkpoints/``, ``events.*`` (TensorBoard), ``log.jsonl``, ``samples/STEP.png`` and ``settings.json``.
    `held_out`: maps for the sliced Wasserstein distance; may be empty.
    """
    from tensorboardX import SummaryWriter
    from tqdm import tqdm

    output.mkdir(parents=True, exist_ok=True)
    (output / "samples").mkdir(exist_ok=True)
    graphs, state = gan.create(training.settings(), training.seed)
    checkpoints = Checkpoints(output / "checkpoints")
    done, state = checkpoints.restore(state)
    if begin is not None and not done:
        state = inherited(state, begin)
    if training.linear and not done:
        path = kept_path(state)
        if path is None or new_path:
            mean, basis = linear_path(training, files)
            path = mean, basis if path is None else turned(basis, path[1])
        state = gan.with_linear(state, *path, taught(training, files))
    write_bytes(output / "settings.json", (json.dumps(dataclasses.asdict(training), indent=2) + "\n").encode())
    counts = [s * b for s, b in zip(level_steps(training), training.batches, strict=False)]
    forget(output / "log.jsonl", done)
    writer = SummaryWriter(str(output), purge_step=done + 1)
    bar = tqdm(
        total=sum(counts),
        initial=images_shown(training, done),
        desc="train",
        unit="image",
        unit_scale=True,
        dynamic_ncols=True,
    )
    with writer, bar, (output / "log.jsonl").open("a") as log:
        for number, where, now, losses in steps(training, files, state, graphs, done):
            state, last = now, where.number + 1 == where.steps
            bar.update(where.batch)
            if number % 20 == 0 or last:
                values = {name: float(value) for name, value in losses.items()}
                record(writer, log, number, where, values)
                shown = [f"{name} {value:.2f}" for name, value in values.items() if name in SHOWN]
                bar.set_postfix_str(", ".join([f"{where.side} px", f"alpha {where.alpha:.2f}", *shown]))
            if number % training.look == 0 or last:
                picture.save_png(output / "samples" / f"{number:07d}.png", sheet(graphs, state, training, files, where))
                if where.side >= 16 and any(file.teaches(where.side) for file in held_out):
                    record(writer, log, number, where, distances(graphs, state, training, files, held_out, where))
            if number % training.every == 0 or last:
                checkpoints.save(number, state)
    checkpoints.close()
    return graphs, state


def images_shown(training: Training, done: int) -> int:
    """Images shown in the first `done` steps."""
    total = 0
    for steps_, batch in zip(level_steps(training), training.batches, strict=False):
        total += min(done, steps_) * batch
        done -= min(done, steps_)
    return total


def forget(log: Path, done: int) -> None:
    """Drops the lines of a log that a killed run wrote after its newest checkpoint: they will be written again."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    kept = [line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= done]
    write_bytes(log, "".join(kept).encode())


def record(writer: Any, log: Any, number: int, where: Place, values: dict[str, float]) -> None:
    """Scalars to TensorBoard and, one JSON object a line, to the log."""
    for name, value in values.items():
        writer.add_scalar(name, value, number)
    line = {"step": number, "time": round(time.time(), 1), "side": where.side, "alpha": round(where.alpha, 4), **values}
    log.write(json.dumps(line) + "\n")
    log.flush()
