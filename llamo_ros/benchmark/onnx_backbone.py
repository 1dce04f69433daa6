"""The backbone's step as an ONNX graph, and ONNX Runtime that runs it: only to compare with.

The graph is written node by node: PyTorch's exporters need packages of their own, and differ from version to version.
Scores over the cache and over the new token are computed apart, so that the cache is read and never copied.
"""

# R rows, D width, H heads, K key/value heads, G queries of a key (H / K), E head width, F feed-forward width
# L earlier tokens

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llamo_ros.kernels.backbone_step import BranchWeights

_OPSET, _IR = 18, 10


def why_no_onnx() -> str:
    """Why ONNX Runtime cannot be compared with on this machine; empty if it can."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed; pip install 'llamo-ros[bench]'" if missing else ""


def onnx_step(
    weights: BranchWeights,
    tokens_RD: Tensor,
    cosine_RE: Tensor,
    sine_RE: Tensor,
    keys: Tensor,
    values: Tensor,
    length: int,
    precision: str = "float32",
) -> Callable[[], NDArray[np.float32]]:
    """A function that does one step on one thread, writes the new keys and values, and returns hidden states (R, D).

    Args:
        weights: Of the branch.
        tokens_RD: Embedded tokens.
        cosine_RE: Of the rotary angle at the position of the new token.
        sine_RE: Likewise.
        keys: Of all layers, (layers, R, K, columns, E); written at column `length`.
        values: Likewise.
        length: Earlier tokens of each row.
        precision: "float32", or "int8" for ONNX Runtime's dynamic quantisation with a scale per output.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = backbone_graph(weights, len(tokens_RD), length)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "step.onnx")
        if precision == "int8":
            path = _quantised(model, Path(folder))
        else:
            Path(path).write_bytes(model.SerializeToString())
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    layers = len(weights.layers)
    all_keys, all_values = keys.numpy(), values.numpy()
    feeds = {"tokens": tokens_RD.numpy(), "cosine": cosine_RE[:, None].numpy(), "sine": sine_RE[:, None].numpy()}
    for i in range(layers):  # the runtime wants whole arrays, so each layer has its own, filled once
        feeds[f"keys_{i}"] = np.ascontiguousarray(all_keys[i, :, :, :length])
        feeds[f"values_{i}"] = np.ascontiguousarray(all_values[i, :, :, :length])

    def run() -> NDArray[np.float32]:
        hidden, *new = session.run(None, feeds)
        for i in range(layers):
            all_keys[i, :, :, length], all_values[i, :, :, length] = new[2 * i], new[2 * i + 1]
        return hidden

    return run


def backbone_graph(weights: BranchWeights, rows: int, length: int) -> Any:
    """The step as an ``onnx.ModelProto`` for so many rows, which hold so many tokens each.

    Inputs: tokens (R, D), cosine and sine (R, 1, E), and keys_i and values_i (R, K, L, E) of layer i. Outputs: hidden
    states (R, D), then new_keys_i and new_values_i (R, K, E) of each layer.
    """
    import onnx
    from onnx import helper

    graph = _Graph(helper)
    heads, kv_heads, width = weights.heads, weights.kv_heads, weights.head_width
    channels = len(weights.norm)
    x, outputs = "tokens", []
    inputs = [("tokens", (rows, channels)), ("cosine", (rows, 1, width)), ("sine", (rows, 1, width))]
    for i, layer in enumerate(weights.layers):
        inputs += [(f"{name}_{i}", (rows, kv_heads, length, width)) for name in ("keys", "values")]
        normed = graph.rms_norm(x, layer.attention_norm, weights.norm_epsilon)
        joint = graph.reshape(graph.linear(normed, layer.query_key_value), (rows, heads + 2 * kv_heads, width))
        turned, new_values = graph.split(joint, (heads + kv_heads, kv_heads), axis=1)
        turned = graph.rotated(turned, width)
        queries, new_keys = graph.split(turned, (heads, kv_heads), axis=1)
        outputs += [(new_keys, (rows, kv_heads, width)), (new_values, (rows, kv_heads, width))]
        queries = graph.reshape(queries, (rows, kv_heads, heads // kv_heads, width))
        key, value = (graph.reshape(new, (rows, kv_heads, 1, width)) for new in (new_keys, new_values))
        earlier = graph("MatMul", queries, graph("Transpose", f"keys_{i}", perm=(0, 1, 3, 2)))
        own = graph("ReduceSum", graph("Mul", queries, key), graph.constant([-1]), keepdims=1)
        scores = graph("Mul", graph("Concat", earlier, own, axis=-1), graph.constant(np.float32(width**-0.5)))
        earlier, own = graph.split(graph("Softmax", scores, axis=-1), (length, 1), axis=-1)
        attended = graph("Add", graph("MatMul", earlier, f"values_{i}"), graph("Mul", own, value))
        attended = graph.reshape(attended, (rows, heads * width))
        x = graph("Add", x, graph.linear(attended, layer.attention_output))
        normed = graph.rms_norm(x, layer.feed_forward_norm, weights.norm_epsilon)
        size = layer.down.shape[1]
        gate, up = graph.split(graph.linear(normed, layer.gate_up), (size, size), axis=-1)
        silu = graph("Mul", gate, graph("Sigmoid", gate))
        x = graph("Add", x, graph.linear(graph("Mul", silu, up), layer.down))
    outputs.insert(0, (graph.rms_norm(x, weights.norm, weights.norm_epsilon), (rows, channels)))

    def described(named: list[tuple[str, tuple[int, ...]]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in named]

    made = helper.make_graph(graph.nodes, "backbone_step", described(inputs), described(outputs), graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Collects nodes and constants; each method adds some and returns the name of what comes out."""

    def __init__(self, helper: Any) -> None:
        self._helper = helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self._add(operator, inputs, 1, attributes)[0]

    def split(self, x: str, sizes: tuple[int, ...], axis: int) -> list[str]:
        return self._add("Split", (x, self.constant(list(sizes))), len(sizes), {"axis": axis})

    def reshape(self, x: str, shape: tuple[int, ...]) -> str:
        return self("Reshape", x, self.constant(list(shape)))

    def linear(self, x: str, weight: Tensor) -> str:
        return self("MatMul", x, self.constant(np.ascontiguousarray(weight.numpy().T)))

    def rms_norm(self, x: str, weight: Tensor, epsilon: float) -> str:
        square = self("ReduceMean", self("Mul", x, x), self.constant([-1]), keepdims=1)
        root = self("Sqrt", self("Add", square, self.constant(np.float32(epsilon))))
        return self("Mul", self("Div", x, root), self.constant(weight.numpy()))

    def rotated(self, x: str, width: int) -> str:
        first, second = self.split(x, (width // 2, width // 2), axis=-1)
        turned = self("Concat", self("Neg", second), first, axis=-1)
        return self("Add", self("Mul", x, "cosine"), self("Mul", turned, "sine"))

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        array = np.asarray(value)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def _add(self, operator: str, inputs: tuple[str, ...], count: int, attributes: dict[str, Any]) -> list[str]:
        names = [f"{operator}_{len(self.nodes)}_{k}" for k in range(count)]
        self.nodes.append(self._helper.make_node(operator, inputs, names, **attributes))
        return names


def _quantised(model: Any, folder: Path) -> str:
    """Path of the model with its matrices in int8."""
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it advises to preprocess, which changes nothing here
    before, after = folder / "float32.onnx", folder / "int8.onnx"
    before.write_bytes(model.SerializeToString())
    quantize_dynamic(before, after, weight_type=QuantType.QInt8, per_channel=True)
    return str(after)
