"""Synthetic people and photos of them: drawn from a shape model, photographed by `studio`. The truth is known."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import ndimage

from ganfit_jax import camera, corpus, morphable, props, studio, texture, unwrap
from ganfit_jax.errors import InputError
from ganfit_jax.types import Camera, GanTexture, LinearTexture, ShapeModel

UNUSUAL = ("mouthClose", "tongueOut", "jawForward", "cheekPuff", "eyeLookIn", "eyeLookOut")
"""Units that nobody shows in a photo by themselves: they only correct others, or make eyes squint."""
ONE_WAY = ("jawLeft", "mouthLeft")  # there is no person whose jaw goes left and right
HEAD = 260.0  # mm: height of a head, which fills 50 to 65 percent of the photo


@dataclasses.dataclass
class Settings:
    """How people, views, lights and what hides them are drawn; angles in degrees."""

    people: int = 20
    photos: tuple[int, ...] = (1,)  # numbers of photos, each of which is fitted
    sizes: tuple[int, ...] = (512,)  # sides of the photos in pixels, each of which is fitted
    shape_model: str = ""  # whose people they are: a built-in name or an npz; "" = the model that fits them
    texture_model: str = "albedo"  # whose albedos: a built-in name or an npz; "" = the model that fits them
    texture_maps: str = ""  # folder of albedo maps in the canonical chart (NAME.png); "" = drawn from the texture model
    yaw: float = 45.0  # largest, uniformly drawn
    pitch: float = 8.0  # standard deviations
    roll: float = 4.0
    shape: float = 1.0  # standard deviation of the identity coefficients
    albedo: float = 0.8  # of the texture's
    expression: float = 0.6  # largest weight of a unit
    expressed: float = 0.08  # share of units that act
    hair: float = 0.8  # share of people who have some
    occluded: float = 0.2  # share of photos with a hand at the face; as many people wear glasses
    samples: int = 32  # rays a pixel
    first_seed: int = 1000


class Person(NamedTuple):
    """What all photos of somebody share."""

    model: ShapeModel
    shape: Float[np.ndarray, "n_s"]
    albedo: Float[np.ndarray, "s s 3"]
    cut: str  # one of `props.CUTS`, or "" for none
    hair_colour: Float[np.ndarray, "3"]
    cloth: Float[np.ndarray, "3"]
    frame: Float[np.ndarray, "3"] | None  # colour of the glasses
    seed: int


class Shot(NamedTuple):
    """What belongs to one photo."""

    expression: Float[np.ndarray, "n_e"]
    camera: Camera
    yaw: float  # degrees
    lighting: studio.Lighting
    hand: tuple[float, float] | None  # `side` and `mouth` of `props.hand`
    seed: tuple[int, ...]


def draw_person(settings: Settings, number: int, model: ShapeModel, textures: LinearTexture | GanTexture) -> Person:
    """Person `number`, always the same for the same settings."""
    random = np.random.default_rng([settings.first_seed, number])
    shape = settings.shape * random.normal(size=model.identity_basis.shape[0])
    latent = settings.albedo * random.normal(size=texture.latent_size(textures))
    if settings.texture_maps:
        maps = map_names(settings.texture_maps)
        read = corpus.read_maps(Path(settings.texture_maps), [maps[random.integers(len(maps))]])
        mean = np.asarray(texture.decode(textures, jnp.zeros(latent.shape, jnp.float32)))
        albedo = blended(read.albedo[0], read.weight[0], mean)
    else:
        albedo = np.asarray(texture.decode(textures, jnp.asarray(latent, jnp.float32)))
    cut = str(random.choice(props.CUTS)) if random.random() < settings.hair else ""
    colour = props.COLOURS[random.integers(len(props.COLOURS))] * random.uniform(0.8, 1.2)
    cloth = np.clip(random.uniform(0.05, 0.8) + random.normal(0, 0.06, 3), 0.02, 0.95)
    frame = random.choice([[0.05, 0.05, 0.06], [0.3, 0.18, 0.1], [0.6, 0.6, 0.62]])
    glasses = np.asarray(frame) if random.random() < settings.occluded else None
    return Person(model, shape, pored(albedo, random), cut, colour, cloth, glasses, settings.first_seed + number)


def map_names(folder: str) -> list[str]:
    """Names of the albedo maps in a folder; raises `InputError` where there is none."""
    names = sorted(p.stem for p in Path(folder).glob("*.png") if not p.stem.endswith(".weight"))
    if not names:
        raise InputError(f"{folder}: no albedo maps, expected NAME.png files in the canonical chart")
    return names


def blended(
    albedo: Float[np.ndarray, "s s 3"], weight: Float[np.ndarray, "s s"], mean: Float[np.ndarray, "t t 3"]
) -> Float[np.ndarray, "s s 3"]:
    """A map whose unseen texels come from another, tinted as the seen ones around them: painted skins lack eyes, mouth
    and brows. `s` is a power of two."""
    zoom = albedo.shape[0] / mean.shape[0]
    other = np.clip(np.asarray(ndimage.zoom(mean, (zoom, zoom, 1), order=1)), 0.02, 1.0)
    seen = ndimage.minimum_filter(weight, 3)
    tint = unwrap.fill(np.log(np.clip(albedo, 0.02, 1.0)) - np.log(other), seen)
    tint = ndimage.gaussian_filter(tint, (albedo.shape[0] / 16, albedo.shape[0] / 16, 0))
    return (seen[..., None] * albedo + (1 - seen[..., None]) * np.clip(other * np.exp(tint), 0, 1)).astype(np.float32)


def pored(
    albedo: Float[np.ndarray, "s s 3"], random: np.random.Generator, side: int = 1024, strength: float = 0.03
) -> Float[np.ndarray, "t t 3"]:
    """The map, enlarged to at least `side` texels, with pores and faint blotches: skin is never smooth."""
    zoom = max(1, side // albedo.shape[0])
    fine = np.asarray(ndimage.zoom(albedo, (zoom, zoom, 1), order=1))
    noise = [np.asarray(ndimage.gaussian_filter(random.normal(size=fine.shape[:2]), s)) for s in (1.0, 3.0, 12.0)]
    grain = np.sum([n / n.std() for n in noise], axis=0) / 3**0.5
    return np.clip(fine * (1 + strength * grain[..., None]), 0, 1).astype(np.float32)


def draw_shot(settings: Settings, number: int, view: int, names: Sequence[str], model: ShapeModel) -> Shot:
    """View `view` of person `number`; `names` of the expression units ("" or none if they have no names)."""
    random = np.random.default_rng([settings.first_seed, number, 1 + view])
    yaw = random.uniform(-settings.yaw, settings.yaw)
    pitch, roll = random.normal(size=2) * [settings.pitch, settings.roll]
    distance = random.uniform(800.0, 2200.0)
    focal = distance / HEAD * random.uniform(0.5, 0.65)
    place = [random.normal(0, 0.02) * distance / focal, -20.0 + random.normal(0, 0.02) * distance / focal, distance]
    turn = rotation(np.radians(yaw), np.radians(pitch), np.radians(roll))
    pose = Camera(
        camera.rotation_vector(jnp.asarray(turn, jnp.float32)),
        jnp.asarray(place, jnp.float32),
        jnp.log(jnp.asarray(focal, jnp.float32)),
    )
    hand = None
    if random.random() < settings.occluded:
        hand = (float(random.choice([-1.0, 1.0])), float(random.uniform(0.0, 0.8)))
    expression = draw_expression(settings, random, names, model.expression_basis.shape[0])
    seed = (settings.first_seed, number, 1 + view)
    return Shot(expression, pose, yaw, draw_lighting(random), hand, seed)


def rotation(yaw: float, pitch: float, roll: float) -> Float[np.ndarray, "3 3"]:
    """Turn to the side, then nod, then tilt; radians."""
    (a, b), (c, d), (e, f) = ((np.cos(x), np.sin(x)) for x in (yaw, pitch, roll))
    side = np.array([[a, 0, b], [0, 1, 0], [-b, 0, a]])
    nod = np.array([[1, 0, 0], [0, c, -d], [0, d, c]])
    return np.array([[e, -f, 0], [f, e, 0], [0, 0, 1]]) @ nod @ side


def draw_expression(
    settings: Settings, random: np.random.Generator, names: Sequence[str], count: int
) -> Float[np.ndarray, "n_e"]:
    """A few units with uniform weights; most of the time both sides of the face do the same."""
    weights = (random.random(count) < settings.expressed) * random.uniform(0, settings.expression, count)
    index = {name: i for i, name in enumerate(names)}
    weights[[i for name, i in index.items() if name.startswith(UNUSUAL)]] = 0.0
    for name in names:
        other = name.removesuffix("Left") + "Right"
        if other in index and name not in ONE_WAY and random.random() < 0.8:
            weights[index[name]] = weights[index[other]]
    return weights


def draw_lighting(random: np.random.Generator) -> studio.Lighting:
    """A key lamp before the face, a weaker one from the other side, light of the surroundings; a little colour."""
    aside, up = np.radians(random.normal(0, 35)), np.radians(random.normal(25, 12))
    key = np.array([np.sin(aside) * np.cos(up), np.sin(up), max(np.cos(aside) * np.cos(up), 0.2)])
    fill = np.array([-np.sign(aside) * random.uniform(0.4, 1.0), random.uniform(-0.1, 0.4), random.uniform(0.4, 1.0)])
    warm = random.normal(0, 0.06)
    tint = np.array([1 + warm, 1.0, 1 - warm])
    strength = random.uniform(0.45, 0.9)
    ambient = random.uniform(0.2, 0.45) * (1 + random.normal(0, 0.03, 3))
    lamps = (
        studio.Lamp(key, strength * tint, random.uniform(0.05, 0.25)),
        studio.Lamp(fill, strength * random.uniform(0.1, 0.4) / tint, 0.3),
    )
    return studio.Lighting(lamps, ambient)


def vertices(person: Person, expression: Float[np.ndarray, "n_e"] | None = None) -> Float[np.ndarray, "v 3"]:
    """The person's surface, mm; neutral without an expression."""
    if expression is None:
        expression = np.zeros(person.model.expression_basis.shape[0])
    shape, weights = (jnp.asarray(x, jnp.float32) for x in (person.shape, expression))
    return np.asarray(morphable.vertices(person.model, shape, weights), np.float64)


def take(person: Person, shot: Shot, size: int, samples: int = 32) -> Float[np.ndarray, "s s 3"]:
    """The photo, sRGB in [0, 1]."""
    posed, random = vertices(person, shot.expression), np.random.default_rng(shot.seed)
    marks = np.asarray(morphable.landmarks(person.model, jnp.asarray(posed, jnp.float32), jnp.zeros(3)), np.float64)
    solids, strands = list(studio.head(person.model, posed, person.albedo)), []
    if float(jnp.max(person.model.regions.neck)) > 0:
        solids.append(props.shoulders(posed, person.cloth))
    if person.cut:
        own = np.random.default_rng(person.seed)  # the same strands in every photo
        grown = props.hair(person.model, posed, person.cut, person.hair_colour, own)
        if grown:
            strands.append(grown[0])
            solids.append(grown[1])
    if person.frame is not None:
        solids.append(props.glasses(marks, person.frame))
    if shot.hand:
        side = person.albedo.shape[0]
        skin = np.median(person.albedo[side // 3 : side // 2, side // 4 : side // 3], axis=(0, 1))
        solids.append(props.hand(marks, skin, *shot.hand))
    wall = studio.backdrop(size, random)
    photo = studio.photograph(
        solids, shot.camera, shot.lighting, size, wall, strands, samples, int(random.integers(1 << 30))
    )
    return studio.developed(
        photo, random, noise=random.uniform(0.005, 0.02), blur=random.uniform(0.3, 0.8) * size / 512
    )
