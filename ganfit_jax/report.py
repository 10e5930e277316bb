"""The self-contained page report.html: pictures, figures and a 3D viewer; nothing is loaded from outside."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from ganfit_jax.files import write_bytes
from ganfit_jax.picture import AnyImage, png_bytes
from ganfit_jax.types import ModelInfo

FOOTER = (
    "Made with ganfit-jax, an independent reimplementation of GANFIT (Gecer et al., CVPR 2019). "
    "The licences of the models above apply to what is made with them."
)


class ReportPhoto(NamedTuple):
    """The pictures of one photo."""

    name: str
    photo: AnyImage  # aligned photo
    render: AnyImage  # fitted face alone
    comparison: AnyImage  # strip of `picture.comparison`


def write_report(
    path: str | Path,
    title: str,
    photos: Sequence[ReportPhoto],
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    infos: Mapping[str, ModelInfo],
    losses: bytes,
    glb: bytes,
) -> None:
    """Writes the page.

    Args:
      path: the HTML file.
      title: heading, for example the photo's name.
      photos: the pictures of every photo.
      metrics: figures by name, nested as deep as wanted.
      config: settings, nested as deep as wanted.
      infos: role of a model -> where it came from.
      losses: the PNG file of `picture.losses_plot`.
      glb: what `gltf.glb_bytes` gives; `morph_normals=False` halves it, the viewer computes its own.
    """
    assets = resources.files("ganfit_jax") / "assets"
    count = f"{len(photos)} photos of one person" if len(photos) != 1 else "one photo"
    parts = {
        "title": escape(title),
        "subtitle": f"ganfit-jax, fitted to {count}",
        "photos": "\n".join(_photo(photo) for photo in photos),
        "metrics": _table(metrics),
        "models": "\n".join(_model(role, info) for role, info in infos.items()),
        "losses": _image(losses, "The terms of the energy against the step"),
        "config": _table(config),
        "footer": escape(FOOTER),
        "glb": base64.b64encode(glb).decode("ascii"),
        "viewer": (assets / "viewer.js").read_text(encoding="utf-8"),
    }
    template = (assets / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
    write_bytes(path, page.encode("utf-8"))


def _image(png: bytes, description: str) -> str:
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'


def _photo(photo: ReportPhoto) -> str:
    figures = [
        ("Photo, aligned", photo.photo, "photo"),
        ("Fitted face", photo.render, "render"),
        ("Photo | render over photo | geometry | albedo", photo.comparison, "comparison"),
    ]
    shown = [
        f"<figure>{_image(png_bytes(image), f'{kind} of {photo.name}')}<figcaption>{caption}</figcaption></figure>"
        for caption, image, kind in figures
    ]
    return (
        f'<div class="photo"><h3>{escape(photo.name)}</h3><div class="pair">{shown[0]}{shown[1]}</div>'
        f'<div class="wide">{shown[2]}</div></div>'
    )


def _rows(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)


def _table(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(_text(value))}</td></tr>" for name, value in _rows(values)
    )
    return f"<table>{rows}</table>"


def _model(role: str, info: ModelInfo) -> str:
    return (
        f'<h3>{escape(role)}</h3><table class="model"><tr><td>Name</td><td>{escape(info.name)}</td></tr>'
        f"<tr><td>SHA-256</td><td><code>{escape(info.sha256)}</code></td></tr>"
        f"<tr><td>Licence</td><td>{escape(info.licence)}</td></tr></table>"
    )
