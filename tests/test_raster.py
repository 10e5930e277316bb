import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import raster


def _plain(screen, faces, size):
    """Triple loop in float64: [h, w] lists of (1 / depth, id, margin), margin = distance to the nearest rule change."""
    hits = [[[] for _ in range(size)] for _ in range(size)]
    screen = np.asarray(screen, np.float64)
    for number, face in enumerate(faces):
        a, b, c = screen[face]
        if min(a[2], b[2], c[2]) <= 1.0 or not np.isfinite(screen[face]).all():
            continue
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0:
            continue
        for row in range(size):
            for column in range(size):
                p = np.array([column + 0.5, row + 0.5])
                weights = []
                for one, two in ((b, c), (c, a), (a, b)):
                    weights.append(((two[0] - one[0]) * (p[1] - one[1]) - (two[1] - one[1]) * (p[0] - one[0])) / area)
                if min(weights) > -1e-5:
                    inverse = weights[0] / a[2] + weights[1] / b[2] + weights[2] / c[2]
                    hits[row][column].append((inverse, number, min(weights)))
    return hits


def _agree(found, hits, tolerance=1e-5):
    """Winners equal the loop's; a tie (depth within rounding, or a centre on an edge) admits either answer."""
    ties = 0
    for row, line in enumerate(hits):
        for column, pixel in enumerate(line):
            left = sorted(pixel, reverse=True)
            for winner in np.asarray(found[row, column]):
                sure = [hit for hit in left if hit[2] > tolerance]
                nearest = max((hit[0] for hit in sure), default=0.0)
                allowed = {hit[1] for hit in left if hit[0] >= nearest * (1 - 1e-5)}
                if not sure:
                    allowed |= {-1}
                ties += len(allowed) > 1
                assert int(winner) in allowed, (row, column, int(winner), sorted(left, reverse=True)[:3])
                left = [hit for hit in left if hit[1] != winner]
    return ties


def _scene(rng, count, size, scale):
    centre = rng.uniform(-0.2 * size, 1.2 * size, (count, 1, 2))
    xy = centre + rng.normal(0, 1, (count, 3, 2)) * np.broadcast_to(scale, (count,))[:, None, None]
    screen = np.concatenate([xy, rng.uniform(500, 1500, (count, 3, 1))], axis=2).reshape(-1, 3)
    return screen.astype(np.float32), np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


@pytest.mark.parametrize("scale", [0.3, 1.5, 8.0, 60.0, "mixed"])
def test_winners_equal_a_triple_loop(scale):
    rng = np.random.default_rng(3)
    size, count = 20, 150
    scale = np.exp(rng.uniform(np.log(0.2), np.log(60), count)) if scale == "mixed" else scale
    screen, faces = _scene(rng, count, size, scale)
    found = raster.rasterize(screen, faces, size, layers=3).faces
    assert found.dtype == jnp.int32 and found.shape == (size, size, 3)
    assert _agree(found, _plain(screen, faces, size)) < 20
    assert (np.asarray(found[..., :1]) == np.asarray(raster.rasterize(screen, faces, size).faces)).all()


def test_many_more_windows_than_one_chunk():
    """Every triangle covers much of the screen: the loop over chunks has to run many times."""
    rng = np.random.default_rng(4)
    size, count = 64, 300
    screen, faces = _scene(rng, count, size, 60.0)
    found = np.asarray(raster.rasterize(screen, faces, size).faces[..., 0])
    rows = rng.integers(0, size, 60)
    columns = rng.integers(0, size, 60)
    for row, column in zip(rows, columns, strict=True):
        shifted = screen - np.array([column, row, 0], np.float32)
        _agree(found[row : row + 1, column : column + 1, None], _plain(shifted, faces, 1))


def _grid(rng, cells, low, high, jitter):
    """A jittered triangulated grid: every inner edge is shared by two faces."""
    line = np.linspace(low, high, cells + 1)
    x, y = np.meshgrid(line, line)
    step = (high - low) / cells
    inner = np.pad(np.ones((cells - 1, cells - 1)), 1)
    x = x + inner * rng.uniform(-jitter, jitter, x.shape) * step
    y = y + inner * rng.uniform(-jitter, jitter, y.shape) * step
    screen = np.stack([x, y, rng.uniform(900, 1000, x.shape)], -1).reshape(-1, 3).astype(np.float32)
    index = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    flip = rng.random((cells, cells)) < 0.5
    first = np.where(flip[..., None], np.stack([a, c, b], -1), np.stack([a, d, b], -1))
    second = np.where(flip[..., None], np.stack([a, d, c], -1), np.stack([b, d, c], -1))
    return screen, np.concatenate([first.reshape(-1, 3), second.reshape(-1, 3)]).astype(np.int32)


@pytest.mark.parametrize(("cells", "jitter"), [(3, 0.0), (8, 0.0), (16, 0.0), (5, 0.3), (90, 0.3), (300, 0.2)])
def test_no_pixel_is_lost_on_a_shared_edge(cells, jitter):
    """Grids whose edges pass through pixel centres (jitter 0) and random ones, coarse to sub-pixel."""
    size = 64
    screen, faces = _grid(np.random.default_rng(5), cells, 0.5, size - 0.5, jitter)
    assert (np.asarray(raster.rasterize(screen, faces, size).faces) >= 0).all()


def test_a_tie_goes_to_one_of_the_two_faces():
    screen = np.array([[0, 0, 900], [8, 0, 900], [8, 8, 900], [0, 8, 900]], np.float32)
    found = raster.rasterize(screen, np.array([[0, 2, 1], [0, 3, 2]], np.int32), 8).faces[..., 0]
    assert (np.diagonal(found) == 1).all()
    assert (np.asarray(found)[np.triu_indices(8, 1)] == 0).all()


def test_faces_that_are_never_drawn():
    corners = np.array([[-50, -50, 900], [200, -50, 900], [-50, 200, 900]], np.float32)
    bad = []
    for change in ([0, 0, -1800], [0, 0, -900], [0, 0, -899.5], [np.nan, 0, 0], [0, np.inf, 0], [1e30, 0, np.nan]):
        moved = corners.copy()
        moved[0] += np.array(change, np.float32)
        bad.append(moved)
    bad.append(corners[[0, 0, 1]])
    bad.append(corners[[2, 1, 2]])
    bad.append(np.array([[-50, 4.5, 800], [20, 4.5, 800], [80, 4.5, 800]], np.float32))  # a line over pixel centres
    bad.append(np.array([[0.3, 0.3, 800], [7.3, 7.3, 800], [3.3, 3.3, 800]], np.float32))
    bad.append(corners + np.array([0, 0, 50], np.float32))  # the only good one
    screen = np.concatenate(bad)
    faces = np.arange(len(screen), dtype=np.int32).reshape(-1, 3)
    assert (np.asarray(raster.rasterize(screen, faces, 16).faces) == len(bad) - 1).all()
    assert (np.asarray(raster.rasterize(screen[:-3], faces[:-1], 16).faces) == -1).all()


def test_huge_coordinates():
    screen = np.array([[-1e7, -1e7, 900], [3e7, -1e7, 900], [-1e7, 3e7, 900]], np.float32)
    assert (np.asarray(raster.rasterize(screen, np.array([[0, 1, 2]], np.int32), 16).faces) == 0).all()


def test_culling_keeps_the_faces_seen_from_outside():
    screen = np.array([[0, 0, 900], [0, 8, 900], [8, 0, 900]], np.float32)  # y points down: this is counter-clockwise
    faces = np.array([[0, 1, 2]], np.int32)
    assert (raster.signed_area(jnp.asarray(screen), jnp.asarray(faces)) > 0).all()
    assert (np.asarray(raster.rasterize(screen, faces, 8, cull=True).faces)[:3, :3] == 0).all()
    assert (np.asarray(raster.rasterize(screen, faces[:, ::-1], 8, cull=True).faces) == -1).all()
    assert (np.asarray(raster.rasterize(screen, faces[:, ::-1], 8).faces)[:3, :3] == 0).all()


def test_vmap_equals_a_loop():
    rng = np.random.default_rng(6)
    scenes = [_scene(rng, 60, 24, scale) for scale in (0.5, 4.0, 40.0)]
    screens, faces = np.stack([s for s, _ in scenes]), scenes[0][1]
    together = jax.vmap(lambda s: raster.rasterize(s, faces, 24, layers=2).faces)(screens)
    for screen, found in zip(screens, together, strict=True):
        assert (np.asarray(raster.rasterize(screen, faces, 24, layers=2).faces) == np.asarray(found)).all()


def test_neighbours_equal_a_plain_search():
    rng = np.random.default_rng(7)
    _, faces = _grid(rng, 5, 0, 10, 0.0)
    faces = rng.permutation(faces)[:40]
    found = np.asarray(raster.neighbours(jnp.asarray(faces)))
    for number, face in enumerate(faces):
        for corner in range(3):
            edge = {face[(corner + 1) % 3], face[(corner + 2) % 3]}
            others = [n for n, other in enumerate(faces) if n != number and edge <= set(other)]
            assert found[number, corner] == (others[0] if others else -1)


def test_silhouettes_of_a_square_over_a_larger_one():
    """The small square hides the middle of the large one; only what can be seen of an edge counts."""
    small = np.array([[10.2, 10.2, 900], [10.2, 20.2, 900], [20.2, 20.2, 900], [20.2, 10.2, 900]], np.float32)
    large = np.array([[5.3, 12.4, 950], [5.3, 17.4, 950], [28.0, 17.4, 950], [28.0, 12.4, 950]], np.float32)
    screen = jnp.asarray(np.concatenate([small, large]))
    faces = jnp.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], jnp.int32)
    ids = np.asarray(raster.rasterize(screen, faces, 32).faces[..., 0])
    depth = jnp.asarray(np.select([ids < 0, ids < 2], [0.0, 900.0], 950.0).astype(np.float32))
    edges = np.asarray(raster.silhouettes(screen, faces, raster.neighbours(faces), depth))
    for row in range(32):
        x, y = 15.5, row + 0.5  # a column through both squares
        near_top, near_bottom = abs(y - 10.2) < 0.5, abs(y - 20.2) < 0.5
        assert (edges[row, 15] // 3 in (0, 1)) if near_top or near_bottom else edges[row, 15] == -1, (x, y)
    assert edges[15, 5] // 3 == 2 and edges[15, 6] == -1  # left side of the large square, 0.2 px and more away
    assert (edges[13:17, 9] == -1).all() and (edges[13:17, 10] // 3 == 0).all()  # small square before the large one
