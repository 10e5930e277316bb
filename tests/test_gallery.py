"""Nothing is measured twice, and the page holds everything and loads nothing."""

import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from ganfit_jax import gallery
from ganfit_jax.errors import InputError
from ganfit_jax.gallery import Row
from ganfit_jax.picture import save_png

GREY = np.full((300, 400, 3), 0.5)


def counted(folder, made):
    def work():
        made.append(1)
        save_png(folder / "photo.png", GREY)
        return Row({"error_mm": 0.25, "seconds": float("nan"), "note": "ok"}, {"photo": "photo.png"})

    return work


def test_an_item_is_measured_once(tmp_path):
    folder, made = tmp_path / "a", []
    first = gallery.kept(folder, counted(folder, made))
    again = gallery.kept(folder, counted(folder, made))
    assert len(made) == 1 and first.pictures == again.pictures
    assert again.figures["error_mm"] == 0.25 and math.isnan(float(again.figures["seconds"]))
    gallery.kept(folder, counted(folder, made), settings="other steps")
    assert len(made) == 2, "figures of other settings must not be shown for these"
    gallery.kept(folder, counted(folder, made), settings="other steps")
    assert len(made) == 2


def test_other_files_that_an_item_needs(tmp_path):
    folder, made = tmp_path / "a", []
    for _ in range(2):
        gallery.kept(folder, counted(folder, made), needs=("arrays.npz",))
    assert len(made) == 2
    (folder / "arrays.npz").write_bytes(b"")
    gallery.kept(folder, counted(folder, made), needs=("arrays.npz",))
    assert len(made) == 2


def test_figures_of_several_methods_become_a_table(tmp_path):
    (tmp_path / "a").mkdir()
    row = Row({"ours: mm": 1.0, "mean face: mm": 2.0, "ours: %": 50.0, "seconds": 3.0}, {})
    gallery.write_gallery(tmp_path, "t", {"a": row}, {}, {}, {}, "c")
    page = (tmp_path / "index.html").read_text()
    assert "<tr><th></th><th>mm</th><th>%</th></tr><tr><td>ours</td><td>1</td><td>50</td></tr>" in page
    assert "<tr><td>mean face</td><td>2</td><td>-</td></tr>" in page and "seconds <b>3</b>" in page


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"figures": {}}', '{"figures": 3, "pictures": {}, "settings": ""}'])
def test_a_broken_row_is_made_anew(tmp_path, broken):
    folder, made = tmp_path / "a", []
    folder.mkdir()
    (folder / "row.json").write_text(broken)
    gallery.kept(folder, counted(folder, made))
    gallery.kept(folder, counted(folder, made))
    assert len(made) == 1
    (folder / "photo.png").unlink()
    gallery.kept(folder, counted(folder, made))
    assert len(made) == 2, "a picture that is gone is made again"


def test_work_that_fails_leaves_no_row(tmp_path):
    def work():
        raise InputError("a.obj: broken")

    with pytest.raises(InputError):
        gallery.kept(tmp_path / "a", work)
    assert not (tmp_path / "a" / "row.json").exists()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_page_is_complete_escaped_and_self_contained(tmp_path, elsewhere):
    output, root = tmp_path / "out", tmp_path / ("items" if elsewhere else "out")
    output.mkdir()
    row = gallery.kept(root / "a<b>", counted(root / "a<b>", []))
    save_png(output / "curve.png", GREY)
    table = [{"method": "ours", "mm": 1.23456}, {"method": "a|b", "mm": math.nan, "n": 3}]
    gallery.write_gallery(
        output,
        "Title & {{items}}",
        {"a<b>": row},
        {"c": "c.obj: <broken>"},
        {"Errors": table},
        {"Curve": "curve.png"},
        "python evaluate.py --x='<y>'",
        root if elsewhere else None,
    )
    page = (output / "index.html").read_text()
    assert page.count("src=") == page.count('src="data:image/') == 2
    assert not re.search(r"https?://", page) and "default-src 'none'" in page
    assert "Title &amp; {{items}}" in page and "a&lt;b&gt;" in page and "c.obj: &lt;broken&gt;" in page
    assert "<td>1.23</td>" in page and "error_mm <b>0.25</b>" in page and "seconds <b>-</b>" in page
    sheet = np.asarray(Image.open(output / "gallery.png"))
    assert tuple(sheet[-30, -30]) == (128, 128, 128) and tuple(sheet[-30, 2]) == (255, 255, 255), "the item's photo"
    text = (output / "results.md").read_text()
    assert "| ours | 1.23 | - |" in text and "| a\\|b | - | 3 |" in text
    assert "![Curve](curve.png)" in text and "- c: c.obj: <broken>" in text
    data = json.loads((output / "results.json").read_text(), parse_constant=pytest.fail)
    assert data["items"]["a<b>"] == {"error_mm": 0.25, "seconds": None, "note": "ok"}
    assert data["tables"]["Errors"][0]["mm"] == 1.23456 and data["failed"] == {"c": "c.obj: <broken>"}


def test_pictures_are_shrunk(tmp_path):
    (tmp_path / "a").mkdir()
    noise = np.random.default_rng(0).uniform(size=(1200, 1600, 3))
    save_png(tmp_path / "a" / "big.png", noise)
    gallery.write_gallery(tmp_path, "t", {"a": Row({}, {"big": "big.png"})}, {}, {}, {}, "c")
    assert (tmp_path / "index.html").stat().st_size < 300_000 < (tmp_path / "a" / "big.png").stat().st_size
    gallery.write_gallery(tmp_path, "t", {"a": Row({}, {"big": "none.png"})}, {}, {}, {}, "c")
    assert "none.png cannot be shown" in (tmp_path / "index.html").read_text(), "one picture must not cost the page"


SHOWN = ((0.12345, "0.123"), (12.345, "12.3"), (123.46, "123.5"), (100.0, "100"), (12345.6, "12346"), (7, "7"))


@pytest.mark.parametrize("value, text", [*SHOWN, (None, "-"), (np.float32(np.nan), "-"), ("dlib", "dlib")])
def test_figures_as_people_read_them(value, text):
    assert gallery.shown(value) == text
