"""Names on the command line: results of an earlier run, empty names, control characters."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from commands import Leaf
from rich.console import Console

from leaf_rt.cli import console
from leaf_rt.cli.targets import without_results
from leaf_rt.diagnostics.doctor import OK, Finding
from leaf_rt.text import printable

EVIL = "clip\x1b[2J\x1b]0;mine\x07\r\n.mp4"
SHOWN = r"clip\x1b[2J\x1b]0;mine\x07\r\n.mp4"


def test_results_of_an_earlier_run_are_skipped(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    film = Path(shutil.copy(clip, tmp_path / "a.mp4"))
    assert leaf("video", film, "--no-plot").code == 0
    done = leaf("video", *sorted(tmp_path.glob("*.mp4")), "--no-plot", "--csv", tmp_path / "all.csv")
    assert done.code == 0, done.err
    assert f"note: skipped 1 result of an earlier run: {tmp_path / 'a.leaf.mp4'}\n" in done.err
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["a.leaf.mp4", "a.mp4"]
    assert leaf("video", tmp_path / "a.leaf.mp4", "--no-save-video", "--no-plot").code == 0  # named explicitly


def test_pictures_of_an_earlier_run_are_skipped(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    picture = Path(shutil.copy(face, tmp_path / "a.png"))
    assert leaf("image", picture).code == 0
    done = leaf("image", picture, tmp_path / "a.leaf.jpg")
    assert done.code == 0, done.err
    assert "skipped 1 result of an earlier run" in done.err
    assert not (tmp_path / "a.leaf.leaf.jpg").exists()


def test_which_names_are_results() -> None:
    several = ["a.mp4", "a.leaf.mp4", "b-2.leaf.mp4", "c.leaf.mp4", "d.leaf.mp4", "rtsp://cam/1.leaf.mp4", "leaf.mp4"]
    kept, sentence = without_results(several)
    assert kept == ["a.mp4", "rtsp://cam/1.leaf.mp4", "leaf.mp4"]
    assert sentence == "skipped 4 results of an earlier run: a.leaf.mp4, b-2.leaf.mp4, c.leaf.mp4 and 1 more"
    assert without_results(["a.leaf.mp4"]) == (["a.leaf.mp4"], "")
    assert without_results([]) == ([], "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("video", ""),
        ("video", "a.mp4", ""),
        ("video", "a.mp4", "--out", ""),
        ("video", "a.mp4", "--jsonl", ""),
        ("video", "a.mp4", "--csv", ""),
        ("video", "a.mp4", "--model", ""),
        ("video", "--sources", ""),
        ("image", ""),
        ("bench", ""),
        ("webcam", "--device", ""),
    ],
)
def test_an_empty_name_is_an_error(leaf: Leaf, arguments: tuple[str, ...]) -> None:
    done = leaf(*arguments)
    assert done.code == 2
    assert "empty name; is a shell variable unset?" in " ".join(done.err.replace("│", " ").split())


def test_control_characters_are_escaped(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    film = Path(shutil.copy(clip, tmp_path / EVIL))
    for done in (leaf("video", film, "--end", "0.2"), leaf("video", tmp_path / "none" / EVIL), leaf("image", film)):
        assert SHOWN in done.out + done.err
        assert not set("\x1b\x07\r") & set(done.out + done.err)
    assert done.sentence().count(SHOWN) == 1


def test_the_console_escapes_control_characters() -> None:
    out = Console(file=io.StringIO(), width=100)
    console.title(out, EVIL)
    console.facts(out, {"source": EVIL})
    console.findings(out, [Finding(f"[b]{EVIL}", OK, "8 classes")])
    assert isinstance(out.file, io.StringIO)
    assert out.file.getvalue().count(SHOWN) == 3
    assert f"[b]{SHOWN}" in out.file.getvalue()


def test_printable_keeps_letters() -> None:
    assert printable("Zoë 映画 [b].mp4") == "Zoë 映画 [b].mp4"
    assert printable("a\u202emp4.exe\x9b") == r"a\u202emp4.exe\x9b"
    assert printable("a\u2028error: b\u2029") == r"a\u2028error: b\u2029"
