"""iResNets in ONNX, read by the structure of the graph: names of tensors and folded normalisations do not matter."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from fold import Arrays, Norm, network_name, norm, put_affine, put_conv, put_dense
from onnx import helper, numpy_helper

PASS = ("Identity", "Dropout", "Cast")


class Graph:
    """An ONNX graph with its constants, walked from tensor to tensor."""

    def __init__(self, path: Path):
        try:
            graph = onnx.load(str(path)).graph
        except Exception as error:  # protobuf and onnx raise kinds of their own
            raise ValueError(f"{path}: not a readable ONNX file ({error})") from None
        self.path = path
        self.constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self.consumers: dict[str, list[Any]] = {}
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(self.attributes(node)["value"])
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
            else:
                for name in node.input:
                    self.consumers.setdefault(name, []).append(node)
        inputs = [item.name for item in graph.input if item.name not in self.constants]
        if len(inputs) != 1:
            raise ValueError(f"{path}: {len(inputs)} inputs, expected 1")
        self.input = inputs[0]

    def attributes(self, node: Any) -> dict[str, Any]:
        return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

    def next(self, tensor: str) -> dict[str, Any]:
        """The nodes that use a tensor, by operation; nodes that pass it on unchanged are looked through."""
        found: dict[str, Any] = {}
        for node in self.consumers.get(tensor, []):
            found.update(self.next(node.output[0]) if node.op_type in PASS else {node.op_type: node})
        return found

    def expect(self, tensor: str, *operations: str) -> Any:
        found = self.next(tensor)
        for operation in operations:
            if operation in found:
                return found[operation]
        raise ValueError(f"{self.path}: {sorted(found)} after tensor {tensor}, expected {' or '.join(operations)}")

    def constant(self, node: Any, index: int) -> np.ndarray:
        if len(node.input) <= index or node.input[index] not in self.constants:
            raise ValueError(f"{self.path}: input {index} of node {node.name or node.output[0]} is not a constant")
        return self.constants[node.input[index]]

    def norm(self, node: Any) -> Norm:
        epsilon = self.attributes(node).get("epsilon", 1e-5)
        return norm([self.constant(node, index) for index in range(1, 5)], epsilon)

    def norm_after(self, tensor: str) -> tuple[Norm | None, str]:
        """The normalisation that follows, if one does, and the tensor behind it."""
        node = self.next(tensor).get("BatchNormalization")
        return (None, tensor) if node is None else (self.norm(node), node.output[0])

    def put_conv(self, out: Arrays, name: str, node: Any) -> str:
        """Store a convolution and the normalisation that follows it; the tensor behind them."""
        bias = self.constant(node, 2) if len(node.input) > 2 else None
        after, tensor = self.norm_after(node.output[0])
        put_conv(out, name, self.constant(node, 1), bias, after)
        return tensor

    def put_prelu(self, out: Arrays, name: str, tensor: str) -> str:
        node = self.expect(tensor, "PRelu")
        out[f"{name}.slope"] = self.constant(node, 1).reshape(-1)
        return node.output[0]


def from_onnx(path: Path) -> tuple[str, float, Arrays]:
    """Network name, pixel divisor and weights of an iResNet in ONNX."""
    graph = Graph(path)
    out: Arrays = {}
    divisor, tensor = _preprocessing(graph)
    tensor = graph.put_conv(out, "stem", graph.expect(tensor, "Conv"))
    tensor = graph.put_prelu(out, "prelu", tensor)
    blocks: list[int] = []
    while True:
        node = graph.expect(tensor, "BatchNormalization")
        affine = graph.norm(node)
        first = graph.next(node.output[0]).get("Conv")
        if first is None:
            break
        skip = graph.next(tensor).get("Conv")
        blocks = [*blocks, 1] if skip is not None else [*blocks[:-1], blocks[-1] + 1]
        name = f"stage{len(blocks) - 1}.layers.{blocks[-1] - 1}"
        put_affine(out, f"{name}.norm", affine)
        if skip is not None:
            graph.put_conv(out, f"{name}.skip", skip)
        behind = graph.put_prelu(out, f"{name}.prelu", graph.put_conv(out, f"{name}.first", first))
        behind = graph.put_conv(out, f"{name}.second", graph.expect(behind, "Conv"))
        tensor = graph.expect(behind, "Add", "Sum").output[0]
    put_affine(out, "norm", affine)
    _put_head(graph, out, graph.expect(node.output[0], "Flatten", "Reshape").output[0], len(affine[0]))
    return network_name(blocks, str(path)), divisor, out


def _preprocessing(graph: Graph) -> tuple[float, str]:
    """The divisor of the centred pixels and the first tensor behind them.

    A graph that starts with a convolution expects ``(x - 127.5) / 127.5``; some exports hold ``(x - 127.5) / divisor``
    themselves.
    """
    divisor, tensor = 127.5, graph.input
    if "Sub" in graph.next(tensor):
        node = graph.expect(tensor, "Sub")
        if abs(float(graph.constant(node, 1).reshape(-1)[0]) - 127.5) > 1e-3:
            raise ValueError(f"{graph.path}: subtracts {graph.constant(node, 1)} from the pixels, expected 127.5")
        node = graph.expect(node.output[0], "Mul", "Div")
        factor = float(graph.constant(node, 1).reshape(-1)[0])
        divisor, tensor = (factor if node.op_type == "Div" else 1.0 / factor), node.output[0]
    return divisor, tensor


def _put_head(graph: Graph, out: Arrays, tensor: str, channels: int) -> None:
    """The dense layer (Gemm, or MatMul and Add) and the normalisation that follows it."""
    node = graph.expect(tensor, "Gemm", "MatMul")
    matrix, tensor = graph.constant(node, 1), node.output[0]
    if node.op_type == "Gemm":
        transposed = graph.attributes(node).get("transB", 0)
        bias = graph.constant(node, 2) if len(node.input) > 2 else np.zeros(len(matrix if transposed else matrix.T))
    else:
        transposed, node = 0, graph.expect(tensor, "Add")
        bias = graph.constant(node, 0 if node.input[0] in graph.constants else 1)
        tensor = node.output[0]
    after, _ = graph.norm_after(tensor)
    put_dense(out, "head", matrix if transposed else matrix.T, bias, after, channels)
