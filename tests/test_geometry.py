"""The figures of reconstructions, their table, and pictures that show where the error is."""

import numpy as np
import pytest
from test_metrics import bumpy, rotation
from test_protocols import grown, marked, moved

from ganfit_jax import geometry, protocols
from ganfit_jax.metrics import Similarity
from ganfit_jax.photo import read_photo
from ganfit_jax.protocols import Field

HEAD = bumpy(0)
LYING = Similarity(1.0, rotation(1.2), np.array([50.0, 0.0, -300.0]))


@pytest.fixture(scope="module")
def found():
    good, bad = marked(HEAD), grown(marked(HEAD), 3.0)
    return good, geometry.measured(good, [moved(bad, LYING), moved(good, LYING)], 60.0)


def test_of_several_scans_the_best_counts(found):
    good, best = found
    figures = geometry.figures(best)
    assert figures["similarity mm"] < 1e-6 and figures["NoW median mm"] < 1e-6
    assert set(figures) == {
        *(f"{kind} mm" for kind in protocols.KINDS),
        *(f"{kind}, {way}" for kind in protocols.KINDS for way in ("scan to mesh mm", "mesh to scan mm")),
        *("NoW median mm", "NoW mean mm", "NoW std mm"),
    }
    worse = geometry.figures(geometry.measured(marked(bumpy(1)), [good], 60.0))
    for kind in protocols.KINDS:
        ways = [worse[f"{kind}, {way}"] for way in ("scan to mesh mm", "mesh to scan mm")]
        assert worse[f"{kind} mm"] == pytest.approx(np.mean(ways)) and ways[0] != ways[1]


def test_pictures_are_upright_however_the_scan_lies(found, tmp_path):
    good, best = found
    turn = best.compared["similarity"].alignment.inverse().rotation
    frame = Similarity(1.0, turn, np.zeros(3))
    files = geometry.write_pictures(tmp_path, "ours", good, best, 60.0, frame)
    files |= geometry.write_scan_picture(tmp_path, best.scan, 60.0, frame)
    assert list(files) == ["ours: geometry", "ours: error, 0 to 5 mm", "scan"]
    shape, errors, scan = (read_photo(tmp_path / name) for name in files.values())
    upright = geometry.measured(good, [good], 60.0)
    flat = Similarity(1.0, np.eye(3), np.zeros(3))
    expected = geometry.write_pictures(tmp_path, "flat", good, upright, 60.0, flat)
    assert np.abs(shape - read_photo(tmp_path / expected["flat: geometry"])).mean() < 0.01
    assert np.abs(shape - scan).mean() < 0.01
    drawn = errors.min(-1) < 0.95
    assert 0.3 < drawn.mean() < 0.9, "only what is compared is coloured"
    assert (errors[..., 2] > errors[..., 0])[drawn].mean() > 0.99, "no error is blue"


def test_table_of_groups_against_numpy():
    ways = [" mm", ", scan to mesh mm", ", mesh to scan mm"]
    kinds = [f"{kind}{way}" for kind in protocols.KINDS for way in ways]
    rows = {
        name: {f"ours: {kind}": float(value) for kind in kinds} for name, value in zip("abc", (1, 2, 6), strict=True)
    }
    rows["d"] = {"ours: cosine": 0.5}  # no scan
    fields = {
        "in ours": [Field(np.ones(3), np.ones(3)), Field(np.full(3, 4.0), np.ones(3))],
        "out ours": [Field(np.zeros(2), np.ones(2))],
    }
    lines = geometry.table(rows, {"a": "in", "b": "in", "c": "out", "d": "in"}, ["ours", "rival"], fields)
    assert [(line["group"], line["method"], line["people"]) for line in lines] == [
        ("in", "ours", 2),
        ("out", "ours", 1),
    ]
    assert lines[0]["similarity mm"] == "1.500 ± 0.500" and lines[1]["rigid mm"] == "6.000 ± 0.000"
    assert lines[0]["NoW mean mm"] == 2.5 and lines[0]["NoW std mm"] == 1.5 and lines[1]["NoW median mm"] == 0.0
    assert "group" not in geometry.table(rows, dict.fromkeys("abcd", ""), ["ours"], {" ours": fields["in ours"]})[0]
