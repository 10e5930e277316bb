"""Draws what the built-in face model can do: random people and every expression unit.

    python third_party/makehuman/show.py [--output=docs] [--model=face.npz]

Writes face_model_people.png (16 people at unit normal coefficients, 16 whose coefficients all lie at 1.5 standard
deviations) and face_model_expressions.png (the 52 units at 1).
"""

import os

import imageio.v3 as imageio
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from ganfit_jax import assets, camera, morphable, raster
from ganfit_jax.types import Camera

OUTPUT = flags.DEFINE_string("output", "docs", "folder to write to")
MODEL = flags.DEFINE_string("model", "face", "shape model: a built-in name or an npz")
SKIN, EYE, MOUTH = (0.86, 0.74, 0.68), (0.93, 0.93, 0.95), (0.75, 0.3, 0.3)
SIZE = 180


def colours(model):
    """Plain colours [v, 3]; irises so that the gaze shows."""
    eyes, mouth = np.asarray(model.regions.eyes)[:, None], np.asarray(model.regions.mouth)[:, None]
    colour = np.asarray(SKIN) * (1 - eyes) * (1 - mouth) + np.asarray(EYE) * eyes + np.asarray(MOUTH) * mouth
    points = np.asarray(model.mean)
    for side in (1, -1):
        ball = (eyes[:, 0] > 0) & (points[:, 0] * side > 0)
        pole = points[ball][np.argmax(points[ball][:, 2])]
        colour[ball & (np.linalg.norm(points - pole, axis=1) < 6.3)] = (0.25, 0.35, 0.45)
    return jnp.float32(colour)


@jax.jit
def draw(model, colour, vertices, yaw):
    """A grey-lit picture [SIZE, SIZE, 3], twice oversampled."""
    view = Camera(jnp.stack([0.0 * yaw, yaw, 0.0 * yaw]), jnp.array([0.0, 5.0, 1300.0]), jnp.log(4.4))
    screen = camera.project(view, vertices + jnp.array([0.0, 10.0, 50.0])[None], 2 * SIZE)
    normal = morphable.normals(vertices, model.faces) @ camera.rotation_matrix(view.rotation).T
    light = 0.3 + 0.7 * jnp.maximum(normal @ jnp.array([0.25, 0.35, 0.9]), 0.0)
    faces = raster.rasterize(screen, model.faces, 2 * SIZE).faces[..., 0]
    corners = model.faces[jnp.maximum(faces, 0)]
    shaded = (colour * light[:, None])[corners].mean(-2)
    image = jnp.where((faces >= 0)[..., None], jnp.clip(shaded, 0.0, 1.0), 0.4)
    return image.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3))


def sheet(images, columns):
    blank = [np.full((SIZE, SIZE, 3), 0.4)] * (-len(images) % columns)
    grid = np.stack([np.asarray(x) for x in images] + blank).reshape(-1, columns, SIZE, SIZE, 3)
    return np.uint8(np.round(255 * grid.transpose(0, 2, 1, 3, 4).reshape(-1, columns * SIZE, 3)))


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}")
    model, info = assets.load_shape(MODEL.value)
    colour, rng = colours(model), np.random.default_rng(1)
    people, neutral = [], jnp.zeros(len(model.expression_basis))
    for i in range(32):
        shape = rng.normal(size=len(model.identity_basis))
        shape = shape if i < 16 else 1.5 * np.sign(shape)
        vertices = morphable.vertices(model, jnp.float32(shape), neutral)
        people.append(draw(model, colour, vertices, jnp.float32((-0.6, 0.0, 0.0, 0.6)[i % 4])))
    units = [draw(model, colour, model.mean + unit, jnp.float32(0.25)) for unit in model.expression_basis]
    os.makedirs(OUTPUT.value, exist_ok=True)
    for name, images, columns in (("people", people, 8), ("expressions", units, 9)):
        path = os.path.join(OUTPUT.value, f"face_model_{name}.png")
        imageio.imwrite(path, sheet(images, columns))
        print(f"{path}: {os.path.getsize(path) / 1e3:.0f} kB")
    print("units:", " ".join(info.expressions))


if __name__ == "__main__":
    app.run(main)
