"""Figures over all pairs against loops."""

import numpy as np
import pytest

from ganfit_jax import likeness
from ganfit_jax.likeness import Seen

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_judged_against_loops(metric):
    people = ("a", "a", "b", "c", "d")
    photos = Seen(people, RNG.normal(size=(5, 6)))
    renders = Seen(("a", "b", "c", "d"), photos.embeddings[[1, 2, 3, 4]] + 0.2 * RNG.normal(size=(4, 6)))
    renders.embeddings[1] = photos.embeddings[3]  # b is taken for c
    renders.embeddings[3] = np.nan  # no face found
    found = likeness.judged(renders, photos, metric)
    same, different, own, right = [], [], [], []
    for who, x in zip(renders.people, renders.embeddings, strict=True):
        values = {}
        for i, (name, y) in enumerate(zip(people, photos.embeddings, strict=True)):
            cosine = x @ y / (x @ x * (y @ y)) ** 0.5
            value = cosine if metric == "cosine" else -(((x - y) ** 2).sum() ** 0.5)
            if np.isfinite(value):
                values[i] = value
                (same if name == who else different).append(value)
        mine = [value for i, value in values.items() if people[i] == who]
        own.append(max(mine) if mine else np.nan)
        right.append(1.0 if values and people[max(values, key=lambda i: values[i])] == who else 0.0)
    assert sorted(found.same) == pytest.approx(sorted(same))
    assert sorted(found.different) == pytest.approx(sorted(different))
    assert found.own == pytest.approx(own, nan_ok=True)
    assert found.right.tolist() == right == [1.0, 0.0, 1.0, 0.0]
    row = likeness.table_row(found, metric)
    assert row["pictures"] == 4 and row["no face found"] == 1 and row["nearest photo is right, %"] == 50.0
    sign, name = (1, "cosine") if metric == "cosine" else (-1, "distance")
    assert row[f"{name}, same person"] == pytest.approx(sign * np.median(same))
    assert row[f"{name}, different people"] == pytest.approx(sign * np.median(different))


def test_one_person_alone_is_always_right():
    alone = Seen(("a",), np.ones((1, 3)))
    found = likeness.judged(alone, alone, "cosine")
    assert found.right.tolist() == [1.0] and len(found.different) == 0
    assert np.isnan(likeness.table_row(found, "cosine")["cosine, different people"])


def test_joining():
    both = likeness.joined([Seen(("a", "a"), np.zeros((2, 3))), Seen(("b",), np.ones((1, 3)))])
    assert both.people == ("a", "a", "b") and both.embeddings.shape == (3, 3) and both.embeddings[2].all()
