"""Bad options and arguments for every command, generated from the command line's own description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from attacks import MARKS, attacks, run

from leaf_rt.cli.commands import app

pytestmark = MARKS

BAD = (
    "", " ", "-", "--", "-1", "0", "nan", "inf", "1e309", "99999999999999999999", "1" * 5000, "x", "/", ".", "..",
    "/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "none/none", "[" * 2000, "*", "[!", "a" * 300,
    "\x1b[31m", "\u202e", "caf\udce9", "\u2028", "rtsp://", "http://127.0.0.1:1/x", "file:///dev/zero", "://",
    "data:,x", "1:2:3:4", "%s%n", "$(id)", "NUL", "9" * 20 + "/x",
)  # fmt: skip
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
NEEDED = {  # what makes a command end soon, whatever else it is told; nothing here exists
    "video": ["none.mp4"],
    "batch": ["none.mp4", "--out", "out", "--jobs", "1"],
    "image": ["none.png"],
    "webcam": ["--device", "97", "--duration", "1"],
    "export": ["none.pt", "--out", "out"],
    "train": ["--data", "none", "--out", "out", "--dry-run"],
    "prepare": ["--data", "none"],
    "evaluate": ["none.pt", "--data", "none"],
    "merge": ["none.pt", "--out", "out"],
    "bench": ["none.mp4"],
    "doctor": [],
    "report": ["none.jsonl"],
    "serve": ["--web", "127.0.0.1:0", "--duration", "1"],
}


def options_of(command: Any) -> list[str]:
    return [max(p.opts, key=len) for p in command.params if p.opts and p.opts[0].startswith("-")]


def test_every_command_is_attacked() -> None:
    assert set(COMMANDS) <= set(NEEDED), "add the new command to NEEDED"


@pytest.mark.parametrize("name", sorted(set(COMMANDS) & set(NEEDED)))
def test_bad_values(name: str, tmp_path: Path) -> None:
    options = [option for option in options_of(COMMANDS[name]) if (name, option) != ("serve", "--duration")]  # endless
    for rng in attacks(2, 35):
        chosen = rng.sample(options, k=min(len(options), rng.choice((1, 1, 1, 2, 3))))
        given: list[str] = []
        for option in chosen:
            value = rng.choice(BAD)
            given += [f"{option}={value}"] if rng.random() < 0.3 else [option, value]
        if rng.random() < 0.1 and given:
            given.pop()  # the value is missing
        given = [text for text in given if "\0" not in text]
        run([name, *NEEDED[name], *given], cwd=tmp_path)


@pytest.mark.parametrize("name", ["video", "image", "bench", "export", "report"])
def test_bad_arguments(name: str, tmp_path: Path) -> None:
    for rng in attacks(2, 35):
        more = ["--max-reconnects", "0", "--duration", "2", "--no-show"] if name == "video" else []
        out = [] if name == "bench" else ["--out", "out"]
        values = [rng.choice(BAD) for _ in range(1 if name in ("bench", "export", "report") else rng.choice((1, 1, 2)))]
        run([name, *more, *out, "--", *values], cwd=tmp_path)
