"""Programs of PyTorch for the rooms above: .pt2 files for export.

The modules in ``pytorch`` are internal to this room.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from leaf_rt.backends.base import ProgressCallback
from leaf_rt.backends.opening import open_backend
from leaf_rt.models.spec import load_spec, save_spec, sha256_of
from leaf_rt.system.files import write_whole


def write_program(onnx: Path, parent: Path, out: Path, precision: str, notify: ProgressCallback) -> None:
    """Write a program and its description, and check its answers.

    Args:
        onnx: The fp32 file for fp32, the fp16 file for fp16 and bf16.
        parent: The fp32 file.
        out: The .pt2 file.
        precision: "fp32", "fp16" or "bf16".
        notify: Called with one sentence about each problem.

    Raises:
        BackendError: The program's answers are wrong.
        ModelError: The model contains an operator that the PyTorch back end lacks.
        NoPermission, OutputError: The files cannot be written.
    """
    from leaf_rt.backends.pytorch.engine import program_of  # here: it imports torch

    content, spec = program_of(onnx, load_spec(onnx), parent, load_spec(parent), precision)
    write_whole(out, content)
    save_spec(replace(spec, sha256=sha256_of(out)), out)
    open_backend(out, "torch", notify=notify).close()  # raises an error if answers are wrong
