"""Building plans, with the real builder of TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

import importlib
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engines_fakes import RTX, tiny_onnx
from onnx import TensorProto, numpy_helper

from leaf_rt.backends.registry import find_backend
from leaf_rt.backends.tensorrt.build import Profile, build_plan, check_module
from leaf_rt.errors import BackendError, ModelError


@pytest.fixture(scope="module")
def rtx() -> Any:
    return importlib.import_module("tensorrt_rtx")


@pytest.fixture
def tiny(tmp_path: Path) -> onnx.ModelProto:
    tiny_onnx(tmp_path / "tiny.onnx")
    return onnx.load(tmp_path / "tiny.onnx")


@RTX
def test_a_graph_with_a_dynamic_batch_becomes_a_plan(rtx: Any, tiny: onnx.ModelProto) -> None:
    built = build_plan(rtx, tiny.SerializeToString(), Profile(1, 4, 32))
    assert len(built.plan) > 1000
    assert built.timings == b""  # TensorRT-RTX keeps none


@RTX
@pytest.mark.parametrize("content", [b"rubbish", None])
def test_a_damaged_graph_is_rejected(rtx: Any, tiny: onnx.ModelProto, content: bytes | None) -> None:
    data = tiny.SerializeToString()[:-200] if content is None else content
    with pytest.raises(ModelError, match=r"tensorrt_rtx .* cannot parse this graph"):
        build_plan(rtx, data, Profile())


@RTX
def test_an_unsupported_operator_is_named(rtx: Any, tiny: onnx.ModelProto) -> None:
    node = next(n for n in tiny.graph.node if n.op_type == "MatMul")
    node.op_type, node.name = "Det", "the_odd_one"
    del node.input[1:]
    with pytest.raises(ModelError, match=r"operator Det \(the_odd_one\) is not supported"):
        build_plan(rtx, tiny.SerializeToString(), Profile())


@RTX
def test_wrong_types_are_named(rtx: Any, tiny: onnx.ModelProto) -> None:
    next(t for t in tiny.graph.initializer if t.name == "small").CopyFrom(
        numpy_helper.from_array(np.float16(1 / 255), "small")
    )
    with pytest.raises(ModelError, match=r"operator Mul .* must have same input types"):
        build_plan(rtx, tiny.SerializeToString(), Profile())


@RTX
def test_wrong_inputs_are_named(rtx: Any, tiny: onnx.ModelProto) -> None:
    floats = onnx.ModelProto()
    floats.CopyFrom(tiny)
    floats.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(ModelError, match=r"faces is DataType\.FLOAT, wanted DataType\.UINT8"):
        build_plan(rtx, floats.SerializeToString(), Profile())
    fixed = onnx.ModelProto()
    fixed.CopyFrom(tiny)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(ModelError, match=r"wanted \(-1, S, S, 3\)"):
        build_plan(rtx, fixed.SerializeToString(), Profile())
    foreign = onnx.ModelProto()
    foreign.CopyFrom(tiny)
    foreign.graph.output[0].name = foreign.graph.node[-1].output[0] = "classes"
    with pytest.raises(ModelError, match="export the model with `leaf-rt export`"):
        build_plan(rtx, foreign.SerializeToString(), Profile())


@pytest.mark.parametrize("sizes", [(0, 4, 8), (4, 2, 8), (1, 9, 8)])
def test_wrong_profiles_are_named(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ModelError, match="wanted 1 <= smallest <= optimal <= largest"):
        Profile(*sizes)


@RTX
def test_a_profile_that_tensorrt_rejects_is_an_error(rtx: Any, tiny: onnx.ModelProto) -> None:
    bad = Profile()
    object.__setattr__(bad, "best", 64)  # beyond the largest: our own check is skipped, so that TensorRT's applies
    with pytest.raises(ModelError, match="refuses the profile"):
        build_plan(rtx, tiny.SerializeToString(), bad)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (types.SimpleNamespace(__name__="json"), "is not a TensorRT module"),
        (types.SimpleNamespace(__name__="tensorrt", __version__="8.6.1", Builder=1), "8.6.1 is not supported"),
        (types.SimpleNamespace(__name__="tensorrt", __version__="10.2.0", Builder=1), "10.2.0 is not supported"),
    ],
)
def test_unsupported_modules_are_rejected(module: Any, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        check_module(module)


@pytest.mark.parametrize("version", ["10.3.0", "10.13.2.6", "11.4.0"])
def test_versions_10_and_11_are_supported(version: str) -> None:
    assert check_module(types.SimpleNamespace(__name__="tensorrt", __version__=version, Builder=1)).endswith(version)


@RTX
def test_tensorrt_rtx_has_every_name_that_runs_a_plan() -> None:
    """Without a GPU a plan cannot be loaded; a misspelled name would only show there."""
    import tensorrt_rtx as trt

    for owner, names in {
        trt.ICudaEngine: ("device_memory_size_v2", "create_runtime_config", "create_execution_context"),
        trt.IRuntimeConfig: (
            "set_execution_context_allocation_strategy", "dynamic_shapes_kernel_specialization_strategy",
        ),
        trt.IExecutionContext: (
            "set_device_memory", "set_tensor_address", "set_input_shape", "execute_async_v3", "is_stream_capturable",
        ),
        trt.ExecutionContextAllocationStrategy: ("USER_MANAGED",),
        trt.DynamicShapesKernelSpecializationStrategy: ("EAGER",),
        trt.BuilderFlag: ("REQUIRE_USER_ALLOCATION",),
    }.items():  # fmt: skip
        assert [name for name in names if not hasattr(owner, name)] == []
    cards = {name.removeprefix("SM") for name in dir(trt.ComputeCapability) if name.startswith("SM")}
    supported = {capability.replace(".", "") for capability in find_backend("tensorrt-rtx").capabilities}
    assert supported == cards
