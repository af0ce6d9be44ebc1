"""Small networks that are no classifiers, such as those of the face detector, in the runtimes of the back ends.

Each network is loaded once per process and runs in the thread of its caller: all sources share it, and it adds no
threads. Knows arrays; must not know what the outputs mean.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from leaf_rt.backends.base import Device, load_errors
from leaf_rt.backends.registry import find_backend
from leaf_rt.errors import BackendError
from leaf_rt.types import F32, U8

RUNTIMES = ("onnxruntime", "openvino")  # of the CPU, in the order in which "auto" tries them
NAMES = (*RUNTIMES, "torch")
# Of the caller. The layers are so small that a second thread costs more than it brings: of a picture ONNX Runtime needs
# 1.4 ms with one thread and 1.6 with two. Sources run in threads of their own.
THREADS = 1


class Network(Protocol):
    """A loaded network. May be called from several threads.

    Attributes:
        device: Where it computes: "cpu" or "cuda".
    """

    device: Device

    def __call__(self, images: U8) -> list[F32]:
        """Run the network.

        Args:
            images: (N, H, W, 3) uint8 BGR, N >= 1.

        Returns:
            The outputs in the order of the file, each (N, ...) float32.

        Raises:
            BackendError: The runtime failed.
        """
        ...


def open_network(path: Path, runtime: str) -> Network:
    """Load a network, or return the one that this process has loaded before.

    Args:
        path: The .onnx file: one input of images, as for ``Network``.
        runtime: One of ``NAMES``. "torch" computes on the GPU if there is one, else on the CPU, for proof.

    Raises:
        BackendError: The runtime is not installed or cannot be loaded.
        ModelError: The file is damaged.
    """
    with _lock:
        network = _opened.get((path, runtime))
        if network is None:
            network = _opened[path, runtime] = _open(path, runtime)
        return network


def runtime_version(runtime: str) -> str | None:
    """Package and version of a runtime, or None if it is not installed. Imports nothing."""
    return find_backend(runtime).version()


_opened: dict[tuple[Path, str], Network] = {}  # never freed: they are small, and the next source needs them again
_lock = threading.Lock()


def _open(path: Path, runtime: str) -> Network:
    problem = find_backend(runtime).problem()
    if problem is not None:
        raise BackendError(str(problem))
    with load_errors(runtime):
        if runtime == "onnxruntime":
            from leaf_rt.backends.onnxruntime import OnnxRuntimeNetwork

            return OnnxRuntimeNetwork(path, THREADS)
        if runtime == "torch":
            from leaf_rt.backends.pytorch.network import TorchNetwork

            return TorchNetwork(path)
        from leaf_rt.backends.openvino import OpenVinoNetwork

        return OpenVinoNetwork(path, THREADS)
