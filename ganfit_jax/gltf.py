"""A binary glTF 2.0 file of a face, written directly: trimesh has no morph targets.

Metres, +y up, the face looks along +z (glTF's convention; the world frame of `types` already is that).
"""

import json
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from ganfit_jax.picture import png_bytes
from ganfit_jax.types import ShapeModel

METRES = np.float32(0.001)  # metres per millimetre
NEGLIGIBLE_OFFSET = 2e-6  # metres; smaller morph offsets are not stored
NEGLIGIBLE_NORMAL = 5e-3  # smaller changes of a unit normal are not stored
COMPONENT_TYPES = {"float32": 5126, "uint32": 5125, "uint16": 5123}
AnyArray = Array | np.ndarray


class SplitMesh(NamedTuple):
    """A mesh with one vertex for every pair of position and texture coordinate in use."""

    vertices: Int[np.ndarray, "n"]  # index into the model's vertices
    uvs: Int[np.ndarray, "n"]  # index into the model's texture coordinates
    faces: Int[np.ndarray, "f 3"]


def split_seams(faces: Int[AnyArray, "f 3"], uv_faces: Int[AnyArray, "f 3"]) -> SplitMesh:
    """Duplicates vertices along UV seams, because a GPU vertex has one texture coordinate."""
    corners = np.stack([np.asarray(faces).ravel(), np.asarray(uv_faces).ravel()], axis=1)
    pairs, inverse = np.unique(corners, axis=0, return_inverse=True)
    return SplitMesh(pairs[:, 0], pairs[:, 1], inverse.reshape(-1, 3))


def vertex_normals(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 3"]:
    """Unit normals: the area-weighted mean over the faces at a vertex; (0, 0, 1) where that vanishes."""
    corners = vertices[faces].astype(np.float64)
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(face_normals[:, i], 3), len(vertices)) for i in range(3)], axis=1
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), [[0.0, 0.0, 1.0]]).astype(np.float32)


def _view(gltf: dict[str, Any], blob: bytearray, data: bytes, target: int | None = None) -> int:
    blob.extend(b"\0" * (-len(blob) % 4))
    view = {"buffer": 0, "byteOffset": len(blob), "byteLength": len(data)}
    gltf["bufferViews"].append(view if target is None else {**view, "target": target})
    blob.extend(data)
    return len(gltf["bufferViews"]) - 1


def _accessor(gltf: dict[str, Any], array: np.ndarray, **source: Any) -> int:
    component = COMPONENT_TYPES[array.dtype.name]
    kind = "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}"
    bounds = {"min": np.atleast_1d(array.min(0)).tolist(), "max": np.atleast_1d(array.max(0)).tolist()}
    gltf["accessors"].append({"componentType": component, "count": len(array), "type": kind, **bounds, **source})
    return len(gltf["accessors"]) - 1


def _dense(gltf: dict[str, Any], blob: bytearray, array: np.ndarray, target: int = 34962) -> int:
    return _accessor(gltf, array, bufferView=_view(gltf, blob, array.tobytes(), target))


def _sparse(gltf: dict[str, Any], blob: bytearray, array: np.ndarray, negligible: float) -> int:
    moved = np.flatnonzero(np.abs(array).max(axis=1) > negligible)
    kept = np.zeros_like(array)
    kept[moved] = array[moved]
    if not len(moved):
        return _accessor(gltf, kept)  # without a buffer view, all zeros
    indices = moved.astype(_index_type(len(array)))
    sparse = {
        "count": len(moved),
        "indices": {
            "bufferView": _view(gltf, blob, indices.tobytes()),
            "componentType": 5123 + 2 * (indices.itemsize > 2),
        },
        "values": {"bufferView": _view(gltf, blob, array[moved].tobytes())},
    }
    return _accessor(gltf, kept, sparse=sparse)


def _index_type(count: int) -> type[np.uint16] | type[np.uint32]:
    return np.uint16 if count < 65536 else np.uint32


def glb_bytes(
    shape_model: ShapeModel,
    neutral: Float[AnyArray, "v 3"],
    expression: Float[AnyArray, "n_e"],
    albedo: Float[AnyArray, "s s 3"],
    expression_names: Sequence[str],
    morph_normals: bool = True,
) -> bytes:
    """A binary glTF 2.0 file: one textured mesh, one morph target per expression, the given weights applied.

    Args:
      shape_model: faces, UV chart and expression basis.
      neutral: vertices of this person without expression, millimetres.
      expression: default weights of the morph targets.
      albedo: sRGB texture in [0, 1].
      expression_names: names of the morph targets (`extras.targetNames`).
      morph_normals: whether the morph targets move the normals too; most viewers do not recompute them.

    Morph offsets are sparse accessors: most expressions move a small part of the face.
    """
    names = list(expression_names)
    if not len(names) == len(expression) == len(shape_model.expression_basis):
        raise ValueError(
            f"{len(names)} names and {len(expression)} weights for {len(shape_model.expression_basis)} expressions"
        )
    faces = np.asarray(shape_model.faces)
    positions = np.asarray(neutral, np.float32) * METRES
    offsets = np.asarray(shape_model.expression_basis, np.float32) * METRES
    normals = vertex_normals(positions, faces)
    mesh = split_seams(faces, np.asarray(shape_model.uv_faces))
    uv = np.asarray(shape_model.uv, np.float32)[mesh.uvs]

    gltf: dict[str, Any] = {"bufferViews": [], "accessors": []}
    blob = bytearray()
    attributes = {
        "POSITION": _dense(gltf, blob, positions[mesh.vertices]),
        "NORMAL": _dense(gltf, blob, normals[mesh.vertices]),
        "TEXCOORD_0": _dense(gltf, blob, uv),
    }
    indices = _dense(gltf, blob, mesh.faces.ravel().astype(_index_type(len(uv))), target=34963)
    targets = []
    for offset in offsets:
        target = {"POSITION": _sparse(gltf, blob, offset[mesh.vertices], NEGLIGIBLE_OFFSET)}
        if morph_normals:
            bend = vertex_normals(positions + offset, faces) - normals
            target["NORMAL"] = _sparse(gltf, blob, bend[mesh.vertices], NEGLIGIBLE_NORMAL)
        targets.append(target)
    image = _view(gltf, blob, png_bytes(albedo))
    gltf |= {
        "asset": {"version": "2.0", "generator": "ganfit-jax"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "face", "mesh": 0}],
        "meshes": [
            {
                "name": "face",
                "primitives": [{"attributes": attributes, "indices": indices, "material": 0, "targets": targets}],
                "weights": np.asarray(expression, np.float64).tolist(),
                "extras": {"targetNames": names},
            }
        ],
        "materials": [
            {
                "name": "skin",
                "doubleSided": True,
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.65,
                },
            }
        ],
        "textures": [{"sampler": 0, "source": 0}],
        "images": [{"name": "albedo", "mimeType": "image/png", "bufferView": image}],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
    }
    blob.extend(b"\0" * (-len(blob) % 4))
    gltf["buffers"] = [{"byteLength": len(blob)}]
    text = json.dumps(gltf, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    header = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(blob))
    return header + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + blob
