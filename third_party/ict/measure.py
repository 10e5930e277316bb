"""Gives the built-in face model the statistics of measured heads: ICT-FaceKit (MIT), 100 modes of light stage scans.

    git clone https://github.com/ICT-VGL/ICT-FaceKit && git -C ICT-FaceKit checkout da5f95a
    python third_party/ict/measure.py --ict=ICT-FaceKit/FaceXModel [--face=face.npz] [--output=face.npz]

Half a minute. Adds to the face model `identity_mean` [v, 3], the mean of these heads, and `identity_root` [n_s, n_s]:
its own components keep spanning the shapes, and with p ~ N(0, 1) the coefficients identity_root @ p vary as these do.
Running it on its own result gives the same result. ``ganfit_jax.assets.load_shape`` applies both.
"""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from ganfit_jax import assets
from ganfit_jax.metrics import Surface, vertex_areas

HERE = Path(__file__).parent
sys.path[:0] = [os.fspath(HERE), os.fspath(HERE.parent / "makehuman")]

import nearest  # noqa: E402
from heads import Heads, read_heads  # noqa: E402
from people import FLIP, fix_signs  # noqa: E402

FACE = os.fspath(HERE.parents[1] / "ganfit_jax/assets/face.npz")
POINTS = 1500.0  # as many independent points as the surface is taken for, each exact to a millimetre
AROUND = 0.1  # weight of skull and neck beside the face
REACH, RIM, AGREE, ALONG = 12.0, 3.0, 0.6, 0.15  # mm, mm, cosine of normals, weight of sliding along the surface
ROUNDS, ARM = 14, 60.0  # of the registration; mm: a rotation is measured by what it moves at this distance
SHRINKAGE = 0.5


class Ours(NamedTuple):
    """The face model without measured statistics, as arrays in double precision."""

    mean: np.ndarray  # [v, 3]
    basis: np.ndarray  # [n_s, v, 3]
    faces: np.ndarray
    mirror: np.ndarray  # [v]: id of the mirror image
    eyes: np.ndarray  # [v]: bool
    weight: np.ndarray  # [v]: area, less around the face, none in eyes, mouth and ears
    corners: np.ndarray  # [68, 3]: vertices around the landmarks
    barycentric: np.ndarray

    def marks(self, vertices: np.ndarray) -> np.ndarray:
        """The 51 inner landmarks [..., 51, 3]."""
        return np.einsum("kc,...kcd->...kd", self.barycentric, vertices[..., self.corners, :])[..., 17:, :]


def read_ours(arrays: dict[str, np.ndarray]) -> Ours:
    basis = assets.stored_basis(arrays, np.float64)
    mean, faces = arrays["mean"].astype(float), arrays["faces"].astype(int)
    eyes, mouth, face = (arrays[f"regions.{key}"].astype(float) for key in ("eyes", "mouth", "face"))
    apart = np.c_[mean, 100.0 * eyes, 100.0 * mouth]
    mirror = np.asarray(KDTree(apart).query(apart * [-1, 1, 1, 1, 1])[1])
    shown = (eyes + mouth == 0) * (arrays["regions.ears"] < 0.5)
    weight = vertex_areas(Surface(mean, faces)) * (AROUND + (1.0 - AROUND) * face) * shown
    corners = faces[arrays["landmark_faces"].astype(int)]
    return Ours(mean, basis, faces, mirror, eyes > 0, weight, corners, arrays["landmark_barycentric"].astype(float))


def normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`morphable.normals` in double precision."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    total = np.zeros_like(vertices)
    np.add.at(total, faces, np.cross(b - a, c - a)[:, None])
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


class Match(NamedTuple):
    """Where our vertices lie on a surface: triangles [v], barycentrics [v, 3], and which of them count [v]."""

    triangles: np.ndarray
    barycentric: np.ndarray
    counts: np.ndarray

    def carry(self, faces: np.ndarray, field: np.ndarray) -> np.ndarray:
        """A field [..., u, 3] over the surface's vertices, at ours."""
        return np.einsum("vc,...vcd->...vd", self.barycentric, field[..., faces[self.triangles], :])


def match(vertices: np.ndarray, ours: Ours, surface: np.ndarray, faces: np.ndarray) -> Match:
    """Closest points of our `vertices` [v, 3] on a `surface` [u, 3] of triangles `faces` [f, 3].

    Left out are those where the two are far apart, look elsewhere, or end.
    """
    import trimesh

    points, triangles = nearest.closest(surface[faces], vertices)
    apart = np.linalg.norm(points - vertices, axis=1)
    barycentric = trimesh.triangles.points_to_barycentric(surface[faces[triangles]], points)
    found = Match(triangles, barycentric, np.zeros(len(vertices), bool))
    edges, count = np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1), axis=0, return_counts=True)
    rim = KDTree(surface[np.unique(edges[count == 1])])
    agree = (found.carry(faces, normals(surface, faces)) * normals(vertices, ours.faces)).sum(1) > AGREE
    counts = agree & (apart < REACH) & (np.asarray(rim.query(points)[0]) > RIM) & (ours.weight > 0)
    return found._replace(counts=counts & counts[ours.mirror])


def rigid(points: np.ndarray) -> np.ndarray:
    """What small motions do to points [n, 3]: [n, 3, 6], translations, then rotations."""
    axes = np.eye(3)
    turns = np.stack([np.cross(axis, points) / ARM for axis in axes], axis=2)
    return np.concatenate([np.broadcast_to(axes, (len(points), 3, 3)), turns], axis=2)


def solve(ours: Ours, jacobian: np.ndarray, root: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Coefficients and small motions [n_s + 6, k] of k damped least squares.

    jacobian [r, n_s + 6] and wanted [r, k]; `root` [r]: factors before the rows. Coefficients have a standard normal
    prior.
    """
    size = len(ours.basis)
    damping = np.diag(np.r_[np.ones(size), np.full(6, 1e-3)])
    weighted = jacobian * root[:, None]
    return np.linalg.solve(weighted.T @ weighted + damping, weighted.T @ (wanted * root[:, None]))


def design(ours: Ours, ids: np.ndarray, points: np.ndarray) -> np.ndarray:
    """What coefficients and small motions do to our vertices `ids` [n] at `points` [n, 3]: [3 n, n_s + 6]."""
    components = ours.basis[:, ids].reshape(len(ours.basis), -1).T
    return np.concatenate([components, rigid(points).reshape(-1, 6)], axis=1)


def register(ours: Ours, heads: Heads) -> tuple[Heads, Match]:
    """ICT-FaceKit's heads moved to our mean, and where our vertices lie on them.

    Our components are fitted to their mean: landmarks first, then more and more the closest points along the normals
    (non-rigid ICP; the heads take the rigid motion).
    """
    size = len(ours.basis)
    start = heads.mean[heads.landmarks]
    goal = ours.marks(ours.mean)
    turn = Rotation.align_vectors(goal - goal.mean(0), start - start.mean(0))[0]
    heads = moved(heads, turn.as_matrix(), goal.mean(0) - turn.apply(start.mean(0)))
    coefficients = np.zeros(size)
    for step in range(ROUNDS):
        vertices = ours.mean + np.tensordot(coefficients, ours.basis, 1)
        found = match(vertices, ours, heads.mean, heads.faces)
        ids = np.flatnonzero(found.counts)
        normal = found.carry(heads.faces, normals(heads.mean, heads.faces))[ids]
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        # sqrt(P) of the metric P = n n' + ALONG (1 - n n')
        metric = np.sqrt(ALONG) * np.eye(3) + (1 - np.sqrt(ALONG)) * np.einsum("vi,vj->vij", normal, normal)
        aim = found.carry(heads.faces, heads.mean)[ids] - vertices[ids]
        aim += np.tensordot(coefficients, ours.basis[:, ids], 1)
        share = np.sqrt(POINTS * ours.weight[ids] / ours.weight[ids].sum())
        rows = np.einsum("vij,vjk->vik", metric, design(ours, ids, vertices[ids]).reshape(len(ids), 3, -1))
        pull = np.sqrt(0.5 + max(0, 8 - step))
        components, turns = ours.marks(ours.basis).reshape(size, -1).T, rigid(ours.marks(vertices)).reshape(-1, 6)
        marks = np.concatenate([components, turns], axis=1)
        towards = heads.mean[heads.landmarks] - ours.marks(ours.mean)
        jacobian = np.concatenate([rows.reshape(-1, size + 6), marks])
        wanted = np.concatenate([np.einsum("vij,vj->vi", metric, aim).ravel(), towards.ravel()])[:, None]
        root = np.concatenate([np.repeat(share, 3), np.full(len(marks), pull)])
        found_motion = solve(ours, jacobian, root, wanted)[:, 0]
        coefficients, motion = found_motion[:size], found_motion[size:]
        back = Rotation.from_rotvec(-motion[3:] / ARM).as_matrix()
        heads = moved(heads, back, -back @ motion[:3])
    vertices = ours.mean + np.tensordot(coefficients, ours.basis, 1)
    found = match(vertices, ours, heads.mean, heads.faces)
    apart = np.linalg.norm(found.carry(heads.faces, heads.mean) - vertices, axis=1)
    counts = found.counts
    print(f"registered: {100 * counts.mean():.0f} % of the vertices, on average {apart[counts].mean():.2f} mm apart")
    return heads, found


def moved(heads: Heads, turn: np.ndarray, shift: np.ndarray) -> Heads:
    return heads._replace(mean=heads.mean @ turn.T + shift, modes=heads.modes @ turn.T)


def statistics(ours: Ours, heads: Heads, found: Match) -> tuple[np.ndarray, np.ndarray]:
    """`identity_mean` [v, 3] and `identity_root` [n_s, n_s].

    Mean and modes of the heads, carried to our vertices, are explained by our components and a small motion. Left and
    right are alike: symmetric and antisymmetric components do not vary together, and the mean is symmetric. There are
    more faces than the heads' modes make: the covariance is shrunk by SHRINKAGE towards the identity, which our
    components have by themselves (Ledoit and Wolf, 2004). What the modes do not show keeps only that share.
    """
    ids, size = np.flatnonzero(found.counts), len(ours.basis)
    modes = found.carry(heads.faces, heads.modes)
    fields = np.concatenate([(found.carry(heads.faces, heads.mean) - ours.mean)[None], modes])[:, ids]
    area = ours.weight[ids] / ours.weight[ids].sum()
    jacobian, wanted = design(ours, ids, ours.mean[ids]), fields.reshape(len(fields), -1).T
    solved = solve(ours, jacobian, np.repeat(np.sqrt(POINTS * area), 3), wanted)
    left = (wanted - jacobian @ solved).T.reshape(fields.shape)
    for name, field in (("modes", fields[1:]), ("not explained by our components", left[1:])):
        print(f"{name}: {np.sqrt((field**2).sum((0, 2)) @ area):.2f} mm (root mean square, the face ten times)")
    symmetric = np.einsum("kvc,kvc->k", ours.basis, ours.basis[:, ours.mirror] * FLIP) > 0
    shift = np.tensordot(np.where(symmetric, solved[:size, 0], 0.0), ours.basis, 1)
    shift = (shift + shift[ours.mirror] * FLIP) / 2.0
    covariance = solved[:size, 1:] @ solved[:size, 1:].T * (symmetric[:, None] == symmetric[None])
    values, vectors = np.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * np.eye(size))
    order = np.argsort(-values)
    vectors = fix_signs(vectors[:, order].T).T
    return ours.mean + shift - shift[ours.eyes].mean(0), vectors * np.sqrt(values[order])


def measured(arrays: dict[str, np.ndarray], heads: Heads) -> dict[str, np.ndarray]:
    """The face model's arrays with the heads' statistics, and the jaw's contour of the new mean."""
    import landmarks

    ours = read_ours(arrays)
    mean, root = statistics(ours, *register(ours, heads))
    skin = arrays["regions.eyes"] + arrays["regions.mouth"] == 0
    usable = skin[ours.faces].all(1) & (arrays["regions.ears"][ours.faces].max(1) < 0.5)
    jaw = np.einsum("kc,kcd->kd", ours.barycentric, mean[ours.corners])[:17]
    contour = landmarks.contour(mean, ours.faces, usable, ours.mirror, jaw)
    licence = "CC0-1.0 (MakeHuman base mesh and targets; face units by Mika Suominen); MIT (statistics: ICT-FaceKit)"
    return arrays | {
        "licence": np.array(licence),
        "identity_mean": mean.astype(np.float32),
        "identity_root": root.astype(np.float32),
        "contour_faces": contour[0].astype(np.uint16),
        "contour_barycentric": contour[1].astype(np.float32),
    }


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}")
    import packed

    face, output = flags.FLAGS.face, flags.FLAGS.output
    try:
        with np.load(face, allow_pickle=False) as data:
            arrays: dict[str, Any] = {key: data[key] for key in data.files}
        if missing := {"smooth_basis", "smooth_scale"} - arrays.keys():
            raise ValueError(f"{face}: no key {min(missing)}, expected the face model by makehuman/convert.py")
        arrays = measured(arrays, read_heads(Path(flags.FLAGS.ict)))
        digest = packed.save(output, arrays)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(f"{output}: {os.path.getsize(output) / 1e6:.2f} MB, sha256 {digest}")


if __name__ == "__main__":
    flags.DEFINE_string("ict", None, "folder FaceXModel of ICT-FaceKit", required=True)
    flags.DEFINE_string("face", FACE, "face model by makehuman/convert.py")
    flags.DEFINE_string("output", FACE, "file to write")
    app.run(main)
