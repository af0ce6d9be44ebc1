"""``leaf-rt export``: from a trained run to a model file.

Knows typer and, inside the command, `engines`. The export itself is in `engines.entry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from leaf_rt.cli import options as opt
from leaf_rt.cli.extras import needs_extra
from leaf_rt.cli.groups import grouped
from leaf_rt.cli.streams import say
from leaf_rt.errors import BackendError

_file = partial(typer.Option, rich_help_panel="Model file")
_network = partial(typer.Option, rich_help_panel="Network")
_faces = partial(typer.Option, rich_help_panel="Labelled faces")


class Precision(StrEnum):
    """Precision of an exported file."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class Target(StrEnum):
    """The runtime or server that will load the file."""

    ONNX = "onnx"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"
    TORCH = "torch"
    OPENVINO = "openvino"
    TRITON = "triton"


Threads: TypeAlias = Annotated[
    int, typer.Option("--threads", metavar="N", help="CPU threads for inference; 0: chosen automatically.")
]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What is written."""

    precision: Annotated[
        Precision, _file("--precision", help="fp16 and bf16 are for GPUs; int8 is for CPUs and needs --data.")
    ] = Precision.FP32
    target: Annotated[Target, _file("--target", help="The runtime or server that will load the file.")] = Target.ONNX
    name: Annotated[
        str,
        _file("--name", metavar="NAME", help="Name of the files without suffix (default: that of the run)."),
    ] = ""
    batch: Annotated[
        str, _file("--batch", metavar="N,N,N", help="TensorRT: smallest, most frequent and largest batch.")
    ] = "1,4,32"
    licence: Annotated[
        str, _file("--licence", metavar="TEXT", help="Licence of the weights, stored in the description.")
    ] = "not stated"

    def batch_sizes(self) -> tuple[int, int, int]:
        """The batch sizes of a TensorRT plan.

        Raises:
            BackendError: There are not three numbers.
        """
        sizes = [int(part) for part in self.batch.split(",") if part.strip().isdigit()]
        if len(sizes) != 3:
            raise BackendError(f"--batch {self.batch}: wanted smallest, most frequent and largest batch, as 1,4,32")
        return sizes[0], sizes[1], sizes[2]


@dataclass(frozen=True, slots=True)
class Network:
    """The network inside the file."""

    net_side: Annotated[
        int | None, _network("--net-side", metavar="PX", help="Input size of the network (default: as trained).")
    ] = None
    no_flip: Annotated[
        bool, _network("--no-flip", help="Do not average over the mirror image of each face: twice as fast.")
    ] = False


@dataclass(frozen=True, slots=True)
class LabelledFaces:
    """Data for evaluation and calibration."""

    data: Annotated[
        Path | None,
        _faces(
            "--data", parser=opt.named, metavar="PATH", help="Data set for accuracy and for the calibration of int8."
        ),
    ] = None
    layout: Annotated[str, _faces("--layout", metavar="NAME", help="Layout of --data, as for the trainer.")] = "auto"
    cache: Annotated[
        str, _faces("--cache", metavar="DIR", help="Folder of the crop cache (default: that of the trainer).")
    ] = ""
    limit: Annotated[
        int | None, _faces("--limit", min=1, metavar="N", help="Evaluate on at most N faces (default: all).")
    ] = None


@grouped
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|CHECKPOINT|ONNX", parser=opt.named, help="Folder of a run, its .pt file, or an exported .onnx."
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option("--out", parser=opt.named, metavar="DIR", help="Folder for the files; created if missing.")
    ],
    file: ModelFile,
    network: Network,
    faces: LabelledFaces,
    threads: Threads = 0,
    debug: opt.Debug = False,
) -> None:
    """Export a trained run as a model file that the other commands load.

    The exported model is compared with the original in every runtime that is
    installed here. With --data its accuracy is measured too.
    """
    batch_sizes = file.batch_sizes()
    with needs_extra("leaf-rt export"):
        from engines.entry import ExportConfig
        from engines.entry import export as run

    config = ExportConfig(
        source=source,
        out=out,
        name=file.name,
        precision=file.precision.value,
        target=file.target.value,
        net_side=network.net_side,
        flip=not network.no_flip,
        batch_sizes=batch_sizes,
        licence=file.licence,
        data=faces.data,
        layout=faces.layout,
        cache=faces.cache,
        limit=faces.limit,
        threads=threads,
    )
    result = run(config, notify)
    say(result.parity.text())
    if (int8 := result.int8) is not None:
        say(
            f"\nint8: calibrated on {int8.calibration_faces} faces, "
            f"evaluated on {int8.evaluation_faces} others ({int8.evaluated_on}): {100 * int8.accuracy:.1f} % right, "
            f"fp32 {100 * int8.fp32_accuracy:.1f} %"
        )
        if int8.fp32_accuracy - int8.accuracy > int8.max_loss:
            say("so large a loss may be chance on so few faces; evaluate on more to be certain (--data with test/)")
    say(f"\nwritten: {result.path}")


def notify(sentence: str) -> None:
    """Print a sentence of progress on stderr."""
    say(sentence, err=True)
