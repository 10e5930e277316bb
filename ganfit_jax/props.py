"""What people in photos wear and hold: hair, shoulders, glasses, a hand. Made from simple shapes, for `studio`.

Everything is placed by the 68 landmarks of a head in the world frame (mm), so it fits any shape model.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from ganfit_jax.gltf import vertex_normals
from ganfit_jax.landmarks import LEFT_EYE, RIGHT_EYE
from ganfit_jax.studio import Hair, Solid
from ganfit_jax.types import ShapeModel

STEPS = 10  # control points of a strand
CUTS = ("short", "parted", "long", "fringe")
COLOURS = np.array([[0.09, 0.07, 0.06], [0.2, 0.13, 0.09], [0.35, 0.23, 0.14], [0.6, 0.47, 0.3], [0.55, 0.54, 0.53]])
"""Black, dark and light brown, blond, grey; sRGB."""


def tube(
    path: Float[np.ndarray, "n 3"], radius: Float[np.ndarray, "n"], closed: bool = False, sides: int = 12
) -> tuple[Float[np.ndarray, "m 3"], Int[np.ndarray, "f 3"]]:
    """A round tube of the given radii around a path; an open one has rounded ends."""
    if not closed:
        bend = np.array([1.0, 0.87, 0.5])
        first, last = path[0] - path[1], path[-1] - path[-2]
        first, last = first / np.linalg.norm(first), last / np.linalg.norm(last)
        low = path[0] + radius[0] * np.outer(bend, first)
        high = path[-1] + radius[-1] * np.outer(bend[::-1], last)
        cap = np.array([0.02, 0.5, 0.87])
        path = np.concatenate([low, path, high])
        radius = np.concatenate([radius[0] * cap, radius, radius[-1] * cap[::-1]])
    count = len(path)
    ahead, behind = np.roll(path, -1, 0), np.roll(path, 1, 0)
    if not closed:
        ahead[-1], behind[0] = path[-1], path[0]
    along = ahead - behind
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    helper = np.eye(3)[np.argmin(np.abs(along).max(0))]
    one = np.cross(along, helper)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    two = np.cross(along, one)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
    ring = path[:, None] + radius[:, None, None] * (np.cos(angle) * one[:, None] + np.sin(angle) * two[:, None])
    i, j = np.meshgrid(np.arange(count if closed else count - 1), np.arange(sides), indexing="ij")
    a, b = i * sides + j, i * sides + (j + 1) % sides
    c, d = (i + 1) % count * sides + j, (i + 1) % count * sides + (j + 1) % sides
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3)
    return ring.reshape(-1, 3), faces


def _solid(parts, colour, roughness: float, specular: float) -> Solid:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces = np.concatenate([f + start for (_, f), start in zip(parts, starts[:-1], strict=True)])
    albedo = np.asarray(colour, np.float64).reshape(1, 1, 3)
    return Solid(np.concatenate([v for v, _ in parts]), faces, albedo, None, roughness, specular)


def glasses(marks: Float[np.ndarray, "68 3"], colour: Float[np.ndarray, "3"], thick: float = 1.6) -> Solid:
    """A frame without lenses: rounded rims before the eyes, a bridge, two arms; `thick`: radius of the rims, mm."""
    eyes = [marks[RIGHT_EYE].mean(0), marks[LEFT_EYE].mean(0)]
    apart = float(np.linalg.norm(eyes[1] - eyes[0]))
    front = max(marks[28][2], eyes[0][2] + 12.0) + 2.0
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    round_x, round_y = (np.sign(f(t)) * np.abs(f(t)) ** 0.7 for f in (np.cos, np.sin))
    parts, width, height = [], 0.38 * apart, 0.29 * apart
    for eye in eyes:
        side = np.sign(eye[0])
        x, y = eye[0] + 0.03 * apart * side + width * round_x, eye[1] - 2.0 + height * round_y
        rim = np.stack([x, y, front - 0.06 * np.maximum(side * (x - eye[0]), 0)], 1)
        parts.append(tube(rim, np.full(40, thick), True))
        hinge = np.array([eye[0] + side * (width + 0.03 * apart), eye[1] + 6.0, front - 2.0])
        back = np.array([side * (abs(marks[0 if side < 0 else 16][0]) + 6.0), eye[1] + 4.0, marks[0][2] - 12.0])
        parts.append(tube(np.linspace(hinge, back, 8), np.full(8, thick)))
    inner = [eyes[0][0] + width - 0.03 * apart, eyes[1][0] - width + 0.03 * apart]
    s = np.linspace(0, 1, 9)
    bridge = np.stack([inner[0] + s * (inner[1] - inner[0]), eyes[0][1] + 3 * np.sin(np.pi * s), np.full(9, front)], 1)
    return _solid([*parts, tube(bridge, np.full(9, thick))], colour, 0.2, 0.6)


def hand(
    marks: Float[np.ndarray, "68 3"], skin: Float[np.ndarray, "3"], side: float = 1.0, mouth: float = 0.0
) -> Solid:
    """A hand of rounded boxes at a cheek (`side` 1: the subject's left, -1: right), reaching over the mouth as `mouth`
    goes from 0 to 1."""
    cheek = marks[13 if side > 0 else 3]
    place = np.array([(1 - mouth) * 0.8 * cheek[0], marks[57][1] - 22.0, marks[33][2] + 2.0 - 12.0 * (1 - mouth)])
    parts = []
    for number, length in enumerate((62.0, 70.0, 66.0, 50.0)):
        start = place + np.array([side * (-24.0 + 16.5 * number), -8.0 - 2.0 * abs(number - 1), 0.0])
        tip = start + np.array([side * (-14.0 + 5.0 * number), length, -10.0])
        s = np.linspace(0, 1, 7)[:, None]
        path = start + s * (tip - start) + np.sin(np.pi * s) * np.array([0.0, 0.0, 6.0])
        parts.append(tube(path, np.linspace(9.0, 7.0, 7)))
        parts.append(
            tube(
                np.linspace(start, place + np.array([side * (-12.0 + 10.0 * number), -75.0, -6.0]), 6), np.full(6, 11.0)
            )
        )
    thumb = place + np.array([-side * 30.0, -55.0, -4.0])
    parts.append(tube(np.linspace(thumb, thumb + np.array([-side * 22.0, 50.0, -6.0]), 7), np.linspace(11.0, 8.5, 7)))
    arm = place + np.array([side * 6.0, -80.0, -8.0])
    parts.append(tube(np.linspace(arm, arm + np.array([side * 60.0, -220.0, 10.0]), 8), np.linspace(30.0, 36.0, 8)))
    return _solid(parts, skin, 0.5, 0.4)


def shoulders(vertices: Float[np.ndarray, "v 3"], colour: Float[np.ndarray, "3"]) -> Solid:
    """A dressed upper body under a head that ends at its neck: rounded slices from the collar downwards."""
    low = vertices[:, 1].min()
    neck = vertices[vertices[:, 1] < low + 25.0]
    centre = np.median(neck, axis=0)
    wide = float(np.percentile(np.abs(neck[:, 0] - centre[0]), 98)) + 3.0
    drop = np.array([-30.0, -12.0, 0.0, 12.0, 28.0, 50.0, 90.0, 160.0, 300.0])
    half = np.array([0.0, 2.0, 9.0, 34.0, 88.0, 128.0, 150.0, 165.0, 170.0]) + wide
    deep = np.array([0.0, 2.0, 6.0, 14.0, 30.0, 42.0, 52.0, 58.0, 62.0]) + wide
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    y = low + 8.0 - drop[:, None] + 0 * angle
    y = y - 14.0 * np.maximum(np.sin(angle), 0)[None] * (drop < 20)[:, None]  # the collar is lower in front
    x = centre[0] + half[:, None] * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.85
    z = centre[2] + deep[:, None] * np.sin(angle)
    i, j = np.meshgrid(np.arange(len(drop) - 1), np.arange(64), indexing="ij")
    a, b = i * 64 + j, i * 64 + (j + 1) % 64
    faces = np.concatenate([np.stack([a, b, a + 64], -1), np.stack([b, b + 64, a + 64], -1)]).reshape(-1, 3)
    points = np.stack([x, y, z], -1).reshape(-1, 3)
    return _solid([(points, faces)], colour, 0.9, 0.1)


def hair(
    model: ShapeModel,
    vertices: Float[np.ndarray, "v 3"],
    cut: str,
    colour: Float[np.ndarray, "3"],
    random: np.random.Generator,
    count: int = 12000,
    radius: float = 0.4,
) -> tuple[Hair, Solid] | None:
    """Strands on the part of the head that is neither face, ear nor neck, and that part's skin in their colour; None
    where the model has no such part.

    `cut`: one of `CUTS`. Each strand leaves the skin along its normal, is combed along the head, falls, and never
    enters the head again.
    """
    faces, regions = np.asarray(model.faces), model.regions
    bare = np.asarray(regions.face + regions.eyes + regions.mouth + regions.ears + regions.neck) > 0.2
    mean = np.asarray(model.mean)
    bare |= mean[:, 1] < -70.0
    scalp = faces[~bare[faces].any(1)]
    if not len(scalp):
        return None
    normals = vertex_normals(np.asarray(vertices, np.float32), faces)
    a, b, c = (vertices[scalp[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = scalp[random.choice(len(scalp), count, p=area / area.sum())]
    weights = random.dirichlet((1.0, 1.0, 1.0), count)
    root, normal = (np.einsum("nk,nkc->nc", weights, x[chosen]) for x in (vertices, normals))
    length = {"short": 28.0, "parted": 60.0, "long": 210.0, "fringe": 68.0}[cut] * random.uniform(0.75, 1.1, count)
    crown = np.clip((root[:, 1] - 30.0) / 70.0, 0.0, 1.0)  # 0 at the sides, 1 on top
    length = np.where(crown < 0.4, np.minimum(length, 25.0), length) if cut in ("short", "parted") else length
    part = random.uniform(-35.0, 35.0) if cut == "parted" else random.uniform(-8.0, 8.0)
    away = np.tanh((root[:, 0] - part + random.normal(0, 3.0, count)) / 4.0)
    one = np.ones(count)
    front = np.clip((root[:, 2] + 40.0) / 50.0, 0.0, 1.0)  # 1 over the forehead
    comb = {
        "short": np.stack([0.3 * away, 0.2 - 0.8 * (1 - crown), 0.5 * crown - 0.7 * (1 - crown)], 1),
        "parted": np.stack([away * crown, -one * (1 - 0.8 * crown), -0.5 * one], 1),
        "long": np.stack([1.3 * away * crown, -one, -0.35 * one - 0.8 * front], 1),
        "fringe": np.stack([0.2 * away * (1 - front), -one, 0.9 * front * crown - 0.3 * (1 - front)], 1),
    }[cut]
    curl = random.normal(size=(count, 3)) * 0.18
    tree, step, place = KDTree(vertices), length / (STEPS - 1), root - 1.0 * normal
    points, heading = [place], normal
    thick = {"short": 3.0, "parted": 7.0, "long": 7.0, "fringe": 8.0}[cut] * random.uniform(0.3, 1.0, count)
    for _ in range(STEPS - 1):
        near = tree.query(place)[1]
        depth, far = ((place - vertices[near]) * normals[near]).sum(1), np.linalg.norm(place - vertices[near], axis=1)
        pull = np.clip((depth - thick) / 6.0, 0.0, 1.0)[:, None] * normals[near]
        heading = 0.4 * heading + 0.6 * comb + 0.25 * curl - 0.9 * pull - 0.1 * np.array([0.0, 1.0, 0.0])
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        place = place + step[:, None] * heading
        lift = np.maximum(np.minimum(thick, 0.6 * np.linalg.norm(place - root, axis=1)) - depth, 0.0)
        place = place + np.where(far < 30.0, lift, 0.0)[:, None] * normals[near]
        points.append(place)
    colour = np.asarray(colour, np.float64)
    cap = Solid(vertices + 0.8 * normals, scalp, 0.7 * colour[None, None], None, 0.9, 0.1)
    return Hair(np.stack(points, 1), radius, colour), cap
