"""Whole evaluations: what is broken is listed and stops nothing, nothing is done twice, rivals stand beside."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_metrics import bumpy

from ganfit_jax import assets, cases, evaluation, measure, scans, tasks
from ganfit_jax.config import Config, SecondRender
from ganfit_jax.errors import InputError
from ganfit_jax.fit import as_arrays
from ganfit_jax.landmarks import Detector
from ganfit_jax.measure import Rival, Tools
from ganfit_jax.picture import save_png
from ganfit_jax.scans import Marked
from ganfit_jax.types import LinearTexture, Models

ROOT = Path(__file__).resolve().parents[1]
SIZE = 64


@pytest.fixture(scope="module")
def models(tiny_recogniser):
    texture = LinearTexture(jnp.full((8, 8, 3), 0.5), jnp.full((2, 8, 8, 3), 0.02))
    return Models(assets.load_shape()[0], texture, tiny_recogniser)


def person(models, seed):
    return evaluation.synthetic_person(jax.random.key(seed), models, as_arrays(SecondRender()), 1)


def pretend_fit(monkeypatch, models, seeds):
    """Fits that find the person of a seed by the case's name; what a judge sees is the first letter of a file or of its
    folder. Returns the list of fits that were asked for."""
    asked = []

    def fitted(case, tools, folder):
        asked.append(case.name)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("photo.png", "render.png"):
            save_png(folder / name, np.full((8, 8, 3), 0.5))
        (folder / "phases.json").write_text('{"full s": 2.0, "full MB": 100.0}')
        return person(models, seeds[case.name])

    def embedding(tools, path):
        who = path.parent.parent.name if path.name == "render.png" else path.stem
        return np.eye(26)["abcdefghijklmnopqrstuvwxyz".index(who[0])] + 0.01

    monkeypatch.setattr(measure, "fitted", fitted)
    monkeypatch.setattr(measure, "neutral_face", ball)
    monkeypatch.setattr(measure, "embedding", embedding)
    monkeypatch.setattr(measure, "read_photo", read)
    return asked


def read(path):
    if "useless" in str(path):
        raise InputError(f"{path}: no picture")
    return np.full((8, 8, 3), 0.5)


def ball(model, params):
    """Stands in for a person's face: fewer triangles, another shape for every person."""
    surface = bumpy(int(abs(100 * float(params.identity.shape[0]))))
    front = np.flatnonzero(surface.vertices[:, 2] > 20.0)
    chosen = np.random.default_rng(3).choice(front, 68, replace=False)
    x = surface.vertices[front, 0]
    chosen[[30, 36, 45]] = surface.vertices[:, 2].argmax(), front[x.argmin()], front[x.argmax()]
    return Marked(surface, surface.vertices[chosen])


def tools_of(models, rivals=()):
    config = Config(size=SIZE)
    return Tools(models, {}, config, Detector("none", lambda image: []), models.recogniser, None, rivals)


def write_manifest(folder, models, seeds):
    """Scans that are the true faces of the seeds, one of them in metres and lying; and broken lines."""
    lines = ["id,photos,scan,scan_landmarks,unit,radius"]
    for name, seed in seeds.items():
        (folder / f"{name}.jpg").write_bytes(b"photo")
        face = ball(models.shape, person(models, seed))
        if name == "bob":
            vertices = face.surface.vertices[:, [1, 2, 0]] / 1000.0
            face = face._replace(
                surface=face.surface._replace(vertices=vertices), landmarks=face.landmarks[:, [1, 2, 0]] / 1000.0
            )
        scans.write_scan(folder, name, face)
        lines.append(f"{name},{name}.jpg,{name}.obj,{name}.ljson,{'m' if name == 'bob' else ''},60")
    (folder / "cut.obj").write_text((folder / "ann.obj").read_text()[:5000])
    lines += ["cut,ann.jpg,cut.obj,ann.ljson,,", "gone,gone.jpg,ann.obj,ann.ljson,,", "flat,ann.jpg,ann.obj,flat.txt,,"]
    (folder / "flat.txt").write_text("1 2\n" * 68)
    (folder / "people.csv").write_text("\n".join(lines))
    return folder / "people.csv"


@pytest.mark.slow
def test_a_manifest_with_broken_files(tmp_path, monkeypatch, models, capsys):
    seeds = {"ann": 1, "bob": 2}
    asked = pretend_fit(monkeypatch, models, {**seeds, "cut": 1, "flat": 1})
    manifest, output, rival = write_manifest(tmp_path, models, seeds), tmp_path / "out", tmp_path / "rival"
    rival.mkdir()
    scans.write_scan(rival, "ann", ball(models.shape, person(models, 7)))
    scans.write_scan(rival, "bob", ball(models.shape, person(models, 8)))[1].unlink()
    save_png(rival / "ann.png", np.full((8, 8, 3), 0.5))
    (useless := tmp_path / "useless").mkdir()
    nowhere = ball(models.shape, person(models, 7))._replace(landmarks=np.full((68, 3), np.nan))
    scans.write_scan(useless, "ann", nowhere)
    (useless / "ann.png").write_bytes(b"no picture")
    tools = tools_of(models, (Rival("rival", rival, 1.0), Rival("useless", useless, 1.0)))
    chosen, failed = cases.manifest_cases(manifest)
    task = tasks.people_task("People", chosen, failed, tools)
    output.mkdir()
    assert tasks.run(task, output, "command", iter)
    assert asked == ["ann", "bob", "cut", "flat"]
    data = json.loads((output / "results.json").read_text())
    assert list(data["items"]) == ["ann", "bob"] and data["failed"].keys() == {"gone", "cut", "flat"}
    assert data["failed"]["gone"].startswith(f"{manifest}:5: ")
    assert data["failed"]["cut"].startswith(f"{manifest}:4: ") and "cut.obj" in data["failed"]["cut"]
    assert data["failed"]["flat"].startswith(f"{manifest}:6: ") and "flat.txt: found 2D" in data["failed"]["flat"]
    ann, bob = data["items"]["ann"], data["items"]["bob"]
    assert ann["ganfit: similarity mm"] < 0.01 and bob["ganfit: rigid mm"] < 0.01 < ann["rival: similarity mm"]
    assert (
        ann["mean face: similarity mm"] > 0.3
        and ann["rival: cosine" if "rival: cosine" in ann else "rival: distance"] >= 0
    )
    assert "bob.obj: no landmarks" in bob["rival failed"] and "rival: similarity mm" not in bob
    assert ann["useless failed"] and "useless: similarity mm" not in ann and "useless: cosine" not in ann
    lines = {line["method"]: line for line in data["tables"]["Geometry"]}
    assert lines["ganfit"]["people"] == 2 and lines["rival"]["people"] == 1 and "useless" not in lines
    common = {line["method"]: line for line in data["tables"]["Geometry, the 1 that every method has"]}
    assert common["ganfit"]["people"] == common["rival"]["people"] == 1
    identity = next(table for title, table in data["tables"].items() if title.startswith("Identity"))
    assert next(line for line in identity if line["render"] == "ganfit")["nearest photo is right, %"] == 100.0
    assert data["tables"]["Time and memory"][0]["seconds a photo"] == 2.0
    page, printed = (output / "index.html").read_text(), capsys.readouterr().out
    assert page.count("<figure>") == 2 * 10 + 3 and "| rival | 1 |" in printed and "failed: cut: " in printed

    assert tasks.run(task, output, "command", iter) and asked[4:] == ["cut", "flat"], "only what failed is tried again"
    (output / "ann" / "measured.npz").unlink()
    (output / "bob" / "scan.png").unlink()
    with manifest.open("a") as file:
        file.write("\n# a remark\n")
    assert tasks.run(task, output, "command", iter) and asked[6:] == ["ann", "bob", "cut", "flat"]
    other = tools._replace(config=Config(size=SIZE, seed=3))
    assert tasks.run(tasks.people_task("People", chosen[:1], {}, other), output, "command", iter)
    assert asked[10:] == ["ann"], "figures of other settings do not count"
    for change in (
        lambda: scans.write_scan(rival, "ann", ball(models.shape, person(models, 9))),
        lambda: (tmp_path / "ann.jpg").write_bytes(b"another photo"),
    ):
        del asked[:]
        change()
        assert tasks.run(tasks.people_task("People", chosen[:1], {}, other), output, "command", iter)
        assert tasks.run(tasks.people_task("People", chosen[:1], {}, other), output, "command", iter)
        assert asked == ["ann"], "nor do those of other files"


def test_photos_without_a_face_are_left_out(tmp_path, models, monkeypatch):
    monkeypatch.setattr(measure, "read_photo", lambda path: Path(path).name)
    find = Detector("some", lambda name: [1] if name in ("b.jpg", "c.jpg") else [])
    tools = tools_of(models)._replace(find=find)
    photos = tuple(tmp_path / f"{letter}.jpg" for letter in "abcd")
    case, unseen = measure.with_faces(cases.Case("x", photos), tools)
    assert case.photos == photos[1:3] and unseen == ["a.jpg", "d.jpg"]
    for whole in (photos[:1], photos[::3]):  # the fit says what is wrong with them
        assert measure.with_faces(cases.Case("x", whole), tools) == (cases.Case("x", whole), [])


def test_nothing_that_works_is_an_error_at_the_end(tmp_path, monkeypatch, models):
    pretend_fit(monkeypatch, models, {})
    task = tasks.people_task(
        "People", [cases.Case("ann", (tmp_path / "ann.jpg",))], {"x": "x: broken"}, tools_of(models)
    )
    assert not tasks.run(task, tmp_path, "command", iter)
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["failed"].keys() == {"ann", "x"} and data["tables"] == {}


def test_a_fit_is_kept_while_photos_and_settings_are_the_same(tmp_path, monkeypatch, models):
    from ganfit_jax.export import save_fit

    calls, truth = [], person(models, 0)

    def fit_with(models_, infos, photos, config, find, callback):
        calls.append(photos)
        raise InputError("fitted anew")

    monkeypatch.setattr(measure.pipeline, "fit_with", fit_with)
    tools, case = tools_of(models), cases.Case("a", (tmp_path / "a.jpg",))
    settings = json.loads(json.dumps(measure.dataclasses.asdict(tools.config)))
    save_fit(tmp_path / "fit.npz", truth, {}, settings, {"photos": np.array([str(tmp_path / "a.jpg")])})
    found = measure.fitted(case, tools, tmp_path)
    assert np.array_equal(found.identity.shape, truth.identity.shape) and not calls
    changed = (
        (case._replace(photos=(tmp_path / "b.jpg",)), tools),
        (case, tools._replace(config=Config(size=SIZE, seed=1))),
    )
    for each in changed:
        with pytest.raises(InputError, match="fitted anew"):
            measure.fitted(*each, tmp_path)


def test_rivals_from_the_command_line(tmp_path):
    assert measure.read_rival(str(tmp_path)) == Rival(tmp_path.name, tmp_path, 1.0)
    assert measure.read_rival(f"{tmp_path}=1000").unit == 1000.0
    for text, match in (
        (f"{tmp_path}=inch", "found 'inch'"),
        (f"{tmp_path}=-1", "found '-1'"),
        ("none", "not a folder"),
    ):
        with pytest.raises(InputError, match=match):
            measure.read_rival(text)
    (tmp_path / "scan").mkdir()
    with pytest.raises(InputError, match="--fits: scan twice, expected folders of different names, none of them of "):
        measure.load_tools(Config(), fits=[str(tmp_path / "scan")])


@pytest.mark.slow
def test_the_example_from_the_command_line(tmp_path):
    """The shipped photo and one synthetic person, with next to no steps: table, plots, page."""
    settings = ["--config.size=96", "--config.second.size=64", "--config.align.steps=20", "--config.colour.steps=2"]
    command = [
        sys.executable,
        str(ROOT / "experiments" / "evaluate.py"),
        f"--output={tmp_path}",
        "--people=1",
        *settings,
    ]
    done = subprocess.run([*command, "--config.full.steps=2"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for name in ("results.json", "results.md", "index.html", "now.png", "identity.png"):
        assert (tmp_path / name).is_file(), name
    data = json.loads((tmp_path / "results.json").read_text())
    assert list(data["items"]) == ["astronaut", "person_0"] and not data["failed"]
    assert "similarity mm" in done.stdout
    bad = subprocess.run([*command[:2], "--task=identity"], capture_output=True, text=True, cwd=ROOT)
    assert bad.returncode == 2
    assert bad.stderr.strip().splitlines()[-1] == "evaluate.py: no people, expected one of --photos, --manifest, --micc"
