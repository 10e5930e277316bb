"""Identity and expression components: sampled MakeHuman people (PCA), smooth Gaussian-process modes, face units."""

import re
from collections.abc import Callable

import numpy as np

PEOPLE = 3200
PCA_MODES = 59
SMOOTH_MODES = 33  # per axis
KERNEL = ((2.2, 35.0), (1.3, 15.0))  # (amplitude, length) in mm
GROUPS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "cheek", "chin", "ears", "neck", "asym")
SKIPPED = re.compile(r"head-trans|neck-scale-vert|neck-trans|neck-height|breast|trunk")
SIDEWAYS = ("mouth-trans", "nose-trans")  # their in / out pair shifts the feature to one side
ASYMMETRY = 0.4  # std of asymmetric smooth motion relative to symmetric
OPPOSITE = {
    "incr": "decr",
    "up": "down",
    "out": "in",
    "forward": "backward",
    "uncompress": "compress",
    "convex": "concave",
}
SLIDER_STD, SLIDER_REACH = 0.3, 2.0  # std of a slider; at most this many mm at one std
UNEVEN = 0.15  # how far the left and the right slider of a pair differ, relative to their common value
FLIP = np.array([-1.0, 1.0, 1.0])  # mirrors left and right
RACES = ("african", "asian", "caucasian")
Reader = Callable[[str], np.ndarray]  # path of a target -> displacement field


def sample(read: Reader, names: list[str], rng: np.random.Generator, face: np.ndarray) -> np.ndarray:
    """Displacements [PEOPLE, n, 3] of random adults; `face` [n] picks the vertices that scale the sliders."""
    coefficients, fields = [], []

    def add(name: str, weights: np.ndarray) -> None:
        coefficients.append(weights)
        fields.append(read(name))

    def std(*targets: str) -> float:
        reach = max(np.linalg.norm(read(t)[face], axis=1).max() for t in targets)
        return min(SLIDER_STD, SLIDER_REACH / max(reach, 1e-6))

    for name, weights in _macro(names, rng):
        add(name, weights)
    sliders = {}
    for name in names:
        parts = name.split("/")
        if name.startswith("mpfb2/targets/") and parts[2] in GROUPS and not SKIPPED.search(parts[-1]):
            sliders[parts[-1].removesuffix(".target.gz")] = name
    common = {}
    for stem in sorted(sliders):
        base, _, ending = stem.rpartition("-")
        if parts := re.fullmatch(r"(asym-.*)-r", stem):  # two ends of one slider
            weights = rng.normal(size=PEOPLE) * 0.3 * std(sliders[stem])
            add(sliders[stem], np.maximum(weights, 0.0))
            add(sliders[f"{parts[1]}-l"], np.maximum(-weights, 0.0))
        elif stem.startswith("asym-") or ending in OPPOSITE.values():
            continue  # added with its opposite
        else:
            pair = [sliders[stem]]
            if ending in OPPOSITE:
                pair.append(sliders[f"{base}-{OPPOSITE[ending]}"])
            side = re.match(r"[lr]-", stem)
            key = stem[2:] if side else stem
            if key not in common:
                common[key] = np.clip(rng.normal(size=PEOPLE), -2.5, 2.5)
            weights = common[key] + (UNEVEN * rng.normal(size=PEOPLE) if side else 0.0)
            scale = std(*pair) * (0.25 if base in SIDEWAYS and ending == "out" else 1.0)
            add(pair[0], np.maximum(weights, 0.0) * scale)
            if len(pair) == 2:
                add(pair[1], np.maximum(-weights, 0.0) * scale)
    return np.tensordot(np.stack(coefficients, 1), np.stack(fields), 1)


def _macro(names: list[str], rng: np.random.Generator):
    """(target, weights) of race, sex, age, muscle and weight mixtures; MakeHuman is 25 at `young`, 90 at `old`."""
    race = rng.dirichlet(np.full(len(RACES), 0.6), PEOPLE)
    male = rng.beta(0.5, 0.5, PEOPLE)
    old = 0.75 * rng.beta(1.0, 2.0, PEOPLE)
    body = np.clip(rng.normal(size=(PEOPLE, 2)) * 0.4, -1.0, 1.0)
    for sex, by_sex in (("female", 1.0 - male), ("male", male)):
        for age, by_age in (("young", 1.0 - old), ("old", old)):
            for i, people in enumerate(RACES):
                yield f"mpfb2/targets/macrodetails/{people}-{sex}-{age}.target.gz", race[:, i] * by_sex * by_age
            for muscle, m in (("min", -body[:, 0]), ("max", body[:, 0])):
                for weight, w in (("min", -body[:, 1]), ("max", body[:, 1])):
                    stem = f"universal-{sex}-{age}-{muscle}muscle-{weight}weight"
                    name = f"mpfb2/targets/macrodetails/{stem}.target.gz"
                    yield name, by_sex * by_age * np.maximum(m, 0.0) * np.maximum(w, 0.0)


def align(people: np.ndarray, weights: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotate and translate (no scale) each of `people` [k, n, 3] onto `target` [n, 3], weighted (Kabsch)."""
    w = weights / weights.sum()
    centre = np.einsum("n,knc->kc", w, people)
    goal = w @ target
    covariance = np.einsum("n,kni,nj->kij", w, people - centre[:, None], target - goal)
    u, _, vt = np.linalg.svd(covariance)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return (people - centre[:, None]) @ (u @ vt) + goal


def principal(people: np.ndarray, weights: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n, 3] and PCA_MODES modes [m, n, 3] (one std each) of `people` and their mirror images.

    A mode is symmetric or antisymmetric: the covariance of people and mirror images falls into these two parts.
    """
    reflected = people[:, mirror] * FLIP
    mean = (people + reflected).mean(0) / 2.0
    parts = (people + reflected) / 2.0 - mean, (people - reflected) / 2.0
    modes, variances = [], []
    root = np.sqrt(weights)[None, :, None]
    for part in parts:
        flat = (part * root).reshape(len(part), -1)
        values, vectors = np.linalg.eigh(flat @ flat.T / len(part))
        keep = np.argsort(-values)[:PCA_MODES]
        mode = np.tensordot(vectors[:, keep].T, part, 1) / np.sqrt(len(part))
        modes.append(mode)
        variances.append(values[keep])
    order = np.argsort(-np.concatenate(variances))[:PCA_MODES]
    return mean, fix_signs(np.concatenate(modes)[order])


def smooth_modes(points: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Leading eigenfunctions [SMOOTH_MODES, v] of the kernel on `points` and their mirror images, at `vertices`.

    Each is symmetric or antisymmetric: on such functions the kernel matrix of both halves is that of one half plus or
    minus what the other half adds. Scaled by the roots of their eigenvalues, so that standard normal weights give the
    truncated process; carried by Nystrom's formula. Luethi et al., Gaussian Process Morphable Models, TPAMI 2018.
    """
    opposite = points * FLIP
    here, there = _kernel(points, points), _kernel(points, opposite)
    modes, values = [], []
    for sign in (1.0, -1.0):
        value, vector = np.linalg.eigh(here + sign * there)
        value, vector = value[-SMOOTH_MODES:], vector[:, -SMOOTH_MODES:]
        carried = (_kernel(vertices, points) + sign * _kernel(vertices, opposite)) @ (vector / np.sqrt(2.0 * value))
        modes.append(carried.T)
        values.append(value)
    top = np.argsort(-np.concatenate(values))[:SMOOTH_MODES]
    return fix_signs(np.concatenate(modes)[top])


def smooth_scale(modes: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Factor [m, 3] of each smooth mode along each axis: faces are nearly symmetric, so asymmetric motion is small.

    A symmetric function moves the face asymmetrically along x, an antisymmetric one along y and z.
    """
    symmetric = (modes * modes[:, mirror]).sum(1) > 0
    asymmetric = np.stack([symmetric, ~symmetric, ~symmetric], 1)
    return np.where(asymmetric, ASYMMETRY, 1.0)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * a @ b.T, 0.0)
    return np.sum([s**2 * np.exp(-squared / (2.0 * length**2)) for s, length in KERNEL], axis=0)


def fix_signs(modes: np.ndarray) -> np.ndarray:
    """Make the largest entry of every mode positive."""
    flat = modes.reshape(len(modes), -1)
    rounded = np.round(np.abs(flat), 6)  # mirrored entries tie: take the first
    sign = np.sign(flat[np.arange(len(flat)), rounded.argmax(1)])
    return modes * sign.reshape(-1, *[1] * (modes.ndim - 1))


def spread_points(vertices: np.ndarray, count: int) -> np.ndarray:
    """Ids of `count` vertices, farthest first (deterministic)."""
    chosen = [int(np.argmax(vertices[:, 2]))]
    distance = np.linalg.norm(vertices - vertices[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(vertices - vertices[chosen[-1]], axis=1))
    return np.array(chosen)


def expressions(read: Reader, names: list[str]) -> dict[str, str]:
    """ARKit name -> path of the 52 face units, in alphabetical order."""
    prefix = "faceunits01/targets/faceunits/"
    found = {n.removeprefix(prefix).removesuffix(".target"): n for n in names if n.startswith(prefix)}
    if len(found) != 52:
        raise ValueError(f"{prefix}: expected 52 face units, found {len(found)}")
    return dict(sorted(found.items()))
