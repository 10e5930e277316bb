"""The grid: variants do what they say, cells are done once, failures are listed, tables agree with numpy."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import ablation, ablation_report, assets, picture, pipeline
from ganfit_jax.ablation import FULL, Judges, Variant
from ganfit_jax.config import TERMS, Config
from ganfit_jax.errors import InputError
from ganfit_jax.export import load_fit
from ganfit_jax.fit import active
from ganfit_jax.gallery import Row
from ganfit_jax.landmarks import Detector
from ganfit_jax.picture import save_png
from ganfit_jax.subjects import Item
from ganfit_jax.types import LinearTexture, ModelInfo, Models

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples" / "astronaut.png"
CONFIGS = ROOT / "experiments" / "configs"
INFO = ModelInfo("tiny", "tiny.npz", "0" * 64, (), "CC0-1.0")
BLIND = Judges(Detector("blind", lambda image: []), {})


@pytest.fixture
def tiny_models(monkeypatch, tiny_recogniser):
    """Instead of the built-in networks and textures; counts how often they are loaded."""
    shape, info = assets.load_shape()
    loads = []

    def load(config):
        if config.texture_model == "gone.npz":
            raise InputError("gone.npz: no such file")
        loads.append(config)
        texture = LinearTexture(jnp.full((8, 8, 3), 0.5), jnp.full((2, 8, 8, 3), 0.02))
        models = Models(shape, texture, tiny_recogniser, pipeline.stiffness(config, info.expressions))
        return models, {"shape": info, "texture": INFO, "recogniser": INFO}

    monkeypatch.setattr(ablation, "load_models", load)
    return loads


def test_every_variant_of_the_full_set_leaves_out_what_its_name_says():
    table = ablation.read_variants(CONFIGS / "ablation.py")
    made = ablation.make_variants(Config(), table)
    assert next(iter(made)) == FULL and made[FULL] == Variant(Config(), None)
    for term in TERMS:
        config = made[f"no {term.replace('_', ' ')}"].config
        for stage in config.stages():
            terms = set(active(Config().weights, stage)) - {term}
            assert set(active(config.weights, stage)) == terms
            assert all(active(config.weights, stage)[t] == active(Config().weights, stage)[t] for t in terms)
    assert [stage.name for stage in made["no stage one"].config.stages()] == ["colour", "full"]
    assert not made["fixed jaw line"].config.moving_jaw
    assert made["one photo"].photos == 1 and made["one photo"].config == Config()
    assert made["linear texture"].config.texture_model == "albedo"
    linear = ablation.make_variants(Config(texture_model="albedo"), table)
    assert "linear texture" not in linear, "it is what full uses"
    assert set(ablation.make_variants(Config(), ablation.read_variants(CONFIGS / "ablation_small.py"))) <= set(made)
    photos = ablation.make_variants(Config(), ablation.read_variants(CONFIGS / "ablation_photos.py"))
    assert [variant.photos for variant in photos.values()] == [None, 1, 2]


def test_changed_settings_are_a_copy():
    base = Config()
    config = ablation.changed(base, {"weights.pixel": 3, "second.yaw": 0.5, "stiff": ("eyeLook",)})
    assert config.weights.pixel == 3.0 and type(config.weights.pixel) is float and config.second.yaw == 0.5
    assert base == Config() != config


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"weights.pixle": 0.0}, "v: unknown setting weights.pixle"),
        ({"wieghts.pixel": 0.0}, "v: unknown setting wieghts.pixel"),
        ({"size.side": 3}, "v: unknown setting size.side"),
        ({"weights.pixel": "0"}, "v: weights.pixel is '0', expected float"),
        ({"size": 256.0}, "v: size is 256.0, expected int"),
        ({"moving_jaw": 0}, "v: moving_jaw is 0, expected bool"),
        ({"weights.pixel": -1.0}, "not negative"),
        ({"photos": 0}, "v: photos is 0, expected a number of photos"),
    ],
)
def test_one_line_for_settings_that_are_not_there(changes, match):
    with pytest.raises(InputError, match=match) as caught:
        ablation.make_variants(Config(), {"v": changes})
    assert "\n" not in str(caught.value)


def test_one_line_for_a_file_of_variants_that_is_none(tmp_path):
    file = tmp_path / "variants.py"
    for text, match in (("x = 1", "KeyError"), ("1 +", "SyntaxError"), ("def get_variants():\n return 3", "Attribute")):
        file.write_text(text)
        with pytest.raises(InputError, match=rf"{match}.*expected get_variants"):
            ablation.read_variants(file)
    with pytest.raises(InputError, match="no such file"):
        ablation.read_variants(tmp_path / "gone.py")
    with pytest.raises(InputError, match="two have one folder"):
        ablation.make_variants(Config(), {"no pixel": {"seed": 1}, "no/pixel": {"seed": 2}})


def test_cells_run_variant_by_variant_and_fewer_photos_only_where_there_are_more():
    items = {"one": Item((PHOTO,), None), "two": Item((PHOTO, PHOTO), None)}
    variants = {"full": Variant(Config(), None), "b": Variant(Config(seed=1), None), "1": Variant(Config(), 1)}
    wanted = [("one", "full"), ("two", "full"), ("one", "b"), ("two", "b"), ("two", "1")]
    assert ablation.cells(items, variants) == wanted


def test_cells_are_done_once_and_failures_are_listed(tiny_models, monkeypatch, tmp_path):
    calls = []

    def measure(item, variant, models, infos, judges, photo, folder, compiles):
        calls.append((item.photos[0].name, variant.config.seed, compiles))
        if item.photos[0].name == "bad.png":
            raise InputError("bad.png: no face found")
        save_png(folder / "render.png", np.zeros((64, 64, 3)))
        return Row({"x": float(len(calls))}, {"render": "render.png"})

    monkeypatch.setattr(ablation, "measure", measure)
    photos = [tmp_path / name for name in ("bad.png", "good.png", "fine.png")]
    for path in photos:
        save_png(path, np.zeros((64, 64, 3)))
    items = {path.name: Item((path,), None) for path in photos}
    variants = {
        FULL: Variant(Config(), None),
        "seed": Variant(Config(seed=1), None),
        "gone": Variant(Config(texture_model="gone.npz"), None),
    }
    found, failed = ablation.run(items, variants, BLIND, tmp_path / "out")
    assert list(found) == [(i, v) for v in (FULL, "seed") for i in ("good.png", "fine.png")]
    assert failed["bad.png, full"] == failed["bad.png, seed"] == "bad.png: no face found"
    assert failed["good.png, gone"] == "gone.npz: no such file" and len(failed) == 5
    assert [c for c in calls if c[0] != "bad.png"] == [
        *(("good.png", 0, True), ("fine.png", 0, False)),
        *(("good.png", 1, True), ("fine.png", 1, False)),
    ]
    assert len(tiny_models) == 2, "models are loaded once a variant"
    before = len(calls)
    again, _ = ablation.run(items, variants, BLIND, tmp_path / "out")
    assert again == found and {c[0] for c in calls[before:]} == {"bad.png"}
    (tmp_path / "out" / "good_png" / "seed" / "row.json").write_text("{")
    variants[FULL] = Variant(Config(chunk=5), None)
    before = len(calls)
    ablation.run(items, variants, BLIND, tmp_path / "out")
    assert [c[:2] for c in calls[before:] if c[0] != "bad.png"] == [("good.png", 0), ("fine.png", 0), ("good.png", 1)]
    with pytest.raises(InputError, match="2 items have 1 folders"):
        ablation.run({"a.b": items["good.png"], "a b": items["good.png"]}, variants, BLIND, tmp_path)


def test_likeness_against_numpy(tiny_recogniser):
    cosine = dataclasses.replace(tiny_recogniser, spec=dataclasses.replace(tiny_recogniser.spec, metric="cosine"))
    judges = Judges(BLIND.find, {"own": tiny_recogniser, "unseen": cosine})
    a, b = np.float32([3.0, 0.0]), np.float32([3.0, 4.0])
    photo, render = {"own": a, "unseen": a}, {"own": b, "unseen": b}
    assert ablation.likeness(photo, render, judges, ", turned") == {
        "own distance, turned": pytest.approx(4.0),
        "unseen cosine, turned": pytest.approx(0.6),
    }
    assert np.isnan(list(ablation.likeness(photo, {}, judges).values())).all()
    assert ablation.seen(np.full((64, 64, 3), 0.5, np.float32), judges) == {}


def test_the_table_against_numpy():
    rng = np.random.default_rng(0)
    full, other = rng.normal(size=(2, 5))
    found = {(f"i{k}", FULL): {"a": float(full[k]), "fit s": 1.0 + k, "note": "x"} for k in range(5)}
    found |= {(f"i{k}", "v"): {"a": float(other[k]), "fit s": 2.0} for k in range(5)}
    found["i1", "v"]["a"] = float("nan")  # no face found: left out of the mean and of the pairs
    found["i0", "one"] = {"a": 1.0, "b": 2.0}
    first, second, third = ablation_report.table(found)
    kept = [0, 2, 3, 4]
    error = np.std(other[kept] - full[kept], ddof=1) / 2
    assert first == {"variant": FULL, "items": 5, "a": f"{full.mean():.3f}", "fit s": "3.0", "b": None}
    assert second["a"] == f"{other[kept].mean():.3f} ({(other - full)[kept].mean():+.3f} ± {error:.3f})"
    assert second["fit s"] == "2.0" and second["items"] == 5
    assert third == {"variant": "one", "items": 1, "a": f"1.000 ({1 - full[0]:+.3f})", "fit s": None, "b": "2.000"}
    assert len(ablation_report.tables(found, [])) == 1 and ablation_report.tables({}, []) == {}
    with_truth = list(ablation_report.tables(found, ["i0", "i1"]).values())
    assert [table[0]["items"] for table in with_truth] == [5, 3, 2]
    assert list(first) == ["variant", "items", "a", "b", "fit s"], "seconds come last"


def test_the_figure_has_photos_in_rows_and_variants_in_columns(tmp_path):
    found = {}
    for number, (item, variant) in enumerate([("a.png", FULL), ("b.png", FULL), ("b.png", "no pixel")]):
        folder = tmp_path / ablation.folder_name(item) / ablation.folder_name(variant)
        folder.mkdir(parents=True)
        for name, red in (("photo", 0), ("render", 50 * number + 50), ("turned", 255)):
            save_png(folder / f"{name}.png", np.full((8, 8, 3), [red, 0, 0], np.uint8))
        found[item, variant] = Row({"own distance": 0.1 * number, "unseen cosine": 0.5}, {})
    plots = ablation_report.write_figures(found, tmp_path)
    assert set(plots.values()) == {"ablation_render.png", "ablation_turned.png"}
    files = [[tmp_path / "a_png" / FULL / "photo.png", tmp_path / "a_png" / FULL / "render.png", tmp_path / "gone"]]
    sheet = picture.labelled_sheet(files, ["photo", FULL, "gone"], ["a"], side=60)
    centres = [sheet[-30, -30 - 64 * k].tolist() for k in (2, 1, 0)]
    assert centres == [[0, 0, 0], [50, 0, 0], [255, 255, 255]]
    rows = ablation_report.item_rows(found)
    assert rows["b_png"].pictures == {
        "photo": "full/photo.png",
        FULL: "full/render.png",
        "no pixel": "no_pixel/render.png",
    }
    assert rows["b_png"].figures == {"full: unseen cosine": 0.5, "no pixel: unseen cosine": 0.5}
    assert ablation_report.write_figures({}, tmp_path) == {} and ablation_report.item_rows({}) == {}


@pytest.mark.slow
def test_the_command_ends_with_table_figure_and_page(tmp_path):
    variants, photos, out = tmp_path / "variants.py", tmp_path / "photos", tmp_path / "out"
    variants.write_text("def get_variants():\n    return {'no pixel': {'weights.pixel': 0.0}}\n")
    photos.mkdir()
    (photos / "astronaut.png").write_bytes(PHOTO.read_bytes())
    save_png(photos / "empty.png", np.full((64, 64, 3), 0.5))
    arguments = [f"--photos={photos}", "--synthetic=0", f"--variants={variants}", f"--output={out}"]
    # Without steps in the stage with networks, which compiles slowly.
    settings = {"size": 64, "align.steps": 2, "colour.steps": 2, "full.steps": 0, "detector": "dlib"}
    arguments += [f"--config.{name}={value}" for name, value in settings.items()]
    command = [sys.executable, str(ROOT / "experiments" / "ablate.py"), *arguments]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "| no pixel | 1 |" in done.stdout and "no face found" in done.stdout
    written = {"results.json", "results.md", "index.html", "gallery.png", "cells.csv"}
    written |= {"ablation_render.png", "ablation_turned.png"}
    assert {p.name for p in out.iterdir() if p.is_file()} == written
    stored = json.loads((out / "results.json").read_text())
    assert set(stored["failed"]) == {"empty.png, full", "empty.png, no pixel"}
    assert stored["items"].keys() == {"astronaut_png"}
    with open(out / "cells.csv") as file:
        full, without = csv.DictReader(file)
    measures = {"own distance", "own distance, turned", "landmarks %", "rejected", "first fit s", "cell s"}
    assert full.keys() == {"item", "variant", *measures}
    assert full["rejected"] == "no" and 0 < float(full["landmarks %"]) < 30
    assert full["landmarks %"] != without["landmarks %"]
    cells = [out / "astronaut_png" / variant for variant in (FULL, "no_pixel")]
    assert {p.name for p in cells[0].iterdir()} == {
        *("photo.png", "render.png", "turned.png", "geometry.png"),
        *("fit.npz", "row.json"),
    }
    traces = [{name for name in load_fit(cell / "fit.npz").extra if name.startswith("trace.")} for cell in cells]
    assert traces[0] - traces[1] == {"trace.colour.pixel"} and traces[1] < traces[0]


def test_all_figures_are_in_the_csv(tmp_path):
    found = {("a, b", FULL): {"x": 1.5}, ("c", "v"): {"x": 2.0, "y": "no"}}
    ablation_report.write_cells(tmp_path / "cells.csv", found)
    with open(tmp_path / "cells.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"item": "a, b", "variant": "full", "x": "1.5", "y": ""}
    assert rows[1] == {"item": "c", "variant": "v", "x": "2.0", "y": "no"}
