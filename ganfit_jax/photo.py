"""Image files of every kind -> float32 RGB in [0, 1], upright, of a bounded size."""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin, UnidentifiedImageError

from ganfit_jax.errors import InputError

LONGEST = 1600  # px: longer photos are scaled down; a face needs no more
SHORTEST = 32  # px: nothing can be seen in less
LARGEST_JPEG = 400_000_000  # px: JPEG is scaled while it is decoded, so phones' 200 megapixels are welcome
UNSEEN = 0.5  # what lies behind transparent pixels: grey, so that neither dark hair nor light skin melts into it
PHOTO_KINDS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # what counts as a photo in a folder
EXPECTED = "expected a photo (JPEG, PNG, WebP, TIFF, BMP, GIF)"


def read_photo(path: str | Path, longest: int = LONGEST) -> Float[np.ndarray, "h w 3"]:
    """The photo in a file: float32 sRGB in [0, 1], row 0 at the top.

    EXIF orientation and colour profiles are applied; grey, palette, CMYK and 16-bit files become RGB; transparent
    pixels are laid over mid grey; of an animation the first frame is taken; the longest side is at most ``longest``
    pixels. Raises ``InputError``, in one line, where the file cannot be read as a photo.
    """
    image = _open(path)
    try:
        image.draft(None, (longest, longest))
        image.load()
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ... on broken data
        raise InputError(f"{path}: broken image ({_line(error)}), expected a complete {image.format} file") from None
    pixels = _pixels(_upright(image), longest)
    if not np.isfinite(pixels).all():
        raise InputError(f"{path}: pixels that are not numbers, expected values in [0, 1]")
    return pixels


def photo_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels of the photo in a file as it is seen (upright), before any scaling."""
    image = _open(path)
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def _open(path: str | Path) -> Image.Image:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: not found, {EXPECTED}")
    if not path.is_file():
        raise InputError(f"{path}: is {'a folder' if path.is_dir() else 'not a file'}, {EXPECTED}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), {EXPECTED}") from None
    if not content:
        raise InputError(f"{path}: is empty (0 bytes), {EXPECTED}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on large files and broken EXIF blocks
            image = _open_limited(content)
    except UnidentifiedImageError:
        raise InputError(f"{path}: {_kind(content[:32])}, {EXPECTED}") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels ({_line(error)}), expected fewer; scale it down first") from None
    except Exception as error:
        raise InputError(f"{path}: broken image ({_line(error)}), {EXPECTED}") from None
    if min(image.size) < SHORTEST:
        width, height = image.size
        raise InputError(f"{path}: {width} x {height} pixels, expected at least {SHORTEST} x {SHORTEST}")
    return image


def _open_limited(content: bytes) -> Image.Image:
    """Pillow's limit on pixels holds, except for JPEG, which is decoded at an eighth of its size where it is huge."""
    try:
        return Image.open(io.BytesIO(content))
    except Image.DecompressionBombError:
        try:
            image = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
        except SyntaxError:
            image = None
        if image is None or image.width * image.height > LARGEST_JPEG:
            raise
        return image


def _kind(head: bytes) -> str:
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif"):
        return "is a HEIC image, which is not supported: save it as JPEG or PNG"
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in head) and b"\x7f" not in head:
        return "is text, not an image"
    return f"is not an image (begins with {head[:8].hex(' ')})"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where the file says nothing or its EXIF block is broken."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a broken EXIF block must not cost the photo
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: Image.Image) -> Image.Image:
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = image.info
    return turned


def _pixels(image: Image.Image, longest: int) -> Float[np.ndarray, "h w 3"]:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # one channel deeper than 8 bits
        scale = 1.0 if image.mode == "F" else 65535.0
        grey = Image.fromarray(np.asarray(image, np.float32) / np.float32(scale))
        grey = ImageOps.contain(grey, _bounded(grey, longest), Image.Resampling.BICUBIC)
        return np.repeat(np.clip(np.asarray(grey), 0, 1)[..., None], 3, axis=-1)
    image = _srgb(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        seen = image.convert("RGBA")
        behind = Image.new("RGBA", seen.size, (round(UNSEEN * 255),) * 3 + (255,))
        image = Image.alpha_composite(behind, seen)
    image = image.convert("RGB")
    image = image.resize(_bounded(image, longest), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image, np.float32) / np.float32(255)


def _bounded(image: Image.Image, longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(image.size))
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _srgb(image: Image.Image) -> Image.Image:
    """Colours in sRGB: phones write Display P3, cameras Adobe RGB, printers CMYK."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK", "L", "RGBA"):
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):  # a broken profile must not cost the photo
        return image
    return image if converted is None else converted
