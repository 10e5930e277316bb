"""Photos of textured meshes by a renderer that is not ours: Mitsuba 3 (package ``mitsuba``, extra ``evaluate``).

Path tracing in linear light with soft lamps, cast shadows, glossy skin and eyes, strands of hair, sensor noise; seen by
the camera of `types.Camera`. Everything lies in the world frame of `types` except lamps, which lie in the view frame.
Mitsuba's variant ``scalar_rgb`` is used, which needs no LLVM: 5 to 10 s for 512 x 512 pixels at 32
samples on two cores.
"""

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from ganfit_jax.camera import rotation_matrix, to_camera
from ganfit_jax.errors import InputError
from ganfit_jax.gltf import vertex_normals
from ganfit_jax.types import Camera, ShapeModel

AWAY = 4000.0  # mm from the head to the lamps: behind every camera
BOUNCES = 4
WEIGHTS = np.array([0.2126, 0.7152, 0.0722])  # of red, green and blue in the luminance of linear light


class Solid(NamedTuple):
    """A surface, seen from both sides."""

    vertices: Float[np.ndarray, "v 3"]  # millimetres
    faces: Int[np.ndarray, "f 3"]
    albedo: Float[np.ndarray, "s t 3"]  # sRGB, [0, 1]; one texel = one colour
    uv: Float[np.ndarray, "f 3 2"] | None = None  # of the faces' corners, origin at the top left
    roughness: float = 0.5
    specular: float = 0.4


class Hair(NamedTuple):
    """Strands as cubic B-splines."""

    points: Float[np.ndarray, "n k 3"]  # millimetres, root first; k >= 4
    radius: float  # millimetres
    colour: Float[np.ndarray, "3"]  # sRGB, [0, 1]


class Lamp(NamedTuple):
    """A distant round lamp. White paper that faces it gets the colour `colour` (linear light)."""

    direction: Float[np.ndarray, "3"]  # towards the lamp, view frame; normalised where it is used
    colour: Float[np.ndarray, "3"]
    radius: float = 0.15  # tangent of half the angle under which it is seen: how soft its shadows are


class Lighting(NamedTuple):
    lamps: tuple[Lamp, ...]
    ambient: Float[np.ndarray, "3"]  # radiance of the surroundings, linear light


def mitsuba() -> Any:
    """The library, set to ``scalar_rgb``. Raises `InputError` with one line where it is not installed."""
    try:
        library = importlib.import_module("mitsuba")
    except ImportError:
        raise InputError("mitsuba is not installed, expected: pip install 'ganfit-jax[evaluate]'") from None
    if library.variant() != "scalar_rgb":
        library.set_variant("scalar_rgb")
    return library


def head(
    model: ShapeModel, vertices: Float[np.ndarray, "v 3"], albedo: Float[np.ndarray, "s s 3"]
) -> tuple[Solid, Solid]:
    """The skin and the eyes of a face model's mesh with a map in the canonical chart; the eyes are wet."""
    faces, uv = np.asarray(model.faces), np.asarray(model.uv)[np.asarray(model.uv_faces)]
    eyes = (np.asarray(model.regions.eyes) > 0.5)[faces].all(1)
    skin = Solid(vertices, faces[~eyes], albedo, uv[~eyes])
    return skin, Solid(vertices, faces[eyes], albedo, uv[eyes], roughness=0.08, specular=0.6)


def main_direction(lighting: Lighting) -> Float[np.ndarray, "3"]:
    """Where the light comes from as one unit direction (view frame): the lamps' directions weighted by luminance.

    It is the direction of the net irradiance, which one lamp and an ambient term explain best.
    """
    unit = [lamp.direction / np.linalg.norm(lamp.direction) for lamp in lighting.lamps]
    total = np.sum([(lamp.colour @ WEIGHTS) * d for lamp, d in zip(lighting.lamps, unit, strict=True)], axis=0)
    return total / max(float(np.linalg.norm(total)), 1e-9)


def photograph(
    solids: Sequence[Solid],
    camera: Camera,
    lighting: Lighting,
    size: int,
    background: Float[np.ndarray, "s s 3"] | float = 0.5,
    hair: Sequence[Hair] = (),
    samples: int = 32,
    seed: int = 0,
) -> Float[np.ndarray, "s s 3"]:
    """A photo, sRGB in [0, 1], of side `size`; the background (sRGB) is laid behind. `samples`: rays a pixel."""
    library = mitsuba()
    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgba", "rfilter": {"type": "gaussian"}}
    scene = _scene(library, solids, camera, film, lighting, hair)
    pixels = np.array(library.render(scene, spp=samples, seed=seed), np.float64)
    behind = linear(np.broadcast_to(np.asarray(background, np.float64), (size, size, 3)))
    return encoded(pixels[..., :3] + (1 - np.clip(pixels[..., 3:], 0, 1)) * behind)


def pick(
    solids: Sequence[Solid], camera: Camera, pixels: Float[np.ndarray, "n 2"], size: int
) -> Float[np.ndarray, "n 3"]:
    """The surface points (mm) that the camera sees at places of its image, in pixels; NaN where it sees none."""
    library = mitsuba()
    film = {"type": "hdrfilm", "width": size, "height": size}
    scene = _scene(library, solids, camera, film)
    sensor, found = scene.sensors()[0], np.full((len(pixels), 3), np.nan)
    for row, (x, y) in enumerate(np.asarray(pixels, np.float64) / size):
        ray, _ = sensor.sample_ray(0.0, 0.5, [x, y], [0.5, 0.5])
        hit = scene.ray_intersect(ray)
        if hit.is_valid():
            found[row] = np.array(hit.p)
    in_camera = found * [-1.0, -1.0, 1.0]
    turned = (in_camera - np.asarray(camera.translation, np.float64)) * [1.0, -1.0, -1.0]
    return turned @ np.asarray(rotation_matrix(camera.rotation), np.float64)


def seen_from(solid: Solid, directions: Sequence[Float[np.ndarray, "3"]], lift: float = 0.3) -> Float[np.ndarray, "v"]:
    """1 for vertices that are not hidden from at least one far place, given by unit directions (world); `lift`: mm."""
    library = mitsuba()
    scene = library.load_dict({"type": "scene", "solid": _mesh(library, solid, solid.vertices)})
    normals = vertex_normals(np.asarray(solid.vertices, np.float32), np.asarray(solid.faces))
    seen = np.zeros(len(solid.vertices))
    for direction in directions:
        for row in np.flatnonzero((normals @ direction > 0.05) & (seen == 0)):
            start = solid.vertices[row] + lift * normals[row]
            ray = library.Ray3f(start.tolist(), np.asarray(direction, np.float64).tolist())
            seen[row] = not scene.ray_test(ray)
    return seen


def linear(srgb: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """sRGB in [0, 1] -> linear light (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0.04045) + 0.055) / 1.055) ** 2.4)


def encoded(light: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Linear light, clipped to [0, 1] -> sRGB."""
    clipped = np.clip(light, 0.0, 1.0)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * np.maximum(clipped, 0.0031308) ** (1 / 2.4) - 0.055)


def developed(
    photo: Float[np.ndarray, "h w 3"], random: np.random.Generator, noise: float = 0.01, blur: float = 0.5
) -> Float[np.ndarray, "h w 3"]:
    """The photo as a real camera gives it: a little out of focus (`blur`, pixels), with the sensor's noise, which grows
    with the root of the light (`noise`: its standard deviation for white)."""
    light = np.stack([ndimage.gaussian_filter(linear(photo[..., i]), blur) for i in range(3)], axis=-1)
    return encoded(light + noise * np.sqrt(light + 0.02) * random.normal(size=light.shape)).astype(np.float32)


def backdrop(size: int, random: np.random.Generator) -> Float[np.ndarray, "s s 3"]:
    """A wall or a room out of focus: a colour, brighter in one place, with faint blurred blots; sRGB."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    across, down = random.uniform(-0.3, 0.3, 2)
    glow = random.uniform(0.0, 0.25) * np.exp(-((x - across) ** 2 + (y - down) ** 2) / 0.3)
    colour = random.uniform(0.15, 0.75) + random.normal(0, 0.05, 3)
    blots = [ndimage.gaussian_filter(random.normal(size=(size, size)), size / wide) for wide in (6, 6, 6, 12)]
    grey, tint = blots[3] / blots[3].std(), np.stack(blots[:3], -1) / blots[0].std()
    rough = random.uniform(0.0, 0.08)
    return np.clip(colour + glow[..., None] + rough * (grey[..., None] + 0.4 * tint), 0.02, 0.98).astype(np.float32)


def _scene(
    library: Any,
    solids: Sequence[Solid],
    camera: Camera,
    film: dict[str, Any],
    lighting: Lighting | None = None,
    hair: Sequence[Hair] = (),
) -> Any:
    """Mitsuba's scene in the frame of its camera, which looks along +z with +x to the left and +y up."""
    fov = float(np.degrees(2 * np.arctan(0.5 / np.exp(float(camera.log_focal)))))
    sensor = {"type": "perspective", "fov": fov, "fov_axis": "x", "near_clip": 10.0, "far_clip": 20000.0, "film": film}
    scene: dict[str, Any] = {"type": "scene", "sensor": sensor}
    scene["integrator"] = {"type": "path", "max_depth": BOUNCES, "hide_emitters": True}
    for number, solid in enumerate(solids):
        scene[f"solid{number}"] = _mesh(library, solid, _placed(camera, solid.vertices))
    for number, lamp in enumerate(lighting.lamps if lighting else ()):
        place = AWAY * np.array([-1.0, 1.0, -1.0]) * lamp.direction / np.linalg.norm(lamp.direction)
        place = place + _placed(camera, np.zeros((1, 3)))[0]
        area = {"type": "area", "radiance": {"type": "rgb", "value": (lamp.colour / lamp.radius**2).tolist()}}
        sphere = {"type": "sphere", "center": place.tolist(), "radius": lamp.radius * AWAY, "emitter": area}
        scene[f"lamp{number}"] = sphere
    if lighting:
        scene["around"] = {"type": "constant", "radiance": {"type": "rgb", "value": lighting.ambient.tolist()}}
    with tempfile.TemporaryDirectory() as folder:
        for number, strands in enumerate(hair):
            scene[f"hair{number}"] = _strands(strands, camera, Path(folder) / f"{number}.txt")
        return library.load_dict(scene)


def _placed(camera: Camera, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return np.asarray(to_camera(camera, jnp.asarray(points, jnp.float32)), np.float64) * [-1.0, -1.0, 1.0]


def _mesh(library: Any, solid: Solid, places: Float[np.ndarray, "v 3"]) -> Any:
    faces = np.asarray(solid.faces)
    normals = vertex_normals(np.asarray(places, np.float32), faces)
    bitmap = library.Bitmap(np.uint8(np.round(255 * np.clip(solid.albedo, 0, 1))))
    colour = {"type": "bitmap", "bitmap": bitmap, "raw": False, "wrap_mode": "clamp"}
    look = {"type": "principled", "base_color": colour, "roughness": solid.roughness, "specular": solid.specular}
    properties = library.Properties()
    properties["bsdf"] = library.load_dict({"type": "twosided", "inner": look})
    uv = np.zeros((*faces.shape, 2)) if solid.uv is None else np.asarray(solid.uv, np.float64)
    rows = np.concatenate([faces.reshape(-1, 1), uv.reshape(-1, 2)], axis=1)
    corners, index = np.unique(rows, axis=0, return_inverse=True)
    kept = corners[:, 0].astype(np.int64)
    mesh = library.Mesh("solid", len(corners), len(faces), properties, True, True)
    values = library.traverse(mesh)
    values["vertex_positions"] = np.ascontiguousarray(places[kept], np.float32).ravel()
    values["vertex_normals"] = np.ascontiguousarray(normals[kept], np.float32).ravel()
    values["vertex_texcoords"] = np.ascontiguousarray(corners[:, 1:], np.float32).ravel()
    values["faces"] = index.reshape(-1).astype(np.uint32)
    values.update()
    return mesh


def _strands(hair: Hair, camera: Camera, file: Path) -> dict[str, Any]:
    # Mitsuba (3.9 and before; corrected by its pull request 1928) reads past its arrays where a ray meets the tip of a
    # file's very last curve. So the last one is a speck inside the head, which no ray meets.
    roots = hair.points[:, 0]
    speck = roots.mean(axis=0) + 0.01 * np.arange(hair.points.shape[1])[:, None]
    points = np.concatenate([hair.points, speck[None]])
    count, length, _ = points.shape
    places = _placed(camera, points.reshape(-1, 3)).reshape(count, length, 3)
    taper = hair.radius * np.linspace(1.0, 0.4, length)
    lines = [
        "\n".join(f"{x:.3f} {y:.3f} {z:.3f} {r:.4f}" for (x, y, z), r in zip(strand, taper, strict=True))
        for strand in places.tolist()
    ]
    file.write_text("\n\n".join(lines) + "\n")
    colour = {"type": "rgb", "value": linear(np.asarray(hair.colour, np.float64)).tolist()}
    look = {"type": "principled", "base_color": colour, "roughness": 0.35, "specular": 0.5}
    return {"type": "bsplinecurve", "filename": str(file), "bsdf": {"type": "twosided", "inner": look}}
