"""The whole command on the example photo, with the defaults."""

import json
from pathlib import Path

import pytest

from ganfit_jax import __main__ as command
from ganfit_jax.export import load_fit

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "astronaut.png"
FILES = (
    "photo.png render.png comparison.png mesh.glb mesh.obj mesh.mtl albedo.png fit.npz losses.png metrics.json "
    "report.html"
)


@pytest.mark.slow
def test_the_example_photo_with_the_defaults(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "cache_compilations", lambda: None)
    assert command.run([str(PHOTO), f"--output={tmp_path}"]) == 0
    assert {p.name for p in tmp_path.iterdir()} == set(FILES.split())
    assert all(p.stat().st_size > 0 for p in tmp_path.iterdir())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    figures = metrics["photos"]["astronaut.png"]
    assert metrics["ok"]
    assert figures["identity_distance_euclidean"] <= 0.30
    assert figures["landmark_error_percent"] <= 3.5
    assert abs(load_fit(tmp_path / "fit.npz").params.identity.shape).max() < 6, "a likely face"
