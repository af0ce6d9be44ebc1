"""Runs commands that are meant to fail, and checks what must hold whatever happens.

The short form makes the same attacks in every run, so that only a change of the code can change its result.
``LEAF_ATTACK=long`` attacks for about an hour, and ``LEAF_ATTACK_SEED`` chooses other attacks.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import importlib
import io
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import pytest

ROOT = Path(__file__).parents[2]
LONG = os.environ.get("LEAF_ATTACK") == "long"
SEED = int(os.environ.get("LEAF_ATTACK_SEED", "0"))
MARKS = [pytest.mark.attack, pytest.mark.slow]
# What the children share, so that each of them need not import it.
_SHARED = (
    *("cv2", "av", "onnxruntime", "matplotlib.figure"),
    *("leaf_rt.cli.commands", "leaf_rt.cli.video", "leaf_rt.cli.images"),
)
RECORDS = (".jsonl", ".csv", ".parquet", ".summary.json")
_MEMORY = 3 << 30  # bytes that a command may allocate beyond those of the process that it is forked from
_HELPERS_END = 20.0  # s of a busy machine; processes that are left over stay for ever
CODES = {int(code) for code in re.findall(r"^\| (\d+) \|", (ROOT / "docs/exit-codes.md").read_text(), re.MULTILINE)}


def attacks(rounds: int, seconds: float) -> Iterator[random.Random]:
    """Generators of random numbers, one per attack.

    Args:
        rounds: Attacks of the short form, and at least of the long one.
        seconds: How long the long form goes on. ``LEAF_ATTACK_SHARE`` shortens it, as 0.25 for a quarter.
    """
    end = time.monotonic() + (seconds * float(os.environ.get("LEAF_ATTACK_SHARE", "1")) if LONG else 0.0)
    number = 0
    while number < rounds or time.monotonic() < end:
        yield random.Random(SEED * 1_000_003 + number)
        number += 1
    sys.stdout.write(f"{number} attacks\n")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    command: Sequence[str]
    code: int
    out: str
    err: str
    left: bool  # whether a process that it started is still there

    def check(self, *codes: int) -> None:
        """What must hold for every command, whatever its input."""
        told = f"{list(self.command)}\ncode {self.code}\n{self.out[-1000:]}\n{self.err[-3000:]}"
        assert self.code in CODES - {70}, told
        assert not codes or self.code in codes, told
        assert "--debug" in self.command or "Traceback" not in self.err + self.out, told
        assert "bug in leaf-rt" not in self.err, told
        assert "\x1b" not in self.err + self.out, told
        assert not self.left, f"a process is left over: {told}"
        if self.code not in (0, 2, 130, 141):
            sentences = self._errors()
            assert sentences, told
            assert all(len(text) > 13 for text in sentences), told

    def _errors(self) -> list[str]:
        """The sentences of the errors; with ``--log-json`` each is an event."""
        lines = self.err.splitlines()
        if "--log-json" in self.command:
            events = [json.loads(line) for line in lines if line.startswith("{")]
            lines += ["error: " + event["text"] for event in events if event["level"] == "error"]
        return [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]


def run(
    command: Sequence[object],
    *,
    cwd: Path,
    timeout: float = 90,
    meanwhile: Callable[[int], None] | None = None,
    codes: Sequence[int] = (),
) -> Done:
    """Run ``leaf-rt`` in a child of this process, which saves the time of its imports, and check what must hold.

    Args:
        command: Arguments.
        cwd: Its folder.
        timeout: s of the processor; a command that takes more fails the test, and one that hangs for six times as long.
        meanwhile: Called with its process id while it runs.
        codes: The exit codes that may come; none means all that are documented.
    """
    for module in _SHARED:
        importlib.import_module(module)

    gc.collect()  # a decoder of another test must not be freed in the child: its threads are not there
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ends OpenCV's threads: the child would wait for them for ever, because it does not have them
    arguments = [str(part) for part in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _be_the_command(arguments, cwd, out.fileno(), err.fileno(), round(timeout))
        cv2.setNumThreads(threads)
        if meanwhile is not None:
            meanwhile(child)
        status = _wait(child, 6 * timeout)  # a busy machine is no fault of the command
        left = _group_lives(child)
        for file in (out, err):
            file.seek(0)
        texts = [file.read().decode("utf-8", "replace") for file in (out, err)]
    assert status is not None, f"{arguments}: hangs\n{texts[1][-3000:]}"
    done = Done(arguments, os.waitstatus_to_exitcode(status), *texts, left)
    assert done.code != -signal.SIGXCPU, f"{arguments}: took more than {timeout} s\n{texts[1][-3000:]}"
    if done.code >= 0:  # killed by no signal
        done.check(*codes)
    return done


def _be_the_command(arguments: Sequence[str], cwd: Path, out: int, err: int, seconds: int) -> None:
    """The child: never returns."""
    code = 99
    gc.freeze()
    try:
        os.setsid()
        os.chdir(cwd)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115 - as Python's own
        most = _data() + _MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        sys.argv = ["leaf-rt", *arguments]
        from leaf_rt.cli import main

        code = main()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - nothing may get back into pytest
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _data() -> int:
    """Return the bytes that RLIMIT_DATA counts: a child begins with those of the tests before it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))


def _wait(child: int, timeout: float) -> int | None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _group_lives(group: int) -> bool:
    """Whether a process of the command goes on after its end; a helper that ends with it may need a moment."""
    end = time.monotonic() + _HELPERS_END
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(0.01)
        os.killpg(group, signal.SIGKILL)
        return True
    return False


def check_results(folder: Path, *, partial: bool) -> int:
    """Every result under its final name is whole; partial files are valid line by line. Returns the number of results.

    Args:
        folder: Where the results are.
        partial: Whether partial files may be there.
    """
    count = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if path.suffix == ".part":
            assert partial, f"{path} was left"
            if path.stem.endswith((".jsonl", ".csv")):
                _check_lines(path, path.with_suffix("").suffix)
            continue
        assert not path.name.startswith(".") or partial, f"{path} was left"
        count += 1
        if path.suffix in (".jsonl", ".csv"):
            _check_lines(path, path.suffix)
        elif path.suffix == ".mp4" and ".leaf" in path.name:
            with av.open(str(path)) as container:
                assert sum(1 for _ in container.decode(video=0)) > 0, path
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            pq.read_table(path)
        elif path.suffix in (".png", ".jpg") and ".leaf" in path.name:
            import cv2

            assert cv2.imread(str(path)) is not None, path
    return count


def _check_lines(path: Path, kind: str) -> None:
    data = path.read_bytes()
    assert not data or data.endswith(b"\n"), f"{path} ends within a line"
    text = data.decode("utf-8")
    if kind == ".csv":
        rows = list(csv.reader(io.StringIO(text)))
        assert len({len(row) for row in rows}) <= 1, path
        return
    for line in text.splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{path}: {name} is no JSON"))


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage some bytes: flip, cut, repeat, remove, overwrite with numbers that parsers trip over."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        if not out:
            break
        place = rng.randrange(len(out)) if rng.random() < 0.6 else min(rng.randrange(400), len(out) - 1)
        length = rng.choice((1, 4, 16, 200, 5000))
        kind = rng.randrange(7)
        if kind == 0:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[place:]
        elif kind == 2:
            out[place:place] = out[place : place + length]
        elif kind == 3:
            del out[place : place + length]
        elif kind == 4:
            out[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
        elif kind == 5:
            out[place : place + length] = bytes(length)
        else:
            out[place : place + length] = rng.randbytes(length)
    return bytes(out)


def stored_records(folder: Path, ending: str) -> Path:
    """Write records of two seconds and two people, ``clip.jsonl`` and one more form; returns that.

    Times and latencies are made up, so that every run writes the same bytes.

    Args:
        folder: Where.
        ending: One of ``RECORDS``.
    """
    from report_data import CLIP, scene, write_jsonl

    from leaf_rt.cli.report import report_from_records
    from leaf_rt.labels import FERPLUS8
    from leaf_rt.sinks.csv import CsvSink
    from leaf_rt.sinks.parquet import ParquetSink

    records = write_jsonl(folder / "clip.jsonl", scene(2, 2))
    path = folder / f"clip{ending}"
    if ending == ".summary.json":
        _, numbers, _ = report_from_records(records)
        run = {"version": "1.0", "created_at": "2026-01-02T03:04:05Z", "model": {
            "name": "m", "precision": "fp32", "sha256": "0", "licence": "MIT",
            "metrics": {"FERPlus, test": {"accuracy": 0.8, "faces": 100, "calibration_error": 0.1}}}}  # fmt: skip
        numbers.write_text(json.dumps(json.loads(numbers.read_text()) | {"frames": 75, "run": run}, indent=2))
    elif ending != ".jsonl":
        with CsvSink(path, FERPLUS8) if ending == ".csv" else ParquetSink(path, FERPLUS8) as sink:
            for frame, estimates in scene(2, 2):
                sink.write(CLIP, frame, estimates, 0.0)
    return path


_ODD = (
    "0", "-1", "1e999", "NaN", "null", "true", "[]", "{}", '"x"', '"\\ud800"', "9" * 30, "1e300", "-0.0", '""', "1.5",
    '"\\u0000"', '"' + "a" * 5000 + '"', "Infinity", "18446744073709551616", '"9999-12-31T23:59:59-23:00"',
)  # fmt: skip


def damaged_records(whole: bytes, ending: str, rng: random.Random) -> bytes:
    """Damage records: any bytes, values and names of fields, or nesting and numbers without an end."""
    kind = rng.random()
    if ending == ".parquet" or kind < 0.4:
        return mutate(whole, rng)
    if kind < 0.5:
        return rng.choice(
            (b"[" * 100_000, b'{"a":' * 50_000, whole[:300] + b"9" * 200_000, whole.replace(b"0", b"1e999"))
        )
    text = whole.decode()
    pattern = r"(?<=[,\n])[^,\n]*" if ending == ".csv" else r'(?<=: )("[^"]*"|[\[{][^\]}]*[\]}]|[^,}\n]+)|"\w+"(?=:)'
    places = list(re.finditer(pattern, text))
    for place in sorted(rng.sample(places, rng.choice((1, 1, 1, 3))), key=lambda p: -p.start()):
        text = text[: place.start()] + rng.choice(_ODD) + text[place.end() :]
    return text.encode()
