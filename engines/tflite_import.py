"""Converts MediaPipe's face detection networks from TFLite to ONNX: ``python -m engines detectors``.

The ONNX graph computes what the TFLite graph computes, for a batch of any size, with common operators only. Runtimes
for the CPU keep channels in blocks of eight; so channels are filled up to blocks with zeros, and no layer of the
network forces a runtime to change the layout.
Knows the TFLite schema and ONNX; must not know anchors or detections.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import tflite
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9
HALF_RANGE = 127.5  # MediaPipe maps pixels to [-1, 1] by x / 127.5 - 1
BLOCK = 8  # channels; heads with fewer stay as they are

_DTYPES: dict[int, type[np.generic]] = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}
_NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
Array = NDArray[Any]


def convert(data: bytes) -> onnx.ModelProto:
    """Convert a face detection network.

    Args:
        data: The .tflite file. One input (1, side, side, 3) in [-1, 1], RGB; weights in fp16 or fp32, dense or sparse.

    Returns:
        The model. Input ``images`` (N, side, side, 3) uint8 BGR. Outputs ``boxes`` (N, A, 16) and ``scores`` (N, A, 1),
        float32, of A anchors, as the network gives them. fp16 weights are stored as such and widened in the graph.

    Raises:
        ValueError: The file holds something that this converter does not know.
    """
    return _Converter(data).model()


class _Converter:
    """Translates one graph, operator by operator. Tensors that are constant live in ``_constants``, never as nodes."""

    def __init__(self, data: bytes) -> None:
        self._file = tflite.Model.GetRootAs(data, 0)
        self._graph = self._file.Subgraphs(0)
        self._constants: dict[int, Array] = {}
        self._pads: dict[int, tuple[int, list[int]]] = {}  # output of a spatial Pad: its input and ONNX pads
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._width: dict[int, int] = {}  # channels of a feature map in the ONNX graph, zeros included
        self._image, self._side = int(self._graph.InputsAsNumpy()[0]), 0

    def model(self) -> onnx.ModelProto:
        """Translate the graph."""
        _, self._side, width, channels = self._shape(self._image)
        if self._graph.InputsLength() != 1 or width != self._side or channels != 3:
            raise ValueError(f"tflite: wanted one square RGB input, got {self._shape(self._image)}")
        self._width[self._image] = channels
        # The first convolution divides by HALF_RANGE and takes BGR, so that pixels are only shifted here.
        self._node("Cast", ["images"], ["float"], to=TensorProto.FLOAT)
        self._node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2])
        self._node("Sub", ["planes", self._store("half_range", np.float32(HALF_RANGE))], [self._name(self._image)])
        for k in range(self._graph.OperatorsLength()):
            self._translate(self._graph.Operators(k))
        by_depth = sorted(self._graph.OutputsAsNumpy().tolist(), key=lambda t: -self._shape(t)[2])
        outputs = []
        for name, tensor in zip(("boxes", "scores"), by_depth, strict=True):
            self._node("Identity", [self._name(tensor)], [name])
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *self._shape(tensor)[1:]]))
        inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", self._side, self._side, 3])]
        graph = helper.make_graph(self._nodes, "face_detection", inputs, outputs, self._initializers)
        model = helper.make_model(
            graph, producer_name="leaf-rt", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _translate(self, op: Any) -> None:
        code = self._file.OperatorCodes(op.OpcodeIndex())
        name = _NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        translate = getattr(self, f"_{name.lower()}", None)
        if translate is None:
            raise ValueError(f"tflite: the operator {name} is not supported")
        translate([int(i) for i in op.InputsAsNumpy()], int(op.OutputsAsNumpy()[0]), op)

    # -- weights ---------------------------------------------------------------------------------------------------

    def _dequantize(self, inputs: list[int], output: int, _: Any) -> None:
        self._constants[output] = self._constant(inputs[0])

    _densify = _dequantize

    def _constant(self, tensor: int) -> Array:
        """Return the values of a constant tensor, dense."""
        if tensor in self._constants:
            return self._constants[tensor]
        info = self._graph.Tensors(tensor)
        buffer = self._file.Buffers(info.Buffer())
        if info.Type() not in _DTYPES or buffer.DataLength() == 0:
            raise ValueError(f"tflite: tensor {tensor} is no constant of a known type")
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), _DTYPES[info.Type()])
        sparsity = info.Sparsity()
        shape = self._shape(tensor)
        return values.reshape(shape) if sparsity is None else _densify_rows(values, shape, sparsity)

    # -- layers ----------------------------------------------------------------------------------------------------

    def _conv_2d(self, inputs: list[int], output: int, op: Any) -> None:
        weights = self._constant(inputs[1]).transpose(0, 3, 1, 2)  # OHWI to OIHW
        source = self._pads.get(inputs[0], inputs)[0]
        if source == self._image:
            weights = weights[:, ::-1].astype(np.float32) / np.float32(HALF_RANGE)
        weights = _filled(weights, _blocks(len(weights)), self._width[source])
        self._convolve(inputs, output, weights, 1, _options(op, tflite.Conv2DOptions()))

    def _depthwise_conv_2d(self, inputs: list[int], output: int, op: Any) -> None:
        options = _options(op, tflite.DepthwiseConv2DOptions())
        weights = self._constant(inputs[1]).transpose(3, 0, 1, 2)  # 1HWC to C1HW
        if options.DepthMultiplier() != 1:
            raise ValueError("tflite: depthwise convolutions with a multiplier are not supported")
        weights = _filled(weights, self._width[self._pads.get(inputs[0], inputs)[0]], 1)
        self._convolve(inputs, output, weights, len(weights), options)

    def _convolve(self, inputs: list[int], output: int, weights: Array, groups: int, options: Any) -> None:
        if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
            raise ValueError("tflite: dilated convolutions are not supported")
        strides = [options.StrideH(), options.StrideW()]
        kernel = list(weights.shape[2:])
        source, pads = self._pads.get(inputs[0], (inputs[0], [0, 0, 0, 0]))
        if options.Padding() == tflite.Padding.SAME:
            if inputs[0] in self._pads:
                raise ValueError("tflite: a padded convolution after a Pad is not supported")
            pads = _same_pads(self._shape(source)[1:3], kernel, strides)
        self._width[output] = len(weights)
        bias = _filled(self._constant(inputs[2]), len(weights))
        names = [self._store(f"w{output}", weights), self._store(f"b{output}", bias)]
        self._activated(
            "Conv", [self._name(source), *names], output, options,
            kernel_shape=kernel, strides=strides, pads=pads, group=groups,
        )  # fmt: skip

    def _max_pool_2d(self, inputs: list[int], output: int, op: Any) -> None:
        options = _options(op, tflite.Pool2DOptions())
        kernel, strides = [options.FilterHeight(), options.FilterWidth()], [options.StrideH(), options.StrideW()]
        self._width[output] = self._width[inputs[0]]
        same = options.Padding() == tflite.Padding.SAME
        pads = _same_pads(self._shape(inputs[0])[1:3], kernel, strides) if same else [0, 0, 0, 0]
        self._activated(
            "MaxPool", [self._name(inputs[0])], output, options, kernel_shape=kernel, strides=strides, pads=pads
        )

    def _add(self, inputs: list[int], output: int, op: Any) -> None:
        self._width[output] = self._width[inputs[0]]
        self._activated("Add", [self._name(i) for i in inputs], output, _options(op, tflite.AddOptions()))

    def _relu(self, inputs: list[int], output: int, _: Any) -> None:
        self._width[output] = self._width[inputs[0]]
        self._node("Relu", [self._name(inputs[0])], [self._name(output)])

    def _pad(self, inputs: list[int], output: int, _: Any) -> None:
        n, h, w, c = self._constant(inputs[1]).tolist()
        if not any((*n, *c)):  # the convolution that follows pads by itself
            self._pads[output] = (inputs[0], [h[0], w[0], h[1], w[1]])
            return
        if any((*n, *h, *w, c[0])):
            raise ValueError("tflite: a Pad of several kinds is not supported")
        # Zero channels: those that fill the last block, and more from a convolution with zeros, because that keeps the
        # layout of the channels, which a Pad would not.
        width = self._width[inputs[0]]
        self._width[output] = _blocks(self._shape(output)[3])
        if self._width[output] == width:
            self._node("Identity", [self._name(inputs[0])], [self._name(output)])
            return
        zeros = np.zeros((self._width[output] - width, width, 1, 1), np.float16)
        self._node("Conv", [self._name(inputs[0]), self._store(f"w{output}", zeros)], [f"zeros{output}"])
        self._node("Concat", [self._name(inputs[0]), f"zeros{output}"], [self._name(output)], axis=1)

    def _resize_bilinear(self, inputs: list[int], output: int, op: Any) -> None:
        options = _options(op, tflite.ResizeBilinearOptions())
        if options.AlignCorners() or not options.HalfPixelCenters():
            raise ValueError("tflite: only half-pixel bilinear resizing is supported")
        self._width[output] = self._width[inputs[0]]
        before, after = self._shape(inputs[0]), self._shape(output)
        scales = np.array([1, 1, after[1] / before[1], after[2] / before[2]], np.float32)
        self._node(
            "Resize", [self._name(inputs[0]), "", self._store(f"s{output}", scales)], [self._name(output)],
            mode="linear", coordinate_transformation_mode="half_pixel",
        )  # fmt: skip

    def _depth_to_space(self, inputs: list[int], output: int, op: Any) -> None:
        size = _options(op, tflite.DepthToSpaceOptions()).BlockSize()
        self._node("DepthToSpace", [self._name(inputs[0])], [self._name(output)], blocksize=size, mode="DCR")

    # -- the heads: (N, C, H, W) becomes (N, A, values), from here on ------------------------------------------

    def _reshape(self, inputs: list[int], output: int, _: Any) -> None:
        shape = self._store(f"r{output}", np.array([0, *self._shape(output)[1:]], np.int64))
        self._node("Transpose", [self._name(inputs[0])], [f"nhwc{output}"], perm=[0, 2, 3, 1])
        self._node("Reshape", [f"nhwc{output}", shape], [self._name(output)])

    def _concatenation(self, inputs: list[int], output: int, op: Any) -> None:
        if any(len(self._shape(i)) != 3 for i in inputs):
            raise ValueError("tflite: only heads can be concatenated")
        axis = _options(op, tflite.ConcatenationOptions()).Axis()
        self._node("Concat", [self._name(i) for i in inputs], [self._name(output)], axis=axis)

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _activated(self, kind: str, inputs: list[str], output: int, options: Any, **attributes: Any) -> None:
        """Add a node and the activation that TFLite fuses with it."""
        activation = options.FusedActivationFunction()
        if activation == tflite.ActivationFunctionType.NONE:
            self._node(kind, inputs, [self._name(output)], **attributes)
        elif activation == tflite.ActivationFunctionType.RELU:
            self._node(kind, inputs, [f"linear{output}"], **attributes)
            self._node("Relu", [f"linear{output}"], [self._name(output)])
        else:
            raise ValueError(f"tflite: activation {activation} is not supported")

    def _store(self, name: str, values: Any) -> str:
        """Store a constant; fp16 values are widened by a Cast, which runtimes compute once."""
        array = np.ascontiguousarray(values) if np.ndim(values) else np.asarray(values)
        if array.dtype != np.float16:
            self._initializers.append(numpy_helper.from_array(array, name))
            return name
        self._initializers.append(numpy_helper.from_array(array, f"{name}_fp16"))
        self._node("Cast", [f"{name}_fp16"], [name], to=TensorProto.FLOAT)
        return name

    def _node(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, list(inputs), list(outputs), **attributes))

    def _name(self, tensor: int) -> str:
        if tensor in self._pads:
            raise ValueError("tflite: a Pad that no convolution follows is not supported")
        return f"t{tensor}"

    def _shape(self, tensor: int) -> list[int]:
        return [int(n) for n in self._graph.Tensors(tensor).ShapeAsNumpy()]


def _blocks(channels: int) -> int:
    """Return the number of channels with the last block filled up."""
    return channels if channels < BLOCK else math.ceil(channels / BLOCK) * BLOCK


def _filled(weights: Array, *size: int) -> Array:
    """Fill the first axes of weights up to ``size`` with zeros."""
    return np.pad(
        weights,
        [(0, n - have) for n, have in zip(size, weights.shape, strict=False)] + [(0, 0)] * (weights.ndim - len(size)),
    )


def _options(op: Any, options: Any) -> Any:
    """Read the options of an operator into an object of their class."""
    table = op.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options


def _same_pads(size: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return TFLite's SAME padding as ONNX pads: what is odd comes at the end."""
    totals = [max((math.ceil(n / s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, strides, strict=True)]
    return [*(t // 2 for t in totals), *(t - t // 2 for t in totals)]


def _densify_rows(values: Array, shape: Sequence[int], sparsity: Any) -> Array:
    """Expand weights that are sparse along their last axis (CSR).

    Source: SparsityParameters in TensorFlow's lite/schema/schema.fbs.
    """
    if sparsity.BlockMapLength() or sparsity.TraversalOrderAsNumpy().tolist() != list(range(len(shape))):
        raise ValueError("tflite: sparse weights in blocks are not supported")
    formats = [sparsity.DimMetadata(k).Format() for k in range(sparsity.DimMetadataLength())]
    if formats != [tflite.DimensionType.DENSE] * (len(shape) - 1) + [tflite.DimensionType.SPARSE_CSR]:
        raise ValueError("tflite: only weights that are sparse along their last axis are supported")
    last = sparsity.DimMetadata(len(shape) - 1)
    segments = _indices(last.ArraySegmentsType(), last.ArraySegments())
    columns = _indices(last.ArrayIndicesType(), last.ArrayIndices())
    dense = np.zeros((math.prod(shape[:-1]), shape[-1]), values.dtype)
    dense[np.repeat(np.arange(len(dense)), np.diff(segments)), columns] = values[: len(columns)]
    return dense.reshape(shape)


def _indices(kind: int, table: Any) -> Array:
    """Read a vector of indices."""
    vectors = {
        tflite.SparseIndexVector.Int32Vector: tflite.Int32Vector,
        tflite.SparseIndexVector.Uint16Vector: tflite.Uint16Vector,
        tflite.SparseIndexVector.Uint8Vector: tflite.Uint8Vector,
    }
    vector = vectors[kind]()
    vector.Init(table.Bytes, table.Pos)
    return np.asarray(vector.ValuesAsNumpy(), np.int64)
