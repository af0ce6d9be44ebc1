"""Programs of ``torch.export`` in .pt2 files: PyTorch runs them without this project and without ONNX.

Knows files of that format; must not know batches or the choice of a device.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.export import Dim, export, load, save
from torch.export.passes import move_to_device_pass

from leaf_rt.backends.pytorch.archive import harmless
from leaf_rt.errors import ModelError, first_line


def to_program(graph: nn.Module, side: int) -> bytes:
    """Convert a module to a program with a dynamic batch.

    Args:
        graph: See ``OnnxGraph``.
        side: Side of the crops, px.

    Returns:
        The content of the .pt2 file.
    """
    example = torch.zeros(3, side, side, 3, dtype=torch.uint8)
    content = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch warns about its own internals
        program = export(graph.eval(), (example,), dynamic_shapes=({0: Dim("N", min=1)},))
        save(program, content)
    return content.getvalue()


def load_program(path: Path, device: str) -> nn.Module:
    """Load a program onto a device.

    Args:
        path: The .pt2 file.
        device: "cpu" or "cuda".

    Raises:
        ModelError: The file is damaged, holds more than a program of leaf-rt, or was written by a version of PyTorch
            that this one cannot read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = load(harmless(path))
            if device != "cpu":
                program = move_to_device_pass(program, device)
            return cast(nn.Module, program.module())
    except Exception as e:  # it reads an archive of several formats, whose errors have no common base class
        raise ModelError(
            f"{path}: PyTorch {torch.__version__} cannot load it ({first_line(e)}); export the model again with this "
            "version of PyTorch, or use the .onnx file"
        ) from e
