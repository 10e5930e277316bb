"""Measures how well the built-in model's identity components explain a head scan.

    python third_party/makehuman/scan_fit.py --scan=LeePerrySmith.obj [--model=face.npz]

Prints the mean distance of the scan's points to the fitted surface (mm; within 75 mm of the nose tip, eyelids left
out, similarity alignment, coefficients within 3 standard deviations) and the spread of the coefficients.
"""

import nearest
from absl import app, flags

SCAN = flags.DEFINE_string("scan", None, "OBJ or PLY of a head, y up, face towards +z, nose foremost", required=True)
UNIT = flags.DEFINE_float("unit", 50.0, "millimetres in a unit of the scan, to 10 percent")
MODEL = flags.DEFINE_string("model", "face", "shape model: a built-in name or an npz")
RADIUS, EYELIDS, LIMIT = 75.0, 19.0, 3.0  # mm, mm, standard deviations
STIFFNESS = 5.0  # weight of the squared coefficients against the squared distances in mm
SLIDE = 0.2  # weight of the distance to the closest vertex against the distance to its plane
ROUNDS = 40


def seen_points(mesh, cell):
    """Vertices [n, 3] of a scan seen from the front or from 40 degrees aside or below; `cell`: size of a depth cell.

    Scans carry the insides of nose, mouth and eyelids, which no face model has.
    """
    import numpy as np
    import trimesh

    t = np.random.default_rng(0).dirichlet((1.0, 1.0, 1.0), 16)
    dense = np.einsum("sk,fkc->fsc", t, np.asarray(mesh.triangles)).reshape(-1, 3)
    dense = np.concatenate([dense, mesh.vertices])
    seen = np.zeros(len(mesh.vertices), bool)
    for angle, axis in ((0.0, (0, 1, 0)), (0.7, (0, 1, 0)), (-0.7, (0, 1, 0)), (-0.7, (1, 0, 0))):
        turned = dense @ trimesh.transformations.rotation_matrix(angle, axis)[:3, :3].T
        _, index = np.unique(np.floor(turned[:, :2] / cell), axis=0, return_inverse=True)
        front = np.full(index.max() + 1, -np.inf)
        np.maximum.at(front, index.ravel(), turned[:, 2])
        seen |= (turned[:, 2] > front[index.ravel()] - 2.0 * cell)[-len(mesh.vertices) :]
    return np.unique(np.asarray(mesh.vertices)[seen], axis=0)


def fit(scan, model, unit):
    """Distances [n] in mm of the scan's points in the face region and coefficients [n_s].

    scan: [p, 3] points with the face towards +z, y up, the nose foremost; `unit`: mm of its unit, roughly. Similarity
    ICP of the mean, then closest points in turns with a damped linear least-squares step on pose and coefficients.
    """
    import numpy as np
    import trimesh
    from scipy.spatial import KDTree

    mean, basis = np.asarray(model.mean, float), np.asarray(model.identity_basis, float)
    faces = np.asarray(model.faces)
    corners, weights = faces[np.asarray(model.landmark_faces)], np.asarray(model.landmark_barycentric)
    marks = np.einsum("kc,kcd->kd", weights, mean[corners])
    tip, eyes = marks[30], np.stack([marks[36:42].mean(0), marks[42:48].mean(0)])
    skin = np.flatnonzero(np.asarray(model.regions.eyes) + np.asarray(model.regions.mouth) == 0)
    nose = scan[np.argmax(scan[:, 2])]

    def surface(coefficients):
        shape = mean + np.tensordot(coefficients, basis, 1)
        mesh = trimesh.Trimesh(shape, faces, process=False)
        return mesh, np.asarray(mesh.vertex_normals)

    def kept(points):
        near = np.linalg.norm(points - tip, axis=1) < RADIUS
        return near & (np.linalg.norm(points[:, None] - eyes[None], axis=2).min(1) > EYELIDS)

    def rigid_start(scale, pitch):
        """Similarity ICP of the mean's face to the scan: aligned scan points, mean distance."""
        front = mean[kept(mean) & (np.asarray(model.regions.face) > 0.5)]
        turn = trimesh.transformations.rotation_matrix(pitch, [1.0, 0.0, 0.0])[:3, :3]
        points = (scan - nose) @ turn.T * scale + tip
        for _ in range(30):
            _, hit = KDTree(points).query(front)
            matrix, _, _ = trimesh.registration.procrustes(points[hit], front, reflection=False)
            points = points @ matrix[:3, :3].T + matrix[:3, 3]
        return points, KDTree(points).query(front)[0].mean()

    def closer(points, coefficients, slack, stiffness):
        """One step of pose and coefficients towards the closest points; the scale stays (shrinking would pay)."""
        mesh, normals = surface(coefficients)
        moved = points[kept(points)]
        hit = skin[KDTree(mesh.vertices[skin]).query(moved)[1]]
        normal = normals[hit]
        away = ((moved - mesh.vertices[hit]) * normal).sum(1)
        root = np.clip(2.0 - np.abs(away) / slack, 0.0, 1.0) ** 0.5
        design, goal = [], []
        step = moved - mesh.vertices[hit] + np.tensordot(coefficients, basis[:, hit], 1)
        for direction, weight in ((normal, 1.0), *((axis, SLIDE) for axis in np.eye(3))):
            along = np.broadcast_to(direction, moved.shape)
            rigid = np.concatenate([along, np.cross(moved, along)], 1)
            bend = np.einsum("mnc,nc->nm", basis[:, hit], along)
            design.append(np.concatenate([-rigid, bend], 1) * (weight * root)[:, None])
            goal.append((step * along).sum(1) * weight * root)
        design, goal = np.concatenate(design), np.concatenate(goal)
        normal_matrix = design.T @ design + np.diag(np.r_[np.full(6, 1e-6), np.full(len(basis), stiffness)])
        right = design.T @ goal
        best, free = np.zeros(len(right)), np.ones(len(right), bool)
        for _ in range(6):  # coefficients at their limit are held there
            held = normal_matrix[np.ix_(free, ~free)] @ best[~free]
            best[free] = np.linalg.solve(normal_matrix[np.ix_(free, free)], right[free] - held)
            free[6:] &= np.abs(best[6:]) < LIMIT
            best[6:] = np.clip(best[6:], -LIMIT, LIMIT)
        turn = trimesh.transformations.rotation_matrix(np.linalg.norm(best[3:6]) + 1e-12, best[3:6] + 1e-15)
        return points @ turn[:3, :3].T + best[:3], best[6:]

    starts = [rigid_start(s * unit, p) for s in (0.95, 1.05) for p in (-0.3, -0.15, 0.0, 0.15, 0.3)]
    points, coefficients = min(starts, key=lambda s: s[1])[0], np.zeros(len(basis))
    for step in range(ROUNDS):
        points, coefficients = closer(points, coefficients, max(6.0, 20.0 - step), STIFFNESS * 0.9 ** (step - ROUNDS))
    mesh, _ = surface(coefficients)
    for _ in range(10):  # similarity ICP
        region = points[kept(points)]
        closest, _ = nearest.closest(np.asarray(mesh.triangles), region)
        matrix, _, _ = trimesh.registration.procrustes(region, closest, reflection=False)
        points = points @ matrix[:3, :3].T + matrix[:3, 3]
    region = points[kept(points)]
    distance = np.linalg.norm(nearest.closest(np.asarray(mesh.triangles), region)[0] - region, axis=1)
    return distance, coefficients


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}")
    import numpy as np
    import trimesh

    from ganfit_jax import assets

    scan = trimesh.load(SCAN.value, process=False, force="mesh")
    model, _ = assets.load_shape(MODEL.value)
    distance, coefficients = fit(seen_points(scan, 1.5 / UNIT.value), model, UNIT.value)
    print(f"{len(distance)} points: mean {distance.mean():.3f} mm, median {np.median(distance):.3f} mm")
    size = np.abs(coefficients)
    print(f"coefficients: max {size.max():.2f}, within 2 sigma {100 * (size < 2).mean():.0f} %")


if __name__ == "__main__":
    app.run(main)
