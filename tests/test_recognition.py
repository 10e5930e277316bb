import importlib
from pathlib import Path

import dlib
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from flax import nnx

from ganfit_jax import recognition
from ganfit_jax.recognition import layers
from ganfit_jax.recognition.dlib_resnet import Block


@pytest.fixture(scope="module")
def built_in():
    return recognition.load("dlib")


def chips() -> np.ndarray:
    astronaut = skimage.data.astronaut()
    return np.stack([astronaut[y : y + 150, x : x + 150] for y, x in ((30, 150), (60, 170), (0, 200))])


def filled(module: nnx.Module, rng: np.random.Generator) -> None:
    """Random weights in place of zeros."""
    state = nnx.state(module)
    nnx.update(module, jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), state))


def conv_loops(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """One image [h, w, c], kernel [k, k, c, o]: the definition, pixel by pixel."""
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    side = kernel.shape[0]
    shape = [(n - side) // stride + 1 for n in x.shape[:2]]
    y = np.zeros((*shape, kernel.shape[3]))
    for row in range(shape[0]):
        for column in range(shape[1]):
            for out in range(kernel.shape[3]):
                window = x[row * stride : row * stride + side, column * stride : column * stride + side]
                y[row, column, out] = np.sum(window * kernel[..., out]) + bias[out]
    return y


def test_embedding_is_dlibs(built_in):
    recogniser, info = built_in
    theirs = dlib.face_recognition_model_v1(info.path)
    images = chips()
    ours = jax.jit(recognition.features)(recogniser, jnp.asarray(images, jnp.float32) / 255)
    for image, embedding in zip(images, ours.embedding, strict=True):
        expected = theirs.compute_face_descriptor(np.ascontiguousarray(image))
        np.testing.assert_allclose(embedding, np.asarray(expected), atol=1e-4)
    sides = [activation.shape[1:] for activation in ours.activations]
    assert sides == [(35, 35, 32), (17, 17, 64), (8, 8, 128), (4, 4, 256), (2, 2, 256)]


def test_one_chip_many_chips_and_vmap_agree(built_in):
    recogniser, _ = built_in
    images = jnp.asarray(chips()[:2], jnp.float32) / 255
    batch = jax.jit(recognition.features)(recogniser, images)
    mapped = jax.jit(jax.vmap(recognition.features, in_axes=(None, 0)))(recogniser, images)
    one = jax.jit(recognition.features)(recogniser, images[1])
    assert one.embedding.shape == (128,) and one.activations[0].shape == (35, 35, 32)
    for a, b in zip(jax.tree.leaves(batch), jax.tree.leaves(mapped), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    np.testing.assert_allclose(one.embedding, batch.embedding[1], atol=1e-5)


def test_new_weights_need_no_new_compilation(built_in):
    recogniser, _ = built_in
    count = 0

    @jax.jit
    def embed(recogniser, chip):
        nonlocal count
        count += 1
        return recognition.features(recogniser, chip).embedding

    chip = jnp.asarray(chips()[0], jnp.float32) / 255
    first = embed(recogniser, chip)
    again, _ = recognition.load("dlib")
    assert hash(again.spec) == hash(recogniser.spec) and again.spec == recogniser.spec
    np.testing.assert_array_equal(embed(again, chip), first)
    assert not np.allclose(embed(jax.tree.map(lambda w: w * 1.1, recogniser), chip), first)
    assert count == 1


def test_gradient_of_the_chip(built_in):
    recogniser, _ = built_in
    chip = jnp.asarray(chips()[0], jnp.float32) / 255
    mix = jnp.asarray(np.random.default_rng(0).normal(size=128), jnp.float32)
    loss = jax.jit(lambda c: jnp.sum(mix * recognition.features(recogniser, c).embedding))
    gradient = jax.jit(jax.grad(loss))(chip)
    assert np.isfinite(gradient).all()
    direction = gradient / jnp.linalg.norm(gradient)  # the derivative along it is the gradient's norm
    numeric = (loss(chip + 0.02 * direction) - loss(chip - 0.02 * direction)) / 0.04
    np.testing.assert_allclose(numeric, np.linalg.norm(gradient), rtol=0.03)


@pytest.mark.parametrize(("side", "inputs", "channels", "down"), [(5, 2, 2, False), (7, 2, 3, True), (8, 3, 2, True)])
def test_dlib_block_against_loops(side, inputs, channels, down):
    """At 7 the skip is as large as the branch and has fewer channels; at 8 it is larger and has more."""
    rng = np.random.default_rng(1)
    block = Block(inputs, channels, down)
    filled(block, rng)
    x = rng.normal(size=(side, side, inputs)).astype(np.float32)
    first, second = ((np.asarray(c.kernel[...]), np.asarray(c.bias[...])) for c in (block.first, block.second))
    y = np.maximum(conv_loops(x, *first, 2 if down else 1, 0 if down else 1), 0)
    y = conv_loops(y, *second, 1, 1)
    skip = x
    if down:
        half = side // 2
        skip = np.zeros((half, half, inputs))
        for row in range(half):
            for column in range(half):
                skip[row, column] = x[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((0, 1))
    total = np.zeros(np.maximum(y.shape, skip.shape))
    for part in (y, skip):
        total[: part.shape[0], : part.shape[1], : part.shape[2]] += part
    np.testing.assert_allclose(block(jnp.asarray(x)[None])[0], np.maximum(total, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [9, 10])
def test_max_pool_against_loops(side):
    x = np.random.default_rng(2).normal(size=(1, side, side, 2)).astype(np.float32)
    count = (side - 3) // 2 + 1
    expected = [[x[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(count)] for i in range(count)]
    np.testing.assert_array_equal(layers.max_pool(jnp.asarray(x))[0], expected)
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(1, count, count, 2)), jnp.float32)
    gradient = np.asarray(jax.grad(lambda x: jnp.sum(weights * layers.max_pool(x)))(jnp.asarray(x)))
    scattered = np.zeros_like(x)
    for i in range(count):
        for j in range(count):
            for c in range(2):
                window = x[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, c]
                row, column = np.unravel_index(window.argmax(), (3, 3))
                scattered[0, 2 * i + row, 2 * j + column, c] += weights[0, i, j, c]
    np.testing.assert_allclose(gradient, scattered, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "stride", "padding", "height"), [(3, 1, 1, 5), (3, 2, 0, 6), (3, 2, 1, 7), (7, 2, 0, 10), (1, 2, 0, 6)]
)
def test_convolution_against_loops_and_its_gradient_against_autodiff(side, stride, padding, height):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1, height, height + 1, 2)).astype(np.float32)
    kernel = rng.normal(size=(side, side, 2, 3)).astype(np.float32)

    def plain(x, kernel):
        pads, numbers = [(padding, padding)] * 2, ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=numbers)

    y = layers.convolve(jnp.asarray(x), jnp.asarray(kernel), stride, padding)
    np.testing.assert_allclose(y[0], conv_loops(x[0], kernel, np.zeros(3), stride, padding), atol=1e-4)
    mix = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    found, reference = (
        jax.jit(jax.grad(lambda x, k, f=f: jnp.sum(mix * f(x, k)), argnums=(0, 1)))(jnp.asarray(x), jnp.asarray(kernel))
        for f in (lambda x, k: layers.convolve(x, k, stride, padding), plain)
    )
    for a, b in zip(found, reference, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_gradients_in_a_loop_use_the_layout_that_is_fast_on_cpu():
    """In a loop body XLA's CPU backend leaves other layouts of the kernel to a path that is ten times slower."""
    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 4, 4))
    gradient = jax.grad(lambda x, k: jnp.sum(layers.convolve(x, k, 1, 1) ** 2))
    loop = jax.jit(lambda x, k: jax.lax.scan(lambda x, _: (x - gradient(x, k), None), x, None, length=3)[0])
    text = loop.lower(x, kernel).compile().as_text()
    assert "dim_labels=b01f_01io->b01f" in text and "01oi->" not in text


@pytest.mark.parametrize(
    ("side", "stride", "padding", "height"), [(3, 1, 1, 5), (3, 2, 1, 6), (3, 2, 1, 7), (5, 1, 0, 5)]
)
def test_depthwise_against_loops_and_the_gradient_of_a_grouped_convolution(side, stride, padding, height):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, height, height + 1, 3)).astype(np.float32)
    kernel = rng.normal(size=(side, side, 3)).astype(np.float32)
    y = jax.jit(layers.depthwise, static_argnums=(2, 3))(jnp.asarray(x), jnp.asarray(kernel), stride, padding)
    for channel in range(3):
        window = kernel[:, :, channel, None, None]
        expected = conv_loops(x[1, :, :, channel, None], window, np.zeros(1), stride, padding)
        np.testing.assert_allclose(y[1, ..., channel], expected[..., 0], atol=1e-5)
    mix = jnp.asarray(rng.normal(size=y.shape), jnp.float32)

    def grouped(x, kernel):
        pads = [(padding, padding)] * 2
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel[:, :, None], (stride, stride), pads, dimension_numbers=numbers, feature_group_count=3
        )

    found, reference = (
        jax.jit(jax.grad(lambda x, k, f=f: jnp.sum(mix * f(x, k)), argnums=(0, 1)))(jnp.asarray(x), jnp.asarray(kernel))
        for f in (lambda x, k: layers.depthwise(x, k, stride, padding), grouped)
    )
    for a, b in zip(found, reference, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_prelu_and_affine():
    x = jnp.asarray([[[[-2.0, 3.0, -4.0]]]])
    prelu, affine = layers.PReLU(3), layers.Affine(3)
    prelu.slope[...] = jnp.asarray([0.5, 9.0, -1.0])
    affine.scale[...], affine.bias[...] = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([0.0, 1.0, -1.0])
    np.testing.assert_allclose(prelu(x)[0, 0, 0], [-1.0, 3.0, 4.0])
    np.testing.assert_allclose(affine(x)[0, 0, 0], [-2.0, 7.0, -13.0])


def test_wrong_chip(built_in):
    with pytest.raises(ValueError, match=r"dlib: chip of shape \(112, 112, 3\), expected \[..., 150, 150, 3\]"):
        recognition.features(built_in[0], jnp.zeros((112, 112, 3)))


def test_other_dlib_file(built_in, tmp_path, monkeypatch):
    """A damaged file is refused, a file that only differs in its hash is used with a warning."""
    data = Path(built_in[1].path).read_bytes()
    path = tmp_path / "other.dat"
    monkeypatch.setattr(importlib.import_module("ganfit_jax.recognition.load"), "dlib_file", lambda name: path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match="sha256"), pytest.raises(ValueError, match=r"other\.dat: \d+ layers"):
        recognition.load("dlib")
    path.write_bytes(data + b" ")
    with pytest.warns(UserWarning, match="sha256"):
        recogniser, _ = recognition.load("dlib")
    assert recogniser.spec == built_in[0].spec


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "'name' is missing, expected one of iresnet100"),
        ({"name": "vgg"}, "'name' is vgg"),
        ({"name": "mobilefacenet"}, "missing weights, the first is depthwise.bias"),
        ({"name": "mobilefacenet", "divisor": np.zeros(())}, "'divisor' is 0.0"),
        ({"name": np.array({}, dtype=object)}, "not a readable npz"),
    ],
)
def test_wrong_npz(tmp_path, entries, message):
    path = tmp_path / "x.npz"
    np.savez(path, **entries)
    with pytest.raises(ValueError, match=message) as error:
        recognition.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_and_unreadable_npz(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected 'dlib' or the path of an npz file"):
        recognition.load(tmp_path / "none.npz")
    path = tmp_path / "text.npz"
    path.write_text("not a zip")
    with pytest.raises(ValueError, match="not a readable npz"):
        recognition.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="not a readable npz"):
        recognition.load(path)
