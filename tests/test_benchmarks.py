"""``python -m benchmarks`` runs peers in processes of their own, and writes a table, a plot and a line of JSON."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import demo_frames

from benchmarks.accuracy.measure import answer, recalls
from benchmarks.environments import prepare, reason
from benchmarks.peers import PEERS, read_peers
from leaf_rt.backends.plan_cache import cache_folder
from leaf_rt.cli import main

FAKE = """
from peer import run


class Fake:
    def __init__(self, options):
        self.label = options["label"]

    def frame(self, picture):
        return [{self.label: 1.0}]

    def faces(self, picture, boxes, keypoints):
        return [{self.label: 0.6, "contempt": 0.9}] * len(boxes)


run(Fake)
"""
BROKEN = "raise RuntimeError('its weights cannot be downloaded')"
TABLES = """
[fake]
name = "a fake"
script = "fake.py"
options = { label = "happy" }
in = ["speed", "accuracy"]
remark = "answers happy"

[broken]
script = "broken.py"
in = ["speed", "accuracy"]

[absent]
packages = ["no-such-package"]
script = "fake.py"
in = ["speed"]
"""
HERE = f"""
[leaf-rt]
script = "{PEERS.parent}/scripts/run_leaf_rt.py"
options = {{ classify_fps = 0 }}
in = ["speed", "accuracy"]
"""
COLUMNS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


@pytest.fixture
def also(tmp_path: Path) -> Path:
    """A TOML file with three peers, none of which needs a registry; leaf-rt runs in this environment, too."""
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "broken.py").write_text(BROKEN)
    file = tmp_path / "peers.toml"
    file.write_text(TABLES + HERE)
    return file


def run(*arguments: object) -> int:
    """Run ``python -m benchmarks`` in this process; return its exit code."""
    return main([str(a) for a in arguments], commands="benchmarks.commands", name="python -m benchmarks")


def results(folder: Path, name: str, printed: str) -> tuple[dict[str, Any], str]:
    """The line of JSON, which is also the last one printed, and the page; there is a plot, too."""
    line = (folder / f"{name}.json").read_text()
    assert printed.splitlines()[-1] == line.strip()
    assert cv2.imread(str(folder / f"{name}.png")) is not None
    return json.loads(line), (folder / f"{name}.md").read_text()


def write_ferplus(root: Path) -> Path:
    """The test split of a tiny FERPlus: three faces called happiness, by fewer and fewer votes, and one contempt."""
    votes: dict[str, dict[str, int]] = {
        "a": {"happiness": 10},
        "b": {"happiness": 6, "neutral": 4},
        "c": {"happiness": 4, "sadness": 3, "fear": 3},
        "d": {"contempt": 10},
    }
    face = demo_frames(1)[0]
    (root / "FER2013Test").mkdir(parents=True)
    with (root / "fer2013new.csv").open("w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["Usage", "Image name", *COLUMNS])
        for label in COLUMNS[:8]:  # no class without a training picture; their files are not read
            table.writerow(["Training", f"{label}.png", *(10 * (column == label) for column in COLUMNS)])
        for name, given in votes.items():
            cv2.imwrite(str(root / "FER2013Test" / f"{name}.png"), face)
            table.writerow(["PrivateTest", f"{name}.png", *(given.get(column, 0) for column in COLUMNS)])
    return root


def test_speed_beside_a_fake_peer(tmp_path: Path, clip: Path, also: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    python = out / "environments" / "absent" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho ERROR: No matching distribution found for no-such-package >&2\nexit 1\n")
    python.chmod(0o755)
    shared = ("--peers", "fake,broken,absent", "--also", also, "--out", out)
    assert run("speed", clip, "--rounds", 2, "--seconds", 1000, "--alone", 3, *shared) == 0
    data, page = results(out, "speed", capsys.readouterr().out)
    (row,) = data["rows"]
    assert (row["peer"], row["frames"], row["faces_per_frame"]) == ("fake", 30, 1.0)
    assert min(row[key] for key in ("frames_per_s", "first_result_s", "peak_mb", "cpu_s_per_minute")) > 0
    assert row["alone_ms_per_face"] is not None
    assert len(row["runs_frames_per_s"]) == 2
    assert f"| a fake | {row['frames_per_s']:.1f} | 1.00 |" in page
    assert "- a fake: answers happy." in page
    assert data["not_compared"]["broken"] == "RuntimeError: its weights cannot be downloaded"
    why = "cannot be installed: ERROR: No matching distribution found for no-such-package"
    assert data["not_compared"]["absent"] == why
    assert "- broken: RuntimeError: its weights cannot be downloaded" in page


def test_accuracy_of_a_fake_peer(tmp_path: Path, also: Path, capsys: Any) -> None:
    out, faces = tmp_path / "out", write_ferplus(tmp_path / "ferplus")
    assert run("accuracy", "--data", faces, "--peers", "fake", "--also", also, "--out", out) == 0
    data, page = results(out, "accuracy", capsys.readouterr().out)
    (row,) = data["rows"]
    assert {name: row[name]["n"] for name in ("all", "majority", "strict")} == {"all": 3, "majority": 2, "strict": 2}
    assert row["all"]["accuracy"] == 100.0  # contempt, its highest score, is none of the seven
    assert "| a fake | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | - |" in page


@pytest.mark.slow
def test_leaf_rt_is_measured_like_any_peer(
    tmp_path: Path, clip: Path, also: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAF_RT_CACHE", str(cache_folder()))  # in a home of its own it would time all back ends
    shared = ("--peers", "leaf-rt", "--also", also, "--out", tmp_path / "out")
    assert run("speed", clip, "--rounds", 1, "--seconds", 1000, "--alone", 3, *shared) == 0
    data, _ = results(tmp_path / "out", "speed", capsys.readouterr().out)
    (row,) = data["rows"]
    assert (row["frames"], row["faces_per_frame"]) == (30, 1.0)
    assert row["alone_ms_per_face"] > 0
    assert run("accuracy", "--data", write_ferplus(tmp_path / "ferplus"), *shared) == 0
    data, _ = results(tmp_path / "out", "accuracy", capsys.readouterr().out)
    assert data["rows"][0]["all"]["accuracy"] in (0.0, 100.0), "the three faces are the same picture"


def test_photographs_without_a_face_are_left_out(tmp_path: Path) -> None:
    from benchmarks.accuracy.pictures import photographs

    cv2.imwrite(str(tmp_path / "face.png"), demo_frames(1)[0])
    cv2.imwrite(str(tmp_path / "none.png"), np.full((200, 200, 3), 90, np.uint8))
    (tmp_path / "labels.csv").write_text("path,label\nface.png,sadness\nnone.png,sadness\nface.png,contempt\n")
    (picture,) = photographs(tmp_path, 10, tmp_path / "work", lambda _: None)
    assert (picture.name, picture.label) == ("face.png", "sadness")
    narrow, wide = np.array(picture.boxes)
    assert (wide[:2] < narrow[:2]).all()
    assert (wide[2:] > narrow[2:]).all()
    assert cv2.imread(str(picture.file)).shape == demo_frames(1)[0].shape


def test_answers_and_recalls() -> None:
    assert answer({"Happy": 0.2, "neutral": 0.1, "Contempt": 0.7}) == 1
    assert answer({}) == -1
    result = recalls([0, 0, 1, 6], [0, 1, 1, -1])
    assert (result["n"], result["accuracy"], result["balanced"]) == (4, 50.0, 50.0)
    assert result["recall"] == {"neutral": 50.0, "happiness": 100.0, "fear": 0.0}
    assert recalls([0, 0, 6], [0, 0, -1], ("neutral",))["accuracy"] == 100.0
    assert recalls([], [])["n"] == 0


def test_the_reason_is_the_last_error_line() -> None:
    text = "Traceback (most recent call last):\n  File x\nurllib.error.URLError: <refused>\nsome more noise\n"
    assert reason(text) == "urllib.error.URLError: <refused>"
    assert reason("") == "no message"


def test_every_peer_has_its_script() -> None:
    peers = read_peers()
    assert [peer.key for peer in peers.values() if not peer.script.is_file()] == []
    shared: dict[str, set[tuple[str, ...]]] = {}
    for peer in peers.values():
        shared.setdefault(peer.environment, set()).add(peer.packages)
    assert [name for name, packages in shared.items() if len(packages) > 1] == []


@pytest.mark.parametrize(
    ("tables", "arguments", "message"),
    [
        ("", ["--peers", "nobody"], "--peers nobody: unknown; choose from leaf-rt, "),
        ("[x]\nscript = 1", [], "[x]: wanted a table with script, in and no field but "),
        ("[x", [], "cannot be read as a TOML file of peers"),
        ("", ["--constraint", "none.txt"], "none.txt: no such file"),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tables: str, arguments: list[str], message: str
) -> None:
    (tmp_path / "peers.toml").write_text(tables)
    assert run("speed", "--also", tmp_path / "peers.toml", "--out", tmp_path, *arguments) != 0
    assert message in capsys.readouterr().err.replace("\n", "")


def test_rows_that_share_packages_do_not_share_downloads(tmp_path: Path) -> None:
    peers = read_peers()
    homes = set()
    for name in ("emotiefflib", "emotiefflib-random"):
        peer = replace(peers[name], packages=())  # nothing to install
        homes.add(prepare(peer, tmp_path, None).variables["HOME"])
    assert len(homes) == 2, "the second row puts random weights there"
