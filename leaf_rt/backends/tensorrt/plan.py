"""A plan that is loaded onto the GPU, and its execution contexts.

Knows the runtime half of TensorRT and TensorRT-RTX; must not know models, caches or how batches are run.
"""

from __future__ import annotations

from typing import Any, Protocol


class LoadedPlan(Protocol):
    """A loaded plan.

    Attributes:
        memory: Bytes of GPU memory that a context needs while it runs.
    """

    memory: int

    def context(self, address: int) -> Any:
        """A new IExecutionContext.

        Args:
            address: ``memory`` bytes on the GPU. Contexts that never run at the same time may share them.

        Returns:
            The context, or None if TensorRT cannot make one.
        """
        ...

    def capturable(self, context: Any, stream: int) -> bool:
        """Whether the next run of a context may be recorded as a CUDA graph."""
        ...


class TensorRtPlan:
    """``LoadedPlan`` of TensorRT or TensorRT-RTX. Use ``load_plan``."""

    def __init__(self, trt: Any, logger: Any, runtime: Any, engine: Any) -> None:
        self._trt, self._engine = trt, engine
        self._alive = logger, runtime  # they must outlive the engine
        self.memory = int(engine.device_memory_size_v2)

    def context(self, address: int) -> Any:
        """A new context; see ``LoadedPlan``."""
        user_managed = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._trt.__name__ == "tensorrt_rtx":
            config = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(user_managed)
            # Otherwise kernels are compiled while the context runs, and a recorded graph would keep the slow ones.
            config.dynamic_shapes_kernel_specialization_strategy = (
                self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context(user_managed)
        if context is not None and self.memory:
            context.set_device_memory(address, self.memory)
        return context

    def capturable(self, context: Any, stream: int) -> bool:
        """Whether a run may be recorded; TensorRT without RTX does not say, and the attempt shows it."""
        return self._trt.__name__ != "tensorrt_rtx" or bool(context.is_stream_capturable(stream))


def load_plan(trt: Any, plan: bytes) -> LoadedPlan | None:
    """Load a plan. Call ``cuda.probe`` first: this needs a driver.

    Args:
        trt: The module, "tensorrt" or "tensorrt_rtx".
        plan: Its bytes.

    Returns:
        The plan, or None if TensorRT refuses it.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    return None if engine is None else TensorRtPlan(trt, logger, runtime, engine)
