"""The command: what it writes, and one clear line with exit code 2 for whatever a user gets wrong."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import ganfit_jax
from ganfit_jax import __main__ as command
from ganfit_jax import detail, pipeline, results
from ganfit_jax.errors import InputError

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "astronaut.png"


def complaint(arguments, monkeypatch, capsys):
    """Runs the command in this process; returns its only line on stderr."""
    monkeypatch.setattr(sys, "argv", ["ganfit", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("ganfit:")]
    assert len(lines) == 1
    return lines[0]


def files(folder):
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("this is not a photo")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 100)
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.fromarray(np.full((200, 200, 3), 128, np.uint8)).save(folder / "grey.png")
    Image.open(PHOTO).resize((60, 60)).save(folder / "tiny.png")
    for name in ("render.png", "photo_2.png"):
        Image.open(PHOTO).save(folder / name)
    (folder / "points.txt").write_text("1 2\n3 4\n")
    (folder / "bad.npz").write_bytes(b"PK nonsense")
    np.savez(folder / "wrong.npz", a=np.zeros(3))
    (folder / "config.py").write_text("def get_config():\n    return 3\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no photo was given"),
        (["missing.jpg"], "missing.jpg"),
        (["empty.jpg"], "empty.jpg"),
        (["text.jpg"], "text.jpg"),
        (["cut.jpg"], "cut.jpg"),
        (["."], "."),
        (["dot.png"], "dot.png"),
        (["grey.png"], "no face"),
        (["tiny.png"], "tiny.png"),
        ([PHOTO, "--face=9"], "face 9"),
        ([PHOTO, "--preset=nonsense"], "expected one of fast, paper"),
        ([PHOTO, "--preset"], "--preset"),
        ([PHOTO, "--ouput=x"], "ouput"),
        ([PHOTO, "--config.weights.identiy=0"], "identiy"),
        ([PHOTO, "--config.weights.identity=much"], "much"),
        ([PHOTO, "--config=missing.py"], "missing.py"),
        ([PHOTO, "--config=config.py"], "get_config"),
        ([PHOTO, "--landmarks=points.txt"], "points.txt"),
        ([PHOTO, "--landmarks=a.pts,b.pts"], "2 landmark files for 1 photos"),
        ([PHOTO, "--config.shape_model=bad.npz"], "bad.npz"),
        ([PHOTO, "--config.shape_model=wrong.npz"], "wrong.npz"),
        ([PHOTO, "--config.texture_model=wrong.npz"], "wrong.npz"),
        ([PHOTO, "--config.recogniser=wrong.npz"], "wrong.npz"),
        ([PHOTO, "--config.recogniser=missing.npz"], "missing.npz"),
        ([PHOTO, "--config.detector=eyes"], "detector 'eyes'"),
        ([PHOTO, "--config.chunk=0"], "at least 1"),
        ([PHOTO, "--config.size=-5"], "at least 64"),
        ([PHOTO, "--config.full.terms=('beauty',)"], "beauty"),
        ([PHOTO, *(f"--config.{stage}.steps=0" for stage in ("align", "colour", "full"))], "no stage has steps"),
        ([PHOTO, "--preset=paper"], "arcface_iresnet50.npz"),
        ([PHOTO, "--config.weights.identity=nan"], "weights.identity=nan"),
        ([PHOTO, "--config.weights.pixel=-1"], "weights.pixel=-1"),
        ([PHOTO, "--output=text.jpg"], "text.jpg"),
        ([PHOTO, "--output="], "--output"),
        (["grey.png", "--output=grey.png"], "grey.png"),
        ([PHOTO, "render.png", "--output=."], "render.png: the results would be written over it"),
        (["photo_2.png", "photo_2.png", "--output=sub/.."], "photo_2.png: the results would be written over it"),
        ([PHOTO, "--output=/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(arguments, expected, tmp_path, monkeypatch, capsys):
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    output = [] if any("--output" in str(a) for a in arguments) else ["--output=out"]
    line = complaint([*arguments, *output], monkeypatch, capsys)
    assert expected in line


def test_what_was_written_before_stays(tmp_path, monkeypatch, capsys):
    (tmp_path / "render.png").write_bytes(b"earlier")
    complaint(["missing.jpg", f"--output={tmp_path}"], monkeypatch, capsys)
    assert (tmp_path / "render.png").read_bytes() == b"earlier"


def test_settings_come_from_presets_files_and_flags(tmp_path):
    photos, values, config = command.parse(["a.jpg", "b.jpg", "--output=x", "--config.weights.identity=0"])
    assert photos == ["a.jpg", "b.jpg"] and values.output == "x" and config.weights.identity == 0
    _, _, config = command.parse(["a.jpg", "--preset=paper", "--config.seed", "5"])
    assert config.weights.identity == 2 and config.size == 512 and config.seed == 5
    file = tmp_path / "mine.py"
    file.write_text(
        "from ganfit_jax.config import Config\n\ndef get_config():\n    c = Config()\n    c.size = 128\n    return c\n"
    )
    assert command.parse(["a.jpg", f"--config={file}"])[2].size == 128
    with pytest.raises(InputError, match="both"):
        command.parse(["a.jpg", f"--config={file}", "--preset=fast"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], "detail and hair"), (["--nohair"], "detail"), (["--nodetail"], None), (["--nodetail", "--hair"], None)],
)
def test_detail_and_hair_are_left_out_on_request(flags, expected, tmp_path, monkeypatch):
    class Fitted(NamedTuple):
        photos: list[str]
        notes: list[str]
        seconds: dict[str, float]
        fit: Any = SimpleNamespace(params=None)
        models: Any = None
        observations: Any = None

    written = []

    def completed(models, params, photos, observations, hair):
        return "detail and hair" if hair else "detail"

    def write(result, folder, albedo):
        written.append(albedo)
        return {"photos": {}, "ok": True, "seconds": result.seconds}

    monkeypatch.setattr(pipeline, "fit_photos", lambda *_: Fitted(["me.jpg"], ["one face"], {}))
    monkeypatch.setattr(detail, "with_detail", completed)
    monkeypatch.setattr(results, "write_results", write)
    assert command.run(["me.jpg", f"--output={tmp_path / 'out'}", *flags]) == 0
    assert written == [expected]


def test_help_is_short_and_names_the_flags(capsys):
    assert command.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert "--output" in text and "--landmarks" in text and "--preset" in text


def test_the_command_imports_nothing_heavy_before_it_needs_it():
    heavy = ("torch", "dlib", "trimesh", "matplotlib", "jax")
    code = f"import sys, ganfit_jax, ganfit_jax.__main__; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_found_when_they_are_used():
    assert len(ganfit_jax.__all__) == len(set(ganfit_jax.__all__)) and dir(ganfit_jax) == ganfit_jax.__all__
    for name in ganfit_jax.__all__:
        assert name == "PRESETS" or getattr(ganfit_jax, name).__name__ == name
    assert ganfit_jax.fit_photos is pipeline.fit_photos
    assert not (set(ganfit_jax.__all__) & {p.stem for p in Path(ganfit_jax.__file__).parent.iterdir()})
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ganfit_jax.nonsense


def test_a_full_disk_is_one_line_and_exit_code_1(monkeypatch, capsys):
    def full(_):
        raise OSError(28, "No space left on device", "out/mesh.glb")

    monkeypatch.setattr(command, "run", full)
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "ganfit: [Errno 28] No space left on device: 'out/mesh.glb'\n"


@pytest.mark.slow
def test_a_short_fit_writes_everything(tmp_path):
    steps = [f"--config.{stage}.steps=10" for stage in ("align", "colour", "full")]
    quick = [*steps, "--config.size=128", "--config.second.size=96"]
    assert command.run([str(PHOTO), str(PHOTO), f"--output={tmp_path}", *quick]) == 0
    expected = {
        "mesh.glb",
        "mesh.obj",
        "mesh.mtl",
        "albedo.png",
        "fit.npz",
        "losses.png",
        "metrics.json",
        "report.html",
    }
    pictures = {f"{base}{n}.png" for base in ("photo", "render", "comparison") for n in ("", "_2")}
    assert expected | pictures == {p.name for p in tmp_path.iterdir()}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["ok"] and len(metrics["photos"]) == 2
    assert {"load", "observe", "fit"} <= metrics["seconds"].keys()
    for name in ("photo", "render"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (128, 128)
