"""The public API: its names, how little it loads, and the exit of a program that closes nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from clips import DEMO
from test_architecture import public_modules, room_of

import leaf_rt

INIT = ast.parse(Path(leaf_rt.__file__).read_text(encoding="utf-8"))


def python(code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False)


def test_importing_it_is_quick_and_loads_nothing_heavy() -> None:
    code = """
import sys, time
before = set(sys.modules)
start = time.process_time()
import leaf_rt
took = time.process_time() - start
dir(leaf_rt)
loaded = {name for name in set(sys.modules) - before if sys.modules[name] is not None}  # None blocks a module
print(took, *sorted({name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)))
"""
    seconds, *loaded = python(code).stdout.split()
    assert float(seconds) < 0.05
    assert set(loaded) <= {"leaf_rt", "numpy"}


def test_every_name_is_there() -> None:
    assert set(leaf_rt.__all__) <= set(dir(leaf_rt))
    for name in set(leaf_rt.__all__) - {"__version__"}:
        value = getattr(leaf_rt, name)
        assert value.__name__ == name
        assert value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = leaf_rt.nothing  # type: ignore[attr-defined]


def test_what_is_missing_for_training_is_named() -> None:
    code = "import sys; sys.modules['torch'] = None; import leaf_rt; leaf_rt.train"
    last = python(code).stderr.splitlines()[-1]
    assert "BackendError: leaf_rt.train needs torch; " in last
    assert 'pip install ".[train]"' in last


def test_the_version_is_that_of_the_package() -> None:
    assert re.match(r"\d+\.\d+", leaf_rt.__version__)


def test_type_checkers_see_what_is_imported() -> None:
    (typed,) = [node for node in INIT.body if isinstance(node, ast.If)]
    seen = {
        alias.asname: node.module for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == leaf_rt._HOMES
    assert set(seen) | {"__version__"} == set(leaf_rt.__all__)


@pytest.mark.parametrize("name", sorted(leaf_rt._HOMES))
def test_names_come_from_public_modules(name: str) -> None:
    """Only here, for training and export, does leaf_rt refer to train and engines."""
    home = leaf_rt._HOMES[name]
    assert find_spec(home) is not None
    if home.startswith("leaf_rt."):
        assert home in public_modules(room_of(home))
    else:
        assert name in {"train.entry": ("train", "evaluate"), "engines.entry": ("export", "ExportConfig")}[home]


ENDINGS = {
    "a picture": f"import cv2; r.image(cv2.VideoCapture({str(DEMO)!r}).read()[1])",
    "a stream": f"frames = r.stream({str(DEMO)!r}); next(frames)",
    "an endless stream": f"frames = r.stream({str(DEMO)!r}, realtime=True, loop=True); next(frames)",
    "an error": f"frames = r.stream({str(DEMO)!r}); next(frames); raise SystemExit(0)",
}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_that_closes_nothing_ends_quietly(ending: str, model: Path) -> None:
    done = python(f"import leaf_rt\nr = leaf_rt.Recognizer({str(model)!r}, backend='onnxruntime')\n{ENDINGS[ending]}\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_ctrl_c_ends_a_program_with_a_plain_traceback(model: Path) -> None:
    code = f"""
import leaf_rt, signal, threading, _thread
r = leaf_rt.Recognizer({str(model)!r}, backend='onnxruntime')
for frame in r.stream({str(DEMO)!r}, realtime=True, loop=True):
    if frame.index > 3:
        signal.raise_signal(signal.SIGINT)
"""
    done = python(code)
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
