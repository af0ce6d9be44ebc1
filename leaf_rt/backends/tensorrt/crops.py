"""Crops on the GPU for TensorRT, which has no code for them: PyTorch cuts them, where it is installed.

Knows which packages are there; must not know engines.
"""

from __future__ import annotations

from importlib import metadata

from leaf_rt.backends.base import Cropper, ProgressCallback, load_errors
from leaf_rt.errors import BackendError


def find_cropper(notify: ProgressCallback) -> Cropper | None:
    """A cropper that has been checked on this GPU.

    Args:
        notify: Called with one sentence if PyTorch finds this GPU and cannot cut crops on it.

    Returns:
        The cropper; None if the CPU has to do it.
    """
    try:
        if metadata.version("torch").endswith("+cpu"):
            return None
    except metadata.PackageNotFoundError:
        return None
    try:
        with load_errors("torch"):
            from leaf_rt.backends.pytorch.crops import gpu_cropper

            return gpu_cropper()
    except BackendError as e:  # such as a build of PyTorch that has no code for this card
        notify(f"all faces are cut on the CPU: {e}")
        return None
