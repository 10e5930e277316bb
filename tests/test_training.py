"""The schedule, the same losses on eight devices as on one, and after any death; what a run writes."""

import dataclasses
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from ganfit_jax import assets, corpus, gan, samples, texture_data, texture_export, training
from ganfit_jax.assets import LUMA
from ganfit_jax.checkpoints import Checkpoints, flat
from ganfit_jax.errors import InputError
from ganfit_jax.training import Training

ROOT = Path(__file__).resolve().parents[1]
TINY = Training(
    side=8, latent=6, base=32, widest=5, critic=1.0, encoder=4, average=40,
    batches=(4, 4), images=(24, 24), pigments=0.0, threads=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve maps of coloured waves, seen in part."""
    root, rng = tmp_path_factory.mktemp("maps"), np.random.default_rng(0)
    y, x = np.mgrid[:16, :16] / 16
    for number in range(12):
        waves = np.sin(6 * (rng.normal(size=3) * x[..., None] + rng.normal(size=3) * y[..., None]) + rng.normal(size=3))
        corpus.write_map(root, f"p{number:02d}", 0.5 + 0.3 * waves, np.float32(x + y > rng.uniform(0, 0.8)))
    return root


@pytest.fixture(scope="module")
def files(folder):
    return texture_data.find_maps([folder])


def numbers(losses):
    return {name: float(value) for name, value in losses.items()}


# The schedule.


def test_places_follow_the_schedule():
    plan = Training(side=16, batches=(8, 4, 2, 1), images=(80, 40, 21, 5), fade=0.5)
    assert training.level_steps(plan) == [10, 10, 10]
    places = [training.place(plan, step) for step in range(30)]
    assert [p.side for p in places] == [4] * 10 + [8] * 10 + [16] * 10
    assert [p.batch for p in places] == [8] * 10 + [4] * 10 + [2] * 10
    assert [p.number for p in places] == 3 * list(range(10))
    assert [p.alpha for p in places[:10]] == [1.0] * 10
    for level in (places[10:20], places[20:]):
        np.testing.assert_allclose([p.alpha for p in level], [0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1])
    assert training.place(plan, 30) is None and training.place(plan, 31) is None
    assert [training.images_shown(plan, n) for n in (0, 1, 10, 11, 20, 30)] == [0, 8, 80, 84, 120, 140]


def test_a_level_without_fade_and_a_tiny_one():
    assert [training.place(Training(side=4, images=(40,), batches=(4,)), s).alpha for s in range(3)] == [1, 1, 1]
    short = Training(side=8, images=(4, 1), batches=(4, 4))
    assert training.level_steps(short) == [1, 1] and training.place(short, 1).alpha == 0


def test_a_level_without_images_is_skipped():
    plan = Training(side=16, batches=(8, 4, 2), images=(0, 0, 8))
    assert training.level_steps(plan) == [0, 0, 4]
    places = [training.place(plan, step) for step in range(4)]
    assert [(p.side, p.number) for p in places] == [(16, i) for i in range(4)]
    assert training.place(plan, 4) is None and training.images_shown(plan, 4) == 8


SHORT = [
    ({"batches": (4,)}, "expected 2 positive numbers"),
    ({"images": (40, 0)}, "expected 2 numbers of at least 0, the last of them positive"),
    ({"images": (-1, 40)}, "expected 2 numbers of at least 0, the last of them positive"),
    ({"batches": (4, -1)}, "expected 2 positive numbers"),
]


@pytest.mark.parametrize(("wrong", "expected"), SHORT)
def test_a_schedule_that_is_too_short(wrong, expected):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} = .*{expected}"):
        training.place(dataclasses.replace(TINY, **wrong), 0)


def test_settings_come_back_from_the_folder(tmp_path):
    with pytest.raises(InputError, match=r"settings.json: .*expected the settings of a training run"):
        training.stored(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(dataclasses.asdict(TINY)))
    assert training.stored(tmp_path) == TINY and hash(training.stored(tmp_path).settings())
    (tmp_path / "settings.json").write_text('{"sides": 3}')
    with pytest.raises(InputError, match="sides"):
        training.stored(tmp_path)


# Resuming.


@pytest.fixture(scope="module")
def uninterrupted(files, tmp_path_factory):
    """Losses of every step, the states after some of them, and checkpoints written while the training went on."""
    graphs, state = gan.create(TINY.settings(), TINY.seed)
    losses, states, kept = [], {}, {}
    for done, _, now, values in training.steps(TINY, files, state, graphs):
        losses.append(numbers(values))
        if done in (3, 6, 8, 12):
            states[done] = jax.tree.map(np.array, now)
            kept[done] = Checkpoints(tmp_path_factory.mktemp("checkpoints"))
            kept[done].save(done, now)
    for checkpoints in kept.values():
        checkpoints.manager.wait_until_finished()
    yield losses, states, kept
    for checkpoints in kept.values():
        checkpoints.close()


def test_levels_follow_each_other_and_adam_begins_anew(uninterrupted):
    losses, states, _ = uninterrupted
    assert len(losses) == 12 and all(np.isfinite(list(x.values())).all() for x in losses)
    assert losses[0].keys() == {"distance", "penalty", "drift", "generator", "reconstruction"}
    for moments in states[6].moments:
        assert int(moments.count) == 6
    for moments in states[8].moments:
        assert int(moments.count) == 2, "the second level has its own moments"
    assert any(
        np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (states[6].weights, states[8].weights)), strict=True)
    )


@pytest.mark.parametrize("at", [3, 6, 8, 12])
def test_a_checkpoint_is_the_state_of_its_step_and_training_goes_on_from_it(uninterrupted, files, at):
    """Within a level, at the border of two (Adam's moments are fresh there), within a fade, at the end."""
    losses, states, kept = uninterrupted
    graphs, other = gan.create(TINY.settings(), 99)
    done, state = kept[at].restore(other)
    assert done == at
    jax.tree.map(np.testing.assert_array_equal, state, states[at])
    again = [numbers(values) for *_, values in training.steps(TINY, files, state, graphs, done)]
    assert again == losses[at:]


def test_no_checkpoint_and_one_of_other_networks(uninterrupted, tmp_path):
    graphs, state = gan.create(TINY.settings(), 0)
    empty = Checkpoints(tmp_path / "none")
    assert empty.restore(state) == (0, state)
    empty.close()
    for change in ({"latent": 7}, {"reconstruction": 0.0}, {"side": 16}, {"widest": 4}, {"linear": 8}):
        _, other = gan.create(dataclasses.replace(TINY, **change).settings(), 0)
        with pytest.raises(InputError, match=r"3: not a state of these networks: .*found .*expected") as caught:
            uninterrupted[2][3].restore(other)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    names = list(flat(state))
    assert len(names) == len(set(names)) == len(jax.tree.leaves(state)) and graphs.encoder is not None


def test_a_log_forgets_what_came_after_the_checkpoint(tmp_path):
    log = tmp_path / "log.jsonl"
    training.forget(log, 5)
    assert log.read_text() == ""
    log.write_text('{"step": 4}\n{"step": 5}\n{"step": 6}\n{"st')
    training.forget(log, 5)
    assert log.read_text() == '{"step": 4}\n{"step": 5}\n'


EIGHT = """
import json, sys
from pathlib import Path
import jax
from ganfit_jax import gan, texture_data, training

run = training.stored(Path(sys.argv[1]))
graphs, state = gan.create(run.settings(), run.seed)
rows, used = [], set()
for _, where, state, losses in training.steps(run, texture_data.find_maps([sys.argv[2]]), state, graphs):
    rows.append({name: float(value) for name, value in losses.items()})
    used |= {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)}
print(json.dumps({"devices": len(jax.devices()), "used": sorted(used), "losses": rows}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", [(), ("colour", "translation", "cutout")])
def test_eight_devices_have_the_losses_of_one(folder, files, tmp_path, policy):
    """Sums in another order differ by 1e-7; where a leaky ReLU's kink is met, a penalty of so few units jumps. At the
    usual rate that happens within 20 steps, hence a smaller one."""
    run = dataclasses.replace(TINY, batches=(8, 8), images=(80, 80), policy=policy, rate=1e-4)
    (tmp_path / "settings.json").write_text(json.dumps(dataclasses.asdict(run)))
    command = [sys.executable, "-c", EIGHT, str(tmp_path), str(folder)]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 8 and found["used"] == [8]
    graphs, state = gan.create(run.settings(), run.seed)
    expected = [numbers(values) for *_, values in training.steps(run, files, state, graphs)]
    assert len(expected) == len(found["losses"]) == 20
    for one, eight in zip(expected, found["losses"], strict=True):
        assert eight == pytest.approx(one, rel=1e-4, abs=1e-4)


def test_a_batch_that_the_devices_do_not_divide_stays_on_one():
    same, split = training.on_devices(jax.devices()[:1])
    assert same.is_fully_replicated and len(split.device_set) == 1


# What a run writes.


def events(output):
    """(name, step, value) of every scalar in the TensorBoard files."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(output.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = struct.unpack("<Q", data[at : at + 8])[0]
            event = Event.FromString(data[at + 12 : at + 12 + size])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value if v.HasField("simple_value")]
            at += size + 16
    return found


@pytest.mark.slow
def test_scalars_pictures_and_settings_of_a_run(files, tmp_path):
    run = dataclasses.replace(TINY, side=16, batches=(4, 4, 4), images=(8, 8, 8), look=3)
    graphs, state = training.train(run, files[:10], files[10:], tmp_path)
    assert graphs.generator is not None and jax.tree.leaves(state)[0].shape
    assert training.stored(tmp_path) == run
    pictures = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert pictures == [f"{step:07d}.png" for step in (2, 3, 4, 6)]
    with Image.open(tmp_path / "samples" / pictures[-1]) as image:
        assert image.size == (788, 788) and np.std(image) > 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "distance" in row] == [2, 4, 6]
    assert [row["side"] for row in rows if "distance" in row] == [4, 8, 16]
    assert [row["step"] for row in rows if "swd/16" in row] == [6]
    scalars = {(name, step): value for name, step, value in events(tmp_path)}
    for row in rows:
        for name in row.keys() - {"step", "time", "side", "alpha"}:
            assert scalars[name, row["step"]] == pytest.approx(row[name], rel=1e-6)
    # Once more: nothing is left to do, nothing is written twice, and other networks change nothing in the folder.
    _, again = training.train(run, files[:10], files[10:], tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, jax.device_get(state))
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == len(rows)
    with pytest.raises(InputError, match="not a state of these networks"):
        training.train(dataclasses.replace(run, latent=9), files, [], tmp_path)
    assert training.stored(tmp_path) == run


@pytest.mark.slow
def test_held_out_maps_without_the_detail_of_a_level_stop_nothing(files, tmp_path):
    run = dataclasses.replace(TINY, side=16, batches=(4, 4, 4), images=(0, 0, 8), look=1)
    training.train(run, files[:10], [file._replace(detail=8) for file in files[10:]], tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2 and not any("swd/16" in row for row in rows)


@pytest.mark.slow
def test_a_run_begins_with_the_networks_of_another(files, tmp_path):
    """Blocks, colours and critic go over to a run with other latents, the rest begins anew; later steps come from the
    run itself."""
    short = dataclasses.replace(TINY, images=(4, 4), every=2)
    _, first = training.train(short, files, [], tmp_path / "first")
    other = dataclasses.replace(short, latent=5, seed=1)
    fresh = gan.create(other.settings(), other.seed)[1]
    state = training.inherited(fresh, tmp_path / "first")
    for ours, theirs in ((state.weights.generator, first.weights.generator), (state.average, first.average)):
        np.testing.assert_array_equal(ours["blocks"][0]["first"]["kernel"][...], theirs["blocks"][0]["first"]["kernel"])
    np.testing.assert_array_equal(
        state.weights.generator["dense"]["kernel"][...], fresh.weights.generator["dense"]["kernel"][...]
    )
    jax.tree.map(np.testing.assert_array_equal, state.weights.critic, first.weights.critic)
    _, done = training.train(other, files, [], tmp_path / "second", begin=tmp_path / "first")
    _, again = training.train(other, files, [], tmp_path / "second", begin=tmp_path / "first")
    jax.tree.map(np.testing.assert_array_equal, done, jax.device_get(again))
    apart = jnp.abs(done.weights.critic["last"]["kernel"][...] - first.weights.critic["last"]["kernel"][...]).max()
    anew = jnp.abs(done.weights.critic["last"]["kernel"][...] - fresh.weights.critic["last"]["kernel"][...]).max()
    assert 0 < apart < 0.1 * anew, "two steps away from where it began"
    for empty in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="expected"):
            training.inherited(fresh, empty)


def test_a_turned_basis_is_the_same_model_and_nearest_to_the_old():
    """Turning back a basis that was turned finds it again; noise added, no other rotation is nearer, and the maps'
    covariance stays."""
    rng = np.random.default_rng(0)
    old = rng.standard_normal((5, 4, 4, 3)).astype(np.float32)

    def turned(basis):
        return np.asarray(training.turned(jnp.asarray(basis, jnp.float32), jnp.asarray(old)))

    rotations = [np.linalg.qr(rng.standard_normal((5, 5)))[0] for _ in range(20)]
    turn = np.einsum("ij,jhwc->ihwc", rotations[0], old)
    np.testing.assert_allclose(turned(turn), old, atol=1e-5)
    noisy = turn + 0.3 * rng.standard_normal(turn.shape).astype(np.float32)
    found = turned(noisy)
    np.testing.assert_allclose(np.tensordot(found.T, found, 1), np.tensordot(noisy.T, noisy, 1), atol=1e-4)
    small = [np.linalg.qr(np.eye(5) + 0.05 * rng.standard_normal((5, 5)))[0] for _ in range(20)]
    for rotation in [*rotations, *(q * np.sign(np.diag(q)) for q in small)]:
        other = np.einsum("ij,jhwc->ihwc", rotation, found)
        assert np.sum((found - old) ** 2) <= np.sum((other - old) ** 2) + 1e-4


@pytest.mark.slow
def test_a_run_begins_with_a_texture_model(files, tmp_path):
    """A generator from a file: its blocks and its linear path go over, to the codes too, and training goes on from
    there."""
    run = dataclasses.replace(TINY, images=(4, 4), every=2, latent=4, linear=8, encoder=4, adversarial=8)
    graphs, first = training.train(run, files, [], tmp_path / "first")
    texture_export.export(tmp_path / "texture.npz", graphs, first, run, files)
    fresh = gan.create(run.settings(), 1)[1]
    state = training.inherited(fresh, tmp_path / "texture.npz")
    assert training.kept_path(fresh) is None
    path = training.kept_path(state)
    assert path is not None
    np.testing.assert_allclose(2 * path[0] - 1, first.average["linear"]["mean"][...], atol=2e-3)
    luma = [np.asarray(x) @ np.asarray(LUMA) for x in (2 * path[1], first.average["linear"]["basis"][...])]
    np.testing.assert_allclose(luma[0], luma[1], atol=0.01 * np.abs(luma[1]).max())  # files hold it in int8
    for ours in (state.weights.generator, state.average):
        np.testing.assert_allclose(ours["dense"]["kernel"][...], first.average["dense"]["kernel"][...], rtol=2e-3)
    jax.tree.map(np.testing.assert_array_equal, state.weights.critic, fresh.weights.critic)
    _, done = training.train(run, files, [], tmp_path / "second", begin=tmp_path / "texture.npz")
    small = gan.shrink(2 * path[0][None] - 1)[0]
    np.testing.assert_allclose(done.weights.encoder["linear"]["mean"][...], small, atol=1e-6)
    np.testing.assert_allclose(done.average["linear"]["basis"][...], 2 * path[1], atol=1e-6)
    texture_export.export(tmp_path / "more.npz", graphs, done, run, files[:2], begin=tmp_path / "texture.npz")
    models = [assets.load_texture(tmp_path / name)[0] for name in ("texture.npz", "more.npz")]
    np.testing.assert_array_equal(models[0].basis, models[1].basis)
    with pytest.raises(InputError, match="linear texture model"):
        training.inherited(fresh, Path("albedo"))
    one = dataclasses.replace(run, images=(0, 4))
    _, anew = training.train(one, files, [], tmp_path / "third", begin=tmp_path / "texture.npz", new_path=True)
    mean, basis = training.linear_path(one, files)
    np.testing.assert_allclose(anew.average["linear"]["mean"][...], 2 * mean - 1, atol=1e-6)
    np.testing.assert_allclose(anew.average["linear"]["basis"][...], 2 * training.turned(basis, path[1]), atol=1e-5)
    np.testing.assert_array_equal(anew.average["taught"][...], training.taught(one, files))


def test_samples_are_in_range_and_fade(files):
    graphs, state = gan.create(TINY.settings(), 0)
    latents = jax.random.normal(jax.random.key(0), (2, 6))
    maps = samples.painted(graphs.generator, state.average, 5.0 * latents, 8, jnp.float32(0.0))
    assert maps.shape == (2, 8, 8, 3) and maps.min() >= 0 and maps.max() <= 1
    np.testing.assert_array_equal(maps[:, ::2, ::2], maps[:, 1::2, 1::2])
    where = training.place(TINY, 8)
    assert where.side == 8 and samples.sheet(graphs, state, TINY, files, where).shape[:2] == (788, 788)


def test_samples_are_drawn_as_in_training(files):
    """Mixtures of the maps' codes, always the same; without an encoder standard normal."""
    graphs, state = gan.create(TINY.settings(), 0)
    where = training.place(TINY, 11)
    found = samples.drawn(graphs, state, TINY, files, where, 9)
    assert found.shape == (9, 6) and where.alpha == 1
    np.testing.assert_array_equal(samples.drawn(graphs, state, TINY, files, where, 9), found)
    codes = []
    for file in files:
        values = np.float32(texture_data.read_map(file, 8))
        values[..., :3] = (2 * values[..., :3] - 1) * values[..., 3:]
        small = values.reshape(1, 4, 2, 4, 2, 4).mean((2, 4))
        codes.append(nnx.merge(graphs.encoder, state.weights.encoder)(jnp.asarray(small), jnp.ones(()))[0])
    expected = gan.mixtures(jax.random.key(TINY.seed + 1), jnp.stack(codes), 9)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    plain = dataclasses.replace(TINY, reconstruction=0.0)
    graphs, state = gan.create(plain.settings(), 0)
    found = np.asarray(samples.drawn(graphs, state, plain, files, where, 400))
    assert found.shape == (400, 6) and found.std() == pytest.approx(1.0, abs=0.05)


# The runner, as people start it.

RUNNER = [sys.executable, str(ROOT / "experiments" / "train_texture.py")]


def start(*arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [*RUNNER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def logged(output):
    path = output / "log.jsonl"
    rows = (
        [json.loads(x) for x in path.read_text().splitlines(keepends=True) if x.endswith("\n")] if path.exists() else []
    )
    return {row["step"]: {name: value for name, value in row.items() if name != "time"} for row in rows}


@pytest.mark.slow
def test_killed_at_any_moment_it_has_the_losses_of_an_uninterrupted_run(folder, tmp_path):
    flags = [f"--maps={folder}", "--training.side=8", "--training.latent=6", "--training.base=32"]
    flags += ["--training.widest=5", "--training.encoder=4", "--training.pigments=0", "--training.every=37"]
    flags += ["--training.batches=(4,4)", "--training.images=(1600,6400)", "--training.look=100000"]
    last = 2000

    def finish(output):
        process = start(*flags, f"--output={output}")
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
        assert "Saving checkpoint" not in errors and "Finished" not in errors, "orbax reports every write"
        return logged(output)

    expected = finish(tmp_path / "whole")
    assert list(expected) == list(range(20, last + 1, 20))
    output = tmp_path / "killed"
    for at in (150, 700):
        process = start(*flags, f"--output={output}")
        while max(logged(output), default=0) < at:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = logged(output)
        assert at <= max(before) < last
        assert before == {step: expected[step] for step in before}
    assert finish(output) == expected
    with np.load(tmp_path / "whole" / "texture.npz") as whole, np.load(output / "texture.npz") as killed:
        assert whole.files == killed.files
        for name in whole.files:
            np.testing.assert_array_equal(whole[name], killed[name])


@pytest.mark.parametrize("wrong", ["folder", "side", "checkpoint"])
def test_wrong_input_gives_one_line(folder, tmp_path, wrong):
    flags = {
        "folder": [f"--maps={tmp_path / 'nowhere'}"],
        "side": [f"--maps={folder}", "--training.side=100"],
        "checkpoint": [f"--maps={folder}", "--export"],
    }[wrong]
    process = start(*flags, f"--output={tmp_path / 'run'}")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    assert errors.startswith("train_texture.py: ") and errors.count("\n") == 1 and "expected" in errors
