"""An exported .onnx file as a PyTorch module, operator by operator.

The file says which tensors are float16, so the module computes like every other runtime of the same file. Knows ONNX
and PyTorch; must not know devices, batches or files other than the one it reads.
"""

from __future__ import annotations

import operator
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
# Shapes, axes and indices are numbers and lists of numbers, never tensors: so a graph with an unknown batch can be
# exported, and CUDA can record it.
Value = Any
_INTEGER_DATA = ("Equal",)  # operators that compare integers in tensors
_TYPES = {
    TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float16, TensorProto.UINT8: torch.uint8,
    TensorProto.INT64: torch.int64, TensorProto.BOOL: torch.bool,
}  # fmt: skip
_END = 1 << 31  # larger bounds of a slice mean "to the end"


class OnnxGraph(nn.Module):
    """(N, S, S, 3) uint8 BGR to the outputs of the file, each (N, ...) float32.

    Args:
        path: A file that `leaf-rt export` or `python -m engines detectors` has written.
        half: What float16 tensors of the file become: float16, or bfloat16.
        outputs: Names of the outputs; those of a classifier are probabilities (N, C) and features (N, D).

    Raises:
        ModelError: The file is damaged, or contains an operator that is missing here.
    """

    def __init__(
        self, path: Path, half: torch.dtype = torch.float16, outputs: tuple[str, ...] = ("probs", "features")
    ) -> None:
        super().__init__()
        try:
            graph = onnx.load(path).graph
            values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        except Exception as e:  # protobuf's errors have no public base class
            raise ModelError(f"{path}: PyTorch cannot load it ({first_line(e)}); export the model again") from e
        missing = sorted({node.op_type for node in graph.node} - set(_OPERATORS))
        if missing:
            raise ModelError(f"{path}: the PyTorch back end has no operator {', '.join(missing)}; use another back end")
        self._half, self._outputs = half, outputs
        self._nodes = [node for node in map(_Node, graph.node) if not _known_already(node, values)]
        self._input = graph.input[0].name
        kernels = {node.inputs[1] for node in self._nodes if node.kind == "Conv"}
        compared = {name for node in self._nodes if node.kind in _INTEGER_DATA for name in node.inputs}
        factors = {name for node in self._nodes if node.kind == "Resize" for name in node.inputs[1:]}
        self._numbers: dict[str, Value] = {}
        self._buffer_of: dict[str, str] = {}
        for number, (name, value) in enumerate(values.items()):
            if name in factors or (value.dtype == "int64" and name not in compared):
                self._numbers[name] = value.tolist()
                continue
            tensor = torch.from_numpy(value.copy())
            tensor = tensor.to(half) if tensor.dtype == torch.float16 else tensor
            if name in kernels:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            self._buffer_of[name] = f"value_{number}"
            self.register_buffer(f"value_{number}", tensor)

    def forward(self, faces: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, by default ``probs`` and ``features``."""
        known: dict[str, Value] = {self._input: faces, "": None, **self._numbers}
        known |= {name: getattr(self, buffer) for name, buffer in self._buffer_of.items()}
        for node in self._nodes:
            attributes = node.attributes
            if node.kind == "Cast":
                dtype = _TYPES[attributes["to"]]
                attributes = {"dtype": self._half if dtype == torch.float16 else dtype}
            results = _OPERATORS[node.kind](attributes, *(known[name] for name in node.inputs))
            if len(node.outputs) == 1:
                known[node.outputs[0]] = results
            else:
                known |= zip(node.outputs, results, strict=True)
        return tuple(known[name] for name in self._outputs)


class _Node:
    """An operator with its attributes as Python values."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.kind = node.op_type
        self.inputs = list(node.input)
        self.outputs = list(node.output)
        self.attributes: Attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _known_already(node: _Node, values: dict[str, Any]) -> bool:
    """Convert a weight that the file stores in another type once, and not at every call; False for other operators."""
    stored = values.get(node.inputs[0]) if node.kind == "Cast" else None
    if stored is None or stored.dtype.kind != "f":
        return False
    values[node.outputs[0]] = stored.astype(helper.tensor_dtype_to_np_dtype(node.attributes["to"]))
    return True


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    return F.conv2d(x, weight, bias, a.get("strides", 1), (top, left), a.get("dilations", 1), a.get("group", 1))


def _gemm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x.t() if a.get("transA") else x
    return F.linear(x, weight if a.get("transB") else weight.t(), bias)


def _many(numbers: Value) -> list[int]:
    return numbers if isinstance(numbers, list) else [numbers]


def _arithmetic(operation: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    """An operator of two tensors, or of two numbers that belong to a shape."""

    def run(a: Attributes, x: Value, y: Value) -> Value:
        if not isinstance(x, list) and not isinstance(y, list):
            return operation(x, y)
        left, right = _many(x), _many(y)
        count = max(len(left), len(right))
        left, right = (side * count if len(side) == 1 else side for side in (left, right))
        return [operation(p, q) for p, q in zip(left, right, strict=True)]

    return run


def _cast(a: Attributes, x: Value) -> Value:
    return x.to(a["dtype"]) if isinstance(x, Tensor) else x


def _slice(a: Attributes, x: Value, starts: Value, ends: Value, axes: Value = None, steps: Value = None) -> Value:
    if isinstance(x, list):
        return x[_many(starts)[0] : _many(ends)[0]]
    starts, ends = _many(starts), _many(ends)
    axes = range(len(starts)) if axes is None else _many(axes)
    steps = [1] * len(starts) if steps is None else _many(steps)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == -1:  # only ever the whole axis: the mirror image of a face
            x = x.flip(axis)
            continue
        where = (slice(None),) * (axis % x.ndim)
        x = x[(*where, slice(start, None if end >= _END else end, step))]
    return x


def _gather(a: Attributes, x: Value, index: Value) -> Value:
    if isinstance(x, list):
        return [x[i] for i in index] if isinstance(index, list) else x[index]
    axis = a.get("axis", 0)
    return x.select(axis, index) if isinstance(index, int) else torch.stack([x.select(axis, i) for i in index], axis)


def _concat(a: Attributes, *parts: Value) -> Value:
    return torch.cat(parts, a["axis"]) if isinstance(parts[0], Tensor) else list(chain(*map(_many, parts)))


def _squeeze(a: Attributes, x: Value, axes: Value = None) -> Value:
    if isinstance(x, Tensor):
        return x.squeeze(_many(axes))
    return x[0] if isinstance(x, list) else x


def _unsqueeze(a: Attributes, x: Value, axes: Value) -> Value:
    if not isinstance(x, Tensor):
        return _many(x)
    for axis in sorted(_many(axes)):
        x = x.unsqueeze(axis)
    return x


def _reshape(a: Attributes, x: Value, size: Value) -> Value:
    if not isinstance(x, Tensor):
        return _many(x)
    # A 0 keeps the length. A length of an exported program may be unknown, and is then no int.
    lengths = enumerate(_many(size))
    return x.reshape([x.shape[axis] if isinstance(length, int) and length == 0 else length for axis, length in lengths])


def _top_k(a: Attributes, x: Tensor, k: Value) -> tuple[Tensor, Tensor]:
    values, indices = x.topk(_many(k)[0], a.get("axis", -1), bool(a.get("largest", 1)), bool(a.get("sorted", 1)))
    return values, indices


def _resize(a: Attributes, x: Tensor, region: None, scales: Value, size: Value = None) -> Tensor:
    if size is not None:
        return F.interpolate(x, tuple(size[2:]), mode="bilinear", align_corners=False)
    return F.interpolate(x, scale_factor=tuple(scales[2:]), mode="bilinear", align_corners=False)


def _depth_to_space(a: Attributes, x: Tensor) -> Tensor:
    block, (count, channels, height, width) = a["blocksize"], x.shape  # channels in the order of the mode DCR
    x = x.reshape(count, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(count, channels // block**2, height * block, width * block)


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    return F.avg_pool2d(x, a["kernel_shape"], a.get("strides"), a.get("pads", [0, 0])[:2])


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    return F.max_pool2d(x, a["kernel_shape"], a.get("strides"), a.get("pads", [0, 0])[:2])


def _mean(a: Attributes, x: Tensor, axes: Value) -> Tensor:
    return x.mean(_many(axes), keepdim=bool(a.get("keepdims", 1)))


def _sum(a: Attributes, x: Tensor, axes: Value) -> Tensor:
    return x.sum(_many(axes), keepdim=bool(a.get("keepdims", 1)))


def _layer_norm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, a.get("epsilon", 1e-5))


def _expand(a: Attributes, x: Tensor, size: list[int]) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, size))  # type: ignore[no-untyped-call]


def _shape(a: Attributes, x: Tensor) -> list[int]:
    return list(x.shape[a.get("start", 0) : a.get("end")])


_OPERATORS: dict[str, Callable[..., Value]] = {
    "Add": _arithmetic(operator.add),
    "Sub": _arithmetic(operator.sub),
    "Mul": _arithmetic(operator.mul),
    "Div": lambda a, x, y: x / y,
    "Pow": lambda a, x, y: x**y,
    "Sqrt": lambda a, x: x.sqrt(),
    "Cast": _cast,
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
    "Reshape": _reshape,
    "Expand": _expand,
    "Identity": lambda a, x: x,
    "DepthToSpace": _depth_to_space,
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
    "ReduceSum": _sum,
    "TopK": _top_k,
    "Gather": _gather,
    "Equal": lambda a, x, y: x == y,
    "Einsum": lambda a, *parts: torch.einsum(a["equation"].decode(), *parts),
    "LayerNormalization": _layer_norm,
    "Shape": _shape,
}
