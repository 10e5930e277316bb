"""The whole command on the example photo: with the defaults, and the preset of the paper with a random network."""

import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from ganfit_jax import __main__ as command
from ganfit_jax.export import load_fit
from ganfit_jax.recognition.load import NETWORKS

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "astronaut.png"
FILES = (
    "photo.png render.png comparison.png mesh.glb mesh.obj mesh.mtl albedo.png fit.npz losses.png metrics.json "
    "report.html"
)


@pytest.mark.slow
def test_the_example_photo_with_the_defaults(tmp_path):
    assert command.run([str(PHOTO), f"--output={tmp_path}"]) == 0
    assert {p.name for p in tmp_path.iterdir()} == set(FILES.split())
    assert all(p.stat().st_size > 0 for p in tmp_path.iterdir())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    figures = metrics["photos"]["astronaut.png"]
    assert metrics["ok"]
    assert figures["identity_distance_euclidean"] <= 0.30
    assert figures["landmark_error_percent"] <= 3.5
    assert abs(load_fit(tmp_path / "fit.npz").params.identity.shape).max() < 6, "a likely face"


@pytest.mark.slow
def test_the_papers_preset_runs_with_an_arcface_network(tmp_path):
    rng, weights = np.random.default_rng(0), {}
    for path, leaf in nnx.to_flat_state(nnx.split(nnx.eval_shape(lambda: NETWORKS["iresnet18"](outputs=16)))[1]):
        name, fan = ".".join(map(str, path)), int(np.prod(leaf.shape[:-1]))
        spread = (2 / fan) ** 0.5 if name.endswith("kernel") else 0.1
        centre = {"scale": 1.0, "slope": 0.25}.get(name.split(".")[-1], 0.0)
        weights[name] = np.float32(rng.normal(centre, spread, leaf.shape))
    np.savez(tmp_path / "random.npz", name="iresnet18", divisor=np.float32(127.5), **weights)
    settings = ["--preset=paper", f"--config.recogniser={tmp_path / 'random.npz'}", "--config.detector=dlib"]
    settings += ["--config.size=128", "--config.second.size=96", "--config.align.steps=2", "--config.full.steps=2"]
    assert command.run([str(PHOTO), f"--output={tmp_path / 'out'}", *settings]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == set(FILES.split())
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    stored = load_fit(tmp_path / "out" / "fit.npz")
    assert metrics["ok"] and 0 < metrics["photos"]["astronaut.png"]["identity_distance_cosine"] < 2
    assert {"identity", "second_identity", "content"} <= {name.split("/")[1] for name in metrics["terms"]}
    assert stored.infos["recogniser"].name == "iresnet18"
    for moved in (stored.params.identity.shape, stored.params.identity.texture):
        assert 0 < abs(moved).max() <= 0.041, "at most 4 steps of 0.01"
