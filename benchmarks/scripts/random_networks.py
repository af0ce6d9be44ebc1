"""Networks with random weights, for peers whose weights cannot be downloaded: right for speed, useless for accuracy."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

# Expansion, channels, repeats, stride, kernel: Tan and Le, EfficientNet, ICML 2019, table 1.
B0 = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
      (6, 320, 1, 1, 3))  # fmt: skip


class Graph:
    """Collects the nodes and the weights of an ONNX graph."""

    def __init__(self):
        self.nodes, self.weights, self.random = [], [], np.random.default_rng(0)

    def add(self, kind, *inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def weight(self, *shape):
        name = f"w{len(self.weights)}"
        scale = np.sqrt(2.0 / max(1, int(np.prod(shape[1:]))))
        array = (self.random.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def constant(self, *values):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def convolution(self, x, channels_in, channels, kernel, stride=1, groups=1, same=True):
        return self.add(
            "Conv", x, self.weight(channels, channels_in // groups, kernel, kernel), self.weight(channels),
            kernel_shape=[kernel, kernel], strides=[stride, stride], group=groups,
            auto_pad="SAME_UPPER" if same else "VALID",
        )  # fmt: skip

    def swish(self, x):
        return self.add("Mul", x, self.add("Sigmoid", x))

    def dense(self, x, size_in, size):
        return self.add("Gemm", x, self.weight(size, size_in), self.weight(size), transB=1)

    def save(self, path, name, shape, output, classes):
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", classes])]
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        save(model, path)


def efficientnet_b0(path, classes=8):
    """EfficientNet-B0 with its batch norms folded: input "input" (N, 3, 224, 224), output (N, classes)."""
    g = Graph()
    x, channels = g.swish(g.convolution("input", 3, 32, 3, stride=2)), 32
    for expansion, out, repeats, first_stride, kernel in B0:
        for repeat in range(repeats):
            stride, wide = first_stride if repeat == 0 else 1, channels * expansion
            y = g.swish(g.convolution(x, channels, wide, 1)) if expansion > 1 else x
            y = g.swish(g.convolution(y, wide, wide, kernel, stride, groups=wide))
            squeezed = g.swish(g.convolution(g.add("GlobalAveragePool", y), wide, max(1, channels // 4), 1))
            gate = g.add("Sigmoid", g.convolution(squeezed, max(1, channels // 4), wide, 1))
            y = g.convolution(g.add("Mul", y, gate), wide, out, 1)
            x = g.add("Add", x, y) if stride == 1 and channels == out else y
            channels = out
    x = g.add("GlobalAveragePool", g.swish(g.convolution(x, channels, 1280, 1)))
    g.save(path, "input", (3, 224, 224), g.dense(g.add("Flatten", x), 1280, classes), classes)


def deepface_emotion(path):
    """The seven-layer network that deepface describes in its code: input (N, 48, 48, 1), output (N, 7)."""
    g = Graph()
    x = g.add("Transpose", "input", perm=[0, 3, 1, 2])
    x = g.add("Relu", g.convolution(x, 1, 64, 5, same=False))
    x = g.add("MaxPool", x, kernel_shape=[5, 5], strides=[2, 2])
    channels = 64
    for out in (64, 128):
        for _ in range(2):
            x, channels = g.add("Relu", g.convolution(x, channels, out, 3, same=False)), out
        x = g.add("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2])
    x = g.add("Relu", g.dense(g.add("Flatten", x), 128, 1024))
    x = g.add("Softmax", g.dense(g.add("Relu", g.dense(x, 1024, 1024)), 1024, 7), axis=1)
    g.save(path, "input", (48, 48, 1), x, 7)
