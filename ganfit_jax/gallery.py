"""Many measured items -> results.json, results.md and a self-contained page; and items that are not measured twice."""

import base64
import datetime
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ganfit_jax.files import write_bytes
from ganfit_jax.picture import labelled_sheet, save_png
from ganfit_jax.results import prepare_folder

SHOWN = (1200, 260)  # px: pictures on the page are shrunk to fit into this width and height
ROW_FILE = "row.json"
SHEET = (6, 6)  # items and pictures of each on the sheet


class Row(NamedTuple):
    """What was measured of one item."""

    # One item's measurements, plain JSON; NaN = could not be measured. The page shows those that are called
    # "METHOD: FIGURE" as a table with a line for each method.
    figures: dict[str, float | str]
    pictures: dict[str, str]  # title -> file name (PNG or JPEG) in the item's folder, in the order shown


def kept(folder: Path, work: Callable[[], Row], settings: str = "", needs: Iterable[str] = ()) -> Row:
    """The row in ``folder/row.json``; `work` is done, and its row written, only where there is none.

    A row counts as absent if its file cannot be read, if one of its pictures or of the files that it `needs` is gone,
    or if it was made with other `settings` (any text that says what the figures depend on). Makes the folder.
    """
    file = prepare_folder(folder) / ROW_FILE
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        figures = {name: math.nan if value is None else value for name, value in stored["figures"].items()}
        row = Row(figures, dict(stored["pictures"]))
        if stored["settings"] == settings and all(
            (folder / name).is_file() for name in (*row.pictures.values(), *needs)
        ):
            return row
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    row = work()
    stored = {"figures": plain(row.figures), "pictures": row.pictures, "settings": settings}
    write_bytes(file, (json.dumps(stored, indent=2, allow_nan=False) + "\n").encode())
    return row


def write_gallery(
    output: Path,
    title: str,
    rows: dict[str, Row],
    failed: dict[str, str],
    tables: dict[str, list[dict[str, Any]]],
    plots: dict[str, str],
    command: str,
    root: Path | None = None,
) -> None:
    """Writes results.json, results.md (Markdown tables), index.html (pictures embedded, shrunk) and gallery.png (the
    first pictures of the first items) into `output`.

    Args:
      output: existing folder.
      title: heading of the page.
      rows: item -> its row; its folder is ``(root or output)/item``.
      failed: item -> why it could not be measured, one line.
      tables: title -> rows of a table (column -> value); the columns are those of all rows in order of appearance.
      plots: title -> file name (PNG) in `output`.
      command: what was typed, for those who read the page.
      root: folder of the items' folders where that is not `output`.
    """
    made = f"{datetime.date.today().isoformat()}, ganfit-jax {metadata.version('ganfit-jax')}"
    data = {
        "title": title,
        "command": command,
        "made": made,
        "tables": tables,
        "failed": failed,
        "items": {name: row.figures for name, row in rows.items()},
    }
    write_bytes(output / "results.json", (json.dumps(plain(data), indent=2, allow_nan=False) + "\n").encode())
    names = list(rows)[: SHEET[0]]
    fullest = max((rows[name] for name in names), key=lambda row: len(row.pictures), default=Row({}, {}))
    if titles := list(fullest.pictures)[: SHEET[1]]:
        grid = [[(root or output) / name / rows[name].pictures.get(t, "no file") for t in titles] for name in names]
        save_png(output / "gallery.png", labelled_sheet(grid, titles, names))
    parts = [f"# {title}", f"`{command}` ({made})"]
    parts += [f"## {name}\n\n{markdown_table(table)}" for name, table in tables.items()]
    parts += [f"## {name}\n\n![{name}]({file})" for name, file in plots.items()]
    if failed:
        parts.append("## Failed\n\n" + "\n".join(f"- {name}: {reason}" for name, reason in failed.items()))
    write_bytes(output / "results.md", ("\n\n".join(parts) + "\n").encode())
    sections = [f"<section><h2>{escape(name)}</h2>{_html_table(table)}</section>" for name, table in tables.items()]
    filled = {
        "title": escape(title),
        "subtitle": f"{escape(made)}<br><code>{escape(command)}</code>",
        "tables": "".join(sections),
        "plots": "".join(
            f"<section><h2>{escape(t)}</h2>{_image(output / file, t, (1600, 1600))}</section>"
            for t, file in plots.items()
        ),
        "failed": _failures(failed),
        "items": "".join(_item(name, row, (root or output) / name) for name, row in rows.items()),
    }
    template = (resources.files("ganfit_jax") / "assets" / "gallery.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], template)
    write_bytes(output / "index.html", page.encode("utf-8"))


def plain(value: Any) -> Any:
    """The value as JSON can hold it: arrays and their scalars as lists and numbers, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(value: Any) -> str:
    """A figure as people read it: three decimals at most, four digits at least where it is large; "-" for none."""
    value = plain(value)
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def markdown_table(table: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    columns = _columns(table)
    lines = [columns, ["---"] * len(columns), *([shown(row.get(name)) for name in columns] for row in table)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _columns(table: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in table for name in row))


def _html_table(table: list[dict[str, Any]]) -> str:
    columns = _columns(table)
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(shown(row.get(name)))}</td>" for name in columns) + "</tr>" for row in table
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _failures(failed: Mapping[str, str]) -> str:
    if not failed:
        return ""
    lines = "".join(f"<tr><td>{escape(name)}</td><td>{escape(reason)}</td></tr>" for name, reason in failed.items())
    return f"<section><h2>Failed: {len(failed)}</h2><table>{lines}</table></section>"


def _item(name: str, row: Row, folder: Path) -> str:
    pictures = "".join(
        f"<figure>{_image(folder / file, f'{title} of {name}', SHOWN)}<figcaption>{escape(title)}</figcaption></figure>"
        for title, file in row.pictures.items()
    )
    methods = list(dict.fromkeys(name.split(": ", 1)[0] for name in row.figures if ": " in name))
    table = [
        {"": method} | {n.split(": ", 1)[1]: v for n, v in row.figures.items() if n.startswith(f"{method}: ")}
        for method in methods
    ]
    single = {k: v for k, v in row.figures.items() if ": " not in k}
    figures = " &middot; ".join(f"{escape(k)} <b>{escape(shown(v))}</b>" for k, v in single.items())
    text = f'<h3>{escape(name)}</h3><p class="figures">{figures}</p>'
    return f'<div class="item">{text}<div class="row">{pictures}</div>{_html_table(table) if table else ""}</div>'


def _image(path: Path, description: str, limit: tuple[int, int]) -> str:
    """The picture in the page, as JPEG where it had to be shrunk; a line of text where it is no picture."""
    try:
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data))
        kind = f"image/{str(image.format).lower()}"
        if kind not in ("image/png", "image/jpeg") or image.width > limit[0] or image.height > limit[1]:
            image = image.convert("RGB")
            image.thumbnail(limit, Image.Resampling.LANCZOS)
            stream = io.BytesIO()
            image.save(stream, format="JPEG", quality=88)
            data, kind = stream.getvalue(), "image/jpeg"
    except (OSError, SyntaxError, ValueError) as error:
        return f"<p>{escape(path.name)} cannot be shown ({type(error).__name__})</p>"
    return f'<img alt="{escape(description)}" src="data:{kind};base64,{base64.b64encode(data).decode("ascii")}">'
