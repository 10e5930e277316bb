"""What people use of a fit: a GLB with expression morph targets, an OBJ, and an npz of every parameter.

Inputs are in the library's units (millimetres, albedo sRGB in [0, 1], UV origin at the top left). Both meshes are
written in metres with +y up and the face looking along +z.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ganfit_jax.errors import InputError
from ganfit_jax.files import write_arrays, write_bytes
from ganfit_jax.gltf import METRES, AnyArray, glb_bytes, vertex_normals
from ganfit_jax.picture import png_bytes
from ganfit_jax.types import Camera, Identity, Light, ModelInfo, Params, ShapeModel, View

FIT_FORMAT = "ganfit-jax fit 1"


class StoredFit(NamedTuple):
    """What `save_fit` wrote."""

    params: Params
    infos: dict[str, ModelInfo]
    config: dict[str, Any]
    extra: dict[str, np.ndarray]


def write_glb(
    path: str | Path,
    shape_model: ShapeModel,
    neutral: Float[AnyArray, "v 3"],
    expression: Float[AnyArray, "n_e"],
    albedo: Float[AnyArray, "s s 3"],
    expression_names: Sequence[str],
) -> None:
    """Writes `gltf.glb_bytes`: the neutral face (mm) with the fitted expression as default morph weights."""
    write_bytes(path, glb_bytes(shape_model, neutral, expression, albedo, expression_names))


def write_obj(
    folder: str | Path,
    shape_model: ShapeModel,
    neutral: Float[AnyArray, "v 3"],
    expression: Float[AnyArray, "n_e"],
    albedo: Float[AnyArray, "s s 3"],
) -> None:
    """Writes mesh.obj (metres, expression applied), mesh.mtl and albedo.png into an existing folder.

    OBJ counts from 1 and has the origin of its texture coordinates at the bottom left.
    """
    folder = Path(folder)
    offsets = np.asarray(shape_model.expression_basis, np.float32)
    vertices = np.asarray(neutral, np.float32) + np.tensordot(np.asarray(expression, np.float32), offsets, 1)
    faces, uv = np.asarray(shape_model.faces), np.asarray(shape_model.uv)
    corners = np.stack([faces, np.asarray(shape_model.uv_faces), faces], axis=-1).reshape(-1, 9) + 1
    lines = ["# ganfit-jax: metres, +y up, the face looks along +z", "mtllib mesh.mtl", "o face"]
    lines += ["v {:.6f} {:.6f} {:.6f}".format(*row) for row in (vertices * METRES).tolist()]
    lines += [f"vt {u:.6f} {1.0 - v:.6f}" for u, v in uv.tolist()]
    lines += ["vn {:.4f} {:.4f} {:.4f}".format(*row) for row in vertex_normals(vertices, faces).tolist()]
    lines += ["usemtl skin"]
    lines += ["f {}/{}/{} {}/{}/{} {}/{}/{}".format(*row) for row in corners.tolist()]
    material = "newmtl skin\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd albedo.png\n"
    write_bytes(folder / "albedo.png", png_bytes(albedo))
    write_bytes(folder / "mesh.mtl", material.encode())
    write_bytes(folder / "mesh.obj", ("\n".join(lines) + "\n").encode())


def _leaves(params: Params) -> dict[str, Any]:
    camera, light = params.views.camera, params.views.light
    return {
        **{f"identity.{name}": value for name, value in params.identity._asdict().items()},
        "views.expression": params.views.expression,
        **{f"views.camera.{name}": value for name, value in camera._asdict().items()},
        **{f"views.light.{name}": value for name, value in light._asdict().items()},
    }


def save_fit(
    path: str | Path,
    params: Params,
    infos: Mapping[str, ModelInfo],
    config: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes every parameter, the models' names and hashes, and the configuration as one flat npz without pickles.

    Args:
      path: the file.
      params: the parameters; the views carry a leading photo axis.
      infos: role of a model ("shape", "texture", ...) -> where it came from.
      config: settings, anything that JSON can hold (other objects are kept as text).
      extra: more arrays or texts by name, for example the photos' names and `photo_from_window`.
    """
    arrays = {f"params.{name}": np.asarray(value, np.float32) for name, value in _leaves(params).items()}
    arrays |= {f"extra.{name}": np.asarray(value) for name, value in (extra or {}).items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"{name} is not an array of numbers or text")
    arrays["format"] = np.asarray(FIT_FORMAT)
    arrays["models"] = np.asarray(json.dumps({role: info._asdict() for role, info in infos.items()}))
    arrays["config"] = np.asarray(json.dumps(dict(config), default=str))
    write_arrays(path, arrays)


def hashes(infos: Mapping[str, ModelInfo]) -> dict[str, str]:
    """Role of a model -> the hash of its file: figures of other models do not count."""
    return {role: info.sha256 for role, info in infos.items()}


def load_fit(path: str | Path) -> StoredFit:
    """Reads what `save_fit` wrote. Raises `InputError` with one line for anything else."""
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            data = dict(loaded) if isinstance(loaded, Mapping) else {}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not the npz file of a fit ({type(error).__name__})") from None
    if str(data.get("format")) != FIT_FORMAT:
        found = f"format '{data['format']}'" if "format" in data else f"arrays {sorted(data)[:5]}"
        raise InputError(f"{path}: found {found}, expected an npz with format '{FIT_FORMAT}'")
    try:
        leaves = {name.removeprefix("params."): jnp.asarray(data[name]) for name in data if name.startswith("params.")}
        identity = Identity(*(leaves[f"identity.{name}"] for name in Identity._fields))
        camera = Camera(*(leaves[f"views.camera.{name}"] for name in Camera._fields))
        light = Light(*(leaves[f"views.light.{name}"] for name in Light._fields))
        params = Params(identity, View(leaves["views.expression"], camera, light))
        models = json.loads(str(data["models"]))
        config = json.loads(str(data["config"]))
        infos = {
            role: ModelInfo(**{**info, "expressions": tuple(info["expressions"])}) for role, info in models.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the fit is incomplete ({error})") from None
    extra = {name.removeprefix("extra."): array for name, array in data.items() if name.startswith("extra.")}
    return StoredFit(params, infos, config, extra)
