"""What is read is what lies on disk, at the level asked for, and batch k is the same however one came to it."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

from ganfit_jax import corpus, texture_data
from ganfit_jax.errors import InputError

RNG = np.random.default_rng(0)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(np.round(255 * values))).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("maps")
    for number in range(7):
        corpus.write_map(
            root, f"p{number}", RNG.uniform(size=(32, 32, 3)), np.float32(RNG.uniform(size=(32, 32)) > 0.3)
        )
    corpus.write_map(root, "skin_young", RNG.uniform(size=(32, 32, 3)), np.ones((32, 32)))
    save(root / "varied_a.png", RNG.uniform(size=(32, 32, 3)))
    (root / "detail.json").write_text(json.dumps({"p0": 8, "p1": 15, "p2": 14, "p3": 999, "absent": 3}))
    return root


def test_folders_are_read_with_weights_kinds_and_details(folder, tmp_path):
    save(tmp_path / "b.jpg", RNG.uniform(size=(20, 20, 3)))
    save(tmp_path / "masks" / "b.png", RNG.uniform(size=(10, 10)))
    save(tmp_path / "c.png", RNG.uniform(size=(16, 16)))
    files = texture_data.find_maps([folder, tmp_path], leave_out={"p6"})
    found = {f.path.stem: f for f in files}
    assert list(found) == ["p0", "p1", "p2", "p3", "p4", "p5", "skin_young", "varied_a", "b", "c"]
    assert [found[n].detail for n in ("p0", "p1", "p3", "p4", "b", "c")] == [8, 15, 32, 32, 20, 16]
    assert [found[n].kind for n in ("p0", "skin_young", "varied_a")] == ["real", "synthetic", "varied"]
    assert found["p0"].weight == folder / "p0.weight.png" and found["b"].weight == tmp_path / "masks" / "b.png"
    assert found["c"].weight is None
    assert texture_data.read_map(found["b"], 16).shape == (16, 16, 4)
    assert (texture_data.read_map(found["c"], 16)[..., 3] == 1).all()


def test_only_maps_of_enough_detail_teach_a_level(folder):
    files = texture_data.find_maps([folder])
    assert {f.path.stem for f in files} - {f.path.stem for f in texture_data.teachers(files, 16)} == {"p0", "p2"}
    assert len(texture_data.teachers(files, 8)) == len(files)
    with pytest.raises(InputError, match="no map has the detail for 64 x 64: the best of 9 maps has 32"):
        texture_data.dataset(files, 64, 0)


@pytest.mark.parametrize(("side", "new"), [(12, 4), (13, 8), (9, 8), (8, 8), (16, 1)])
def test_smaller_levels_are_visible_area_means(tmp_path, side, new):
    colour, weight = (
        RNG.uniform(size=(side, side, 3)),
        RNG.uniform(size=(side, side)) * (RNG.uniform(size=(side, 1)) > 0.5),
    )
    corpus.write_map(tmp_path, "a", colour, weight)
    (file,) = texture_data.find_maps([tmp_path])
    found = texture_data.read_map(file, new)
    colour, weight = np.round(255 * colour) / 255, np.round(255 * weight) / 255
    scale = side / new
    for row in range(new):
        for column in range(new):
            total, seen, mixed = 0.0, 0.0, np.zeros(4)
            for y in range(side):
                for x in range(side):
                    high = min((row + 1) * scale, y + 1) - max(row * scale, y)
                    wide = min((column + 1) * scale, x + 1) - max(column * scale, x)
                    area = max(high, 0) * max(wide, 0)
                    say = area * max(weight[y, x], texture_data.UNSEEN)
                    total, seen = total + area, seen + area * weight[y, x]
                    mixed += say * np.append(colour[y, x], 1)
            assert found[row, column, :3] == pytest.approx(mixed[:3] / mixed[3], abs=1e-3)
            assert found[row, column, 3] == pytest.approx(seen / total, abs=1e-3)


def test_larger_levels_are_bilinear(tmp_path):
    ramp = np.repeat(np.broadcast_to(np.linspace(0, 1, 18)[None, :, None], (18, 18, 1)), 3, axis=2)
    save(tmp_path / "a.png", ramp)
    (file,) = texture_data.find_maps([tmp_path])
    found = texture_data.read_map(file, 20)[..., 0]
    expected = np.interp((np.arange(20) + 0.5) * 0.9 - 0.5, np.arange(18), np.round(255 * ramp[0, :, 0]) / 255)
    assert found == pytest.approx(np.broadcast_to(expected, (20, 20)), abs=1e-3)


def test_an_epoch_shows_every_map_once_and_half_of_them_mirrored(folder):
    files = texture_data.find_maps([folder])
    data = texture_data.dataset(files, 8, seed=3)
    plain = {f.path.stem: np.float32(texture_data.read_map(f, 8)) for f in files}
    orders, mirrored = [], 0
    for epoch in range(12):
        order = []
        for index in range(len(files)):
            element = data[epoch * len(files) + index]
            assert element["albedo"].dtype == element["weight"].dtype == np.float32
            values = np.concatenate([element["albedo"], element["weight"][..., None]], axis=-1)
            same = [name for name, map in plain.items() if (map == values).all()]
            flipped = [name for name, map in plain.items() if (map[:, ::-1] == values).all()]
            assert len(same) + len(flipped) == 1
            order += same + flipped
            mirrored += len(flipped)
        assert sorted(order) == sorted(plain)
        orders.append(tuple(order))
    assert len(set(orders)) > 10
    assert 0.3 < mirrored / (12 * len(files)) < 0.7
    straight = texture_data.dataset(files, 8, seed=3, mirror=False)
    assert all(any((m[..., :3] == straight[i]["albedo"]).all() for m in plain.values()) for i in range(9))


@pytest.mark.parametrize("threads", [0, 2])
def test_a_stream_goes_on_where_it_was_left(folder, threads):
    files = texture_data.find_maps([folder])
    whole = texture_data.batches(files, 16, 4, seed=1, threads=threads)
    first = [next(whole) for _ in range(9)]
    assert first[0]["albedo"].shape == (4, 16, 16, 3) and first[0]["weight"].shape == (4, 16, 16)
    for start in (0, 5):
        again = texture_data.batches(files, 16, 4, seed=1, start=start, threads=1)
        for expected in first[start:]:
            found = next(again)
            assert all((found[key] == expected[key]).all() for key in expected)
    other = next(texture_data.batches(files, 16, 4, seed=2, threads=0))
    assert (other["albedo"] != first[0]["albedo"]).any()


def test_varied_elements_differ_in_tone_only_and_come_back_the_same(folder, monkeypatch):
    monkeypatch.setattr(texture_data.pigment, "skin_texels", lambda size: np.ones((size, size), np.float32))
    files = texture_data.find_maps([folder])
    plain, varied = (texture_data.dataset(files, 8, 0, mirror=False, pigments=p) for p in (0.0, 0.5))
    changed = [(plain[i]["albedo"] != varied[i]["albedo"]).any() for i in range(40)]
    assert 8 < sum(changed) < 32
    assert all((plain[i]["weight"] == varied[i]["weight"]).all() for i in range(9))
    again = texture_data.dataset(files, 8, 0, mirror=False, pigments=0.5)
    assert all((again[i]["albedo"] == varied[i]["albedo"]).all() for i in range(9))


def test_the_mean_is_that_of_the_linear_model_and_symmetric(folder):
    files = texture_data.find_maps([folder])
    used = texture_data.teachers(files, 16)
    maps = np.stack([np.float32(texture_data.read_map(f, 16)) for f in used])
    expected, _ = corpus.weighted_mean(maps[..., :3], np.maximum(maps[..., 3], texture_data.UNSEEN))
    assert texture_data.mean_map(files, 16, mirror=False) == pytest.approx(np.clip(expected, 0, 1), abs=1e-4)
    mean = texture_data.mean_map(files, 16)
    assert mean.dtype == np.float32 and mean == pytest.approx(mean[:, ::-1], abs=1e-6)


def test_memory_is_bounded_and_results_do_not_depend_on_it(folder, monkeypatch):
    files = texture_data.find_maps([folder])
    expected = [texture_data.dataset(files, 16, 0)[i] for i in range(20)]
    monkeypatch.setattr(texture_data, "CACHE", 3 * 8 * 16 * 16)
    reads = []
    read = texture_data.read_map
    monkeypatch.setattr(texture_data, "read_map", lambda f, resolution: reads.append(f) or read(f, resolution))
    data = texture_data.dataset(files, 16, 0)
    for index in range(20):
        assert (data[index]["albedo"] == expected[index]["albedo"]).all()
    assert len(files) < len(reads) <= 20


def test_threads_end_with_their_stream(folder):
    before = threading.active_count()
    stream = texture_data.batches(texture_data.find_maps([folder]), 16, 4, seed=0, threads=2)
    next(stream)
    del stream
    assert threading.active_count() <= before + 3


def test_what_cannot_be_used_is_one_line(tmp_path):
    def message(folder, **kwargs):
        with pytest.raises(InputError) as error:
            texture_data.find_maps([folder], **kwargs)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "not found, expected a folder" in message(tmp_path / "nothing")
    assert "found no maps" in message(tmp_path)
    save(tmp_path / "a.png", np.zeros((4, 4, 3)))
    assert "no maps are left" in message(tmp_path, leave_out=["a"])
    (tmp_path / "detail.json").write_text("[3]")
    assert "detail.json: cannot be used" in message(tmp_path)
    (tmp_path / "detail.json").write_text('{"a": "x"}')
    assert "detail.json: cannot be used" in message(tmp_path)
    (tmp_path / "detail.json").unlink()
    save(tmp_path / "b.png", np.zeros((4, 6, 3)))
    assert "b.png: 6 x 4 texels, expected a square" in message(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert "b.png: cannot be read" in message(tmp_path)
    save(tmp_path / "b.png", RNG.uniform(size=(32, 32, 3)))
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:1000])
    files = texture_data.find_maps([tmp_path])
    with pytest.raises(InputError, match=r"b\.png: broken image"):
        texture_data.read_map(files[1], 4)
