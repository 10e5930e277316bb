"""Pictures for people: PNG files, comparison strips, contact sheets, plots of the losses.

Images are RGB [h, w, 3] in [0, 1] as floats, or uint8; grey images [h, w] are taken too.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from ganfit_jax.files import write_bytes

AnyArray = Array | np.ndarray
AnyImage = Shaped[AnyArray, "_ _ 3"] | Shaped[AnyArray, "_ _"]
GAP = 4  # pixels between the pictures of a strip


def to_uint8(image: AnyImage) -> UInt8[np.ndarray, "_ _ 3"]:
    """RGB bytes of an image; values outside [0, 1] are clipped, non-finite ones become black."""
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"an image of shape {array.shape}, expected [h, w, 3] or [h, w]")
    if array.dtype == np.uint8:
        return array
    array = np.nan_to_num(array.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.round(np.clip(array, 0.0, 1.0) * 255.0).astype(np.uint8)


def png_bytes(image: AnyImage) -> bytes:
    """The image as a PNG file in memory."""
    stream = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def save_png(path: str | Path, image: AnyImage) -> None:
    """Writes an image as PNG."""
    write_bytes(path, png_bytes(image))


def resize(image: AnyImage, height: int, width: int) -> Float[np.ndarray, "{height} {width} 3"]:
    """Resamples (Lanczos) to the given size in pixels."""
    pixels = to_uint8(image)
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    return pixels.astype(np.float32) / 255.0


def strip(images: Sequence[AnyImage], height: int, gap: int = GAP) -> Float[np.ndarray, "{height} _ 3"]:
    """Images side by side at one height, white between them."""
    columns = []
    for image in images:
        rows, width = np.shape(image)[:2]
        columns += [resize(image, height, max(1, round(width * height / rows))), np.ones((height, gap, 3), np.float32)]
    return np.concatenate(columns[:-1], axis=1)


def comparison(
    photo: AnyImage, composite: AnyImage, geometry: AnyImage, albedo: AnyImage
) -> Float[np.ndarray, "_ _ 3"]:
    """The strip photo | render over photo | geometry | albedo, as high as the photo."""
    return strip([photo, composite, geometry, albedo], height=np.shape(photo)[0])


def contact_sheet(images: Sequence[AnyImage], columns: int, gap: int = GAP) -> Float[np.ndarray, "_ _ 3"]:
    """Images in rows of `columns`, each fitted into a cell of the first image's size; white fills what is left."""
    if not images or columns < 1:
        raise ValueError(f"{len(images)} images in {columns} columns make no sheet")
    height, width = np.shape(images[0])[:2]
    rows = -(-len(images) // columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), np.float32)
    for index, image in enumerate(images):
        scale = min(height / np.shape(image)[0], width / np.shape(image)[1])
        picture = resize(image, *(max(1, round(side * scale)) for side in np.shape(image)[:2]))
        top = index // columns * (height + gap) + (height - picture.shape[0]) // 2
        left = index % columns * (width + gap) + (width - picture.shape[1]) // 2
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def labelled_sheet(
    grid: Sequence[Sequence[Path]], titles: Sequence[str], names: Sequence[str], side: int = 160
) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures in rows and columns, squares of `side` pixels; titles above, names on the left; white for no file."""
    font, gap = ImageFont.load_default(max(10, side // 12)), 4
    left, top = side // 2, side // 3
    sheet = Image.new("RGB", (left + len(titles) * (side + gap), top + len(grid) * (side + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        place = (left + column * (side + gap) + side // 2, top - gap)
        pen.multiline_text(place, "\n".join(textwrap.wrap(title, 16)), "black", font, anchor="md", align="center")
    for row, (name, files) in enumerate(zip(names, grid, strict=True)):
        y = top + row * (side + gap)
        pen.multiline_text((gap, y + side // 2), "\n".join(textwrap.wrap(name, 9)), "black", font, anchor="lm")
        for column, file in enumerate(files):
            try:
                with Image.open(file) as picture:
                    small = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
                sheet.paste(small, (left + column * (side + gap), y))
            except OSError:  # gone or broken
                continue
    return np.asarray(sheet)


def losses_plot(
    trace: Mapping[str, Float[AnyArray, "steps"]], path: str | Path, stages: Sequence[tuple[str, int]] = ()
) -> None:
    """Writes a PNG with one panel for each term of a fit, against the step.

    Args:
      trace: values of every term, one per step; NaN or 0 while a term is off.
      path: the PNG file.
      stages: names and numbers of steps of the stages, whose borders are marked.

    A panel has a logarithmic axis where all its values are positive and span more than a factor of three.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    terms = {name: np.asarray(values, np.float64) for name, values in trace.items()}
    columns = min(3, max(1, len(terms)))
    rows = max(1, -(-len(terms) // columns))
    figure = Figure(figsize=(4.2 * columns, 2.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    ends = np.cumsum([steps for _, steps in stages])
    for index, (name, values) in enumerate(terms.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        shown = np.where(np.isfinite(values) & (values != 0), values, np.nan)
        axes.plot(np.arange(len(shown)), shown, color="#2b6cb0", linewidth=1.2)
        seen = shown[np.isfinite(shown)]
        if len(seen) and seen.min() > 0 and seen.max() > 3 * seen.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(0, max(1, len(shown)))
        for (stage, steps), end in zip(stages, ends, strict=True):
            axes.axvline(end, color="#999999", linewidth=0.8, linestyle=":")
            axes.text(end - steps, 1.0, f" {stage}", transform=axes.get_xaxis_transform(), fontsize=7, va="top")
        axes.set_title(name, fontsize=10)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        if index >= len(terms) - columns:
            axes.set_xlabel("step", fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=100, format="png")
    write_bytes(path, stream.getvalue())
