"""Whom to evaluate: the lines of a CSV manifest, the folders of MICC Florence, a folder of photos."""

import csv
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ganfit_jax.errors import InputError
from ganfit_jax.photo import PHOTO_KINDS

UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
SETTINGS = ("Indoor-Cooperative", "PTZ-Indoor", "PTZ-Outdoor")
REQUIRED = ("id", "photos", "scan", "scan_landmarks")
COLUMNS = (*REQUIRED, "unit", "group", "radius")


class Case(NamedTuple):
    """One thing to evaluate: photos of a person and, where there are some, scans."""

    name: str
    photos: tuple[Path, ...]
    scans: tuple[tuple[Path, Path], ...] = ()  # (scan, landmarks); the better of several counts, as MICC has it
    unit: float = 1.0  # millimetres in one unit of the scans
    group: str = ""  # figures are averaged for each group
    radius: float = 95.0  # mm around the nose tip that are compared
    source: str = ""  # the file and line it comes from


def manifest_cases(path: str | Path) -> tuple[list[Case], dict[str, str]]:
    """The lines of a CSV manifest, and of those that are broken the reason (one line with file and line).

    Columns, named in the first line, separated by commas; paths are relative to the manifest:
      id              name of the case, used as a folder's name
      photos          photos of the person, separated by ;
      scan            OBJ, PLY, GLB or STL file (several: separated by ; the better one counts); may be empty
      scan_landmarks  68 points for each scan
      unit            (optional) millimetres in one unit of the scan, or mm, cm, m; 1 by default
      group           (optional) figures are averaged for each group
      radius          (optional) millimetres around the nose tip that are compared; 95 by default
    Empty lines and lines that begin with # are passed over.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected a CSV manifest") from None
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
    rows = [(n, next(csv.reader([line], skipinitialspace=True))) for n, line in numbered]
    header = [name.strip().lower() for name in rows[0][1]] if rows else []
    if missing := [name for name in REQUIRED if name not in header]:
        raise InputError(f"{path}: first line without {', '.join(missing)}, expected the columns {', '.join(COLUMNS)}")
    cases: dict[str, Case] = {}
    failed: dict[str, str] = {}
    for number, fields in rows[1:]:
        place = f"{path}:{number}"
        row = dict(zip(header, (field.strip() for field in fields), strict=False))
        name = row.get("id", "")
        key = name if name and name not in cases and name not in failed else f"line {number}"
        try:
            if len(fields) != len(header):
                raise InputError(f"{len(fields)} fields, expected {len(header)}")
            if name in cases:
                raise InputError(f"id '{name}' appears a second time, expected another")
            cases[name] = _manifest_case(row, path.parent, place)
        except InputError as error:
            failed[key] = f"{place}: {error}"
    return list(cases.values()), failed


def _manifest_case(row: Mapping[str, str], root: Path, place: str) -> Case:
    if not re.fullmatch(r"[^/\\:.][^/\\:]*", row["id"]):
        raise InputError(f"id '{row['id']}', expected a name that a folder can have")
    photos, scans, marks = (
        tuple(root / part.strip() for part in row[name].split(";") if part.strip()) for name in REQUIRED[1:]
    )
    if not photos:
        raise InputError("no photo, expected at least one")
    if len(scans) != len(marks):
        raise InputError(f"{len(scans)} scans and {len(marks)} files of landmarks, expected one for each")
    if gone := [file for file in (*photos, *scans, *marks) if not file.is_file()]:
        raise InputError(f"{gone[0]}: not found, expected a file")
    given = {name: row.get(name) or default for name, default in (("unit", "1"), ("radius", "95"))}
    numbers = {}
    for name, text in given.items():
        try:
            numbers[name] = UNITS[text] if name == "unit" and text in UNITS else float(text)
        except ValueError:
            numbers[name] = np.nan
        if not 0 < numbers[name] < np.inf:
            raise InputError(f"{name} '{text}', expected a number above 0{', mm, cm or m' * (name == 'unit')}")
    return Case(
        row["id"], photos, tuple(zip(scans, marks, strict=True)), group=row.get("group", ""), source=place, **numbers
    )


def micc_cases(
    root: str | Path, landmarks: str | Path | None = None, frames: int = 5, seed: int = 0
) -> tuple[list[Case], dict[str, str]]:
    """The people of the MICC Florence data set, a case for each subject and setting, and what is missing.

    Folders:
      root/subject_01/Model/frontal1/obj/NAME.obj     scans, millimetres (frontal1 and frontal2, the better one counts)
      root/subject_01/Model/frontal1/obj/NAME.ljson   their landmarks, here or under `landmarks` in the same folders
      root/subject_01/.../SETTING/...                 frames of the videos, pictures at any depth in a folder that is
                                                      called Indoor-Cooperative, PTZ-Indoor or PTZ-Outdoor
    `frames` of a setting are drawn with `seed`, whatever else is there; a setting without any is left out.
    As in the evaluation by GANFIT's authors, subject_28 is compared within 60 mm of the nose tip, all others within 95.
    """
    root = Path(root)
    subjects = sorted(folder for folder in root.glob("subject_*") if folder.is_dir())
    if not subjects:
        raise InputError(f"{root}: no folder subject_*, expected the folders of MICC Florence")
    cases, failed = [], {}
    for subject in subjects:
        scans = []
        for mesh in sorted(subject.glob("Model/frontal*/obj/*.obj")):
            others = [Path(landmarks) / mesh.relative_to(root)] if landmarks else []
            found = [m.with_suffix(".ljson") for m in (mesh, *others) if m.with_suffix(".ljson").is_file()]
            scans += [(mesh, found[0])] if found else []
        if not scans:
            failed[subject.name] = f"{subject}/Model: no scan with landmarks, expected frontal1/obj/NAME.obj and .ljson"
            continue
        before = len(cases)
        for setting in SETTINGS:
            pictures = sorted({p for folder in subject.rglob(setting) for p in pictures_in(folder.rglob("*"))})
            if not pictures:
                continue
            generator = np.random.default_rng([seed, zlib.crc32(f"{subject.name}/{setting}".encode())])
            chosen = sorted(generator.choice(len(pictures), min(frames, len(pictures)), replace=False))
            radius = 60.0 if subject.name == "subject_28" else 95.0
            name, photos = f"{subject.name}_{setting}", tuple(pictures[i] for i in chosen)
            cases.append(Case(name, photos, tuple(scans), group=setting, radius=radius, source=str(subject)))
        if len(cases) == before:
            failed[subject.name] = f"{subject}: no frame, expected pictures in a folder called {', '.join(SETTINGS)}"
    return cases, failed


def photo_cases(folder: str | Path) -> list[Case]:
    """The people of a folder: every picture in it is one person, every sub-folder with pictures another."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder, expected one with photos")
    single = pictures_in(folder.iterdir())
    stems = [file.stem for file in single]
    cases = [Case(f.stem if stems.count(f.stem) == 1 else f.name, (f,), source=str(f)) for f in single]
    for person in sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")):
        if photos := pictures_in(person.iterdir()):
            name = person.name if person.name not in stems else f"{person.name}_folder"
            cases.append(Case(name, tuple(photos), source=str(person)))
    if not cases:
        raise InputError(
            f"{folder}: no picture, expected photos ({', '.join(PHOTO_KINDS)}) or a folder for each person"
        )
    return cases


def pictures_in(files: Iterable[Path]) -> list[Path]:
    """The picture files among these, sorted; hidden ones are passed over."""
    return sorted(f for f in files if f.suffix.lower() in PHOTO_KINDS and f.is_file() and not f.name.startswith("."))


def chosen_cases(
    photos: str | None, manifest: str | None, micc: str | None, landmarks: str | None
) -> tuple[list[Case], dict[str, str]]:
    """The people of the one source that is given, and what is broken there."""
    given = {"--photos": photos, "--manifest": manifest, "--micc": micc}
    if sum(bool(value) for value in given.values()) != 1:
        raise InputError(
            f"{' '.join(name for name, value in given.items() if value) or 'no people'}, "
            f"expected one of {', '.join(given)}"
        )
    if photos:
        return photo_cases(photos), {}
    return manifest_cases(manifest) if manifest else micc_cases(micc or "", landmarks)
