"""Small models, a fake GPU and a fake TensorRT, for the tests of engines and back ends."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from leaf_rt.backends.parity import golden_faces
from leaf_rt.backends.tensorrt.cuda import Gpu
from leaf_rt.cli import main
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import ModelSpec, save_spec, sha256_of
from leaf_rt.types import U8

SIDE, CLASSES, DIM = 64, 8, 12
# Where a wheel exists, the test setup installs it: a missing package is a failure there, not a skip.
RTX = pytest.mark.skipif(
    (sys.platform, platform.machine()) not in (("linux", "x86_64"), ("win32", "AMD64")),
    reason="TensorRT-RTX has no wheel for this platform",
)
GPU = Gpu("Fake 4090", "8.9", 128, 24 << 30, "580.1")


def run_engines(*arguments: object) -> int:
    """Run ``python -m engines`` in this process; return its exit code."""
    return main([str(a) for a in arguments], commands="leaf_rt.cli.maintenance", name="python -m engines")


def tiny_onnx(
    path: Path, *, precision: str = "fp32", parent: str = "", seed: int = 0, scale: float = 20.0, **fields: Any
) -> ModelSpec:
    """A small real model that classifies 4x4 average-pooled cells; written without PyTorch."""
    random = np.random.default_rng(seed)
    w = numpy_helper.from_array(random.normal(0, 1, (16 * 3, DIM)).astype(np.float32) * 0.3, "w")
    v = numpy_helper.from_array(random.normal(0, 1, (DIM, CLASSES)).astype(np.float32) * scale, "v")
    nodes = [
        helper.make_node("Cast", ["faces"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Mul", ["cells", "small"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["features"]),
        helper.make_node("MatMul", ["features", "v"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["N", CLASSES]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", DIM]),
        ],
        [w, v, numpy_helper.from_array(np.float32(1 / 255), "small")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return describe(path, precision=precision, parent=parent, **fields)


def describe(path: Path, **fields: Any) -> ModelSpec:
    """Write the description of a ``tiny_onnx`` model; ``fields`` replace its values."""
    values: dict[str, Any] = {
        "labels": FERPLUS8, "side": SIDE, "margin": 0.05, "color": "rgb", "net_side": SIDE, "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0), "flip": False, "feature_dim": DIM, "precision": "fp32", "opset": 20,
        "sha256": sha256_of(path), "training": {}, "metrics": {}, "licence": "none",
    }  # fmt: skip
    spec = ModelSpec(**{**values, **fields})
    save_spec(spec, path)
    return spec


class FakeCuda:
    """Memory, streams and graphs as Python objects; ``alive`` contains what is not freed yet."""

    def __init__(self) -> None:
        self.alive: dict[int, Any] = {}
        self.calls: list[str] = []
        self.recording: list[Any] | None = None
        self._next = 1000

    def _new(self, thing: Any) -> int:
        self._next += 1
        self.alive[self._next] = thing
        return self._next

    def _do(self, name: str, action: Any) -> None:
        self.calls.append(name)
        if self.recording is not None:
            self.recording.append(action)
        else:
            action()

    def device(self, nbytes: int) -> int:
        return self._new(np.zeros(nbytes, np.uint8))

    def pinned(self, nbytes: int) -> tuple[int, U8]:
        address = self._new(np.zeros(nbytes, np.uint8))
        return address, self.alive[address]

    def stream(self) -> int:
        return self._new("stream")

    def upload(self, device: int, host: int, nbytes: int, stream: int) -> None:
        self._do("upload", lambda: self._copy(device, host, nbytes))

    def download(self, host: int, device: int, nbytes: int, stream: int) -> None:
        self._do("download", lambda: self._copy(host, device, nbytes))

    def _copy(self, to: int, source: int, nbytes: int) -> None:
        self.alive[to][:nbytes] = self.alive[source][:nbytes]

    def synchronize(self, stream: int) -> None:
        self.calls.append("synchronize")

    def begin_capture(self, stream: int) -> None:
        assert self.recording is None, "two captures at once"
        self.recording = []

    def end_capture(self, stream: int) -> int:
        actions, self.recording = self.recording, None
        return self._new(actions)

    def abort_capture(self, stream: int) -> None:
        self.recording = None

    def launch(self, graph: int, stream: int) -> None:
        self.calls.append("launch")
        for action in self.alive[graph]:
            action()

    def free_graph(self, graph: int) -> None:
        del self.alive[graph]

    def free(self, device: int) -> None:
        del self.alive[device]

    def free_pinned(self, host: int) -> None:
        del self.alive[host]

    def free_stream(self, stream: int) -> None:
        del self.alive[stream]


class FakeContext:
    """An execution context whose network is a function of NumPy arrays."""

    def __init__(self, cuda: FakeCuda, network: Any, largest: int = 32, refuse: frozenset[int] = frozenset()) -> None:
        self.cuda, self.network, self.largest, self.refuse = cuda, network, largest, refuse
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in ("faces", "probs", "features")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if shape[0] > self.largest:
            return False
        self.shape = shape
        return True

    def execute_async_v3(self, stream: int) -> bool:
        shape = self.shape
        if shape[0] in self.refuse:
            return False
        self.cuda._do("execute", lambda: self._run(shape))
        return True

    def _run(self, shape: tuple[int, ...]) -> None:
        memory, at = self.cuda.alive, self.addresses
        faces = memory[at["faces"]][: int(np.prod(shape))].reshape(shape)
        for name, values in zip(("probs", "features"), self.network(faces), strict=True):
            raw = np.ascontiguousarray(values, np.float32).view(np.uint8).reshape(-1)
            memory[at[name]][: len(raw)] = raw


class FakePlan:
    """A loaded plan, whose contexts are ``FakeContext``; ``contexts`` contains all that were made."""

    memory = 100

    def __init__(self, cuda: FakeCuda, network: Any, kind: type[FakeContext] = FakeContext, **options: Any) -> None:
        self._make = lambda: kind(cuda, network, **options)
        self._cuda = cuda
        self.contexts: list[FakeContext] = []
        self.recordable = True

    def context(self, address: int) -> FakeContext:
        assert len(self._cuda.alive[address]) == self.memory
        self.contexts.append(self._make())
        return self.contexts[-1]

    def capturable(self, context: FakeContext, stream: int) -> bool:
        return self.recordable


class FakeTensorRt:
    """Replaces the TensorRT module; its plans are JSON with the hash of the ONNX file."""

    __name__ = "tensorrt"
    __version__ = "11.4.0"
    Builder = object

    def __init__(self) -> None:
        self.built: list[str] = []

    def plan(self, onnx_bytes: bytes) -> bytes:
        digest = hashlib.sha256(onnx_bytes).hexdigest()
        self.built.append(digest)
        return json.dumps({"onnx": digest}).encode()


def faces(count: int = 8) -> U8:
    return golden_faces(SIDE)[:count]


def network(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A function that treats every face separately."""
    flat = crops.reshape(len(crops), -1).astype(np.float64)
    weights = np.stack([np.roll(flat, i, axis=1)[:, ::97].mean(1) + 1 for i in range(CLASSES)], 1)
    return weights / weights.sum(1, keepdims=True), np.stack([flat[:, i] for i in range(DIM)], 1)
