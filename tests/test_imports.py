"""Heavy libraries stay in their adapters, files stay short, and `leaf-rt --help` is quick."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("leaf_rt", "train", "engines")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Where a heavy or optional library may be imported at the top of a file; elsewhere only inside functions, if at all.
ADAPTERS: dict[str, tuple[str, ...]] = {
    "mediapipe": ("leaf_rt.faces.mediapipe_detector",),
    "onnxruntime": ("leaf_rt.backends.onnxruntime", "engines"),
    "openvino": ("leaf_rt.backends.openvino", "engines"),
    "tensorrt": ("leaf_rt.backends.tensorrt",),
    "tensorrt_rtx": ("leaf_rt.backends.tensorrt",),
    "av": ("leaf_rt.media", "leaf_rt.sources", "leaf_rt.sinks", "engines.parity_faces"),
    "matplotlib": ("leaf_rt.render.timeline", "train", "engines"),
    "torch": ("leaf_rt.backends.pytorch", "train", "engines"),
    "fastapi": ("leaf_rt.web",),
    "starlette": ("leaf_rt.web",),
    "uvicorn": ("leaf_rt.web",),
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(names: list[ast.alias], prefix: str = "") -> list[str]:
    return [f"{prefix}{alias.name}" for alias in names]


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Full names of everything imported at the top of a file, and inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    top: set[str] = set()
    deep: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = modules(node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            module = node.module or ""
            is_package = (ROOT / module.replace(".", "/")).is_dir()
            found = modules(node.names, f"{module}.") if is_package else [module]
        else:
            continue
        (deep if id(node) in inner else top).update(found)
    return top, deep


def room(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_libraries_stay_in_their_adapters(path: Path) -> None:
    top, deep = imports(path)
    own = name_of(path)
    for library, homes in ADAPTERS.items():
        at_home = any(own == home or own.startswith(home + ".") for home in homes)
        assert at_home or library not in {room(m) for m in top}, f"{own} imports {library} at its top"
    if room(own) == "leaf_rt" and not own.startswith("leaf_rt.backends.pytorch"):
        assert "torch" not in {room(m) for m in top | deep}, f"{own}: only the back end that is torch needs torch"


def test_locks_are_those_of_posix_everywhere() -> None:
    assert [name_of(f) for f in FILES if "msvcrt" in set.union(*imports(f))] == []


def test_every_module_has_a_docstring() -> None:
    lacking = [name_of(f) for f in FILES if f.read_text() and not ast.get_docstring(ast.parse(f.read_text()))]
    assert lacking == []


def test_no_file_is_too_long() -> None:
    long = {name_of(f): n for f in FILES if (n := len(f.read_text().splitlines())) > 400}
    assert long == {}


def processor_time(code: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run code in a Python of its own; return its processor time, s, which other work hardly stretches."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    heavy = ["cv2", "torch", "mediapipe", "av", "onnxruntime", "matplotlib", "openvino", "tensorrt", "numpy"]
    code = (
        "import sys; from leaf_rt.cli import main; code = main(['--help']);"
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    best = library = 10.0
    for _ in range(4):
        seconds, done = processor_time(code)
        best = min(best, seconds)
        assert (done.returncode, done.stderr.strip()) == (0, "[]")
        assert "leaf-rt" in done.stdout
        library = min(library, processor_time("import typer, typer.rich_utils")[0])
    # On a slow processor: no more than the library of the command line takes, once more.
    assert best < max(0.5, 2.0 * library), (best, library)


def test_a_run_loads_nothing_before_its_first_record_that_it_does_not_need() -> None:
    """Each of these takes a share of the time to the first record; two are not there without an extra."""
    needless = ["matplotlib", "starlette", "fastapi", "asyncio", "ssl", "http", "mediapipe", "openvino"]
    code = f"import sys, leaf_rt.cli.video; sys.exit(str({{*{needless!r}}} & {{*sys.modules}} or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.strip() == ""
