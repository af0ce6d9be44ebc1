"""Builds a serialized engine (a plan) from an ONNX graph, with ``tensorrt`` 10 or 11 or with ``tensorrt_rtx``.

Knows TensorRT's builder; must not know CUDA, caches or how plans are run. Networks are strongly typed: the graph says
which tensors are float16.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from leaf_rt.errors import BackendError, ModelError, install_hint

BUILD = 2  # part of every cache key; increase it when this file builds different plans
OLDEST = (10, 3)


@dataclass(frozen=True, slots=True)
class Profile:
    """Batch sizes of an engine: the smallest, the one it is optimized for, and the largest."""

    least: int = 1
    best: int = 4
    most: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.best <= self.most:
            raise ModelError(
                f"profile {self.least},{self.best},{self.most}: wanted 1 <= smallest <= optimal <= largest batch"
            )


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and the kernel timings for the next build; b"" if the module has no timing cache."""

    plan: bytes
    timings: bytes


def check_module(trt: Any) -> str:
    """Check a TensorRT module.

    Returns:
        Its name and version.

    Raises:
        BackendError: It is not TensorRT, or is too old.
    """
    version = getattr(trt, "__version__", None)
    if version is None or not hasattr(trt, "Builder"):
        raise BackendError(f"{getattr(trt, '__name__', trt)} is not a TensorRT module; {install_hint('tensorrt')}")
    numbers = tuple(int(n) for n in str(version).split(".")[:3] if n.isdigit())
    if trt.__name__ == "tensorrt" and numbers < OLDEST:
        raise BackendError(f"TensorRT {version} is not supported; install 10.3 or newer")
    return f"{trt.__name__} {version}"


def build_plan(
    trt: Any, onnx: bytes, profile: Profile, *, tf32: bool = False, timings: bytes = b"", workspace: int = 1 << 30
) -> Built:
    """Build a plan.

    Args:
        trt: The TensorRT module.
        onnx: The ONNX file; its tensors have the types to compute in.
        profile: Batch sizes.
        tf32: Allow TF32 for float32 products; faster, but not accurate enough for the parity check.
        timings: ``Built.timings`` of an earlier build; ignored by TensorRT-RTX.
        workspace: Bytes of GPU memory that the builder may use temporarily.

    Raises:
        ModelError: The graph is damaged, was not exported by leaf-rt, or contains something unsupported.
        BackendError: The module cannot be used, or the build failed.
    """
    version = check_module(trt)
    log = _logger(trt)
    builder = trt.Builder(log)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        texts = [_parser_error(parser, e) for e in errors] or log.errors[-1:]
        raise ModelError(f"{version} cannot parse this graph: {'; '.join(texts) or 'no reason given'}")
    shape = _check_network(trt, version, network)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if hasattr(trt.BuilderFlag, "TF32") and not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if trt.__name__ == "tensorrt_rtx":
        # CUDA cannot record a run that allocates memory of its own.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    sizes = builder.create_optimization_profile()
    sizes.set_shape("faces", *((n, *shape) for n in (profile.least, profile.best, profile.most)))
    if config.add_optimization_profile(sizes) < 0:  # set_shape does not report errors
        raise ModelError(f"{version} refuses the profile {asdict(profile)} for this graph: {_last(log)}")
    cache = None
    if trt.__name__ == "tensorrt":
        cache = config.create_timing_cache(timings)
        config.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(f"{version} could not build the engine: {_last(log)}")
    return Built(bytes(plan), bytes(cache.serialize()) if cache is not None else b"")


def _check_network(trt: Any, version: str, network: Any) -> tuple[int, ...]:
    """Check the inputs and outputs; return the shape of one face."""
    inputs = {network.get_input(i).name: network.get_input(i) for i in range(network.num_inputs)}
    outputs = {network.get_output(i).name: network.get_output(i) for i in range(network.num_outputs)}
    if set(inputs) != {"faces"} or set(outputs) != {"probs", "features"}:
        raise ModelError(
            f"{version}: wanted faces in, probs and features out, got {sorted(inputs)} and {sorted(outputs)}; "
            "export the model with `leaf-rt export`"
        )
    types = {"faces": trt.uint8, "probs": trt.float32, "features": trt.float32}
    for name, tensor in {**inputs, **outputs}.items():
        if tensor.dtype != types[name]:
            raise ModelError(f"{version}: {name} is {tensor.dtype}, wanted {types[name]}; export the model again")
    shape = tuple(inputs["faces"].shape)
    if len(shape) != 4 or shape[0] != -1 or min(shape[1:]) < 1:
        raise ModelError(f"{version}: faces has shape {shape}, wanted (-1, S, S, 3); export the model again")
    return shape[1:]


def _parser_error(parser: Any, error: Any) -> str:
    """The operator that failed and why, without the errors that follow from it."""
    kind, node = error.node_operator(), error.node_name()
    if kind and not parser.supports_operator(kind):
        return f"operator {kind} ({node or 'unnamed'}) is not supported"
    lines = [line for line in error.desc().splitlines() if line.strip() and "cudaError" not in line]
    place = f"operator {kind} ({node or 'unnamed'}): " if kind else ""
    return place + " ".join(line.strip() for line in lines[:2])


def _last(log: Any) -> str:
    return "; ".join(log.errors[-2:]) or "no reason given"


def _logger(trt: Any) -> Any:
    """A logger that stores errors instead of printing them."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message.strip())

    return Log()
