"""Detail comes from the photo where it is seen, and only detail, and only there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ganfit_jax import assets, detail, morphable, texture
from ganfit_jax.files import write_bytes
from ganfit_jax.observe import to_window
from ganfit_jax.picture import png_bytes
from ganfit_jax.render import draw
from ganfit_jax.types import Camera, Identity, Light, LinearTexture, Models, Observation, Params, View

SIDE = 64
RNG = np.random.default_rng(0)
FINE = np.float32(0.05 * ndimage.gaussian_filter(RNG.normal(size=(SIDE, SIDE)), 1.0)[..., None] * np.ones(3))
SMOOTH = np.full((SIDE, SIDE, 3), 0.5, np.float32)
ALL = np.ones((1, SIDE, SIDE), np.float32)
DARKER = np.full((SIDE, SIDE), 0.6)


def reading(colour, weight=None, light=1.0, surface=None):
    weight = np.ones((SIDE, SIDE), np.float32) if weight is None else weight
    surface = weight if surface is None else surface
    return detail.Reading(np.float32(colour), np.full((SIDE, SIDE, 3), light, np.float32), weight, surface)


def completed(*readings, parts=ALL, darker=DARKER, top=None):
    return detail.complete(SMOOTH, readings, parts, darker, top=top)


def high(image):
    """What is finer than the bands that are kept."""
    return image - ndimage.gaussian_filter(image, (1.5, 1.5, 0))


def test_detail_of_the_photo_appears_and_its_light_does_not():
    x = np.linspace(0.6, 1.2, SIDE)[None, :, None]
    found = completed(reading(x * (SMOOTH + FINE)))
    inner = (slice(8, -8), slice(8, -8))
    agreement = np.corrcoef(high(found)[inner].ravel(), high(SMOOTH + FINE)[inner].ravel())[0, 1]
    assert agreement > 0.95
    drift = ndimage.gaussian_filter(found, (8, 8, 0))[inner]
    assert np.abs(drift - 0.5).max() < 0.06, "the ramp of light stays out"


def test_the_light_of_the_fit_is_divided_out():
    light = np.where(np.arange(SIDE) < SIDE // 2, 0.6, 1.0)[None, :, None] * np.ones((SIDE, SIDE, 3))
    ones = np.ones((SIDE, SIDE), np.float32)
    lit = detail.Reading(np.float32(light * (SMOOTH + FINE)), np.float32(light), ones, ones)
    assert completed(lit) == pytest.approx(completed(reading(SMOOTH + FINE)), abs=1e-4)


def test_nothing_changes_where_nothing_is_seen_and_the_seam_is_smooth():
    weight = np.zeros((SIDE, SIDE), np.float32)
    weight[:, : SIDE // 2] = 1
    wild = np.where(weight[..., None] > 0, SMOOTH + FINE, 0.0)
    found = completed(reading(wild, weight))
    assert found[:, SIDE // 2 + 16 :] == pytest.approx(SMOOTH[:, SIDE // 2 + 16 :], abs=0.02)
    assert np.abs(found[:, :24] - SMOOTH[:, :24]).mean() > 0.005
    step = np.abs(np.diff(found.mean((0, 2))))
    assert step[SIDE // 2 - 4 : SIDE // 2 + 4].max() < 2 * step[4 : SIDE // 2 - 4].max()
    assert completed(reading(wild, 0 * weight)) == pytest.approx(SMOOTH, abs=1e-6)
    assert completed() == pytest.approx(SMOOTH, abs=1e-6)


def test_one_part_does_not_reach_another():
    parts = np.zeros((2, SIDE, SIDE), np.float32)
    parts[0, :, : SIDE // 2], parts[1, :, SIDE // 2 :] = 1, 1
    dark = SMOOTH.copy()
    dark[:, SIDE // 2 :] = 0.1
    assert completed(reading(dark), parts=parts) == pytest.approx(SMOOTH, abs=0.01)
    assert np.abs(completed(reading(dark)) - SMOOTH)[:, SIDE // 2 - 6 : SIDE // 2].max() > 0.03


def test_highlights_and_dark_things_are_bounded():
    spots = SMOOTH.copy()
    spots[20:23, 20:23], spots[40:43, 40:43] = 1.0, 0.05
    found = completed(reading(spots), darker=np.full((SIDE, SIDE), 0.2))
    assert found.max() < 0.5 * np.exp(detail.BRIGHTER) + 1e-3
    assert found.min() > 0.5 * np.exp(-0.2) - 1e-3
    assert found.max() > 0.53 and found.min() < 0.43, "but shown"


def test_the_photo_that_sees_a_texel_best_decides():
    other = np.float32(0.05 * ndimage.gaussian_filter(RNG.normal(size=(SIDE, SIDE)), 1.0)[..., None] * np.ones(3))
    well, badly = np.ones((SIDE, SIDE), np.float32), np.full((SIDE, SIDE), 0.5, np.float32)
    found = completed(reading(SMOOTH + FINE, well), reading(SMOOTH + other, badly))
    shares = [np.corrcoef(high(found).ravel(), high(x).ravel())[0, 1] for x in (FINE, other)]
    assert shares[0] > 0.95 and abs(shares[1]) < 0.3
    both = completed(reading(SMOOTH + FINE), reading(SMOOTH + other))
    assert both == pytest.approx(completed(reading(SMOOTH + (FINE + other) / 2)), abs=0.01)


def head(seen_rows):
    """A chart with the scalp in rows 0 to 31, the forehead in 32 to 43, the face below; hair down to row 39, of which
    the photo sees the rows from 31 - `seen_rows` on."""
    rows = np.arange(SIDE)[:, None] * np.ones((1, SIDE), int)
    top = np.float32(rows < 32), np.float32((rows >= 32) & (rows < 44))
    hair = rows < 40
    colour = np.where(hair[..., None], np.float32([0.34, 0.30, 0.26]) * (1 + FINE), SMOOTH)
    surface = np.float32(rows >= 32 - seen_rows)
    return top, colour, np.float32(~hair) * surface, surface, hair


def test_hair_comes_from_the_photo_with_all_its_frequencies():
    top, colour, skin, surface, _ = head(24)
    light = 0.8
    found = completed(reading(light * colour, skin, light, surface), top=top)
    assert found[14:36] == pytest.approx(colour[14:36], abs=0.01), "scalp and fringe are the photo's, without its light"
    assert np.abs(found[:4] - colour[14:30].mean((0, 1))).max() < 0.03, "hair goes on where nothing is seen"
    assert found[48:] == pytest.approx(SMOOTH[48:], abs=0.01), "the face stays"
    plain = completed(reading(light * colour, skin, light, surface))
    assert plain[:32] == pytest.approx(SMOOTH[:32], abs=0.02), "without the masks nothing of it is shown"


def test_clear_skin_of_the_forehead_stays_the_fits():
    """The photo's forehead is darker than the fit's in a way that no band of detail has: no hair, so no change."""
    top, colour, _, surface, _ = head(24)
    wrong = np.where(np.arange(SIDE)[:, None, None] >= 32, 0.35, colour)
    ones = np.ones_like(surface)
    kept = completed(reading(wrong, surface * (np.arange(SIDE)[:, None] >= 32), surface=surface), top=top)
    taken = completed(reading(wrong, 0 * ones, surface=surface), top=top)
    assert np.abs(kept[37:42] - 0.5).max() < 0.1 and np.abs(taken[37:42] - 0.35).max() < 0.02


def test_hair_of_the_scalp_does_not_reach_a_forehead_that_is_hardly_seen():
    """A turned head: right of column 40 nothing is seen, left of it hair, and a forehead of clear skin whose mask fades
    first, as `clear_skin` does."""
    top, colour, _, _, _ = head(32)
    columns = np.arange(SIDE)[None, :] * np.ones((SIDE, 1))
    surface = np.float32(columns < 40)
    rows = np.arange(SIDE)[:, None]
    skin = surface * np.float32((rows >= 32) & (columns < 30))
    colour = np.where((rows < 32)[..., None], 0.15, SMOOTH)
    found = completed(reading(colour, skin, surface=surface), top=top)
    assert found[8:24, 50:] == pytest.approx(0.15, abs=0.03), "the scalp goes on"
    assert found[38:43] == pytest.approx(SMOOTH[38:43], abs=0.03), "the forehead does not"


def test_skin_beside_hair_is_not_what_goes_on_over_the_scalp():
    top, _, _, _, _ = head(16)
    rows = np.arange(SIDE)[:, None] * np.ones((1, SIDE), int)
    hair = rows < 24
    colour, surface = np.where(hair[..., None], 0.2, SMOOTH), np.float32(rows >= 16)
    found = completed(reading(colour, surface * ~hair, surface=surface), top=top)
    assert found[:8] == pytest.approx(0.2 + 0 * found[:8], abs=0.02)


def test_the_photo_that_sees_the_hair_best_decides():
    top, colour, skin, surface, hair = head(32)
    other = np.where(hair[..., None], 0.7, colour)
    half = reading(other, skin, surface=0.3 * surface)
    found = completed(reading(colour, skin, surface=surface), half, top=top)[4:28]
    expected = np.exp((np.log(colour) + 0.09 * np.log(other)) / 1.09)[4:28]
    assert found == pytest.approx(expected, abs=0.01)
    unseen = completed(reading(colour, skin, surface=surface), reading(other, 0 * skin, surface=0 * surface), top=top)
    assert unseen[4:28] == pytest.approx(colour[4:28], abs=0.01)


def test_the_tint_of_almost_black_hair_is_noise():
    top, colour, skin, surface, hair = head(32)
    brown = SMOOTH * np.float32([1.3, 1.0, 0.7])
    black = np.where(hair[..., None], np.float32([0.03, 0.02, 0.04]), colour)
    found = detail.complete(brown, [reading(black, skin, surface=surface)], ALL, DARKER, top=top)[4:28]
    assert found.mean() == pytest.approx(0.03, abs=0.01) and np.ptp(found.mean((0, 1))) < 0.006


def test_a_photo_that_shows_no_scalp_changes_none():
    top, colour, skin, surface, _ = head(0)
    found = completed(reading(colour, skin, surface=surface), top=top)
    assert found[:36] == pytest.approx(SMOOTH[:36], abs=0.02)
    surface[20:22, 20:22] = 1
    sliver = completed(reading(colour, skin, surface=surface), top=top)
    assert sliver[:32] == pytest.approx(SMOOTH[:32], abs=0.02), "a few texels say nothing of all the others"


def test_bald_scalps_keep_their_skin_without_its_shine():
    top, _, _, surface, _ = head(32)
    shine = SMOOTH.copy()
    shine[12:20, 28:36] = 1.0
    found = completed(reading(shine, surface=surface), top=top)
    assert found.max() < 0.5 * np.exp(detail.BRIGHTER) + 1e-3
    assert found[16, 32].min() > 0.53 and np.abs(found[2:8, 2:8] - 0.5).max() < 0.01


def test_necks_are_smooth_and_what_is_beside_them_stays():
    rng, mask = np.random.default_rng(0), np.zeros((SIDE, SIDE), np.float32)
    mask[40:60] = 1
    rows = np.arange(SIDE)[:, None, None] * np.ones((1, SIDE, 3))
    noisy = np.float32(np.where(rows >= 60, 0.9, 0.3 + rows / 200) + rng.normal(0, 0.05, (SIDE, SIDE, 3)))
    found = detail.calmed(noisy, mask)
    assert (found[:38] == noisy[:38]).all() and (found[60:] == noisy[60:]).all()
    inner = found[45:56, 4:-4]
    assert np.diff(inner, axis=1).std() < 0.2 * np.diff(noisy[45:56], axis=1).std()
    assert inner == pytest.approx((0.3 + rows / 200)[45:56, 4:-4], abs=0.05), "its tone stays, nothing leaks into it"


def portrait(size, above, hair=None):
    """A head (an ellipse) of skin before a wall, whose upper rim shows `above`; its outline; the mask of that rim."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:size, :size] / size
    angle = np.linspace(0, 2 * np.pi, 100)
    outline = size * np.stack([0.5 + 0.2 * np.cos(angle), 0.55 + 0.3 * np.sin(angle)], -1)
    covered = np.hypot((x - 0.5) / 0.2, (y - 0.55) / 0.3) < 1
    rim = covered & (np.hypot((x - 0.5) / 0.2, (y - 0.59) / 0.3) >= 1) & (y < 0.5)
    wall = np.float32([0.3, 0.5, 0.8]) + 0.2 * x[..., None]  # not the same everywhere
    image = np.where(covered[..., None], np.float32([0.8, 0.6, 0.5]), wall)
    image = np.where(rim[..., None], wall if above is None else np.float32(above), image)
    if hair is not None:
        image = np.where(
            (np.hypot((x - 0.5) / 0.3, (y - 0.45) / 0.35) < 1)[..., None] & (y < 0.45)[..., None], hair, image
        )
    return np.clip(image + rng.normal(0, 0.02, image.shape), 0, 1), outline, rim, covered


@pytest.mark.parametrize("size", [256, 512])
def test_what_is_behind_the_head_is_not_painted_on_it(size):
    ones = np.ones((size, size))
    image, outline, rim, covered = portrait(size, None)
    found = detail.behind(image, ones, outline)
    assert (
        found[rim].mean() > 0.95 and found[covered & ~ndimage.binary_dilation(rim, iterations=size // 32)].mean() < 0.01
    )
    image, outline, rim, covered = portrait(size, (0.2, 0.15, 0.1))
    assert detail.behind(image, ones, outline)[covered].mean() < 0.01, "hair is not the wall"
    image, outline, rim, covered = portrait(size, None, np.float32([0.2, 0.15, 0.1]))
    assert detail.behind(image, ones, outline)[covered].mean() < 0.01, "nor is hair that stands out from the head"
    for value in (0.0, 1.0):  # clipped hair before a clipped wall
        assert not detail.behind(np.full((size, size, 3), value), ones, outline).any()


def test_the_rim_is_not_believed_where_the_photo_ends_at_the_head():
    image, outline, _, covered = portrait(256, (0.2, 0.15, 0.1))
    found = detail.behind(image, np.float32(covered), outline)
    assert 0.02 < found[covered].mean() < 0.3 and not found[120:].any(1)[80:].any()
    assert not found[int(0.55 * 256), int(0.4 * 256) : int(0.6 * 256)].any(), "but its middle is"


def test_scalp_and_forehead_lie_above_the_brows():
    model, _ = assets.load_shape()
    texels = jax.jit(detail.unwrap.texel_map, static_argnames="size")(model, size=128)
    parts = detail.parts_of(model, texels)
    scalp, forehead = detail.top_of(model, texels, parts)
    points = np.asarray(detail.unwrap.at_texels(texels, model.faces, model.mean))
    marks = np.asarray(morphable.landmarks(model, model.mean, jnp.zeros(3)))
    brows = marks[17:27, 1].max()
    for region in (forehead > 0, (scalp > 0) & (points[..., 2] > 0)):
        assert points[..., 1][region].min() > brows
    crown = (points[..., 1] > brows + 80) & (np.asarray(texels.used) > 0)
    assert crown.sum() > 100 and (scalp[crown] == 1).all()
    assert not (scalp + forehead)[(parts[1] + parts[2]) > 0].any()
    ears = np.asarray(detail.unwrap.at_texels(texels, model.faces, model.regions.ears[:, None]))[..., 0]
    assert (ears > 0.99).any() and scalp[ears > 0.99].max() < 0.02


def test_strands_and_islands_are_no_clear_skin():
    skin = np.zeros((100, 100), np.float32)
    skin[30:90, 20:80] = 1
    skin[10:16, 45:55] = 1  # between strands of hair
    marks = np.full((68, 2), 50.0)
    marks[36], marks[45], marks[30] = (25, 50), (75, 50), (50, 60)
    found = detail.clear_skin(skin, marks, np.zeros((100, 100), np.float32))
    assert found[60, 50] == 1 and found[31, 50] < 0.1 and not found[10:16].any()
    centre = np.zeros((100, 100), np.float32)
    centre[31, 50] = 1
    assert detail.clear_skin(skin, marks, centre)[31, 50] == 1


def test_parts_share_no_texel_and_dark_things_are_bounded_at_the_mouth():
    model, _ = assets.load_shape()
    texels = jax.jit(detail.unwrap.texel_map, static_argnames="size")(model, size=SIDE)
    parts = detail.parts_of(model, texels)
    assert parts.sum(0).max() == 1 and (parts.sum((1, 2)) > 20).all()
    bound = detail.darkest(model, texels, parts)
    assert bound.max() == detail.DARKER and bound.min() < 0.2
    assert (bound[(parts[1] + parts[2]) > 0] == detail.DARKER).all()


@pytest.mark.slow
def test_a_photo_gives_a_person_its_moles(tmp_path):
    """A face rendered with moles that the fit's albedo lacks: they come back at their texels."""
    shape, _ = assets.load_shape()
    side, size = 128, 256
    plain = np.full((side, side, 3), 0.6, np.float32) * np.float32([1.0, 0.8, 0.7])
    moles = plain.copy()
    for row, column in ((70, 46), (72, 80), (106, 63)):
        moles[row : row + 3, column : column + 3] *= 0.6
    models = Models(shape, LinearTexture(jnp.asarray(plain), jnp.zeros((1, side, side, 3))), None)
    camera = Camera(jnp.array([0.0, 0.1, 0.0]), jnp.array([0.0, -25.0, 1000.0]), jnp.log(jnp.float32(3.6)))
    light = Light(jnp.array([0.4, 0.4, 1.0]), jnp.full(3, 0.5), jnp.full(3, 0.6))
    view = View(jnp.zeros(shape.expression_basis.shape[0]), camera, light)
    identity = Identity(jnp.zeros(shape.identity_basis.shape[0]), jnp.zeros(1))
    drawn = jax.jit(draw, static_argnames="size")(
        shape, morphable.vertices(shape, identity.shape, view.expression), jnp.asarray(moles), camera, light, size, 0.2
    )
    write_bytes(tmp_path / "photo.png", png_bytes(np.asarray(drawn.image)))
    placement = np.eye(2, 3, dtype=np.float32)
    marks = jnp.asarray(to_window(placement, np.asarray(drawn.landmarks)), jnp.float32)
    ones = jnp.ones(())
    seen = Observation(drawn.image, marks, jnp.ones(68), jnp.ones((size, size)), jnp.asarray(placement), None, ones)
    one = jax.tree.map(lambda x: x[None], (view, seen))
    found = detail.with_detail(models, Params(identity, one[0]), [tmp_path / "photo.png"], one[1], size=side)
    assert found.shape == (side, side, 3)
    before = np.asarray(texture.decode(models.texture, identity.texture))
    for row, column in ((70, 46), (72, 80), (106, 63)):
        assert found[row + 1, column + 1].mean() < 0.85 * before[row + 1, column + 1].mean()
    rest = np.abs(found - before).mean(-1)
    assert np.median(rest) < 0.01
    ignored = one[1]._replace(weight=jnp.zeros(1))
    same = detail.with_detail(models, Params(identity, one[0]), [tmp_path / "photo.png"], ignored, size=side)
    assert same == pytest.approx(before, abs=1e-5)
