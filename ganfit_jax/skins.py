"""MakeHuman's painted skins -> maps in the canonical chart."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt16
from PIL import Image

from ganfit_jax import corpus, morphable, unwrap
from ganfit_jax.workshop import Workshop


def write_skin(shop: Workshop, path: Path, skin_uv: UInt16[np.ndarray, "f 3 2"]) -> dict[str, int]:
    """Resamples a MakeHuman skin from its own UV into the chart; returns its name and true resolution, texels.

    `skin_uv`: for each corner of each face, 65535 = 1, origin at the top left (``third_party/makehuman/skin_uv.npz``).

    Eyes and mouth have textures of their own there, and the skins have no brows: those texels weigh 0.
    """
    name, model = f"skin_{path.stem}", shop.models.shape
    places = skin_uv.astype(np.float32) / 65535
    with Image.open(path) as image:
        pixels = image.width * corpus.eye_span(model, places)
    details = {name: min(int(pixels / corpus.eye_span(model)), len(shop.texels.used))}
    if (shop.output / "maps" / f"{name}.png").exists():
        return details
    skin = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255.0
    corners = jnp.asarray(places)[shop.texels.faces]
    place = jnp.einsum("hwk,hwkc->hwc", shop.texels.barycentric, corners)
    albedo = np.asarray(unwrap.bilinear(jnp.asarray(skin), place * skin.shape[0]))
    patches = unwrap.at_texels(shop.texels, model.faces, (model.regions.eyes + model.regions.mouth)[:, None])[..., 0]
    points = np.asarray(unwrap.at_texels(shop.texels, model.faces, model.mean))
    brows = np.asarray(morphable.landmarks(model, model.mean, jnp.zeros(3)))[17:27]
    away = np.linalg.norm(points[:, :, None] - brows[None, None], axis=-1).min(-1)
    weight = np.asarray(shop.texels.used) * (np.asarray(patches) < 0.01) * np.clip((away - 10.0) / 4.0, 0.0, 1.0)
    corpus.write_map(shop.output / "maps", name, albedo, weight)
    return details
