"""Measures how long `leaf-rt video` needs from the command to the first record, and what that is made of.

    python -m experiments.start [CLIP] [--runs 5]

The command runs as a user types it, in the environment of this one, with byte code as pip leaves it. CPU time is stated
beside wall time, because other work on the machine stretches the second only. The parts are measured in one more
process, one after the other; the command itself loads the back end and the face detector side by side. The imports
come from ``python -X importtime``, which makes them slower: their shares count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from leaf_rt.diagnostics.bench import DEMO

_OUTPUTS = ("--jsonl", "-", "--no-save-video", "--no-plot", "--no-report")
_PARTS = """
import json, sys, time
last, parts = time.process_time(), {"Python itself": time.process_time()}
def part(name):
    global last
    now = time.process_time()
    parts[name], last = now - last, now
import leaf_rt.cli.commands
part("imports: commands and options")
import numpy, cv2, av, lap, onnxruntime
part("imports: NumPy, OpenCV, PyAV, lap, ONNX Runtime")
import leaf_rt.cli.video
part("imports: the rest")
from leaf_rt.faces.appearance import load_tables
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_pipeline
from leaf_rt.sources.opening import open_source
config = RecognitionConfig()
backend = config.open_backend()
part("back end")
config.choose_detector()
part("face detector")
load_tables()
part("color tables of OpenCV")
with open_source(sys.argv[1]) as source:
    frame = next(iter(source))
    frame.image
    part("clip, first picture")
    pipeline = build_pipeline(config, backend)
    pipeline.step(frame)
    part("first faces")
print(json.dumps(parts))
"""


def first_record(clip: Path, variables: dict[str, str]) -> tuple[float, float]:
    """Run the command until it writes its first record, then end it. Returns wall time and CPU time, s."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "leaf_rt", "video", str(clip), *_OUTPUTS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=variables) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit(f"{' '.join(command)}: no record; the clip needs a face")
        wall = time.perf_counter() - begin
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        process.kill()
    return wall, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def import_times(variables: dict[str, str]) -> dict[str, float]:
    """Share of each package in the time of all imports, those with the most first."""
    command = [sys.executable, "-X", "importtime", "-c", "import leaf_rt.cli.commands, leaf_rt.cli.video, onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    times: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if own.strip().isdecimal():
            times[rest.partition("|")[2].strip().partition(".")[0]] += int(own)
    return {name: round(spent / times.total(), 3) for name, spent in times.most_common(12)}


def measure(clip: Path, runs: int) -> dict[str, object]:
    """Measure everything; see above."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        variables["PYTHONPYCACHEPREFIX"] = folder
        first_record(clip, variables)  # makes the byte code, and measures the back ends where nobody did
        found = [first_record(clip, variables) for _ in range(runs)]
        command = [sys.executable, "-c", _PARTS, str(clip)]
        subprocess.run(command, check=True, env=variables, stdout=subprocess.DEVNULL)  # makes byte code of the rest
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
        parts: dict[str, float] = json.loads(done.stdout)
        shares = import_times(variables)
    return {
        "bench": "first record",
        "load_before": os.getloadavg(),
        "wall_s": round(statistics.median(wall for wall, _ in found), 3),
        "cpu_s": round(statistics.median(cpu for _, cpu in found), 3),
        "runs_wall_s": [round(wall, 3) for wall, _ in found],
        "parts_cpu_s": {name: round(spent, 3) for name, spent in parts.items()},
        "share_of_imports": shares,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print: a table, then a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m experiments.start")
    parser.add_argument("clip", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args(arguments)
    result = measure(given.clip, given.runs)
    print(f"first record after {result['wall_s']} s, {result['cpu_s']} s of CPU (medians of {given.runs} runs)\n")  # noqa: T201
    for title, key in (("Part", "parts_cpu_s"), ("Imports of", "share_of_imports")):
        unit = "CPU, ms" if key == "parts_cpu_s" else "Share of all imports, %"
        factor = 1000 if key == "parts_cpu_s" else 100
        rows = result[key]
        assert isinstance(rows, dict)
        lines = [f"| {name} | {factor * value:.0f} |" for name, value in rows.items()]
        print("\n".join([f"| {title} | {unit} |", "|---|---|", *lines, ""]))  # noqa: T201
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
