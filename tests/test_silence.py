"""leaf-rt sends nothing: every command runs in a network namespace with loopback alone, and asks for no name.

Nor does it leave files of others in the user's home or in the folder for temporary files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from batches import RAY_IS_LATE
from clips import demo_frames, write_clip
from once import once
from train_fakes import tiny, train_command, write_folder

from leaf_rt import cli
from leaf_rt.cli import commands as runtime_commands
from leaf_rt.cli import maintenance

ROOT = Path(__file__).parents[1]
NAMESPACE = Path(__file__).with_name("quiet_namespace.py")

# Local caches that may appear in the user's home: our own, and those of matplotlib and fontconfig.
CACHES = (".cache/leaf-rt/*", ".cache/matplotlib/*", ".config/matplotlib/*", ".cache/fontconfig/*")


@dataclass(frozen=True)
class Case:
    """A command in the namespace, and its exit code."""

    arguments: str
    code: int = 0
    program: str = "leaf_rt"
    first: bool = False  # whether its home is empty; the others find there what an earlier command has left


# One line per command of the command line; add yours. The names in braces are paths; see ``inputs``.
COMMANDS = {
    "video": Case("video {clip} --out {out} --csv {out}/all.csv --parquet {out}/all.parquet --metrics 0", first=True),
    "video --web": Case("video {clip} --realtime --web 127.0.0.1:0 --out {out}"),
    "video on OpenVINO": Case("video {clip} --out {out} --backend openvino"),
    "video on PyTorch": Case("video {clip} --out {out} --backend torch"),
    "webcam": Case("webcam --device 987 --duration 1", code=3),
    "batch": Case("batch {clip} {face} --out {out} --jobs 1"),
    "image": Case("image {face} --out {out}"),
    "bench": Case("bench {clip}"),
    "bench --batch": Case("bench --batch 1,4"),
    "doctor": Case("doctor"),
    "report": Case("report {records} --out {out}/report.html"),
    "serve": Case("serve {clip} --web 127.0.0.1:0 --loop --duration 5"),
    "prepare": Case("prepare --recipe {recipe}"),
    "train": Case("train --recipe {recipe} --out {out}/run"),
    "evaluate": Case("evaluate {run} --split test"),
    "merge": Case("merge {run} {run} --out {out}"),
    "export": Case("export {run} --out {out} --data {data}"),
    "engines int8": Case("export {run} --out {out} --precision int8 --target openvino --data {data}", 0, "engines"),
    "engines golden": Case("golden {clip} --out {out}/golden.jpg", 15, "engines"),
    "engines bench": Case("bench --repeats 1 --batch 1", program="engines"),
    "engines parity": Case("parity", program="engines"),
    "engines detectors": Case("detectors --out {out}", program="engines"),
    "engines bundle": Case("bundle {run} --out {out}", program="engines", code=10),  # it wants real faces
    "engines calibrate": Case("calibrate", program="engines", code=10),  # and so do these
    "engines model-card": Case("model-card --data {data}", program="engines", code=3),
}  # fmt: skip

API = """
import leaf_rt
with leaf_rt.Recognizer() as recognizer:
    recognizer.image({face!r})
    recognizer.video({clip!r})
    for result in recognizer.stream({clip!r}, realtime=True):
        pass
"""


@dataclass(frozen=True)
class Found:
    """What a command did in the namespace."""

    code: int
    output: str
    names: list[str]
    packets: list[str]
    files: list[str]


@cache
def unshare() -> list[str] | None:
    """The command that starts another in namespaces of its own; None where that is not permitted."""
    for options in (["--net", "--mount"], ["--map-root-user", "--net", "--mount"]):
        command = ["unshare", *options]
        try:
            tried = subprocess.run(
                [*command, sys.executable, str(NAMESPACE), os.devnull, "true"], capture_output=True, check=False
            )
        except OSError:
            return None
        if tried.returncode == 0:
            return command
    return None


def run(tmp_path: Path, command: list[str], earlier: Path | None = None) -> Found:
    """Run a command in the namespace, without the settings that this process has inherited.

    Its home is empty, or a copy of that of an earlier run.
    """
    prefix = unshare()
    if prefix is None:
        pytest.skip("needs unshare and ip, and the permission to make network and mount namespaces")
    home, temporary, result = tmp_path / "home", tmp_path / "tmp", tmp_path / "result.json"
    if earlier is None:
        home.mkdir()
    else:
        shutil.copytree(earlier, home)
    temporary.mkdir()
    environment = {
        key: os.environ[key] for key in ("PATH", "LANG", "VIRTUAL_ENV", "LD_LIBRARY_PATH") if key in os.environ
    }
    environment |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [*prefix, sys.executable, str(NAMESPACE), str(result), *command],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert result.is_file(), done.stderr
    found = json.loads(result.read_text())
    files = [str(p.relative_to(tmp_path)) for top in (home, temporary) for p in top.rglob("*") if not p.is_dir()]
    return Found(files=sorted(files), **found)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Paths of a clip, a picture, a data set with its recipe, and a trained run."""
    import cv2

    from train.recipes.loading import to_toml

    folder = tmp_path_factory.mktemp("inputs")
    frames = demo_frames(30)
    cv2.imwrite(str(folder / "face.png"), frames[0])
    write_folder(folder / "data")
    recipe = folder / "small.toml"
    recipe.write_text(to_toml(tiny(folder, method__name="supervised")))
    assert train_command(["train", "--recipe", str(recipe), "--out", str(folder / "run"), "--quiet"]) == 0
    recipe.write_text(to_toml(tiny(folder)))
    records = folder / "records.jsonl"
    assert cli.main(["image", str(folder / "face.png"), "--jsonl", str(records), "--no-save-picture"]) == 0
    return {
        "records": str(records),
        "clip": str(write_clip(folder / "clip.mp4", frames)),
        "face": str(folder / "face.png"),
        "data": str(folder / "data"),
        "recipe": str(recipe),
        "run": str(folder / "run"),
    }


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Any]) -> Path:
    """A home in which the choice of the back end and the list of the fonts are stored: to make them takes seconds."""

    def make(folder: Path) -> None:
        command = ["-m", "leaf_rt", "video", inputs["clip"], "--out", str(folder / "out")]
        assert_silent(run(folder, [sys.executable, *command]))

    return once(tmp_path_factory, "first", make) / "home"


def assert_silent(found: Found, code: int = 0) -> None:
    assert found.code == code, found.output
    foreign = [f for f in found.files if not any(fnmatch(f, f"home/{cache}") for cache in CACHES)]
    assert foreign == []
    assert (found.names, found.packets) == ([], [])


@pytest.mark.parametrize(("program", "app"), [("leaf_rt", runtime_commands.app), ("engines", maintenance.app)])
def test_every_command_is_in_the_list(program: str, app: typer.Typer) -> None:
    listed = {case.arguments.split()[0] for case in COMMANDS.values() if case.program == program}
    assert listed == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_namespace_notices_names_and_packets(tmp_path: Path) -> None:
    """The check of the check: a query and a packet to a bare address are seen, loopback's own traffic is not."""
    code = (
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0)); socket.create_connection(server.getsockname())\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.7', 4711))\n"
        "try: socket.getaddrinfo('statistics.example', 443)\n"
        "except OSError: pass\n"
    )
    found = run(tmp_path, [sys.executable, "-c", code])
    assert found.names == ["statistics.example"]
    assert "protocol 17 to 192.0.2.7 port 4711" in found.packets
    assert "protocol 17 to 127.0.0.1 port 53" in found.packets
    assert all("127.0.0.1 port 53" in p or "192.0.2.7" in p for p in found.packets)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_sends_nothing(tmp_path: Path, inputs: dict[str, Any], used_home: Path, name: str) -> None:
    case = COMMANDS[name]
    (tmp_path / "out").mkdir()
    arguments = case.arguments.format(out=tmp_path / "out", **inputs).split()
    earlier = None if case.first else used_home
    assert_silent(run(tmp_path, [sys.executable, "-m", case.program, *arguments], earlier), case.code)


@pytest.mark.slow
def test_a_ray_cluster_sends_nothing(tmp_path: Path) -> None:
    """Ray asks for the metadata of clouds even where its reports are off."""
    import cv2

    pytest.importorskip("ray", reason="Ray is not installed")
    cv2.imwrite(str(tmp_path / "face.png"), demo_frames(1)[0])
    command = f"-m leaf_rt batch {tmp_path}/face.png --out {tmp_path}/out --ray local --jobs 1"
    found = run(tmp_path, [sys.executable, *command.split()])
    assert_silent(found, found.code)
    if RAY_IS_LATE in found.output:
        pytest.skip("Ray gives its programs 15 s to start, and they needed longer")
    assert found.code == 0, found.output


@pytest.mark.slow
def test_the_python_api_sends_nothing(tmp_path: Path, inputs: dict[str, Any]) -> None:
    assert_silent(run(tmp_path, [sys.executable, "-c", API.format(**inputs)]))


@pytest.mark.slow
def test_a_program_that_loads_the_libraries_itself(tmp_path: Path) -> None:
    """After ``import leaf_rt`` the libraries are silent in the whole process."""
    code = "import leaf_rt, openvino, openvino.tools.ovc, onnxruntime, time; time.sleep(3)"
    assert_silent(run(tmp_path, [sys.executable, "-c", code]))
