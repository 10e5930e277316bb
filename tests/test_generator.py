"""The networks of the GAN against plain numpy, their fades against the levels below, their gradients against
differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ganfit_jax import gan, generator
from ganfit_jax.generator import Discriminator, Generator, resized

LATENT, WIDTHS, TOP = 6, (5, 4, 3), 16


def randomised(module, seed):
    """The module with random biases too, and its arrays by dotted path in float64."""
    graph, state = nnx.split(module)
    rng = np.random.default_rng(seed)
    leaves, tree = jax.tree.flatten(state)
    state = jax.tree.unflatten(tree, [jnp.asarray(rng.normal(size=x.shape), jnp.float32) for x in leaves])
    arrays = {".".join(map(str, path)): np.asarray(leaf[...], np.float64) for path, leaf in nnx.to_flat_state(state)}
    return graph, state, arrays


@pytest.fixture(scope="module")
def painter():
    return randomised(Generator(LATENT, WIDTHS, nnx.Rngs(0)), 1)


@pytest.fixture(scope="module")
def with_linear():
    """A generator with a linear path of 8 x 8, everything in it random."""
    return randomised(Generator(LATENT, WIDTHS, nnx.Rngs(0), linear=8), 4)


@pytest.fixture(scope="module")
def critic():
    return randomised(Discriminator(4, WIDTHS, nnx.Rngs(0)), 2)


@pytest.fixture(scope="module")
def local_critic():
    return randomised(Discriminator(4, WIDTHS, nnx.Rngs(0), local=True), 5)


@pytest.fixture(scope="module")
def encoder():
    return randomised(Discriminator(4, WIDTHS, nnx.Rngs(0), outputs=LATENT), 3)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def single(x):
    return jnp.asarray(x, jnp.float32)


def apply(network, *arguments):
    graph, state, _ = network
    return np.asarray(nnx.merge(graph, state)(*arguments))


# The same networks in plain numpy.


def scaled(arrays, name, x, gain=2**0.5):
    kernel, bias = arrays[f"{name}.kernel"], arrays[f"{name}.bias"]
    if kernel.ndim == 2:
        return x @ kernel * gain / len(kernel) ** 0.5 + bias
    side, _, inputs, outputs = kernel.shape
    n, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    y = np.zeros((n, height, width, outputs))
    for row in range(height):
        for column in range(width):
            for o in range(outputs):
                window = padded[:, row : row + side, column : column + side]
                y[:, row, column, o] = (window * kernel[None, ..., o]).sum((1, 2, 3))
    return y * gain / (inputs * side**2) ** 0.5 + bias


def rectified(x):
    return np.maximum(x, 0) + 0.2 * np.minimum(x, 0)


def normed(x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-8)


def doubled(x):
    return x.repeat(2, 1).repeat(2, 2)


def halved(x):
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def with_deviation(x, group=4):
    n = len(x)
    group = group if n % group == 0 else n
    spread = np.zeros(n)
    for first in range(n // group):
        members = list(range(first, n, n // group))
        spread[members] = np.sqrt(x[members].var(0) + 1e-8).mean()
    return np.concatenate([x, np.broadcast_to(spread[:, None, None, None], (*x.shape[:3], 1))], -1)


def plain_generator(arrays, latent, side, alpha):
    x = scaled(arrays, "dense", normed(latent), 2**0.5 / 4)
    x = normed(rectified(x.reshape(-1, 4, 4, WIDTHS[0])))
    x = normed(rectified(scaled(arrays, "first", x)))
    image, level = plain_colours(arrays, x, latent, 0), 0
    while image.shape[1] < side:
        x = doubled(x)
        if "linear.mean" in arrays:
            maps = plain_linear(arrays, latent, x.shape[1])
            x = np.concatenate([x, maps, 8 * plain_fine(maps)], -1)
        x = normed(rectified(scaled(arrays, f"blocks.{level}.first", x)))
        x = normed(rectified(scaled(arrays, f"blocks.{level}.second", x)))
        level, old = level + 1, doubled(image)
        image = plain_colours(arrays, x, latent, level)
    return (1 - alpha) * old + alpha * image if level else image


def coarse(images):
    """Shrunk twice and enlarged twice by the binomial filter, reflected borders; pixel by pixel along each axis."""

    def shrunk(line):
        n, taps = len(line), (1, 4, 6, 4, 1)
        mirror = lambda i: -i if i < 0 else 2 * n - 2 - i if i >= n else i  # noqa: E731
        return np.stack([sum(t * line[mirror(2 * i + k - 2)] for k, t in enumerate(taps)) / 16 for i in range(n // 2)])

    def grown(line):
        around = [line[1], *line, line[-1]]
        pairs = [((a + 6 * b + c) / 8, (b + c) / 2) for a, b, c in zip(around, around[1:], around[2:], strict=False)]
        return np.stack([value for pair in pairs for value in pair])

    for change in (shrunk, shrunk, grown, grown):
        for axis in (1, 2):
            images = np.moveaxis(change(np.moveaxis(images, axis, 0)), 0, axis)
    return images


def plain_colours(arrays, x, latent, level):
    image = scaled(arrays, f"colours.{level}", x, 1.0)
    if "linear.mean" not in arrays:
        return image
    side = image.shape[1]
    detail = plain_resized(arrays["taught"][None], side) * plain_bounded(plain_fine(image))
    return detail + plain_linear(arrays, latent, side)


def plain_fine(images):
    return images - coarse(images) if images.shape[1] >= 16 else images


def plain_bounded(images):
    if images.shape[1] < 16:
        return images
    scale = np.zeros((*images.shape[:3], 1))
    for row in range(images.shape[1]):
        for column in range(images.shape[2]):
            around = images[:, max(row - 4, 0) : row + 5, max(column - 4, 0) : column + 5]
            scale[:, row, column, 0] = (around**2).sum((1, 2)).mean(-1) / 81
    scale = np.sqrt(scale + 1e-8)
    return scale * np.tanh(images / scale)


def plain_discriminator(arrays, images, alpha, compares):
    def looked_at(level, images):
        if "local.0.kernel" in arrays:
            band = images[..., :3] - doubled(halved(images))[..., :3] if level else 0 * images[..., :3]
            images = np.concatenate([images, 4 * band], -1)
        return rectified(scaled(arrays, f"colours.{level}", images))

    level = {4: 0, 8: 1, 16: 2}[images.shape[1]]
    top, x, places = level, looked_at(level, images), 0.0
    while level:
        x = rectified(scaled(arrays, f"blocks.{level - 1}.first", x))
        if "local.0.kernel" in arrays:
            scores = scaled(arrays, f"local.{level - 1}", x, 1.0)
            places = places + (alpha if level == top else 1.0) * scores.mean((1, 2)) * x.shape[1]
        x = halved(rectified(scaled(arrays, f"blocks.{level - 1}.second", x)))
        if level == top:
            old = looked_at(level - 1, halved(images))
            x = (1 - alpha) * old + alpha * x
        level -= 1
    x = rectified(scaled(arrays, "last", with_deviation(x) if compares else x))
    x = rectified(scaled(arrays, "dense", x.reshape(len(x), -1)))
    x = scaled(arrays, "head", x, 1.0) + places
    return x if compares else normed(x)


def stretched(x, side):
    """Bilinear between the texels' centres, constant beyond the outermost."""
    places = np.clip((np.arange(side) + 0.5) * x.shape[1] / side - 0.5, 0, x.shape[1] - 1)
    below = np.minimum(places.astype(int), x.shape[1] - 2)
    share = places - below
    for axis, shape in ((1, (1, -1, 1, 1)), (2, (1, 1, -1, 1))):
        first, second = (np.take(x, ids, axis) for ids in (below, below + 1))
        x = first + share.reshape(shape) * (second - first)
    return x


def plain_linear(arrays, latent, side):
    mean, basis = arrays["linear.mean"], arrays["linear.basis"]
    return plain_resized(np.stack([mean + sum(z * b for z, b in zip(row, basis, strict=True)) for row in latent]), side)


def plain_resized(maps, side):
    while maps.shape[1] > side:
        maps = halved(maps)
    return stretched(maps, side) if maps.shape[1] < side else maps


@pytest.mark.parametrize("side", [4, 8, 16])
def test_the_generator_equals_plain_numpy(painter, side):
    latent = draw((2, LATENT))
    found = apply(painter, single(latent), side, jnp.float32(0.3))
    assert found.shape == (2, side, side, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, plain_generator(painter[2], latent, side, 0.3), atol=2e-5)


@pytest.mark.parametrize("side", [4, 8, 16])
@pytest.mark.parametrize("network", ["painter", "with_linear"])
def test_without_an_alpha_a_level_is_faded_in(network, side, request):
    latent, network = single(draw((2, LATENT))), request.getfixturevalue(network)
    found, expected = (apply(network, latent, side, alpha) for alpha in (None, jnp.ones(())))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_a_generator_with_a_linear_path_sharpens_its_maps_and_adds_to_them(with_linear, side):
    latent, arrays = draw((2, LATENT)), with_linear[2]
    found = apply(with_linear, single(latent), side, jnp.float32(0.3))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain_generator(arrays, latent, side, 0.3), atol=1e-4)


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_linear_maps_at_below_and_above_their_side(with_linear, side):
    """32 is no level of the networks; the linear path alone takes it."""
    latent = draw((3, LATENT), 7)
    found = resized(nnx.merge(*with_linear[:2]).linear(single(latent)), side)
    assert found.shape == (3, side, side, 3)
    np.testing.assert_allclose(found, plain_linear(with_linear[2], latent, side), atol=2e-5)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_a_fresh_generator_with_a_linear_path_is_the_linear_model(with_linear, side):
    fresh = Generator(LATENT, WIDTHS, nnx.Rngs(0), linear=8)
    for name in ("mean", "basis"):
        getattr(fresh.linear, name)[...] = single(with_linear[2][f"linear.{name}"])
    latent = draw((2, LATENT))
    found = fresh(single(latent), side, jnp.ones(()))
    np.testing.assert_array_equal(found, resized(fresh.linear(single(latent)), side))
    np.testing.assert_allclose(found, plain_linear(with_linear[2], latent, side), atol=2e-5)
    twice = fresh(2.0 * single(latent), side, jnp.ones(()))
    assert np.abs(np.asarray(twice - found)).max() > 0.1, "it takes the latent as it is, not its direction"
    assert Generator(LATENT, WIDTHS, nnx.Rngs(0)).linear is None


@pytest.mark.parametrize("side", [4, 8, 16])
@pytest.mark.parametrize("name", ["critic", "local_critic", "encoder"])
def test_critic_and_encoder_equal_plain_numpy(request, name, side):
    network, images = request.getfixturevalue(name), draw((4, side, side, 4))
    found = apply(network, single(images), jnp.float32(0.3))
    assert found.shape == (4, LATENT if name == "encoder" else 1)
    expected = plain_discriminator(network[2], images, 0.3, name != "encoder")
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("side", [8, 16])
def test_a_fade_begins_exactly_at_the_level_below(painter, with_linear, critic, local_critic, encoder, side):
    latent, images = single(draw((2, LATENT))), single(draw((4, side, side, 4)))
    begin, end = jnp.float32(0.0), jnp.float32(1.0)
    for network in (painter, with_linear):
        below = apply(network, latent, side // 2, end)
        np.testing.assert_array_equal(apply(network, latent, side, begin), doubled(below))
    for network in (critic, local_critic, encoder):
        below = apply(network, generator.shrink(images), end)
        np.testing.assert_array_equal(apply(network, images, begin), below)


@pytest.mark.parametrize("side", [8, 16])
def test_a_fade_ends_exactly_without_the_level_below(painter, with_linear, critic, local_critic, side):
    latent, images, alpha = single(draw((2, LATENT))), single(draw((4, side, side, 4))), jnp.float32(1.0)

    def without(network):
        module = nnx.merge(network[0], jax.tree.map(jnp.copy, network[1]))
        old = module.colours[generator.levels(side) - 2]
        old.kernel[...], old.bias[...] = 99.0 * old.kernel[...], old.bias[...] - 7.0
        return module

    for network in (painter, with_linear):
        whole = apply(network, latent, side, alpha)
        assert np.any(np.asarray(without(network)(latent, side, jnp.float32(0.9))) != whole)
        np.testing.assert_array_equal(without(network)(latent, side, alpha), whole)
    for network in (critic, local_critic):
        np.testing.assert_array_equal(without(network)(images, alpha), apply(network, images, alpha))


def test_a_fade_is_a_straight_line_between_its_ends(painter):
    latent = single(draw((2, LATENT)))
    begin, middle, end = (apply(painter, latent, 8, jnp.float32(a)) for a in (0.0, 0.25, 1.0))
    np.testing.assert_allclose(middle, 0.75 * begin + 0.25 * end, atol=1e-5)


def test_only_the_direction_of_a_latent_matters(painter):
    latent = single(draw((1, LATENT)))
    first, second = (apply(painter, scale * latent, 8, jnp.ones(())) for scale in (1, 30))
    np.testing.assert_allclose(first, second, atol=2e-5)


def test_pixel_norm_and_leaky():
    x = draw((2, 3, 3, 5))
    np.testing.assert_allclose(generator.pixel_norm(single(x)), normed(x), atol=1e-6)
    np.testing.assert_allclose((np.asarray(generator.pixel_norm(single(x))) ** 2).mean(-1), 1.0, atol=1e-5)
    assert np.all(np.asarray(generator.pixel_norm(jnp.zeros((1, 4)))) == 0)
    np.testing.assert_allclose(generator.leaky(single([-2.0, 0.0, 3.0])), [-0.4, 0.0, 3.0], atol=1e-7)


@pytest.mark.parametrize("count", [4, 8, 6, 1])
def test_minibatch_deviation(count):
    x = draw((count, 2, 2, 3), count)
    found = np.asarray(generator.deviation(single(x)))
    np.testing.assert_allclose(found, with_deviation(x), atol=1e-5)
    if count == 8:
        assert found[0, 0, 0, 3] == found[2, 0, 0, 3] != found[1, 0, 0, 3]
    same = np.asarray(generator.deviation(single(np.repeat(x[:1], count, 0))))
    np.testing.assert_allclose(same[..., 3], 1e-4, atol=1e-6)


def test_enlarge_and_shrink_undo_each_other():
    x = draw((2, 4, 4, 3))
    np.testing.assert_array_equal(generator.enlarge(single(x)), doubled(single(x)))
    np.testing.assert_allclose(generator.shrink(single(x)), halved(x), atol=1e-6)
    np.testing.assert_array_equal(generator.shrink(generator.enlarge(single(x))), single(x))


@pytest.mark.parametrize("side", [0, 1, 3])
def test_equalised_layers_keep_the_size_of_signals(side):
    """Weights are standard normal whatever the layer's size; what comes out has the gain's variance."""
    layer = generator.Scaled(40, 50, side, nnx.Rngs(0), gain=3.0)
    assert np.std(layer.kernel[...]) == pytest.approx(1.0, abs=0.06) and np.all(layer.bias[...] == 0)
    found = np.asarray(layer(single(draw((40, 8, 8, 40) if side else (400, 40)))))
    inside = found[:, 1:-1, 1:-1] if side else found
    assert inside.std() == pytest.approx(3.0, rel=0.1)
    assert layer.scale == pytest.approx(3.0 / (40 * max(side, 1) ** 2) ** 0.5)


def test_the_generator_s_gradient_against_differences(painter):
    graph, state, arrays = painter
    latent, towards = draw((1, LATENT)), draw((1, 8, 8, 3), 5)

    def loss(z, weights):
        return jnp.sum(nnx.merge(graph, weights)(z, 8, jnp.float32(0.3)) * single(towards))

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1)))(single(latent), state)
    weights = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(slopes[1])}
    rng, step = np.random.default_rng(4), 1e-6

    def difference(z, moved):
        ends = []
        for far in (-step, step):
            there = {name: value + far * moved.get(name, 0) for name, value in arrays.items()}
            ends.append((plain_generator(there, latent + far * z, 8, 0.3) * towards).sum())
        return (ends[1] - ends[0]) / (2 * step)

    z = rng.normal(size=latent.shape)
    assert float((np.asarray(slopes[0]) * z).sum()) == pytest.approx(difference(z, {}), rel=1e-3)
    for name in ("dense.kernel", "first.bias", "blocks.0.first.kernel", "blocks.0.second.bias", "colours.1.kernel"):
        moved = rng.normal(size=arrays[name].shape)
        expected = difference(0.0, {name: moved})
        assert float((weights[name] * moved).sum()) == pytest.approx(expected, rel=2e-3, abs=1e-3), name
    assert np.all(weights["blocks.1.first.kernel"] == 0), "levels above the side have no part"


def test_the_critic_s_gradient_against_differences(critic):
    graph, state, arrays = critic
    images, towards = draw((4, 8, 8, 4)), draw((4, 8, 8, 4), 5)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(nnx.merge(graph, state)(x, jnp.float32(0.3)))))(single(images))
    ends = [plain_discriminator(arrays, images + s * towards, 0.3, True).sum() for s in (-1e-6, 1e-6)]
    assert float((np.asarray(slope) * towards).sum()) == pytest.approx((ends[1] - ends[0]) / 2e-6, rel=1e-3)


def test_the_penalty_s_gradient_against_differences(critic):
    """The critic differentiated twice: once by its image, once by its weights."""
    graph, state, _ = critic
    real, fake, share = single(draw((4, 8, 8, 4))), single(draw((4, 8, 8, 4), 5)), single([0.1, 0.9, 0.4, 0.6])

    def loss(weights):
        weights = jax.tree.map(lambda x: 0.3 * x, weights)
        return gan.penalty(lambda x: nnx.merge(graph, weights)(x, jnp.float32(0.3))[:, 0], real, fake, share)

    value, slope = jax.jit(loss), jax.jit(jax.grad(loss))(state)
    leaves, tree = jax.tree.flatten(state)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        moved = jax.tree.unflatten(tree, [single(rng.normal(size=x.shape)) for x in leaves])
        ends = [float(value(jax.tree.map(lambda w, m, s=s: w + s * m, state, moved))) for s in (-1e-3, 1e-3)]
        product = sum(float(jnp.sum(a * b)) for a, b in zip(*map(jax.tree.leaves, (slope, moved)), strict=True))
        assert product == pytest.approx((ends[1] - ends[0]) / 2e-3, rel=0.03, abs=1e-2 * float(value(state)))


def test_channels_of_the_paper_and_of_the_narrow_network():
    assert generator.channels(512, 8192, 512) == (512, 512, 512, 256, 128, 64, 32, 16)
    assert generator.channels(1024, 8192, 512)[-1] == 8 and generator.channels(8, 4, 9) == (1, 1)
    assert generator.channels(64, 64, 8, 3) == (8, 8, 4, 3, 3) and generator.channels(8, 4, 2, 3) == (2, 2)
    settings = gan.Settings()
    assert generator.channels(settings.side, settings.base, settings.widest) == (128, 128, 128, 64, 32, 16)
    for side in (0, 2, 100, -8):
        with pytest.raises(ValueError, match=f"side {side}: expected a power of two"):
            generator.channels(side, 8192, 512)
    assert [generator.levels(side) for side in (4, 8, 512)] == [1, 2, 8]


def test_bfloat16_comes_near_float32(painter, encoder):
    latent, alpha = single(draw((2, LATENT))), jnp.float32(0.3)
    exact, rough = (apply(painter, latent, 16, alpha, kind) for kind in (jnp.float32, jnp.bfloat16))
    assert rough.dtype == np.float32 and np.any(rough != exact)
    assert np.abs(rough - exact).mean() < 0.02 * np.abs(exact).mean()
    images = single(draw((2, 16, 16, 4)))
    exact, rough = (apply(encoder, images, alpha, kind) for kind in (jnp.float32, jnp.bfloat16))
    assert rough.dtype == np.float32 and np.abs(rough - exact).mean() < 0.03 * np.abs(exact).mean()
