"""Runs one job of a peer in a process of its own. Knows the script's protocol; must not know what is measured."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.environments import Environment, PeerError, reason
from benchmarks.peers import Peer

_DECODE = Path(__file__).parent / "scripts" / "decode.py"
_LOADING = 600.0  # s for a peer to load, on a busy machine


def run_job(peer: Peer, environment: Environment, job: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run a job and return its result.

    Args:
        peer: Whose script runs.
        environment: Where it runs.
        job: "task" and what it needs; see ``scripts/peer.py``.
        seconds: What the job may take, loading not counted.

    Raises:
        PeerError: The process failed, or took too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, result = Path(folder, "job.json"), Path(folder, "result.json")
        complete = job | {
            "options": peer.options,
            "result": str(result),
            "decoder": [sys.executable, str(_DECODE)],
            "started": time.monotonic(),
        }
        file.write_text(json.dumps(complete), encoding="utf-8")
        command = [*environment.command, str(peer.script), str(file)]
        try:
            done = subprocess.run(
                command,
                cwd=environment.folder,
                env=environment.variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds + _LOADING,
                check=False,
            )
        except subprocess.TimeoutExpired as e:
            raise PeerError(f"gave no result in {e.timeout:.0f} s") from e
        except OSError as e:
            raise PeerError(str(e)) from e
        if done.returncode or not result.is_file():
            text = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
            raise PeerError(reason(text))
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return answer
