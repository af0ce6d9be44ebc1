"""Kills at random moments, and disks that fill at random moments: what has its final name is whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attacks import MARKS, attacks, check_results, run
from clips import demo_frames, write_clip
from full_disk import small_disk

pytestmark = MARKS


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three clips in a folder."""
    folder = tmp_path / "clips"
    folder.mkdir()
    write_clip(folder / "a1.mp4", demo_frames(12))
    for number in (2, 3):
        shutil.copy(folder / "a1.mp4", folder / f"a{number}.mp4")
    return folder


def kill_later(number: signal.Signals, delay: float, again: bool) -> Callable[[int], None]:
    def kill(process: int) -> None:
        time.sleep(delay)
        for _ in range(2 if again else 1):
            try:
                os.kill(process, number)
            except ProcessLookupError:
                return
            time.sleep(0.05)

    return kill


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_kills(clips: Path, tmp_path: Path, model: Path, number: signal.Signals) -> None:
    fast = ("--model", model, "--backend", "onnxruntime", "--threads", "1")
    for rng in attacks(2, 70):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        shared = ("--csv", "r.csv", "--parquet", "r.parquet") if rng.random() < 0.5 else ()
        live = ("--realtime", "--loop", "--save-video") if rng.random() < 0.3 else ()
        if live and number is signal.SIGKILL:
            shared = ()
        kill = kill_later(number, rng.uniform(0.1, 4.0), rng.random() < 0.2)
        done = run(
            ("video", clips, "--out", out, *fast, *shared, *live, "--duration", "20"), cwd=tmp_path, meanwhile=kill
        )
        assert done.code in (0, 130, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGKILL), done
        check_results(out, partial=True)
        check_results(tmp_path, partial=True)
        if shared or live:
            continue
        again = run(("video", clips, "--out", out, *fast, "--skip-existing"), cwd=tmp_path, codes=[0])
        assert again.code == 0
        assert check_results(out, partial=number is signal.SIGKILL) == 15, sorted(out.iterdir())


def test_full_disks(clips: Path, tmp_path: Path, model: Path) -> None:
    fast = ("--model", model, "--backend", "onnxruntime", "--threads", "1")
    for number, rng in enumerate(attacks(3, 150)):
        with small_disk(tmp_path / f"disk{number}", rng.choice((4, 40, 120, 300, 700))) as disk:
            given = _shared(rng, disk)
            run(("video", clips, "--out", disk, *given, *fast), cwd=tmp_path, codes=[0, 9])
            check_results(disk, partial=True)
            run(("image", clips / "none.png", "--out", disk, *fast), cwd=tmp_path, codes=[3])


def _shared(rng: random.Random, disk: Path) -> list[str]:
    options = {"--csv": "r.csv", "--parquet": "r.parquet", "--events": "e.jsonl"}
    chosen = rng.sample(sorted(options), k=rng.randrange(3))
    return [text for option in chosen for text in (option, str(disk / options[option]))]
