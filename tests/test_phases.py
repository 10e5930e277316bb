"""Seconds of phases add up to the whole."""

import time

import pytest

from ganfit_jax import phases


def test_phases_add_up():
    callback, ends = phases.recorder()
    started = time.perf_counter()
    callback("align", 10, 20, {})
    time.sleep(0.01)
    callback("align", 20, 20, {})
    callback("full", 5, 5, {})
    ends["full"] = (ends["align"][0] + 3.0, ends["full"][1])
    found = phases.figures(ends, started, {"observe": 0.002, "write": 1.0}, 2)
    align = ends["align"][0] - started - 0.002
    assert align > 0.008 and found["align s"] == pytest.approx(align / 2)
    assert (found["full s"], found["observe s"], found["write s"]) == pytest.approx((1.5, 0.001, 0.5))
    assert 50 < found["align MB"] <= found["full MB"]


def test_the_table_shows_the_usual_and_the_first():
    fits = [{"fit s": s, "fit MB": mb} for s, mb in ((9.0, 500.0), (2.0, 800.0), (1.0, 900.0))]
    rows = [{**fits[0], "write s": 1.0}, *fits[1:]]
    fit, write = phases.table(rows)
    assert fit == {"phase": "fit", "seconds a photo": 2.0, "first, s": 9.0, "peak memory, MB": 500.0}
    assert write == {"phase": "write", "seconds a photo": 1.0, "first, s": 1.0, "peak memory, MB": None}
