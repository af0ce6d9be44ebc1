"""An exported .onnx file as a PyTorch module, operator by operator.

The file says which tensors are float16, so the module computes like every other runtime of the same file. Knows ONNX
and PyTorch; must not know devices, batches or files other than the one it reads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from leaf_rt.errors import ModelError, first_line

Attributes = dict[str, Any]
# Shapes and axes are lists of numbers, never tensors: a list with an unknown batch can be exported and recorded.
Value = Any
_TYPES = {
    TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float16, TensorProto.UINT8: torch.uint8,
}  # fmt: skip
_END = 1 << 31  # larger bounds of a slice mean "to the end"


class OnnxGraph(nn.Module):
    """(N, S, S, 3) uint8 BGR to probabilities (N, C) and features (N, D), both float32.

    Args:
        path: A file that `leaf-rt export` has written.
        half: What float16 tensors of the file become: float16, or bfloat16.

    Raises:
        ModelError: The file is damaged, or contains an operator that is missing here.
    """

    def __init__(self, path: Path, half: torch.dtype = torch.float16) -> None:
        super().__init__()
        try:
            graph = onnx.load(path).graph
            values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        except Exception as e:  # protobuf's errors have no public base class
            raise ModelError(f"{path}: PyTorch cannot load it ({first_line(e)}); export the model again") from e
        missing = sorted({node.op_type for node in graph.node} - set(_OPERATORS))
        if missing:
            raise ModelError(f"{path}: the PyTorch back end has no operator {', '.join(missing)}; use another back end")
        self._half = half
        self._nodes = [_Node(node) for node in graph.node]
        self._outputs = [output.name for output in graph.output]
        self._input = graph.input[0].name
        kernels = {node.inputs[1] for node in self._nodes if node.kind == "Conv"}
        self._lists: dict[str, list[int]] = {}
        self._buffer_of: dict[str, str] = {}
        for number, (name, value) in enumerate(values.items()):
            if value.dtype == "int64":
                self._lists[name] = value.reshape(-1).tolist()
                continue
            tensor = torch.from_numpy(value.copy())
            tensor = tensor.to(half) if tensor.dtype == torch.float16 else tensor
            if name in kernels:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            self._buffer_of[name] = f"value_{number}"
            self.register_buffer(f"value_{number}", tensor)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``probs`` and ``features``."""
        known: dict[str, Value] = {self._input: faces, "": None, **self._lists}
        known |= {name: getattr(self, buffer) for name, buffer in self._buffer_of.items()}
        for node in self._nodes:
            attributes = node.attributes
            if node.kind == "Cast":
                dtype = _TYPES[attributes["to"]]
                attributes = {"dtype": self._half if dtype == torch.float16 else dtype}
            known[node.output] = _OPERATORS[node.kind](attributes, *(known[name] for name in node.inputs))
        probs, features = (known[name] for name in ("probs", "features"))
        return probs, features


class _Node:
    """An operator with its attributes as Python values."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.kind = node.op_type
        self.inputs = list(node.input)
        self.output = node.output[0]
        self.attributes: Attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    return F.conv2d(x, weight, bias, a.get("strides", 1), (top, left), a.get("dilations", 1), a.get("group", 1))


def _gemm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x.t() if a.get("transA") else x
    return F.linear(x, weight if a.get("transB") else weight.t(), bias)


def _slice(a: Attributes, x: Value, starts: list[int], ends: list[int], axes: list[int], steps: Value = None) -> Value:
    if isinstance(x, list):
        return x[starts[0] : min(ends[0], _END)]
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        if step == -1:  # only ever the whole axis: the mirror image of a face
            x = x.flip(axis)
            continue
        where = (slice(None),) * (axis % x.ndim)
        x = x[(*where, slice(start, None if end >= _END else end, step))]
    return x


def _concat(a: Attributes, *parts: Value) -> Value:
    return list(chain(*parts)) if isinstance(parts[0], list) else torch.cat(parts, a["axis"])


def _squeeze(a: Attributes, x: Tensor, axes: list[int]) -> Tensor:
    return x.squeeze(axes)


def _unsqueeze(a: Attributes, x: Tensor, axes: list[int]) -> Tensor:
    for axis in sorted(axes):
        x = x.unsqueeze(axis)
    return x


def _resize(a: Attributes, x: Tensor, region: None, scales: None, size: list[int]) -> Tensor:
    return F.interpolate(x, tuple(size[2:]), mode="bilinear", align_corners=False)


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    return F.avg_pool2d(x, a["kernel_shape"], a.get("strides"), a.get("pads", [0, 0])[:2])


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    return F.max_pool2d(x, a["kernel_shape"], a.get("strides"), a.get("pads", [0, 0])[:2])


def _mean(a: Attributes, x: Tensor, axes: list[int]) -> Tensor:
    return x.mean(axes, keepdim=bool(a.get("keepdims", 1)))


def _layer_norm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, a.get("epsilon", 1e-5))


def _shape(a: Attributes, x: Tensor) -> list[int]:
    return list(x.shape[a.get("start", 0) : a.get("end")])


_OPERATORS: dict[str, Callable[..., Value]] = {
    "Add": lambda a, x, y: x + y,
    "Sub": lambda a, x, y: x - y,
    "Mul": lambda a, x, y: x * y,
    "Div": lambda a, x, y: x / y,
    "Pow": lambda a, x, y: x**y,
    "Sqrt": lambda a, x: x.sqrt(),
    "Cast": lambda a, x: x.to(a["dtype"]),
    "Clip": lambda a, x, low, high: x.clamp(low, high),
    "Relu": lambda a, x: x.relu(),
    "PRelu": lambda a, x, slope: F.prelu(x, slope.reshape(-1)),
    "Sigmoid": lambda a, x: x.sigmoid(),
    "Tanh": lambda a, x: x.tanh(),
    "Erf": lambda a, x: torch.erf(x),
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", b"none").decode()),
    "MatMul": lambda a, x, y: x @ y,
    "Transpose": lambda a, x: x.permute(a["perm"]),
    "Flatten": lambda a, x: x.flatten(a.get("axis", 1)),
    "Reshape": lambda a, x, size: x.reshape(size),
    "Expand": lambda a, x, size: x.expand(torch.broadcast_shapes(x.shape, size)),
    "Softmax": lambda a, x: x.softmax(a.get("axis", -1)),
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "Conv": _conv,
    "Gemm": _gemm,
    "Slice": _slice,
    "Concat": _concat,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Resize": _resize,
    "ReduceMean": _mean,
    "LayerNormalization": _layer_norm,
    "Shape": _shape,
}
