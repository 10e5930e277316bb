"""Files are written whole: beside their place, then moved there, so a broken run leaves what was there before."""

import os
from pathlib import Path


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a whole file or nothing: `path` keeps its old content until the new one is complete."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
