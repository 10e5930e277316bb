import importlib.util
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ganfit_jax import recognition

BLOCKS, CHANNELS, OUTPUTS = (2, 2, 2, 2), (64, 128, 256, 512), 16


@pytest.fixture(scope="module")
def convert():
    folder = Path(__file__).resolve().parents[1] / "third_party" / "arcface"
    spec = importlib.util.spec_from_file_location("arcface_convert", folder / "convert.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    spec.loader.exec_module(module)
    yield module.convert
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def state():
    """A random iResNet-18 under the names of arcface_torch; 16 outputs keep it small."""
    rng = np.random.default_rng(0)
    tensors = OrderedDict()

    def conv(name, outputs, inputs, side):
        tensors[f"{name}.weight"] = rng.normal(size=(outputs, inputs, side, side)) / (inputs * side**2) ** 0.5

    def bn(name, size):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = rng.uniform(0.5, 1.5, size), rng.normal(size=size) * 0.2
        tensors[f"{name}.running_mean"] = rng.normal(size=size) * 0.2
        tensors[f"{name}.running_var"] = rng.uniform(0.5, 1.5, size)
        tensors[f"{name}.num_batches_tracked"] = np.array(7)

    conv("conv1", 64, 3, 3)
    bn("bn1", 64)
    tensors["prelu.weight"] = rng.uniform(0, 0.5, 64)
    inputs = 64
    for stage, (count, channels) in enumerate(zip(BLOCKS, CHANNELS, strict=True), 1):
        for index in range(count):
            name = f"layer{stage}.{index}"
            bn(f"{name}.bn1", inputs)
            conv(f"{name}.conv1", channels, inputs, 3)
            bn(f"{name}.bn2", channels)
            tensors[f"{name}.prelu.weight"] = rng.uniform(0, 0.5, channels)
            conv(f"{name}.conv2", channels, channels, 3)
            bn(f"{name}.bn3", channels)
            if index == 0:
                conv(f"{name}.downsample.0", channels, inputs, 1)
                bn(f"{name}.downsample.1", channels)
            inputs = channels
    bn("bn2", 512)
    tensors["fc.weight"], tensors["fc.bias"] = rng.normal(size=(OUTPUTS, 25088)) / 158, rng.normal(size=OUTPUTS)
    bn("features", OUTPUTS)
    return OrderedDict((k, v.astype(np.int64 if v.dtype.kind == "i" else np.float32)) for k, v in tensors.items())


class Exporter:
    """The state as an ONNX graph, as torch exports it: numbered tensors, optionally folded normalisations."""

    def __init__(self, state, folded):
        self.state, self.folded, self.nodes, self.constants = state, folded, [], []

    def constant(self, array):
        self.constants.append(numpy_helper.from_array(array.astype(np.float32), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def node(self, operation, inputs, **attributes):
        self.nodes.append(helper.make_node(operation, inputs, [f"t{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def bn(self, tensor, name):
        parts = [self.state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", [tensor, *map(self.constant, parts)], epsilon=1e-5)

    def conv_bn(self, tensor, conv, bn, stride=1):
        kernel = self.state[f"{conv}.weight"]
        attributes = {
            "strides": [stride] * 2,
            "pads": [kernel.shape[2] // 2] * 4,
            "kernel_shape": [kernel.shape[2]] * 2,
        }
        if not self.folded:
            return self.bn(self.node("Conv", [tensor, self.constant(kernel)], **attributes), bn)
        gamma, beta, mean, variance = (
            self.state[f"{bn}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + 1e-5)
        constants = [self.constant(kernel * scale[:, None, None, None]), self.constant(beta - mean * scale)]
        return self.node("Conv", [tensor, *constants], **attributes)

    def prelu(self, tensor, name):
        return self.node("PRelu", [tensor, self.constant(self.state[f"{name}.weight"][:, None, None])])

    def save(self, path, preprocessing):
        tensor = "data"
        if preprocessing:
            tensor = self.node("Sub", [tensor, self.constant(np.array(127.5))])
            tensor = self.node("Mul", [tensor, self.constant(np.array(1 / 128))])
        tensor = self.prelu(self.conv_bn(tensor, "conv1", "bn1"), "prelu")
        for stage, count in enumerate(BLOCKS, 1):
            for index in range(count):
                name, stride = f"layer{stage}.{index}", 2 if index == 0 else 1
                y = self.conv_bn(self.bn(tensor, f"{name}.bn1"), f"{name}.conv1", f"{name}.bn2")
                y = self.conv_bn(self.prelu(y, f"{name}.prelu"), f"{name}.conv2", f"{name}.bn3", stride)
                if index == 0:
                    tensor = self.conv_bn(tensor, f"{name}.downsample.0", f"{name}.downsample.1", stride)
                tensor = self.node("Add", [y, tensor] if index == 0 else [tensor, y])
        tensor = self.node("Flatten", [self.node("Identity", [self.bn(tensor, "bn2")])], axis=1)
        dense = [self.constant(self.state["fc.weight"]), self.constant(self.state["fc.bias"])]
        self.bn(self.node("Gemm", [tensor, *dense], transB=1), "features")
        data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, 112, 112])
        last = helper.make_tensor_value_info(self.nodes[-1].output[0], TensorProto.FLOAT, ["n", OUTPUTS])
        graph = helper.make_graph(self.nodes, "iresnet", [data], [last], self.constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


def chips() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, 112, 112, 3)).astype(np.float32)


def run_onnx(path, divisor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    data = chips() if divisor is None else (chips() - 127.5) / divisor
    return session.run(None, {"data": data.transpose(0, 3, 1, 2).astype(np.float32)})[0]


def run_ours(path) -> np.ndarray:
    recogniser, info = recognition.load(path)
    assert info.name == "iresnet18" and info.licence == "a licence" and recogniser.spec.metric == "cosine"
    out = jax.jit(recognition.features)(recogniser, jnp.asarray(chips()) / 255)
    assert [a.shape[1:] for a in out.activations] == [(56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512)]
    return np.asarray(out.embedding)


@pytest.mark.parametrize(("folded", "preprocessing"), [(True, False), (False, True)])
def test_iresnet_from_onnx(convert, state, tmp_path, folded, preprocessing):
    source, output = tmp_path / "x.onnx", tmp_path / "x.npz"
    Exporter(state, folded).save(source, preprocessing)
    assert convert(source, output, "a licence") == "iresnet18"
    expected = run_onnx(source, None if preprocessing else 127.5)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(run_ours(output), expected, atol=1e-4)


class Storage:
    """Stands for a torch storage while a state dict is pickled."""

    def __init__(self, key, count):
        self.key, self.count = key, count


def save_torch(path, tensors, monkeypatch, extra=None):
    """Write what ``torch.save(state_dict, path)`` writes, without torch: a zip of data.pkl and raw storages."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*_):
        raise AssertionError("only its name is pickled")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Tensor:
        def __init__(self, key, array):
            self.key, self.array = key, array

        def __reduce__(self):
            array = self.array
            stride = tuple(step // array.itemsize for step in array.strides)
            kind = torch.LongStorage if array.dtype.kind == "i" else torch.FloatStorage
            storage = Storage(self.key, array.size)
            storage.kind = kind
            return _rebuild_tensor_v2, (storage, 0, array.shape, stride, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", obj.kind, obj.key, "cpu", obj.count) if isinstance(obj, Storage) else None

    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("backbone/data.pkl", "w") as file:
            items = OrderedDict((key, Tensor(str(i), value)) for i, (key, value) in enumerate(tensors.items()))
            items.update(extra or {})
            Pickler(file, protocol=2).dump(items)
        for i, value in enumerate(tensors.values()):
            archive.writestr(f"backbone/data/{i}", value.tobytes())
        archive.writestr("backbone/version", "3\n")


def test_iresnet_from_state_dict(convert, state, tmp_path, monkeypatch):
    Exporter(state, False).save(tmp_path / "x.onnx", False)
    save_torch(tmp_path / "x.pth", {f"module.{k}": v for k, v in state.items()}, monkeypatch)
    assert convert(tmp_path / "x.pth", tmp_path / "x.npz", "a licence") == "iresnet18"
    np.testing.assert_allclose(run_ours(tmp_path / "x.npz"), run_onnx(tmp_path / "x.onnx", 127.5), atol=1e-4)


class Evil:
    def __reduce__(self):
        return eval, ("1 + 1",)


def test_state_dict_runs_nothing(convert, tmp_path, monkeypatch):
    save_torch(tmp_path / "x.pth", {"a": np.zeros(3, np.float32)}, monkeypatch, {"b": Evil()})
    with pytest.raises(ValueError, match=r"x\.pth: asks for \w+\.eval, expected a state dict of tensors only"):
        convert(tmp_path / "x.pth", tmp_path / "x.npz", "")


def test_wrong_sources(convert, state, tmp_path, monkeypatch):
    target = tmp_path / "x.npz"
    with pytest.raises(FileNotFoundError, match="no such file"):
        convert(tmp_path / "none.onnx", target, "")
    (tmp_path / "a.onnx").write_text("no graph")
    (tmp_path / "a.pth").write_text("no zip")
    (tmp_path / "a.jpg").write_text("")
    for name, message in (("a.onnx", "not a readable ONNX"), ("a.pth", "not a zip-format"), ("a.jpg", "unknown kind")):
        with pytest.raises(ValueError, match=message):
            convert(tmp_path / name, target, "")
    save_torch(tmp_path / "b.pth", {"conv1.weight": state["conv1.weight"]}, monkeypatch)
    with pytest.raises(ValueError, match=r"no tensor bn1\.weight"):
        convert(tmp_path / "b.pth", target, "")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["data"], ["y"])],
        "other",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph), str(tmp_path / "b.onnx"))
    with pytest.raises(ValueError, match=r"\['Relu'\] after tensor data, expected Conv"):
        convert(tmp_path / "b.onnx", target, "")
    assert not target.exists()


def test_mobilefacenet_golden(convert, shared, tmp_path):
    folder = shared / "arcface_mobilefacenet_y1"
    path = tmp_path / "y1.npz"
    assert convert(folder / "arcface_mobilefacenet_y1.npz", path, "test only") == "mobilefacenet"
    golden = np.load(folder / "golden.npz")
    recogniser, _ = recognition.load(path)
    out = jax.jit(recognition.features)(recogniser, jnp.asarray(golden["images"], jnp.float32) / 255)
    embedding = out.embedding / jnp.linalg.norm(out.embedding, axis=1, keepdims=True)
    np.testing.assert_allclose(embedding, golden["embeddings"], atol=1e-4)
    assert [a.shape[1:] for a in out.activations] == [(28, 28, 64), (14, 14, 128), (7, 7, 128)]
    gradient = jax.jit(jax.grad(lambda c: jnp.sum(recognition.features(recogniser, c).embedding)))(
        jnp.asarray(golden["images"][0], jnp.float32) / 255
    )
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
