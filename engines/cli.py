"""``leaf-rt export`` and ``python -m engines``: export, bundle, parity, bench, golden.

Parses options and talks to people; heavy imports stay inside the commands.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from leaf_rt.errors import BackendError, ModelError, run_command
from leaf_rt.models.spec import DEFAULT_MODEL, MODELS, ModelSpec, load_spec, save_spec, sha256_of, variant_path

if TYPE_CHECKING:
    from engines.evaluation_faces import Faces
    from engines.onnx_export import Loaded
    from leaf_rt.backends.benchmark import Measured

CALIBRATION_HINT = "--data PATH (labelled, in a layout of the trainer)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Command and options, without the program's name; the process's own if None.

    Returns:
        The exit code; 0 is success, others as in ``leaf_rt.errors``.
    """
    options = parser().parse_args(list(sys.argv[1:] if argv is None else argv))
    return run_command(lambda: int(options.run(options)), options.debug)


def parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    top = argparse.ArgumentParser(prog="leaf-rt", description="Turn a trained run into model files, and measure them.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        one.add_argument("--threads", type=int, default=0, help="CPU threads; 0: every core but one, both of two")
        return one

    def data(one: argparse.ArgumentParser) -> None:
        one.add_argument("--data", type=Path, help="labelled faces: for accuracy, and to calibrate int8")
        one.add_argument("--layout", default="auto", help="of --data, as the trainer calls it (default auto: looks)")
        one.add_argument("--cache", default="", help="folder of the crops cut from --data")
        one.add_argument("--limit", type=int, help="compare on so many faces at most; all by default")

    one = command("export", "Turn a trained run into a model file that the other commands take.")
    one.add_argument("source", type=Path, metavar="RUN|CHECKPOINT|ONNX", help="a run, its .pt, or an exported .onnx")
    one.add_argument("--out", type=Path, required=True, help="folder for the files")
    one.add_argument("--name", help="of the files; by default leaf- and the network")
    one.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32")
    one.add_argument("--target", choices=("onnx", "tensorrt", "tensorrt-rtx", "openvino", "triton"), default="onnx")
    one.add_argument("--net-side", type=int, help="px at which the network sees a face; the checkpoint's by default")
    one.add_argument("--no-flip", action="store_true", help="do not average over the mirror image: twice as fast")
    one.add_argument("--batch", default="1,4,32", help="TensorRT: smallest, best and largest batch (default 1,4,32)")
    one.add_argument("--licence", default="not stated", help="of the weights, written into the description")
    data(one)
    one.set_defaults(run=_export)

    one = command("bundle", "Make all model files that travel with the package, and their proof, from one run.")
    one.add_argument("source", type=Path, metavar="RUN|CHECKPOINT")
    one.add_argument("--out", type=Path, default=MODELS, help="folder for the files; the package's own by default")
    one.add_argument("--name", default=DEFAULT_MODEL.stem, help=f"of the files (default {DEFAULT_MODEL.stem})")
    one.add_argument("--net-side", type=int, help="px at which the network sees a face; the checkpoint's by default")
    one.add_argument("--no-flip", action="store_true", help="do not average over the mirror image: twice as fast")
    one.add_argument("--licence", help="of the weights; that of the model there now by default")
    data(one)
    one.set_defaults(run=_bundle)

    one = command("parity", "Compare every runtime and precision on the same faces.")
    one.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    one.add_argument("--checkpoint", type=Path, help="compare with its PyTorch model")
    data(one)
    one.set_defaults(run=_parity)

    one = command("bench", "Time every runtime and precision: a table, and a line of JSON at the end.")
    one.add_argument("--model", type=Path, help="the bundled one by default")
    one.add_argument("--checkpoint", type=Path, help="also time its PyTorch model, eager")
    one.add_argument("--backbone", help="an architecture of the trainer, random weights; with --model after that")
    one.add_argument("--net-side", type=int, default=224, help="of --backbone, px")
    one.add_argument("--batch", default="1,4,8", help="faces per call, as 1,4,8,16,32")
    one.add_argument("--repeats", type=int, default=50)
    one.set_defaults(run=_bench)

    one = command("golden", "Make the stored crops on which engines are compared.")
    one.add_argument("clip", type=Path)
    one.add_argument("--out", type=Path, required=True)
    one.set_defaults(run=_golden)
    return top


def _name(backbone: str) -> str:
    """leaf-a for the network a, leaf-a-b for a@96+b@64."""
    return "-".join(["leaf", *(part.partition("@")[0] for part in backbone.split("+"))])


def _export(options: argparse.Namespace) -> int:
    from engines.onnx_export import export, load, spec_of
    from engines.parity import report
    from engines.quantization import need_openvino_quantiser
    from leaf_rt.backends.opening import open_backend
    from leaf_rt.backends.parity import golden_faces
    from leaf_rt.backends.registry import GPU_BACKENDS
    from train.loop.checkpoint import unfinished

    if options.precision == "int8" and options.data is None:
        raise BackendError(f"--precision int8: is calibrated on real training faces; give {CALIBRATION_HINT}")
    if options.precision == "int8" and options.target in GPU_BACKENDS:
        raise BackendError(f"--precision int8 --target {options.target}: int8 is for the CPU; take fp16")
    if options.precision == "int8" and options.target == "openvino":
        need_openvino_quantiser()
    loaded, model = None, options.out / f"{options.name or options.source.stem}.onnx"
    if options.source.suffix != ".onnx":
        loaded = load(options.source, flip=not options.no_flip, net_side=options.net_side)
        model = options.out / f"{options.name or _name(loaded.meta.model['backbone'])}.onnx"
        if far := unfinished(loaded.meta):
            folder = options.source if options.source.is_dir() else options.source.parent
            _warn(f"note: {options.source} is unfinished, {far}; go on with: leaf-rt train --resume {folder}")
    # What may be amiss with the data is found before a file is written.
    run = None if loaded is None else options.source
    truth, calibration = _faces(options, load_spec(options.source) if loaded is None else spec_of(loaded), run)
    if loaded is None:
        _adopt(options, model)
    else:
        faces = golden_faces(loaded.preparation.side)
        export(loaded, model, faces, licence=options.licence)
        if options.precision == "fp16":
            export(loaded, model, faces, "fp16", options.licence)
        open_backend(model, "onnxruntime", options.threads).close()  # it must at least load before anything else
    int8 = options.precision == "int8"
    written = _quantise(options, model, truth, calibration) if int8 else _converted(options, model)
    result = report(model, truth, loaded, options.threads)
    result.save(model.with_name(f"{model.stem}-parity.json"))
    _note_accuracy(model, result.rows[0].accuracy if loaded is None else result.rows[1].accuracy, truth)
    _say(result.text())
    if int8:
        _say(f"\nint8: calibrated on {len(calibration)} faces, judged on {len(truth)} others ({truth.name})")
    _say(f"\nwritten: {written}")
    return 0


def _adopt(options: argparse.Namespace, model: Path) -> None:
    """Put an exported fp32 .onnx file where the command wants it."""
    from leaf_rt.backends.opening import open_backend

    source: Path = options.source
    spec = load_spec(source)
    if spec.precision != "fp32":
        raise ModelError(f"{source}: is {spec.precision}; export starts from the fp32 file or the checkpoint")
    if options.precision == "fp16":
        raise ModelError("--precision fp16: is made from the checkpoint, not from an .onnx file; give the run")
    open_backend(source, "onnxruntime", options.threads).close()  # before anything is written
    if model.resolve() != source.resolve():
        options.out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, model)
        save_spec(spec, model)


def _converted(options: argparse.Namespace, model: Path) -> Path:
    """The fp32 or fp16 file in the form of the target."""
    from engines.triton import write_repository
    from leaf_rt.backends.registry import GPU_BACKENDS

    file = variant_path(model, "fp16") if options.precision == "fp16" else model
    spec = load_spec(file)
    if options.target == "openvino":
        if options.precision == "fp16":
            raise BackendError("--precision fp16 --target openvino: CPUs compute fp16 slower than fp32; take int8")
        from engines.quantization import write_openvino

        out = model.with_suffix(".xml")
        write_openvino(model, out)
        # One description per file: NAME.json is the .onnx file's.
        moved = out.with_name(f"{model.stem}-openvino.xml")
        out.replace(moved)
        out.with_suffix(".bin").replace(moved.with_suffix(".bin"))
        save_spec(replace(spec, sha256=sha256_of(moved), parent=spec.sha256), moved)
        return moved
    if options.target == "triton":
        return write_repository(file, spec, options.out / "triton", model.stem)
    if options.target in GPU_BACKENDS:
        return _plan(options, file)
    return file


def _plan(options: argparse.Namespace, file: Path) -> Path:
    """A plan for the GPU of this machine, proven before it is written."""
    from leaf_rt.backends.plans import write_plan
    from leaf_rt.backends.registry import find_backend

    sizes = [int(n) for n in options.batch.split(",") if n.strip().isdigit()]
    if len(sizes) != 3:
        raise BackendError(f"--batch {options.batch}: wanted smallest, best and largest batch, as 1,4,32")
    parent = file.with_name(file.name.replace("-fp16.onnx", ".onnx"))
    out = file.with_name(f"{file.stem}-{options.target}.plan")
    write_plan(find_backend(options.target), file, parent, out, (sizes[0], sizes[1], sizes[2]), _warn)
    return out


def _quantise(options: argparse.Namespace, model: Path, truth: Faces, calibration: Faces) -> Path:
    """The int8 file, if it loses no more than ``allowed_loss`` of accuracy on faces it was not calibrated on."""
    from engines.parity import batched
    from engines.quantization import accuracy, allowed_loss, quantize_onnxruntime, quantize_openvino
    from engines.triton import write_repository
    from leaf_rt.backends.opening import open_backend

    spec = load_spec(model)
    by_openvino = options.target == "openvino"
    out = variant_path(model, "int8", ".xml" if by_openvino else ".onnx")
    (quantize_openvino if by_openvino else quantize_onnxruntime)(model, out, calibration.images)
    save_spec(replace(spec, precision="int8", sha256=sha256_of(out), parent=spec.sha256, metrics={}), out)
    scores = []
    for file in (model, out):
        backend = open_backend(file, "openvino" if by_openvino else "onnxruntime", options.threads)
        scores.append(accuracy(batched(backend.infer, truth.images).probs, truth.label))
        backend.close()
    allowed = allowed_loss(len(truth))
    if scores[0] - scores[1] > allowed:
        for file in (out, out.with_suffix(".json"), out.with_suffix(".bin")):
            file.unlink(missing_ok=True)
        raise ModelError(
            f"int8: loses {100 * (scores[0] - scores[1]):.2f} points of accuracy on {len(truth)} faces "
            f"({truth.name}; at most {100 * allowed:.1f}); it is not offered for this model, take fp32"
        )
    _note_accuracy(out, scores[1], truth)
    if options.target == "triton":
        return write_repository(out, load_spec(out), options.out / "triton", model.stem)
    return out


def _faces(options: argparse.Namespace, spec: ModelSpec, run: Path | None = None) -> tuple[Faces, Faces]:
    """Faces of --data to judge on, and to calibrate on; without --data the stored crops, and none."""
    import numpy as np

    from engines.evaluation_faces import Faces, judged_faces
    from engines.quantization import CALIBRATION
    from leaf_rt.backends.parity import golden_faces

    if options.data is not None:
        return judged_faces(options.data, options.layout, spec, run=run, cache=options.cache, limit=options.limit,
                            calibration=CALIBRATION)  # fmt: skip
    images = golden_faces(spec.side)[: options.limit]
    stored = Faces(images, np.full(len(images), -1, np.int64), "stored crops")
    return stored, Faces(images[:0], stored.label[:0], "none")


def _bundle(options: argparse.Namespace) -> int:
    from engines.evaluation_faces import data_faces
    from engines.onnx_export import load, spec_of
    from engines.quantization import CALIBRATION
    from engines.release import bundle, licence_of

    if options.data is None:
        raise BackendError(
            f"bundle: int8 is calibrated and everything is proven on real faces; give {CALIBRATION_HINT}"
        )
    loaded = load(options.source, flip=not options.no_flip, net_side=options.net_side)
    spec, data, layout, cache = spec_of(loaded), options.data, options.layout, options.cache
    calibration = data_faces(data, layout, "train", spec, cache=cache, limit=CALIBRATION).images
    test = data_faces(data, layout, "test", spec, cache=cache, limit=options.limit)
    licence = options.licence or licence_of(options.out / f"{options.name}.onnx")
    result = bundle(
        loaded, options.out, options.name, calibration, test, licence=licence, threads=options.threads, say=_warn
    )
    _say(result.text())
    for path in sorted(options.out.glob(f"{options.name}*")):
        _say(f"{path.stat().st_size / 2**20:6.2f} MiB  {path}")
    return 0


def _note_accuracy(model: Path, score: float | None, truth: Faces) -> None:
    """Write what was measured with this very file into its description."""
    if score is None:
        return
    spec = load_spec(model)
    measured = {"accuracy": round(score, 4), "faces": len(truth)}
    save_spec(replace(spec, metrics={**spec.metrics, truth.name: measured}), model)


def _loaded(options: argparse.Namespace) -> Loaded | None:
    """The checkpoint, with the preparation of the model file."""
    if options.checkpoint is None:
        return None
    from engines.onnx_export import load

    spec = load_spec(options.model)
    return load(options.checkpoint, flip=spec.flip, net_side=spec.net_side)


def _parity(options: argparse.Namespace) -> int:
    from engines.parity import report

    truth, _ = _faces(options, load_spec(options.model), options.checkpoint)
    result = report(options.model, truth, _loaded(options), options.threads)
    _say(result.text())
    _say(result.json())
    return 0


def _bench(options: argparse.Namespace) -> int:
    from engines.bench import EAGER, bench, bench_fresh, verdict
    from leaf_rt.backends.benchmark import json_line, parse_batches, table
    from leaf_rt.system.cpu import cpu_name

    batches = parse_batches(options.batch)
    if options.repeats < 1:
        raise BackendError(f"--repeats {options.repeats}: wanted a whole number from 1")
    threads, repeats = options.threads, options.repeats
    jobs: list[tuple[str, Callable[[], Measured]]] = []
    if options.model is not None or options.checkpoint is not None or options.backbone is None:
        model = options.model = options.model or DEFAULT_MODEL
        jobs.append((model.name, lambda: bench(model, _loaded(options), batches, threads, repeats)))
    if options.backbone is not None:
        name, side = options.backbone, options.net_side
        jobs.append((f"{name} at {side} px", lambda: bench_fresh(name, side, batches, threads, repeats)))
    lines = []
    for title, job in jobs:
        result = job()
        _say(f"{title}, {cpu_name()}, {result.threads} threads, medians of {repeats} calls\n")
        _say(f"{table(result.rows, EAGER)}\n\n{verdict(result.rows)}")
        for text in result.left_out:
            _say(f"left out: {text}")
        _say("")
        facts = {"model": title, "processor": cpu_name(), "threads": result.threads, "repeats": repeats}
        lines.append(json_line(result.rows, **facts, verdict=verdict(result.rows)))
    for line in lines:
        _say(line)
    return 0


def _golden(options: argparse.Namespace) -> int:
    from engines.parity_faces import make_golden

    make_golden(options.clip, options.out)
    _say(f"written: {options.out}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")
