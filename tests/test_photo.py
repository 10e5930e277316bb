import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from ganfit_jax.errors import InputError
from ganfit_jax.photo import photo_size, read_photo


def pattern(height=48, width=64):
    """Smooth, and different in every direction and channel."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x / width, y / height, 0.5 + 0.3 * np.sin(x / 9) * np.cos(y / 7)], axis=-1)


def as_image(pixels):
    return Image.fromarray(np.round(pixels * 255).astype(np.uint8))


def png16(path, pixels):
    """A 16-bit PNG of grey [h, w] or RGB [h, w, 3], written by hand: Pillow writes none with colours."""
    height, width = pixels.shape[:2]
    samples = np.round(pixels * 65535).astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in samples)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def check(pixels, expected, tolerance):
    assert pixels.dtype == np.float32
    assert pixels.shape == expected.shape
    assert pixels.min() >= 0 and pixels.max() <= 1
    assert np.abs(pixels - expected).max() <= tolerance


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "jpg", "gif"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    as_image(pattern()).save(path, **({"quality": 95} if suffix in ("webp", "jpg") else {}))
    pixels = read_photo(path)
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels - pattern()).mean() < (0.06 if suffix == "gif" else 0.02)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation(tmp_path, orientation, suffix):
    """The file holds what the camera stored; the inverse of the EXIF operation on the upright photo."""
    upright = pattern()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, 3),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    as_image(stored).save(path, exif=exif, **({"quality": 97, "subsampling": 0} if suffix == "jpg" else {}))
    check(read_photo(path), upright, 0.05 if suffix == "jpg" else 0.003)
    assert photo_size(path) == (64, 48)


def test_broken_exif_is_ignored(tmp_path):
    path = tmp_path / "a.jpg"
    as_image(pattern()).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff junk")
    assert read_photo(path).shape == (48, 64, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_grey(tmp_path, suffix):
    grey = pattern()[..., 0]
    path = tmp_path / f"a.{suffix}"
    as_image(grey).save(path)
    check(read_photo(path), np.repeat(grey[..., None], 3, -1), 0.03)


def test_16_bit(tmp_path):
    path = tmp_path / "a.png"
    png16(path, pattern())
    check(read_photo(path), pattern(), 0.005)
    png16(path, pattern()[..., 2])
    check(read_photo(path), np.repeat(pattern()[..., 2:], 3, -1), 1e-4)


def test_float_tiff(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(pattern()[..., 2]).save(path)
    check(read_photo(path), np.repeat(pattern()[..., 2:], 3, -1), 1e-6)


def test_transparent_pixels_lie_over_grey(tmp_path):
    alpha = np.zeros((48, 64, 1), np.float32)
    alpha[:, 32:] = 1
    alpha[:16] = 0.5
    path = tmp_path / "a.png"
    as_image(np.concatenate([pattern(), alpha], -1)).save(path)
    check(read_photo(path), alpha * pattern() + (1 - alpha) * 0.5, 0.01)


def test_grey_with_alpha(tmp_path):
    path = tmp_path / "a.png"
    Image.merge("LA", [as_image(pattern()[..., 0]), Image.new("L", (64, 48), 0)]).save(path)
    check(read_photo(path), np.full((48, 64, 3), 128 / 255, np.float32), 1e-6)


def test_palette(tmp_path):
    path = tmp_path / "a.png"
    paletted = as_image(pattern()).quantize(256)
    paletted.save(path)
    check(read_photo(path), np.asarray(paletted.convert("RGB"), np.float32) / 255, 1e-6)
    paletted.save(path, transparency=paletted.getpixel((0, 0)))
    assert np.abs(read_photo(path)[0, 0] - 128 / 255).max() < 1e-6


def test_one_bit(tmp_path):
    path = tmp_path / "a.png"
    as_image(pattern()[..., 0]).convert("1").save(path)
    assert set(np.unique(read_photo(path))) == {0.0, 1.0}


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    as_image(pattern()).convert("CMYK").save(path, quality=97, subsampling=0)
    check(read_photo(path), pattern(), 0.06)


def test_colour_profile(tmp_path):
    """The same bytes in another colour space are other colours; a broken profile is ignored."""
    path = tmp_path / "a.png"
    as_image(pattern()).save(path, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    check(read_photo(path), pattern(), 0.01)
    as_image(pattern()).save(path, icc_profile=b"not a profile")
    check(read_photo(path), pattern(), 0.003)


def test_animation_gives_the_first_frame(tmp_path):
    path = tmp_path / "a.gif"
    red, blue = (Image.new("RGB", (64, 48), colour) for colour in ("red", "blue"))
    red.save(path, save_all=True, append_images=[blue])
    check(read_photo(path), np.broadcast_to(np.float32([1, 0, 0]), (48, 64, 3)), 0.01)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_large_photos_are_scaled(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    as_image(pattern()).resize((2000, 1500), Image.Resampling.BICUBIC).save(path)
    pixels = read_photo(path, longest=64)
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels - pattern()).max() < 0.05
    assert max(read_photo(path).shape) == 1600
    assert photo_size(path) == (2000, 1500)


def test_large_deep_photos_are_scaled(tmp_path):
    path = tmp_path / "a.png"
    png16(path, np.kron(pattern()[..., 0], np.ones((8, 8))))
    assert np.abs(read_photo(path, longest=64)[..., 0] - pattern()[..., 0]).max() < 0.02


def test_beyond_the_limit_of_pixels(tmp_path, monkeypatch):
    """A JPEG is scaled while it is decoded; anything else would have to be decoded whole."""
    image = as_image(pattern()).resize((1600, 1200), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.jpg")
    image.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    assert read_photo(tmp_path / "a.jpg", longest=64).shape == (48, 64, 3)
    refused(tmp_path / "a.png", "too many pixels")
    monkeypatch.setattr("ganfit_jax.photo.LARGEST_JPEG", 100_000)
    refused(tmp_path / "a.jpg", "too many pixels")


def refused(path, found):
    with pytest.raises(InputError) as caught:
        read_photo(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert found in message
    assert "expected" in message
    assert "\n" not in message


def test_bad_files_give_one_clear_line(tmp_path):
    good = tmp_path / "good.jpg"
    as_image(pattern(400, 400)).save(good)
    whole = good.read_bytes()
    cases = {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"this is not a photo\n" * 9, "is text"),
        "noise.png": (bytes([0, 255, 127, 3]) * 50, "not an image"),
        "cut.jpg": (whole[: len(whole) // 2], "broken"),
        "head.png": (b"\x89PNG\r\n\x1a\n", "not an image"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(60), "HEIC"),
    }
    for name, (content, found) in cases.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, found)
    refused(tmp_path / "nothing.png", "not found")
    refused(tmp_path, "folder")


def test_truncated_png(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:20000])
    refused(path, "broken")


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (31, 64)])
def test_too_small(tmp_path, size):
    path = tmp_path / "a.png"
    Image.new("RGB", size).save(path)
    refused(path, f"{size[0]} x {size[1]}")
