"""What this machine can and cannot do for leaf-rt, each finding with what to do about it.

Looks, and opens the model once as "auto" does, which may measure the CPU back ends and remember that; builds no engine
and changes nothing else. Must not know terminals. A GPU is asked for through CUDA, which survives a machine without a
driver; TensorRT, which may not, only where there is one.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from leaf_rt.backends.base import BACKENDS, BackendEntry, first_line, open_backend
from leaf_rt.backends.plan_cache import cache_folder, usable
from leaf_rt.backends.tensorrt import engine
from leaf_rt.backends.tensorrt.cuda import probe
from leaf_rt.errors import LeafError
from leaf_rt.models.spec import DEFAULT_MODEL, DETECTORS, MODELS, ModelSpec, load_spec, sha256_of, variant_path
from leaf_rt.render.window import why_no_window
from leaf_rt.text import counted

OK, LIMITED, MISSING = "ok", "limited", "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: What was looked at.
        status: "ok"; "limited": an optional part is absent; "missing": leaf-rt cannot work without it.
        found: What there is.
        remedy: What to do, empty where nothing is to be done.
    """

    topic: str
    status: str
    found: str
    remedy: str = ""


def examine(model: Path = DEFAULT_MODEL) -> list[Finding]:
    """Look at everything, in the order in which a person would ask."""
    checks: tuple[Callable[[], Finding | list[Finding]], ...] = (
        _python,
        _processor,
        _gpu,
        lambda: _package("onnxruntime", "onnxruntime", MISSING),
        lambda: _package("openvino", "openvino", LIMITED),
        _tensorrt,
        lambda: _models(model),
        _cache,
        _detectors,
        lambda: _package("mediapipe", "mediapipe", MISSING),
        _video,
        _window,
        _cameras,
        _training,
    )
    found: list[Finding] = []
    for check in checks:
        one = check()
        found += one if isinstance(one, list) else [one]
    return found


def version_of(distribution: str) -> str | None:
    """The version of an installed package, None where there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    found = f"Python {platform.python_version()}, {platform.platform()}, leaf-rt {version_of('leaf-rt') or 'unpacked'}"
    return Finding("system", OK, found)


def _processor() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    info = Path("/proc/cpuinfo")
    flags: set[str] = set()
    name = platform.machine()
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                flags |= set(value.split())
            elif key.strip() == "model name":
                name = value.strip()
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp")
    features = [flag for flag in wanted if flag in flags]
    return Finding(
        "processor", OK, f"{name}, {counted(cores, 'core')}, {' '.join(features) or 'no vector features reported'}"
    )


def _gpu() -> Finding:
    gpu = probe()
    if isinstance(gpu, str):
        found, _, remedy = gpu.partition("; ")
        return Finding("GPU", LIMITED, found, remedy or "nothing to do: the CPU back ends serve")
    memory = f"{gpu.memory / 2**30:.0f} GiB"
    return Finding("GPU", OK, f"{gpu.name}, compute capability {gpu.capability}, {memory}, driver {gpu.driver}")


def _package(topic: str, distribution: str, absent: str) -> Finding:
    version = version_of(distribution)
    if version is not None:
        return Finding(topic, OK, version)
    hint = "pip install leaf-rt" if absent == MISSING else f"pip install 'leaf-rt[{distribution}]' if you want it"
    return Finding(topic, absent, "not installed", hint)


def _tensorrt() -> Finding:
    installed = [v for one in BACKENDS if one.name.startswith("tensorrt") and (v := one.version()) is not None]
    if installed:
        return Finding("TensorRT", OK, ", ".join(installed))
    return Finding(
        "TensorRT", LIMITED, "not installed", "on a machine with an NVIDIA GPU: pip install 'leaf-rt[tensorrt]'"
    )


def _models(path: Path) -> list[Finding]:
    """The model with its checksum, its other forms beside it, and what runs it here."""
    try:
        spec = load_spec(path)
        inference = _inference(path, spec)
    except LeafError as e:
        return [
            Finding(f"model {path.name}", MISSING, str(e), "install leaf-rt again, or give a good file with --model")
        ]
    found = [Finding(f"model {path.name}", OK, f"{len(spec.labels)} classes, {_file(path, spec)}")]
    forms = (variant_path(path, "fp16"), variant_path(path, "int8"), variant_path(path, "int8", ".xml"))
    for form in (form for form in forms if form.is_file()):
        topic = f"model {form.name}"
        try:
            own = load_spec(form)
        except LeafError as e:
            found.append(Finding(topic, LIMITED, str(e), "install leaf-rt again, or export it again"))
            continue
        if own.parent == spec.sha256:
            found.append(Finding(topic, OK, _file(form, own)))
        else:
            found.append(Finding(topic, LIMITED, f"was not made from {path.name}", "export it again"))
    return [*found, *inference]


def _inference(path: Path, spec: ModelSpec) -> list[Finding]:
    """What would run the model. An engine that is not there yet is not built for it: that is said.

    Raises:
        LeafError: Nothing can run it here.
    """
    found: list[Finding] = []
    on_gpu = path.suffix == ".onnx" and spec.precision != "int8"
    for one in BACKENDS if on_gpu else ():
        if not one.name.startswith("tensorrt") or not one.available()[0]:
            continue
        title = engine.TITLES[one.name.replace("-", "_")]
        try:
            found.append(_engine(one, title, path, spec))
        except (LeafError, ImportError, OSError, RuntimeError) as e:  # as in ``leaf_rt.backends.base.load``
            remedy = f"install {one.name} again, or leave it: others run the model"
            found.append(Finding(f"{title} engine", LIMITED, f"cannot be used ({first_line(e)})", remedy))
            continue
        if found[-1].status == LIMITED:
            return [*found, Finding("inference", OK, f"{title}, once the engine is built")]
        break
    backend = open_backend(path, build=False)
    backend.close()
    return [*found, Finding("inference", OK, backend.reason)]


def _engine(one: BackendEntry, title: str, path: Path, spec: ModelSpec) -> Finding:
    """What of a model's engines is in the cache, and what a run would build."""
    first, *others = engine.engines(engine.parts_here(one.name.replace("-", "_")), path, spec)
    safer = "".join(f"; {engine.precision} is in the cache too" for engine in others if engine.cached)
    if first.cached:
        return Finding(f"{title} engine", OK, f"{first.precision} is in the cache{safer}")
    state = f"{first.precision} is not usable: {first.wrong}" if first.wrong else f"{first.precision} is not built yet"
    each = "the first run builds it, once" if usable(cache_folder()) is None else "every run builds it"
    remedy = f"nothing to do: {each}, in up to some minutes, and says so"
    return Finding(f"{title} engine", LIMITED, f"{state}{safer}", remedy)


def _file(path: Path, spec: ModelSpec) -> str:
    weights = path.with_suffix(".bin") if path.suffix == ".xml" else path
    measured = {name: m["accuracy"] for name, m in spec.metrics.items() if isinstance(m, dict) and "accuracy" in m}
    scores = [f"{name} {100 * accuracy:.1f} %" for name, accuracy in measured.items()]
    return ", ".join([
        spec.precision, f"{weights.stat().st_size / 2**20:.1f} MiB", f"sha256 {spec.sha256[:12]} agrees", *scores
    ])  # fmt: skip


def _cache() -> Finding:
    folder = cache_folder()
    why = usable(folder)
    if why is None:
        return Finding("engine cache", OK, str(folder))
    return Finding(
        "engine cache", LIMITED, why, "set LEAF_RT_CACHE to a folder of yours, or engines are built each time"
    )


def _detectors() -> Finding:
    for name, digest in DETECTORS.values():
        path = MODELS / name
        if not path.is_file():
            return Finding("face detectors", MISSING, f"{name} is not there", "install leaf-rt again")
        if sha256_of(path) != digest:
            return Finding("face detectors", MISSING, f"{name} is damaged", "install leaf-rt again")
    return Finding("face detectors", OK, "short range and full range, checksums agree")


def _video() -> Finding:
    if find_spec("av") is None:
        return Finding("video files", MISSING, "PyAV is not installed", "pip install av")
    import av

    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    lacking = [name for name in ("h264", "hevc", "vp9", "av1") if name not in av.codecs_available]
    found = f"PyAV {av.__version__}, libavcodec {ffmpeg}"
    if "libx264" not in av.codecs_available:
        return Finding("video files", LIMITED, f"{found}, no H.264 encoder", "pip install --force-reinstall av")
    if lacking:
        return Finding("video files", LIMITED, f"{found}, cannot read {', '.join(lacking)}", "pip install -U av")
    return Finding("video files", OK, f"{found}, reads H.264, HEVC, VP9, AV1; writes H.264")


def _window() -> Finding:
    reason = why_no_window()
    if reason is None:
        return Finding("window", OK, "a display is there, --show works")
    return Finding("window", LIMITED, reason, "nothing to do unless you want --show")


def _cameras() -> Finding:
    if sys.platform != "linux":
        return Finding("cameras", OK, "found when `leaf-rt webcam` opens one")
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return Finding("cameras", LIMITED, "no /dev/video*", "plug one in, or pass it into the container with --device")
    closed = [str(d) for d in devices if not os.access(d, os.R_OK | os.W_OK)]
    if closed:
        return Finding(
            "cameras", LIMITED, f"no permission for {', '.join(closed)}", "add yourself to the group 'video'"
        )
    return Finding("cameras", OK, ", ".join(map(str, devices)))


def _training() -> Finding:
    version = version_of("torch")
    if version is None:
        return Finding(
            "training", LIMITED, "PyTorch is not installed", "pip install 'leaf-rt[train]' to train or export"
        )
    return Finding("training", OK, f"PyTorch {version}")
