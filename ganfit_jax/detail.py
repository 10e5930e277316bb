"""The fitted albedo, completed with what the photos show finer: multi-band blending in the chart.

The fit keeps the low frequencies, where light cannot be told from skin; the photo gives the high ones where it is seen
well. Both meet by Laplacian pyramids (Burt and Adelson, "A Multiresolution Spline with Application to Image Mosaics",
1983) of the log of the ratio photo / (albedo * light), so that light comes out in every band and nothing that the fit
drew falsely stays. Hair, which no texture model knows, is the photo's in all frequencies (`crown`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from PIL import Image, ImageFilter
from scipy import ndimage
from scipy.spatial import KDTree

from ganfit_jax import morphable, texture, unwrap
from ganfit_jax.camera import project
from ganfit_jax.observe import cut
from ganfit_jax.occluders import centre_mask, filled, glasses_score, hull, skin_weight
from ganfit_jax.photo import read_photo
from ganfit_jax.pyramid import collapse, gaussian, laplacian
from ganfit_jax.types import Light, Models, Observation, Params, ShapeModel, View

SIZE = 512  # side of the completed map, texels
BANDS = ((1.0, 1.0), (1.0, 1.0), (1.0, 0.6), (0.7, 0.2), (0.25, 0.0))
"""Share of the photo in luma and in chroma in every band, the finest first: coloured light is smoother than skin."""
BRIGHTER, DARKER = 0.1, 0.6  # log: how far detail may lie above and below the fit; highlights are no albedo
LIPS = (0.1, 2.0, 8.0)  # DARKER at the mouth's opening, and where it begins and ends to rise from there, millimetres
CORNERS = (0.1, 9.0, 16.0)  # the same around its corners
FOREHEAD = 0.2  # DARKER where strands of hair may lie
CENTRE = 0.97  # how far the middle of the face reaches, in extents of its landmarks
HAIRLINE = (30.0, 20.0, 0.7, 10.0)
"""Where the scalp begins: millimetres above the brows, millimetres until it is whole, slope of its plane, and the depth
z at which these heights hold (the model's frame; that of the outer eye corners)."""
BEHIND_SIDE = 256  # side of the window in which the background is looked for, pixels
RIM, AROUND, EYES, LOCK = 0.16, 0.03, 0.44, 0.006
"""In heights of the fitted head: how deep what is behind it may reach into its outline; how far outside the background
is read; how far below the crown the eyes lie; the area of a lock of hair (squared)."""
NOISE = 0.01  # of colours
DARK = 0.2  # brightness below which the tint of hair is noise
GRAZING = 0.04  # visibility from which a photo tells the colour of hair
ENOUGH = 0.03  # share of the scalp that photos must show
EDGE = (0.04, 0.14)  # distance from hair and background at which skin begins to count and counts wholly
SURE = (0.4, 0.9)  # visibility at which detail begins and is whole


class Reading(NamedTuple):
    """One photo at the texels."""

    colour: Float[np.ndarray, "s s 3"]  # [0, 1], light included
    light: Float[np.ndarray, "s s 3"]  # what the fit says that the albedo is multiplied with
    weight: Float[np.ndarray, "s s"]  # how well the skin is seen, [0, 1]
    surface: Float[np.ndarray, "s s"]  # the same of the head with its hair, whatever covers it


def complete(
    albedo: Float[np.ndarray, "s s 3"],
    readings: Sequence[Reading],
    parts: Float[np.ndarray, "p s s"],
    darker: Float[np.ndarray, "s s"],
    bands: Sequence[tuple[float, float]] = BANDS,
    top: tuple[Float[np.ndarray, "s s"], Float[np.ndarray, "s s"]] | None = None,
) -> Float[np.ndarray, "s s 3"]:
    """The albedo map [0, 1] with detail of the photos where they see it; unchanged where they do not, but for a scalp
    that they see a part of.

    Args:
      albedo: the fit's map, sRGB; `s` is a power of two, at least ``2 ** (len(bands) + 1)``.
      readings: the photos at the map's texels.
      parts: masks in {0, 1} that share no texel (skin, eyes, mouth): what one shows never reaches another.
      darker: log; how far detail may lie below the fit.
      bands: share that the photos have in luma and chroma of each band of the pyramid, the finest first; the rest is
        the fit's.
      top: masks of scalp and forehead (`top_of`), which get the photos' `crown`; None = neither does.

    Several photos: in each band they are averaged by the square of their weights, so that the one that sees a texel
    best decides. Detail ends softly, but for hair: no more than `BRIGHTER` above the fit in luma (highlights), `darker`
    below it.
    """
    log = np.log(np.clip(albedo, 0.02, 1.0))
    ratios = [
        np.log(np.clip(reading.colour, 0.02, 1.0)) - np.log(np.clip(reading.light, 0.1, 4.0)) - log
        for reading in readings
    ]
    total = np.zeros_like(log)
    for part in parts if readings else ():
        seen = [reading.weight * part for reading in readings]
        total += part[..., None] * blended(ratios, seen, bands)
    total = limited(total, darker, np.full_like(darker, BRIGHTER))
    if readings and top is not None:
        hair, share = crown(log, ratios, readings, *top)
        total += share[..., None] * (hair - total)
    return np.clip(np.exp(log + total), 0.0, 1.0).astype(np.float32)


def crown(
    log: Float[np.ndarray, "s s 3"],
    ratios: Sequence[Float[np.ndarray, "s s 3"]],
    readings: Sequence[Reading],
    scalp: Float[np.ndarray, "s s"],
    forehead: Float[np.ndarray, "s s"],
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "s s"]]:
    """The photos' log ratios to the albedo, whose log is `log`, with all their frequencies, and the share of them at
    each texel: no texture model knows a person's hair, so that on the scalp, and on the forehead where there is no
    clear skin, the photos decide.

    What no photo sees of the scalp continues the hair that is seen, or the skin where there is none. Skin gets no
    brighter than by `BRIGHTER`; the tint of hair that is almost black is noise and left out. Where photos show less
    than `ENOUGH` of the scalp, nothing is shared anywhere.
    """
    seen = np.stack([reading.surface for reading in readings])
    total = np.maximum(np.sum(seen**2, 0), 1e-6)

    def mean(values: Sequence[np.ndarray]) -> np.ndarray:
        return sum((s[..., None] ** 2 * value for s, value in zip(seen, values, strict=True)), 0.0) / total[..., None]

    skin = [(reading.weight / np.maximum(reading.surface, 1e-6))[..., None] for reading in readings]
    bare = np.clip(mean(skin), 0.0, 1.0)  # 1 = clear skin
    ratio, bright = mean(ratios), mean([reading.colour.mean(-1, keepdims=True) for reading in readings])
    ratio = limited(ratio, np.full(log.shape[:2], np.inf), np.where(bare[..., 0] > 0.5, BRIGHTER, np.inf))
    found = log + ratio
    ratio = ratio - np.clip(1.0 - bright / DARK, 0.0, 1.0) * (1.0 - bare) * (found - found.mean(-1, keepdims=True))
    visible = seen.max(0)
    known = ndimage.grey_erosion(np.clip(visible / GRAZING, 0.0, 1.0) ** 2, (5, 5))
    known = ndimage.gaussian_filter(known, 2.0) * (visible > 0)
    share = np.maximum(scalp, forehead * (1.0 - bare[..., 0]) * known)
    if np.sum(known * scalp) < ENOUGH * np.sum(scalp):
        return ratio, np.zeros_like(share)
    hair = np.clip(visible - GRAZING, 0.0, 1.0) ** 2 * scalp * (1.0 - 0.999 * bare[..., 0])
    wide = unwrap.fill(ratio.astype(np.float32), hair.astype(np.float32))
    return ratio + (scalp * (1.0 - known))[..., None] * (wide - ratio), ndimage.gaussian_filter(share, 2.0)


def calmed(
    albedo: Float[np.ndarray, "s s 3"], mask: Float[np.ndarray, "s s"], reach: float = 1 / 40
) -> Float[np.ndarray, "s s 3"]:
    """The map smoothed within a mask, by a Gaussian of `reach` times its side that does not look outside of it: few
    maps showed a neck, and what texture models draw there is noise."""
    sigma = reach * len(albedo)
    total = ndimage.gaussian_filter(mask, sigma)[..., None]
    smooth = ndimage.gaussian_filter(albedo * mask[..., None], (sigma, sigma, 0)) / np.maximum(total, 1e-6)
    share = (mask * np.clip(3.0 * ndimage.gaussian_filter(mask, sigma / 4) - 1.5, 0.0, 1.0))[..., None]
    return np.asarray(albedo + share * (smooth - albedo), np.float32)


def blended(
    ratios: Sequence[Float[np.ndarray, "s s 3"]],
    weights: Sequence[Float[np.ndarray, "s s"]],
    bands: Sequence[tuple[float, float]],
) -> Float[np.ndarray, "s s 3"]:
    """Log ratios averaged band by band, each band by the weights at its own scale; nothing below the last band."""
    details, shares = [], []
    for ratio, weight in zip(ratios, weights, strict=True):
        # What is not seen continues what is, so that no band has an edge there.
        whole = unwrap.fill(ratio.astype(np.float32), (weight > 0.05).astype(np.float32))
        details.append(laplacian(jnp.asarray(whole), len(bands) + 1)[:-1])
        shares.append(gaussian(jnp.asarray(feathered(weight))[..., None], len(bands) + 1))
    found = []
    for level, (luma, chroma) in enumerate(bands):
        share = jnp.stack([of_photo[level] for of_photo in shares])
        mean = sum((s**2 * of_photo[level] for s, of_photo in zip(share, details, strict=True)), jnp.zeros(()))
        mean = mean / (jnp.sum(share**2, axis=0) + 1e-6)
        found.append(jnp.max(share, axis=0) * toned(mean, luma, chroma))
    found.append(jnp.zeros((*shares[0][-1].shape[:2], 3)))
    return np.asarray(collapse(found))


def toned(band: Float[Array, "h w 3"], luma: float, chroma: float) -> Float[Array, "h w 3"]:
    """A band of log detail with its mean over the channels, and what deviates from it, scaled apart."""
    grey = jnp.mean(band, axis=-1, keepdims=True)
    return luma * grey + chroma * (band - grey)


def limited(
    detail: Float[np.ndarray, "s s 3"], darker: Float[np.ndarray, "s s"], brighter: Float[np.ndarray, "s s"]
) -> Float[np.ndarray, "s s 3"]:
    """Log detail with its mean over the channels softly bounded to [-darker, brighter]; its chroma shrinks with it."""
    grey = detail.mean(-1, keepdims=True)
    bound = np.minimum(np.where(grey > 0, brighter[..., None], darker[..., None]), 1e6)  # infinite: no bound
    kept = bound * np.tanh(grey / bound)
    return kept + (detail - grey) * np.clip(np.abs(kept) / np.maximum(np.abs(grey), 1e-6), 0.3, 1.0)


def feathered(weight: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "s s"]:
    """A visibility that ends before what it covers does: eroded by the reach of the finest filter, then smoothed."""
    certain = np.clip((weight - SURE[0]) / (SURE[1] - SURE[0]), 0.0, 1.0)
    inside = ndimage.gaussian_filter(ndimage.grey_erosion(certain, (5, 5)), 1.5)
    return (inside * (weight > 0)).astype(np.float32)


def parts_of(model: ShapeModel, texels: unwrap.TexelMap) -> Float[np.ndarray, "3 s s"]:
    """Masks of face skin, eyes and inside of the mouth in the chart."""
    regions = jnp.stack([model.regions.face, model.regions.eyes, model.regions.mouth], axis=1)
    face, eyes, mouth = np.moveaxis(np.asarray(unwrap.at_texels(texels, model.faces, regions)), -1, 0)
    patch = eyes + mouth > 0.01
    masks = np.stack([(face > 0.5) & ~patch, patch & (eyes > mouth), patch & (eyes <= mouth)])
    return masks.astype(np.float32) * np.asarray(texels.used)[None]


def darkest(model: ShapeModel, texels: unwrap.TexelMap, parts: Float[np.ndarray, "3 s s"]) -> Float[np.ndarray, "s s"]:
    """How far detail may lie below the fit, log: `DARKER`, but less where dark things are likely no skin.

    On the skin around the mouth's opening: the dark inside must not be painted beside the lips where the fitted mouth
    is smaller than the photo's. And above the brows: strands of hair.
    """
    points = np.asarray(unwrap.at_texels(texels, model.faces, model.mean))
    marks = np.asarray(morphable.landmarks(model, model.mean, jnp.zeros(3)))
    bound = np.full(points.shape[:2], DARKER)
    for places, (least, begin, end) in ((marks[60:68], LIPS), (marks[[48, 54]], CORNERS)):
        distance = np.linalg.norm(points[:, :, None] - places[None, None], axis=-1).min(-1)
        rise = np.clip((distance - begin) / (end - begin), 0.0, 1.0)
        bound = np.minimum(bound, least + (DARKER - least) * rise)
    bound = np.minimum(bound, DARKER + (FOREHEAD - DARKER) * above_brows(model, points)[1])
    return np.where(parts[0] > 0.5, bound, DARKER)


def top_of(
    model: ShapeModel, texels: unwrap.TexelMap, parts: Float[np.ndarray, "3 s s"]
) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, "s s"]]:
    """Masks in [0, 1] of scalp and forehead, ears, eyes and mouth left out.

    The scalp lies above a plane that slopes from the usual hairline, 3 to 5 cm above the brows, down to the ears; the
    forehead begins at the brows.
    """
    points = np.asarray(unwrap.at_texels(texels, model.faces, model.mean))
    ears = np.asarray(unwrap.at_texels(texels, model.faces, model.regions.ears[:, None]))[..., 0]
    height, forehead = above_brows(model, points)
    used = np.asarray(texels.used) * (1.0 - np.clip(ears, 0.0, 1.0)) * (1.0 - parts[1] - parts[2])
    scalp = np.clip((height - HAIRLINE[2] * (points[..., 2] - HAIRLINE[3]) - HAIRLINE[0]) / HAIRLINE[1], 0.0, 1.0)
    return used * scalp, used * forehead


def above_brows(
    model: ShapeModel, points: Float[np.ndarray, "s s 3"]
) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, "s s"]]:
    """How far points of the mean face lie above its brows, in millimetres, and a mask of what does, in [0, 1]."""
    height = points[..., 1] - np.asarray(morphable.landmarks(model, model.mean, jnp.zeros(3)))[17:27, 1].max()
    return height, np.clip((height - 6.0) / 6.0, 0.0, 1.0)


_sampled = jax.jit(unwrap.sample)
_texel_map = jax.jit(unwrap.texel_map, static_argnames="size")


def read(
    model: ShapeModel,
    texels: unwrap.TexelMap,
    vertices: Float[Array, "v 3"],
    view: View,
    photo: Float[np.ndarray, "h w 3"],
    photo_from_window: Float[np.ndarray, "2 3"],
    landmarks: Float[np.ndarray, "68 2"],
    size: int,
) -> Reading:
    """Unwraps one photo at its own resolution (a window of up to 1024 pixels).

    `photo_from_window` and `landmarks` are those of the observation, whose window has `size` pixels.
    """
    scale = float(np.linalg.norm(photo_from_window[:, 0]))
    times = 2 ** int(np.clip(np.ceil(np.log2(max(scale, 1e-6))), 0, max(0, np.floor(np.log2(1024 / size)))))
    placement = np.concatenate([photo_from_window[:, :2] / times, photo_from_window[:, 2:]], axis=1)
    image, inside = cut(photo, placement, size * times)
    points = times * landmarks
    skin = clear_skin(skin_weight(image, points, reach=CENTRE), points, centre_mask(points, len(image), CENTRE))
    head = np.asarray(project(view.camera, vertices, len(image))[:, :2])
    masks = np.stack([inside * skin * without_glasses(image, points), inside * ~behind(image, inside, head)], axis=-1)
    seen = _sampled(model, texels, vertices, view.camera, jnp.asarray(image), jnp.asarray(masks, jnp.float32))
    light = lambert(np.asarray(seen.normals), view.light)
    return Reading(np.asarray(seen.colour), light, *np.moveaxis(np.asarray(seen.weight), -1, 0))


def behind(
    image: Float[np.ndarray, "h h 3"], inside: Float[np.ndarray, "h h"], head: Float[np.ndarray, "v 2"]
) -> Bool[np.ndarray, "h h"]:
    """Which pixels of the fitted head show what is behind it, where it is larger than the person's.

    Those whose colour is less than half as far from that of the nearest pixel around the head as from the upper head's
    own colours, and what hangs together with them and is nearer to the former too; all of it connected with the outline
    and larger than a lock of hair. `head`: the vertices' pixels; `inside`: 1 where the photo goes on. Where the photo
    ends at the head nobody knows, and its rim is not believed.
    """
    side = min(len(image), BEHIND_SIDE)

    def shrunk(plane: np.ndarray) -> np.ndarray:
        small = Image.fromarray(np.asarray(plane, np.float32)).resize((side, side), Image.Resampling.BOX)
        return np.asarray(small)

    colours = ndimage.gaussian_filter(np.stack([shrunk(image[..., c]) for c in range(3)], -1), (1.0, 1.0, 0.0))
    shown, outline = shrunk(inside) > 0.99, hull(head * (side / len(image)))
    top, height = outline[:, 1].min(), np.ptp(outline[:, 1])
    covered = np.asarray(filled(outline, side)) > 0
    depth, outwards = (np.asarray(ndimage.distance_transform_edt(x)) / height for x in (covered, ~covered))
    rows = (np.arange(side)[:, None] + 0.5 - top) / height
    sure = colours[shown & (depth > RIM) & (rows < EYES)]
    asked, around = covered & (depth < RIM) & (rows < 0.6), shown & (outwards > AROUND)
    found = asked & (depth < 0.25 * RIM)
    if around.any() and len(sure) >= 20:
        nearest: Any = ndimage.distance_transform_edt(~around, return_indices=True)
        far, place = nearest
        asked &= far < (RIM + 3 * AROUND) * height
        other = np.linalg.norm(colours - colours[tuple(place)], axis=-1)
        own = np.full_like(other, np.inf)
        own[asked] = KDTree(sure[:: max(1, len(sure) // 2000)]).query(colours[asked], 3)[0][:, -1]
        nearer = np.where(asked, (other + NOISE) / (own + NOISE), np.inf)
        certain = ndimage.median_filter(np.uint8(nearer < 0.5), 3) > 0
        weak = ndimage.binary_propagation(certain, mask=nearer < 1.0)
        found = ndimage.binary_propagation(weak & (depth < 2.5 / height), mask=weak)
        labelled: Any = ndimage.label(found)
        found &= np.bincount(labelled[0].ravel())[labelled[0]] > LOCK * height**2
        found = ndimage.binary_dilation(found, iterations=2)
    return np.asarray(Image.fromarray(np.uint8(found)).resize(image.shape[:2], Image.Resampling.NEAREST)) > 0


def lambert(normals: Float[np.ndarray, "s s 3"], light: Light) -> Float[np.ndarray, "s s 3"]:
    """``ambient + colour * max(0, <n, direction>)`` at every texel, as `shading.lambert` does for pixels."""
    direction = np.asarray(light.direction) / (np.linalg.norm(light.direction) + 1e-12)
    return np.asarray(light.ambient) + np.asarray(light.colour) * np.maximum(normals @ direction, 0.0)[..., None]


def clear_skin(
    skin: Float[np.ndarray, "h h"], landmarks: Float[np.ndarray, "68 2"], centre: Float[np.ndarray, "h h"]
) -> Float[np.ndarray, "h h"]:
    """The part of a skin mask that lies away from what is not skin, where strands of hair are, and hangs together.

    Distances are in parts of that of the outer eye corners. In the `centre` of the face (brows, eyes, mouth) only the
    mask itself decides.
    """
    eyes = float(np.linalg.norm(landmarks[36] - landmarks[45]))
    inside = np.asarray(ndimage.distance_transform_edt(skin > 0.7)) / eyes
    labels = np.asarray(ndimage.label(inside > EDGE[0])[0])  # pyright: ignore[reportIndexIssue, reportGeneralTypeIssues]
    column, row = np.clip(np.round(landmarks[30]).astype(int), 0, skin.shape[0] - 1)
    same = labels == labels[row, column] if labels[row, column] else labels > 0
    away = same * np.clip((inside - EDGE[0]) / (EDGE[1] - EDGE[0]), 0.0, 1.0)
    return (skin * np.maximum(away, centre)).astype(np.float32)


def without_glasses(
    image: Float[np.ndarray, "h h 3"], landmarks: Float[np.ndarray, "68 2"]
) -> Float[np.ndarray, "h h"]:
    """1 where glasses would not hide the skin; 0 around the eyes of a face that likely wears some."""
    size = image.shape[0]
    if glasses_score(image, landmarks) < 0.0:
        return np.ones((size, size), np.float32)
    left, right = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    across = right - left
    down = np.array([-across[1], across[0]])
    rims = [(left if x < 0 else right) + 0.55 * (x * across + y * down) for x in (-1, 1) for y in (-0.3, 0, 1)]
    outline = hull(np.concatenate([landmarks[17:27], np.stack(rims)]))
    return 1.0 - np.asarray(filled(outline, size).filter(ImageFilter.GaussianBlur(size / 100)), np.float32) / 255.0


def with_detail(
    models: Models,
    params: Params,
    photos: Sequence[str | Path],
    observations: Observation,
    size: int = SIZE,
    hair: bool = True,
) -> Float[np.ndarray, "s s 3"]:
    """A person's fitted albedo, completed from the photos, at `size` texels (a power of two) or what holds the model's.

    `params` and `observations` are those of the fit, the photos' files in the same order. Photos of weight 0 are left
    out. With `hair`, scalp and fringe are painted as the photos show them (`crown`); the mesh stays.
    """
    albedo = texture.decode(models.texture, params.identity.texture)
    while size < albedo.shape[0]:
        size *= 2
    texels = _texel_map(models.shape, size=size)
    necks = np.asarray(unwrap.at_texels(texels, models.shape.faces, models.shape.regions.neck[:, None]))[..., 0]
    albedo = calmed(np.asarray(jax.image.resize(albedo, (size, size, 3), "cubic")), necks * np.asarray(texels.used))
    readings = []
    for number, path in enumerate(photos):
        view, seen = jax.tree.map(lambda x, n=number: x[n], (params.views, observations))
        if float(seen.weight) > 0:
            vertices = morphable.vertices(models.shape, params.identity.shape, view.expression)
            placement, marks = np.asarray(seen.photo_from_window), np.asarray(seen.landmarks)
            window = seen.image.shape[0]
            readings.append(read(models.shape, texels, vertices, view, read_photo(path), placement, marks, window))
    parts = parts_of(models.shape, texels)
    bounds, top = darkest(models.shape, texels, parts), top_of(models.shape, texels, parts) if hair else None
    return complete(np.clip(albedo, 0.0, 1.0), readings, parts, bounds, top=top)
