"""The PyTorch back end: from an .onnx file or a program to a checked network on a GPU or, for proof, on a CPU.

``graph`` and ``program`` load files, ``runner`` runs batches; this file connects them with models and checks answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from leaf_rt.backends.base import (
    Backend,
    BackendConfig,
    Device,
    check_faces,
    default_threads,
    empty_prediction,
    load_errors,
)
from leaf_rt.backends.half_file import find_half_file
from leaf_rt.backends.parity import (
    answers_to_store,
    check_batches,
    check_stored_answers,
    golden_faces,
)
from leaf_rt.backends.pytorch.crops import TorchCropper, checked_cropper
from leaf_rt.backends.pytorch.graph import OnnxGraph
from leaf_rt.backends.pytorch.program import load_program, to_program
from leaf_rt.backends.pytorch.runner import CpuRunner, CudaGpu, GpuRunner, Runner
from leaf_rt.backends.reference import fp32_answers
from leaf_rt.errors import BackendError, LeafError, first_line
from leaf_rt.models.spec import ModelSpec
from leaf_rt.text import counted
from leaf_rt.types import U8, Prediction

CPU_STEP = 16  # of the 256 stored crops a CPU is checked on every 16th: in float16 it takes 0.2 s for each


class TorchBackend:
    """Runs a checked network; see ``Backend``."""

    name = "torch"

    def __init__(
        self, spec: ModelSpec, runner: Runner, device: Device, reason: str, cropper: TorchCropper | None = None
    ) -> None:
        self.spec, self.device, self.reason, self.cropper = spec, device, reason, cropper
        self.buckets = runner.buckets
        self._runner: Runner | None = runner

    def infer(self, faces: U8) -> Prediction:
        """Classify (N, side, side, 3) uint8 BGR crops; see ``Backend.infer``."""
        check_faces(faces, self.spec)
        if len(faces) == 0:
            return empty_prediction(self.spec)
        if self._runner is None:
            raise BackendError("--backend torch: is closed")
        try:
            return Prediction(*self._runner(faces))
        except Exception as e:  # a graph from outside can fail in any way, as with an IndexError for one face
            raise BackendError(f"PyTorch failed on {counted(len(faces), 'face')} ({first_line(e)})") from e

    def close(self) -> None:
        """Free the network and its memory. May be called twice."""
        if self._runner is not None:
            self._runner.close()
        self._runner = None


@dataclass(frozen=True, slots=True)
class _Choice:
    """A file to try, and the precision to compute in."""

    path: Path
    spec: ModelSpec
    precision: str


def open_torch(model: Path, spec: ModelSpec, config: BackendConfig) -> Backend:
    """Load a model onto the first GPU, or onto the CPU if there is none.

    Args:
        model: An .onnx file, for which NAME-fp16.onnx is used on a GPU if it exists; or a .pt2 file.
        spec: Its description.
        config: A ``precision`` other than "" is the only one tried. Threads are those of the whole process on a CPU.

    Raises:
        BackendError: No precision gave correct answers.
        ModelError: The file cannot be loaded.
    """
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    if spec.precision == "int8":
        raise BackendError(f"{model}: int8 models are for ONNX Runtime and OpenVINO; give the fp32 file")
    if model.suffix == ".pt2":
        if config.precision not in ("", spec.precision):
            raise BackendError(f"--precision {config.precision}: {model.name} computes in {spec.precision}")
        backend = _start(load_program(model, device), spec, spec.precision, device, config, config.reason)
        check_stored_answers(model, spec, backend.infer, backend.buckets, 1 if device == "cuda" else CPU_STEP // 4)
        return backend
    choices = _choices(model, spec, config, device)
    reference = fp32_answers(model, spec, config.notify)
    failures: list[str] = []
    for choice in choices:
        try:
            with load_errors("torch"):
                return _checked(choice, reference, device, config, failures)
        except LeafError as e:
            failures.append(f"{choice.precision}: {e}")
            config.notify(f"PyTorch in {failures[-1]}")
    raise BackendError(f"PyTorch: no precision gave correct answers ({'; '.join(failures)})")


def program_of(
    onnx: Path, spec: ModelSpec, parent: Path, parent_spec: ModelSpec, precision: str
) -> tuple[bytes, ModelSpec]:
    """A program of a model, for a .pt2 file.

    Args:
        onnx: The fp32 file for fp32, the fp16 file for fp16 and bf16.
        spec: Its description.
        parent: The fp32 file.
        parent_spec: Its description.
        precision: What the program computes in.

    Returns:
        The content of the file, and the fields of its description without the hash.
    """
    content = to_program(OnnxGraph(onnx, _half(precision)), spec.side)
    answers = answers_to_store(fp32_answers(parent, parent_spec))
    described = replace(spec, precision=precision, opset=0, parent=parent_spec.sha256, answers=answers, metrics={})
    return content, described


def _choices(model: Path, spec: ModelSpec, config: BackendConfig, device: Device) -> list[_Choice]:
    """What to try, fastest first.

    Raises:
        BackendError: The requested precision is not possible here.
    """
    wanted = config.precision
    if wanted == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise BackendError("--precision bf16: this GPU does not compute in bf16; use fp16")
    if spec.precision == "fp16":
        if wanted not in ("", "fp16", "bf16"):
            raise BackendError(f"--precision {wanted}: {model.name} is fp16; give the fp32 file")
        return [_Choice(model, spec, wanted or "fp16")]
    choices: list[_Choice] = []
    if wanted in ("fp16", "bf16") or (wanted == "" and device == "cuda"):
        half = find_half_file(model, spec, config.notify, wanted)
        choices += [_Choice(*half, wanted or "fp16")] if half is not None else []
    if wanted in ("", "fp32"):
        choices.append(_Choice(model, spec, "fp32"))
    if not choices:
        raise BackendError(f"--precision {wanted}: PyTorch runs fp32, fp16 and bf16")
    return choices


def _checked(
    choice: _Choice, reference: Prediction, device: Device, config: BackendConfig, failures: list[str]
) -> Backend:
    """A network whose answers match the reference.

    Raises:
        LeafError: They do not.
    """
    network = OnnxGraph(choice.path, _half(choice.precision)).eval().to(device)
    why = f"{config.reason}; after {' and '.join(failures)}" if failures else config.reason
    backend = _start(network, choice.spec, choice.precision, device, config, why)
    some = slice(None, None, 1 if device == "cuda" else CPU_STEP)
    wanted = Prediction(reference.probs[some], reference.features[some])
    check_batches(wanted, backend.infer, golden_faces(choice.spec.side)[some], backend.buckets)
    return backend


def _start(
    network: nn.Module, spec: ModelSpec, precision: str, device: Device, config: BackendConfig, why: str
) -> TorchBackend:
    version = f"PyTorch {torch.__version__.partition('+')[0]}, {precision}"
    if device == "cpu":
        threads = config.threads or default_threads()
        torch.set_num_threads(threads)
        return TorchBackend(spec, CpuRunner(network), "cpu", f"{version} on CPU, {counted(threads, 'thread')}: {why}")
    runner = GpuRunner(network, CudaGpu(), spec.side, ((len(spec.labels),), (spec.feature_dim,)))
    reason = f"{version} on {torch.cuda.get_device_name(0)}: {why}"
    return TorchBackend(spec, runner, "cuda", reason, checked_cropper("cuda"))


def _half(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float16
