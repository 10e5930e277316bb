"""Loads the built-in models, or other models in the same format: flat ``.npz`` files, never pickles.

A shape model holds the arrays of `types.ShapeModel` under their names (``regions.face`` and so on for the masks), any
float or integer type, plus ``name``, ``licence`` and ``expressions`` (names, one per expression component; may be
empty). The optional keys ``smooth_basis`` [m, v] and ``smooth_scale`` [m, 3] append 3 m identity components to
``identity_basis``: each smooth function moves the vertices along x, then y, then z, by its scale for that axis. The
optional keys ``identity_mean`` [v, 3] and ``identity_root`` [k, n_s] hold statistics learnt elsewhere: the first takes
the place of ``mean``, and coefficients of the k components so far are ``identity_root @ p_s``.

A texture model holds ``mean`` [s, s, 3] (floats in [0, 1], or uint8), ``name``, ``licence`` and either ``basis``
[n, s, s, 3] or, smaller, its luma and colour differences (red - luma, blue - luma) at half the resolution:
``luma`` [n, s, s] and ``chroma`` [n, h, h, 2], times ``luma_scale`` [n] and ``chroma_scale`` [n]; ``corpus`` writes it.

A texture generator holds ``widths`` (channels of the levels 4, 8, ...), ``latent_mean`` [d], ``latent_basis`` [n, d],
``name``, ``licence`` and the generator's weights as ``generator.`` + dotted path; of a linear path, the basis may be
stored small, as above (``generator.linear.luma`` and so on); ``generator.taught`` [s, s, 1] may be missing and is 1
then. ``texture_export`` writes it.
"""

import hashlib
import os
import zipfile
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ganfit_jax import raster
from ganfit_jax.errors import InputError
from ganfit_jax.generator import Generator
from ganfit_jax.recognition.load import fill
from ganfit_jax.types import GanTexture, GeneratorSpec, LinearTexture, ModelInfo, Regions, ShapeModel

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue in the luma of an sRGB colour
_FOLDER = Path(__file__).parent
_SHAPE = {
    "mean": ("v", 3),
    "identity_basis": ("n_s", "v", 3),
    "expression_basis": ("n_e", "v", 3),
    "faces": ("f", 3),
    "uv": ("t", 2),
    "uv_faces": ("f", 3),
    "landmark_faces": (68,),
    "landmark_barycentric": (68, 3),
    "contour_faces": (17, "c"),
    "contour_barycentric": (17, "c", 3),
    **{f"regions.{k}": ("v",) for k in Regions._fields},
}
_INDICES = {"faces": "v", "uv_faces": "t", "landmark_faces": "f", "contour_faces": "f"}
_TEXTURE = {"mean": ("s", "s", 3), "basis": ("n_t", "s", "s", 3)}
_SMALL_BASIS = {
    "luma": ("n_t", "s", "s"),
    "chroma": ("n_t", "h", "h", 2),
    "luma_scale": ("n_t",),
    "chroma_scale": ("n_t",),
}
_SMALL_TEXTURE = {"mean": ("s", "s", 3)} | _SMALL_BASIS


def load_shape(name_or_path: str | os.PathLike[str] = "face") -> tuple[ShapeModel, ModelInfo]:
    """Load a shape model: a built-in name or the path of an npz. Raises FileNotFoundError, ValueError."""
    path, arrays, info = _read(name_or_path)
    sizes = _check(path, arrays, _SHAPE)
    for key, limit in _INDICES.items():
        if not np.issubdtype(arrays[key].dtype, np.integer):
            raise InputError(f"{path}: key '{key}': expected integers, found {arrays[key].dtype}")
        if arrays[key].min() < 0 or arrays[key].max() >= sizes[limit]:
            found = f"{arrays[key].min()}..{arrays[key].max()}"
            raise InputError(f"{path}: key '{key}': expected indices in 0..{sizes[limit] - 1}, found {found}")
    if info.expressions and len(info.expressions) != sizes["n_e"]:
        raise InputError(f"{path}: key 'expressions': expected {sizes['n_e']} names, found {len(info.expressions)}")
    if "smooth_basis" in arrays:
        _check(path, arrays, {"smooth_basis": ("m", "v"), "smooth_scale": ("m", 3)}, sizes)
    basis = stored_basis(arrays)
    if {"identity_root", "identity_mean"} & arrays.keys():
        learnt = {"identity_root": ("k", "n_s"), "identity_mean": ("v", 3)}
        _check(path, arrays, learnt, {"k": len(basis), "v": sizes["v"]})
        basis = np.tensordot(arrays["identity_root"].astype(np.float32).T, basis, 1)
        arrays["mean"] = arrays["identity_mean"]
    arrays["identity_basis"] = basis
    kinds = {key: jnp.int32 if key in _INDICES else jnp.float32 for key in _SHAPE}
    fields = {key: jnp.asarray(arrays[key], kinds[key]) for key in _SHAPE if "." not in key}
    regions = Regions(*(jnp.asarray(arrays[f"regions.{k}"], jnp.float32) for k in Regions._fields))
    return ShapeModel(**fields, regions=regions, neighbours=raster.neighbours(fields["faces"])), info


def stored_basis(arrays: dict[str, np.ndarray], dtype: type = np.float32) -> Float[np.ndarray, "k v 3"]:
    """The identity components of a shape model's file, with those of its smooth functions, before ``identity_root``."""
    basis = arrays["identity_basis"].astype(dtype)
    if "smooth_basis" not in arrays:
        return basis
    smooth, axes = arrays["smooth_basis"].astype(dtype), arrays["smooth_scale"].astype(dtype)[:, :, None]
    moves = np.einsum("mv,mac->mavc", smooth, axes * np.eye(3, dtype=dtype))
    return np.concatenate([basis, moves.reshape(-1, smooth.shape[1], 3)])


def load_texture(name_or_path: str | os.PathLike[str] = "albedo") -> tuple[LinearTexture | GanTexture, ModelInfo]:
    """Load a texture model, linear or a generator: a built-in name or the path of an npz.

    Raises FileNotFoundError, ValueError.
    """
    path, arrays, info = _read(name_or_path)
    if "latent_mean" in arrays:
        return _generator(path, arrays), info
    small = "basis" not in arrays
    _check(path, arrays, _SMALL_TEXTURE if small else _TEXTURE)
    if small and (not (coarse := arrays["chroma"].shape[1]) or arrays["luma"].shape[1] % coarse):
        fine = arrays["luma"].shape[1]
        raise InputError(f"{path}: key 'chroma': expected a side that divides {fine}, found {coarse}")
    mean = arrays["mean"].astype(np.float32) / np.float32(255 if arrays["mean"].dtype == np.uint8 else 1)
    basis = _colours(arrays) if small else jnp.asarray(arrays["basis"], jnp.float32)
    return LinearTexture(jnp.asarray(mean), basis), info


def _generator(path: Path, arrays: dict[str, np.ndarray]) -> GanTexture:
    sizes = _check(path, arrays, {"latent_mean": ("d",), "latent_basis": ("n_t", "d"), "widths": ("l",)})
    found = arrays["widths"]
    if not np.issubdtype(found.dtype, np.integer) or not found.size or found.min() < 1:
        raise InputError(f"{path}: key 'widths': expected positive integers, one a level, found {found.tolist()}")
    widths = tuple(int(x) for x in found)
    tensors = {k.removeprefix("generator."): x for k, x in arrays.items() if k.startswith("generator.")}
    linear = 0
    if "linear.mean" in tensors:
        linear = _check(path, arrays, {"generator.linear.mean": ("s", "s", 3)})["s"]
        tensors.setdefault("taught", np.ones((linear, linear, 1), np.float16))
        if "linear.luma" in tensors:
            known = {"s": linear, "n_t": sizes["d"], "h": linear // 2}
            _check(path, arrays, {f"generator.linear.{key}": shape for key, shape in _SMALL_BASIS.items()}, known)
            tensors["linear.basis"] = np.asarray(_colours({key: tensors.pop(f"linear.{key}") for key in _SMALL_BASIS}))
    graph, weights = fill(lambda: Generator(sizes["d"], widths, nnx.Rngs(0), linear=linear), tensors, str(path))
    mean, basis = (jnp.asarray(arrays[f"latent_{key}"], jnp.float32) for key in ("mean", "basis"))
    return GanTexture(weights, mean, basis, GeneratorSpec(4 << (len(widths) - 1), graph))


def _colours(arrays: dict[str, np.ndarray]) -> Float[Array, "n_t s s 3"]:
    """Luma and colour differences back to red, green, blue: luma = LUMA . rgb."""
    luma = jnp.asarray(arrays["luma"] * arrays["luma_scale"].astype(np.float32)[:, None, None])
    chroma = jnp.asarray(arrays["chroma"] * arrays["chroma_scale"].astype(np.float32)[:, None, None, None])
    times = luma.shape[1] // chroma.shape[1]
    chroma = jnp.repeat(jnp.repeat(chroma, times, axis=1), times, axis=2)
    red, blue = luma + chroma[..., 0], luma + chroma[..., 1]
    green = luma - (LUMA[0] * chroma[..., 0] + LUMA[2] * chroma[..., 1]) / LUMA[1]
    return jnp.stack([red, green, blue], axis=-1)


def _read(name_or_path: str | os.PathLike[str]) -> tuple[Path, dict[str, np.ndarray], ModelInfo]:
    path = Path(name_or_path)
    if path.suffix == "" and path.name == os.fspath(name_or_path):
        path = _FOLDER / f"{path.name}.npz"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.npz")))
        raise FileNotFoundError(f"{path}: no such model; expected the path of an npz or one of: {known}")
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
    except (ValueError, TypeError, OSError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: expected an npz of plain arrays, found something else ({error})") from None
    for key in ("name", "licence"):
        if key not in arrays or arrays[key].size != 1:
            raise InputError(f"{path}: key '{key}': expected a string, found no such key")
    expressions = tuple(str(x) for x in arrays.get("expressions", np.zeros(0, "U1")))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return (
        path,
        arrays,
        ModelInfo(str(arrays["name"].item()), str(path), digest, expressions, str(arrays["licence"].item())),
    )


def _check(
    path: Path,
    arrays: dict[str, np.ndarray],
    shapes: dict[str, tuple[int | str, ...]],
    known: dict[str, int] | None = None,
) -> dict[str, int]:
    """Compare shapes; a letter stands for the same size everywhere. Returns the sizes."""
    sizes = dict(known or {})
    for key, shape in shapes.items():
        wanted = "[" + ", ".join(str(sizes.get(s, s)) if isinstance(s, str) else str(s) for s in shape) + "]"
        if key not in arrays:
            raise InputError(f"{path}: key '{key}': expected an array {wanted}, found no such key")
        found = arrays[key].shape
        fits = len(found) == len(shape)
        for size, name in zip(found, shape, strict=False):
            fits = fits and size == (sizes.setdefault(name, size) if isinstance(name, str) else name)
        if not fits:
            raise InputError(f"{path}: key '{key}': expected {wanted}, found {list(found)}")
        if not (np.issubdtype(arrays[key].dtype, np.number)):
            raise InputError(f"{path}: key '{key}': expected numbers, found {arrays[key].dtype}")
        if np.issubdtype(arrays[key].dtype, np.floating) and not np.isfinite(arrays[key]).all():
            raise InputError(f"{path}: key '{key}': expected finite numbers, found NaN or infinity")
    return sizes
