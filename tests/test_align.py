import dlib
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from ganfit_jax import recognition
from ganfit_jax.recognition import align


@pytest.fixture(scope="module")
def spec():
    return recognition.load("dlib")[0].spec


def landmarks(rng: np.random.Generator) -> np.ndarray:
    """68 random points about a face, turned by 20 degrees, whole pixels."""
    points = rng.uniform(0, 100, (68, 2))
    points[list(align.ALIGNED_POINTS)] = np.asarray(align.MEAN_FACE) + rng.normal(0, 4, (33, 2))
    turn = np.array([[np.cos(0.35), -np.sin(0.35)], [np.sin(0.35), np.cos(0.35)]])
    return np.round(points @ turn.T * 1.3 + 60)


def test_five_points():
    points = np.random.default_rng(0).random((68, 2)).astype(np.float32)
    five = align.five_points(jnp.asarray(points))
    expected = [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
    np.testing.assert_allclose(five, expected, atol=1e-6)


def test_similarity_recovers_a_similarity_exactly():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(7, 2)).astype(np.float32)
    matrix = np.array([[0.8, -1.1, 3.0], [1.1, 0.8, -2.0]], np.float32)
    target = source @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(align.similarity(jnp.asarray(source), jnp.asarray(target)), matrix, atol=1e-5)


@pytest.mark.parametrize("mirrored", [False, True])
def test_similarity_minimises_weighted_squares_over_proper_similarities(mirrored):
    rng = np.random.default_rng(2)
    source, noise = rng.normal(size=(2, 9, 2))
    target = source * ([-1.0, 1.0] if mirrored else 1.0) * 2 + 0.3 * noise
    weights = rng.random(9)
    design, right = [], []  # unknowns a, b, tx, ty
    for (x, y), q, w in zip(source, target, np.sqrt(weights), strict=True):
        design += [w * np.array([x, -y, 1, 0]), w * np.array([y, x, 0, 1])]
        right += [w * q[0], w * q[1]]
    a, b, tx, ty = np.linalg.lstsq(np.array(design), np.array(right), rcond=None)[0]
    found = align.similarity(*(jnp.asarray(v, jnp.float32) for v in (source, target, weights)))
    np.testing.assert_allclose(found, [[a, -b, tx], [b, a, ty]], atol=1e-5)
    assert np.linalg.det(np.asarray(found)[:, :2]) > 0


def test_similarity_gradient():
    rng = np.random.default_rng(3)
    source, target = (jnp.asarray(v, jnp.float32) for v in rng.normal(size=(2, 6, 2)))
    mix = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    loss = jax.jit(lambda s, t: jnp.sum(mix * align.similarity(s, t)))
    jax.test_util.check_grads(loss, (source, target), order=1, rtol=2e-2, atol=2e-2, eps=1e-2)
    many = jax.vmap(align.similarity)(jnp.stack([source, target]), jnp.stack([target, source]))
    np.testing.assert_allclose(many[1], align.similarity(target, source), atol=1e-6)


def warp_loops(image: np.ndarray, matrix: np.ndarray, size: int, fill: float, samples: int) -> np.ndarray:
    height, width, channels = image.shape
    chip = np.zeros((size, size, channels))

    def pixel(row, column):
        return image[row, column] if 0 <= row < height and 0 <= column < width else np.full(channels, fill)

    for row in range(size):
        for column in range(size):
            for i in range(samples):
                for j in range(samples):
                    point = np.array([column + (j + 0.5) / samples, row + (i + 0.5) / samples, 1.0])
                    x, y = matrix @ point - 0.5
                    x0, y0 = int(np.floor(x)), int(np.floor(y))
                    u, v = x - x0, y - y0
                    top = (1 - u) * pixel(y0, x0) + u * pixel(y0, x0 + 1)
                    bottom = (1 - u) * pixel(y0 + 1, x0) + u * pixel(y0 + 1, x0 + 1)
                    chip[row, column] += ((1 - v) * top + v * bottom) / samples**2
    return chip


@pytest.mark.parametrize("samples", [1, 2])
def test_warp_against_loops(samples):
    rng = np.random.default_rng(4)
    image = rng.random((11, 8, 3)).astype(np.float32)
    matrix = np.array([[1.1, -0.5, 1.3], [0.5, 1.1, -2.7]], np.float32)  # part of the chip lies outside the image
    chip = align.warp(jnp.asarray(image), jnp.asarray(matrix), 9, 0.25, samples)
    np.testing.assert_allclose(chip, warp_loops(image, matrix, 9, 0.25, samples), atol=2e-6)


def test_warp_of_identity_is_identity_and_far_away_is_fill():
    image = jnp.asarray(np.random.default_rng(5).random((6, 6, 3)), jnp.float32)
    identity = jnp.asarray([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(align.warp(image, identity, 6), image, atol=1e-6)
    np.testing.assert_allclose(align.warp(image, identity + 100.0, 6, fill=0.5), 0.5, atol=1e-6)


def test_warp_gradients():
    rng = np.random.default_rng(6)
    image = jnp.asarray(rng.random((9, 9, 2)), jnp.float32)
    mix = jnp.asarray(rng.normal(size=(5, 5, 2)), jnp.float32)
    matrix = jnp.asarray([[0.9312, -0.2137, 2.1371], [0.2137, 0.9312, 1.3593]])

    def loss(image, matrix):
        return jnp.sum(mix * align.warp(image, matrix, 5))

    image_gradient, matrix_gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(image, matrix)
    pixels, mixing, exact = (np.asarray(v, np.float64) for v in (image, mix, matrix))

    def change(image_step, matrix_step):
        """Central difference of the loss in float64; the step is small enough that no lookup changes its pixels."""
        chips = [warp_loops(pixels + sign * image_step, exact + sign * matrix_step, 5, 0.5, 1) for sign in (1, -1)]
        return np.sum(mixing * (chips[0] - chips[1])) / 2e-5

    for index in np.ndindex(2, 3):
        step = np.zeros((2, 3))
        step[index] = 1e-5
        np.testing.assert_allclose(matrix_gradient[index], change(0.0, step), rtol=1e-3, atol=1e-3)
    direction = rng.normal(size=pixels.shape)
    expected = change(1e-5 * direction, 0.0)
    np.testing.assert_allclose(np.sum(direction * image_gradient), expected, rtol=1e-3, atol=1e-3)


def test_alignment_is_dlibs(spec):
    """dlib's own map of the chip for random landmarks: centre within 0.2 chip pixels, size within 1.5 %."""
    rng = np.random.default_rng(7)
    for _ in range(5):
        points = landmarks(rng)
        parts = [dlib.point(int(x), int(y)) for x, y in points]
        shape = dlib.full_object_detection(dlib.rectangle(0, 0, 10, 10), parts)
        details = dlib.get_face_chip_details(shape, 150, 0.25)
        ours = np.asarray(align.image_from_chip(spec, jnp.asarray(points + 0.5, jnp.float32)))
        rect = details.rect
        centre = np.array([rect.left() + rect.right(), rect.top() + rect.bottom()]) / 2 + 0.5
        scale = (rect.right() - rect.left()) / 149
        np.testing.assert_allclose(ours @ [75, 75, 1], centre, atol=0.2 * scale)
        np.testing.assert_allclose(np.hypot(*ours[:, 0]), scale, rtol=0.015)
        np.testing.assert_allclose(np.arctan2(ours[1, 0], ours[0, 0]), details.angle, atol=2e-3)


def test_template_of_another_chip_keeps_its_five_points(spec):
    """Five points taken from the mean five land on the other chip's five points as well as a similarity can."""
    np.testing.assert_allclose(align.template(spec), align.MEAN_FACE, atol=1e-3)
    other = spec.__class__("x", 112, tuple((0.5 * x + 3, 0.5 * y - 2) for x, y in align.MEAN_FIVE), "cosine", None)
    expected = np.asarray(align.MEAN_FACE) * 0.5 + [3, -2]
    np.testing.assert_allclose(align.template(other), expected, atol=1e-3)


def test_aligned_chip_follows_a_turned_image(spec):
    """A photo turned by a quarter, with its landmarks, gives the same chip."""
    rng = np.random.default_rng(8)
    image = rng.random((64, 64, 3)).repeat(4, 0).repeat(4, 1).astype(np.float32)
    points = landmarks(rng) + 0.5
    turned = np.stack([256 - points[:, 1], points[:, 0]], axis=1)
    straight = align.aligned_chip(spec, jnp.asarray(image), jnp.asarray(points, jnp.float32))
    quarter = align.aligned_chip(spec, jnp.asarray(np.rot90(image, -1)), jnp.asarray(turned, jnp.float32))
    np.testing.assert_allclose(straight, quarter, atol=2e-3)
