"""The examples run unchanged."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from clips import DEMO, demo_frames
from rtsp_server import RtspServer, encode

EXAMPLES = DEMO.parent


def run_example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


@pytest.mark.slow
def test_webcam(clip: Path) -> None:
    done = run_example("webcam.py", clip)
    assert (done.returncode, done.stderr) == (0, "")
    assert "person 1: " in done.stdout


def test_folder_to_csv(face: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "face.png").write_bytes(face.read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = run_example("folder_to_csv.py", folder, tmp_path / "faces.csv")
    assert done.returncode == 0
    assert done.stderr.startswith("left out: ")
    (row,) = csv.DictReader((tmp_path / "faces.csv").read_text().splitlines())
    assert (row["picture"], row["face"]) == ("face.png", "1")
    assert sum(float(row[label]) for label in list(row)[7:]) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_rtsp_to_webhook() -> None:
    posted: list[dict[str, object]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server, RtspServer(encode(demo_frames(25)), fps=25) as stream:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = run_example("rtsp_to_webhook.py", stream.url(), f"http://127.0.0.1:{server.server_port}/hook", 4)
        server.shutdown()
    assert (done.returncode, done.stderr) == (0, "")
    assert posted[0]["person"] == 1
    assert str(posted[0]["source"]).endswith("/live")


def test_own_model(model: Path, clip: Path) -> None:
    done = run_example("own_model.py", model, clip)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("person 1, ") == 2
    assert f"{model}: neutral, " in done.stdout


@pytest.mark.slow
def test_the_notebook(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    assert all(cell.get("outputs", []) == [] for cell in notebook.cells)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}})
    client.execute(env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)})
    kinds = {kind for cell in notebook.cells for out in cell.get("outputs", []) for kind in out.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert "error" not in {out["output_type"] for cell in notebook.cells for out in cell.get("outputs", [])}
