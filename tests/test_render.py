import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from ganfit_jax import raster, render
from ganfit_jax.types import Camera, Identity, Light, LinearTexture, Models, Regions, ShapeModel, View

SIZE = 40


def _model(rows=14, columns=24, scale=(75.0, 100.0, 85.0), hole=0):
    """A head-sized ellipsoid; its UV chart is latitude and longitude. `hole` rows are left open at the bottom."""
    polar = np.linspace(0.02, np.pi - 0.02, rows + 1)[: rows + 1 - hole]
    around = np.linspace(-np.pi, np.pi, columns, endpoint=False)
    polar, around = np.meshgrid(polar, around, indexing="ij")
    points = np.stack([np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], -1) * scale
    index = np.arange(points[..., 0].size).reshape(polar.shape)
    a, b = index[:-1], index[1:]
    c, d = np.roll(b, -1, axis=1), np.roll(a, -1, axis=1)
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    uv = np.stack([(around + np.pi) / (2 * np.pi), polar / np.pi], -1).reshape(-1, 2)
    vertices = points.reshape(-1, 3) + np.random.default_rng(0).normal(0, 0.5, (index.size, 3))
    count = len(vertices)
    faces = jnp.asarray(faces, jnp.int32)
    return ShapeModel(
        mean=jnp.asarray(vertices, jnp.float32),
        identity_basis=jnp.asarray(np.random.default_rng(1).normal(0, 2, (3, count, 3)), jnp.float32),
        expression_basis=jnp.asarray(np.random.default_rng(2).normal(0, 2, (2, count, 3)), jnp.float32),
        faces=faces,
        uv=jnp.asarray(uv, jnp.float32),
        uv_faces=faces,
        landmark_faces=jnp.arange(68, dtype=jnp.int32),
        landmark_barycentric=jnp.full((68, 3), 1 / 3),
        contour_faces=jnp.broadcast_to(jnp.arange(17, dtype=jnp.int32)[:, None], (17, 2)),
        contour_barycentric=jnp.full((17, 2, 3), 1 / 3),
        regions=Regions(*(jnp.ones(count) for _ in range(5))),
        neighbours=raster.neighbours(faces),
    )


def _ball():
    """A closed, smooth ellipsoid."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=1.0)
    model, faces = _model(), jnp.asarray(mesh.faces, jnp.int32)
    uv = jnp.full((len(mesh.vertices), 2), 0.5)
    vertices = jnp.asarray(mesh.vertices * [75.0, 100.0, 85.0], jnp.float32)
    return model._replace(mean=vertices, faces=faces, uv=uv, uv_faces=faces, neighbours=raster.neighbours(faces))


def _albedo(size=32):
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    waves = [
        0.5 + 0.3 * np.sin(x * 2 * np.pi * k / size + p) * np.cos(y * 0.3) for k, p in ((2, 0.0), (3, 1.0), (1, 2.0))
    ]
    return jnp.asarray(np.stack(waves, -1), jnp.float32)


CAMERA = Camera(jnp.array([0.1, 0.4, -0.05]), jnp.array([4.0, -3.0, 900.0]), jnp.array(1.1))
LIGHT = Light(jnp.array([0.4, 0.5, 1.0]), jnp.array([0.7, 0.65, 0.6]), jnp.array([0.35, 0.3, 0.3]))
draw = jax.jit(render.draw, static_argnames="size")


def test_a_rendering_is_what_it_says():
    model = _model()
    out = draw(model, model.mean, _albedo(), CAMERA, LIGHT, SIZE, jnp.array([0.2, 0.4, 0.6]))
    assert out.image.shape == (SIZE, SIZE, 3) and out.landmarks.shape == (68, 2)
    outside, inside = np.asarray(out.coverage == 0), np.asarray(out.coverage == 1)
    assert outside.sum() > 300 and inside.sum() > 300 and (~outside & ~inside).sum() > 50
    np.testing.assert_allclose(np.asarray(out.image)[outside], np.broadcast_to([0.2, 0.4, 0.6], (outside.sum(), 3)))
    np.testing.assert_allclose(np.linalg.norm(np.asarray(out.normals)[inside], axis=-1), 1, atol=1e-4)
    assert (np.asarray(out.normals)[inside][:, 2] > -0.1).all()  # what is seen looks at the camera
    assert ((np.asarray(out.depth)[inside] > 800) & (np.asarray(out.depth)[inside] < 920)).all()
    assert (np.asarray(out.depth)[outside & (np.asarray(out.normals) == 0).all(-1)] == 0).all()


def test_unlit_white_is_its_coverage():
    """With a white, evenly lit head on black the image and the coverage are the same, soft edges included."""
    model = _model()
    even = Light(jnp.array([0.0, 0.0, 1.0]), jnp.zeros(3), jnp.ones(3))
    out = draw(model, model.mean, jnp.ones((8, 8, 3)), CAMERA, even, SIZE)
    np.testing.assert_allclose(out.image[..., 0], out.coverage, atol=1e-5)


def test_coverage_is_the_projected_area():
    """The soft area of a disc is nearer to the true area than a count of pixels, and smooth in the radius."""
    model = _model(rows=60, columns=90, scale=(80.0, 80.0, 80.0))
    vertices = model.mean * (80 / jnp.linalg.norm(model.mean, axis=1, keepdims=True))
    even = Light(jnp.array([0.0, 0.0, 1.0]), jnp.zeros(3), jnp.ones(3))
    areas = []
    for scale in np.linspace(1.0, 1.08, 9):
        areas.append(float(jnp.sum(draw(model, vertices * scale, jnp.ones((8, 8, 3)), CAMERA, even, SIZE).coverage)))
        radius, distance = 80.0 * scale, float(jnp.linalg.norm(CAMERA.translation))
        focal = np.exp(1.1) * SIZE
        expected = np.pi * (focal * radius) ** 2 / (distance**2 - radius**2)
        assert abs(areas[-1] / expected - 1) < 0.02, (areas[-1], expected)
    steps = np.diff(areas)
    assert steps.min() > 0.3 * steps.max()


def _difference(function, x, direction, step):
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def _loss(weight, model, background, **fixed):
    def loss(vertices, albedo, camera, light):
        out = render.draw(model, vertices, albedo, camera, light, SIZE, background)
        return jnp.sum(out.image * weight)

    return loss


def _float64(tree):
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64 if x.dtype == jnp.float32 else x.dtype), tree)


@pytest.mark.slow
@pytest.mark.parametrize("hole", [0, 5])
def test_gradients_equal_finite_differences(hole):
    """Directional derivatives in float64 of a randomly weighted image, silhouettes (and an open border) included.

    A step of 1e-5 mm lets hardly any pixel's visibility jump, so the agreement can be tight.
    """
    with jax.enable_x64(True):
        model, rng = _float64(_model(hole=hole)), np.random.default_rng(5)
        weight = jnp.asarray(rng.normal(size=(SIZE, SIZE, 3)))
        background = jnp.asarray(rng.random((SIZE, SIZE, 3)))
        inputs = [model.mean, *(_float64(x) for x in (_albedo(), CAMERA, LIGHT))]
        loss = jax.jit(_loss(weight, model, background))
        gradients = jax.jit(jax.grad(_loss(weight, model, background), argnums=(0, 1, 2, 3)))(*inputs)
        for place in range(4):
            for leaf, (x, gradient) in enumerate(
                zip(jax.tree.leaves(inputs[place]), jax.tree.leaves(gradients[place]), strict=True)
            ):
                for _ in range(3):
                    direction = jnp.asarray(rng.normal(size=x.shape))
                    structure = jax.tree.structure(inputs[place])

                    def along(value, place=place, leaf=leaf, structure=structure):
                        leaves = jax.tree.leaves(inputs[place])
                        changed = jax.tree.unflatten(structure, [*leaves[:leaf], value, *leaves[leaf + 1 :]])
                        return loss(*inputs[:place], changed, *inputs[place + 1 :])

                    expected = _difference(along, x, direction, 1e-6)
                    np.testing.assert_allclose(jnp.sum(gradient * direction), expected, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1])
def test_silhouette_gradient_predicts_large_moves(axis):
    """The image of an evenly white head, moved by half a pixel: only silhouettes change, and many pixels flip.

    The mean of the gradients along the way must equal the difference between its ends.
    """
    model = _ball()
    even = Light(jnp.array([0.0, 0.0, 1.0]), jnp.zeros(3), jnp.ones(3))
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    weight = jnp.asarray(np.stack([x + 0.5 * y] * 3, -1) / SIZE, jnp.float32)

    def loss(shift):
        camera = CAMERA._replace(translation=CAMERA.translation.at[axis].add(shift))
        return jnp.sum(render.draw(model, model.mean, jnp.ones((8, 8, 3)), camera, even, SIZE).image * weight)

    reach = 0.5 * 900 / (np.exp(1.1) * SIZE)  # half a pixel in mm
    shifts = np.linspace(-reach, reach, 33)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(jnp.asarray(shifts, jnp.float32))
    expected = (values[-1] - values[0]) / (2 * reach)
    np.testing.assert_allclose(np.trapezoid(slopes, shifts) / (2 * reach), expected, rtol=0.05)


@pytest.mark.slow
def test_an_inner_occlusion_edge_has_a_gradient():
    """A white ball before a black one: the gradient of its place sees the contrast at its outline."""
    ball = _ball()
    count, faces = ball.mean.shape[0], jnp.concatenate([ball.faces, ball.faces + ball.mean.shape[0]])
    both = ball._replace(
        mean=jnp.concatenate([ball.mean * 0.5 + jnp.array([[0.0, 0.0, 150.0]]), ball.mean]),
        faces=faces,
        uv=jnp.concatenate([jnp.full((count, 2), 0.1), jnp.full((count, 2), 0.9)]),
        uv_faces=faces,
        neighbours=raster.neighbours(faces),
    )
    albedo = jnp.concatenate([jnp.ones((4, 8, 3)), jnp.zeros((4, 8, 3))])
    even = Light(jnp.array([0.0, 0.0, 1.0]), jnp.zeros(3), jnp.ones(3))
    straight = CAMERA._replace(rotation=jnp.zeros(3))
    ramp = jnp.broadcast_to(jnp.arange(SIZE, dtype=jnp.float32)[None, :, None], (SIZE, SIZE, 3))

    def loss(shift):
        vertices = both.mean.at[:count, 0].add(shift)
        return jnp.sum(render.draw(both, vertices, albedo, straight, even, SIZE).image * ramp)

    shifts = jnp.linspace(-3.0, 3.0, 33)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(shifts)
    assert values[-1] - values[0] > 100
    np.testing.assert_allclose(np.mean(slopes), (values[-1] - values[0]) / 6, rtol=0.05)


def test_vmap_equals_a_loop():
    model = _model()
    cameras = jax.tree.map(lambda x: jnp.stack([x, x, x]), CAMERA)
    cameras = cameras._replace(rotation=cameras.rotation + jnp.array([[0.0], [0.3], [-0.6]]))

    def loss(camera):
        image = render.draw(model, model.mean, _albedo(), camera, LIGHT, SIZE).image
        return jnp.sum(image**2), image

    alone = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, images), gradients = jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True)))(cameras)
    for i in range(3):
        (_, image), gradient = alone(jax.tree.map(lambda x, i=i: x[i], cameras))
        np.testing.assert_allclose(images[i], image, atol=2e-5)
        for one, many in zip(gradient, gradients, strict=True):
            np.testing.assert_allclose(one, many[i], rtol=2e-3, atol=1e-2)


def test_without_neighbours_the_image_is_the_same():
    model = _model()
    with_table = draw(model, model.mean, _albedo(), CAMERA, LIGHT, SIZE).image
    without = draw(model._replace(neighbours=None), model.mean, _albedo(), CAMERA, LIGHT, SIZE).image
    np.testing.assert_array_equal(with_table, without)


def test_render_composes_the_models():
    model, rng = _model(), np.random.default_rng(0)
    texture = LinearTexture(_albedo(), jnp.asarray(rng.normal(0, 0.02, (4, 32, 32, 3)), jnp.float32))
    identity = Identity(jnp.array([0.5, -1.0, 0.2]), jnp.array([1.0, 0.0, -1.0, 0.5]))
    view = View(jnp.array([0.3, 0.8]), CAMERA, LIGHT)
    out = render.render(Models(model, texture, None), identity, view, SIZE, 0.5)
    vertices = model.mean + np.tensordot(identity.shape, model.identity_basis, 1)
    vertices = vertices + np.tensordot(view.expression, model.expression_basis, 1)
    albedo = texture.mean + np.tensordot(identity.texture, texture.basis, 1)
    expected = draw(model, jnp.asarray(vertices), jnp.asarray(albedo), CAMERA, LIGHT, SIZE, 0.5)
    np.testing.assert_allclose(out.image, expected.image, atol=1e-3)
    np.testing.assert_allclose(out.landmarks, expected.landmarks, atol=1e-3)
