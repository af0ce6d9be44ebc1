"""The variants of a model: combinations of a back end, one of the model's files and a precision.

Knows the registry and model files; must not measure or choose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from leaf_rt.backends.base import Backend, BackendConfig
from leaf_rt.backends.registry import BACKENDS, BackendEntry
from leaf_rt.errors import BackendError
from leaf_rt.models.spec import ModelSpec, load_spec, variant_path


@dataclass(frozen=True)
class Variant:
    """A combination of back end, model file and precision. The file may be missing.

    Attributes:
        backend: What runs it.
        model: The model file that the user named.
        spec: The description of that file.
        precision: What to compute in; "" leaves it to the file and the back end.
    """

    backend: BackendEntry
    model: Path
    spec: ModelSpec
    precision: str

    @property
    def name(self) -> str:
        """For log messages and the stored choice, as "openvino int8"."""
        return f"{self.backend.name} {self.precision}"

    @property
    def title(self) -> str:
        """For tables, as "OpenVINO int8"."""
        return f"{self.backend.title} {self.precision}"

    @property
    def quantized(self) -> bool:
        """Whether it runs the int8 file of an fp32 model."""
        return self.precision == "int8" and self.spec.precision == "fp32"

    @property
    def path(self) -> Path:
        """The file that runs."""
        if not self.quantized:
            return self.model
        return variant_path(self.model, "int8", ".xml" if ".xml" in self.backend.formats else ".onnx")

    @cached_property
    def file_spec(self) -> ModelSpec:
        """The description of the file that runs; the file is checked once.

        Raises:
            BackendError: The back end does not run int8, or there is no int8 file of this model.
            ModelError: The file is damaged.
        """
        if not self.quantized:
            return self.spec
        name, path = self.backend.name, self.path
        if "int8" not in self.backend.precisions:
            raise BackendError(f"--precision int8: is for the CPU; {name} runs fp16 and fp32")
        if not path.is_file():
            target = f" --target {name}" if path.suffix != ".onnx" else ""
            raise BackendError(
                f"--precision int8: {path.name} is missing beside {self.model.name}; create it with "
                f"`leaf-rt export --precision int8{target}`"
            )
        spec = load_spec(path)
        if spec.parent != self.spec.sha256:
            raise BackendError(f"--precision int8: {path.name} was not made from {self.model.name}; export it again")
        return spec

    def open(self, config: BackendConfig) -> Backend:
        """Load the file, computing in this variant's precision.

        Raises:
            BackendError: The back end cannot run here, or not this file or precision.
            ModelError: The file is damaged.
        """
        name, spec = self.backend.name, self.file_spec
        if self.path.suffix not in self.backend.formats:
            formats = " and ".join(self.backend.formats)
            raise BackendError(f"--backend {name}: runs {formats} files, not {self.path.name}")
        if (problem := self.backend.problem()) is not None:
            raise BackendError(f"--backend {name}: {problem}") from problem
        return self.backend.open(self.path, spec, replace(config, precision=self.precision))


def variants(model: Path) -> list[Variant]:
    """All variants of an fp32 model: CPU back ends first, GPU back ends only if they can run here.

    Files and packages may be missing; ``Variant.open`` then raises an error that says so.

    Raises:
        ModelError, NotFound: See ``load_spec``.
    """
    spec = load_spec(model)
    on_cpu = [backend for backend in reversed(BACKENDS) if backend.device == "cpu"]
    on_gpu = [backend for backend in BACKENDS if backend.device == "cuda" and backend.gpu_problem() is None]
    return [
        Variant(backend, model, spec, precision) for backend in (*on_cpu, *on_gpu) for precision in backend.precisions
    ]
