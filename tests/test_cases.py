"""Lists of people: what is right is read, what is broken is named with its line, and the rest goes on."""

import json
from pathlib import Path

import pytest

from ganfit_jax import cases
from ganfit_jax.errors import InputError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps("x"))


def test_a_manifest_with_broken_lines(tmp_path):
    touch(*(tmp_path / name for name in ("a.jpg", "b c.jpg", "s.obj", "t.ply", "s.ljson", "t.txt")))
    text = """\ufeffID, photos, scan, scan_landmarks, unit, group, radius
# the good ones
one, a.jpg;b c.jpg, s.obj, s.ljson, , indoor,
two,"a.jpg",s.obj; t.ply,s.ljson; t.txt,cm,,80

three,a.jpg,,,,,
nowhere,gone.jpg,s.obj,s.ljson,,,
nobody,,s.obj,s.ljson,,,
odd,a.jpg,s.obj;t.ply,s.ljson,,,
unit,a.jpg,s.obj,s.ljson,inch,,
radius,a.jpg,s.obj,s.ljson,1,,-5
short,a.jpg,s.obj
../up,a.jpg,s.obj,s.ljson,,,
one,a.jpg,s.obj,s.ljson,,,
,a.jpg,s.obj,s.ljson,,,
"""
    file = tmp_path / "manifest.csv"
    file.write_text(text, encoding="utf-8")
    good, failed = cases.manifest_cases(file)
    one, two, three = good
    assert one.name == "one" and one.photos == (tmp_path / "a.jpg", tmp_path / "b c.jpg")
    assert one.scans == ((tmp_path / "s.obj", tmp_path / "s.ljson"),) and (one.unit, one.radius) == (1.0, 95.0)
    assert one.group == "indoor" and one.source == f"{file}:3"
    assert len(two.scans) == 2 and two.scans[1] == (tmp_path / "t.ply", tmp_path / "t.txt")
    assert (two.unit, two.radius) == (10.0, 80.0) and three.scans == ()
    expected = {
        "nowhere": (7, "gone.jpg: not found"),
        "nobody": (8, "no photo"),
        "odd": (9, "2 scans and 1 files of landmarks"),
        "unit": (10, "unit 'inch'"),
        "radius": (11, "radius '-5'"),
        "short": (12, "3 fields, expected 7"),
        "../up": (13, "id '../up'"),
        "line 14": (14, "id 'one' appears a second time"),
        "line 15": (15, "id ''"),
    }
    assert failed.keys() == expected.keys()
    for name, (line, reason) in expected.items():
        assert failed[name].startswith(f"{file}:{line}: ") and reason in failed[name] and "expected" in failed[name]
        assert "\n" not in failed[name]


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "id,photos,scan\n", "a;b;c\n"])
def test_what_is_no_manifest(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=r"m\.csv: first line without .*expected the columns id, photos"):
        cases.manifest_cases(tmp_path / "m.csv")
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read"):
        cases.manifest_cases(tmp_path / "gone.csv")


def test_micc_folders(tmp_path):
    root, marks = tmp_path / "micc", tmp_path / "MICC_landmarks"
    first, second, third = root / "subject_01", root / "subject_02", root / "subject_28"
    touch(first / "Model/frontal1/obj/1.obj", first / "Model/frontal1/obj/1.ljson")
    touch(first / "Model/frontal2/obj/2.obj", marks / "subject_01/Model/frontal2/obj/2.ljson")
    touch(*(first / f"Videos/Indoor-Cooperative/frame_{i:03d}.jpg" for i in range(20)))
    touch(first / "PTZ-Outdoor/cam1/a.PNG", first / "PTZ-Outdoor/notes.txt")
    touch(second / "Model/frontal1/obj/1.obj", second / "PTZ-Indoor/a.jpg")
    touch(third / "Model/frontal1/obj/1.obj", third / "Model/frontal1/obj/1.ljson", third / "PTZ-Indoor/a.jpg")
    touch(*(root / "subject_30/Model/frontal1/obj" / name for name in ("1.obj", "1.ljson")))
    found, failed = cases.micc_cases(root, marks)
    assert [c.name for c in found] == [
        "subject_01_Indoor-Cooperative",
        "subject_01_PTZ-Outdoor",
        "subject_28_PTZ-Indoor",
    ]
    assert [len(c.photos) for c in found] == [5, 1, 1] and len(set(found[0].photos)) == 5
    assert [len(c.scans) for c in found] == [2, 2, 1] and found[0].scans[1][1].is_relative_to(marks)
    assert [c.group for c in found] == ["Indoor-Cooperative", "PTZ-Outdoor", "PTZ-Indoor"]
    assert [c.radius for c in found] == [95.0, 95.0, 60.0]
    assert failed.keys() == {"subject_02", "subject_30"}
    assert "no scan with landmarks" in failed["subject_02"] and "no frame" in failed["subject_30"]
    assert cases.micc_cases(root, marks)[0][0].photos == found[0].photos, "the frames are drawn once and for all"
    assert cases.micc_cases(root, marks, seed=1)[0][0].photos != found[0].photos
    assert len(cases.micc_cases(root)[0][0].scans) == 1, "without the folder of landmarks one scan has none"
    with pytest.raises(InputError, match="no folder subject_"):
        cases.micc_cases(tmp_path / "none")


def test_people_in_a_folder(tmp_path):
    touch(*(tmp_path / name for name in ("ann.jpg", "bob.jpg", "bob.png", "notes.txt", ".hidden.jpg")))
    touch(tmp_path / "carl/1.jpg", tmp_path / "carl/2.JPEG", tmp_path / "ann/1.jpg", tmp_path / "empty/readme.md")
    found = {case.name: [Path(p).name for p in case.photos] for case in cases.photo_cases(tmp_path)}
    assert found == {
        "ann": ["ann.jpg"],
        "bob.jpg": ["bob.jpg"],
        "bob.png": ["bob.png"],
        "ann_folder": ["1.jpg"],
        "carl": ["1.jpg", "2.JPEG"],
    }
    for wrong, match in ((tmp_path / "empty", "no picture"), (tmp_path / "none", "not a folder")):
        with pytest.raises(InputError, match=match):
            cases.photo_cases(wrong)


def test_one_source_of_people(tmp_path):
    touch(tmp_path / "a.jpg")
    assert cases.chosen_cases(str(tmp_path), None, None, None)[0][0].name == "a"
    for given in ((None, None, None), ("a", "b", None), ("a", None, "c")):
        with pytest.raises(InputError, match="expected one of --photos, --manifest, --micc"):
            cases.chosen_cases(*given, None)
    with pytest.raises(InputError, match=r"m\.csv: cannot be read"):
        cases.chosen_cases(None, str(tmp_path / "m.csv"), None, None)
    with pytest.raises(InputError, match="no folder subject_"):
        cases.chosen_cases(None, None, str(tmp_path), None)
