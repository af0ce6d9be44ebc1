"""Nothing imports MediaPipe, which reports to Google, unless it is asked for by name; nothing else needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from leaf_rt.faces.detectors import choose_detector
from leaf_rt.faces.mediapipe_detector import NOTICE

ROOT = Path(__file__).parents[1]
BLOCK = "import sys; sys.modules['mediapipe'] = None\n"  # as if it were not installed
COMMAND = """
from leaf_rt.cli import main
code = main(sys.argv[1:])
assert sys.modules.get("mediapipe") is None, "mediapipe was imported"
assert "scipy" not in sys.modules, "scipy was imported"
sys.exit(code)
"""


def run(*arguments: object, code: str = COMMAND, blocked: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, with or without MediaPipe."""
    program = (BLOCK if blocked else "import sys\n") + code
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, face: Path) -> Path:
    """A data set of two classes."""
    folder = tmp_path_factory.mktemp("faces")
    image = cv2.imread(str(face))
    for i, name in enumerate(("happy", "sad")):
        for k in range(2):
            (folder / name).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / name / f"{k}.png"), image[: 300 + 10 * i + k])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("blocked", [False, True])
def test_video_image_camera_and_prepare_need_no_mediapipe(blocked, clip, face, pictures, tmp_path):
    video = run("video", clip, "--out", tmp_path, blocked=blocked)
    assert video.returncode == 0, video.stderr
    assert "ONNX Runtime" in video.stderr
    assert "MediaPipe" not in video.stderr.replace("gives the same answer as MediaPipe on a test picture", "")
    image = run("image", face, "--out", tmp_path, blocked=blocked)
    assert "1 face" in image.stdout, image.stderr
    camera = run("webcam", "--device", "/dev/no-such-camera", "--no-jsonl", blocked=blocked)
    assert camera.returncode == 3, camera.stderr
    prepared = run("prepare", "--data", pictures, "--out", tmp_path / "crops", blocked=blocked)
    assert "face found and aligned: 4" in prepared.stderr, prepared.stderr
    assert run("doctor", blocked=blocked).returncode == 0


@pytest.mark.slow
def test_a_live_stream_needs_no_mediapipe(clip, tmp_path):
    # A file in real time takes the path of a camera, detectors loaded in advance included.
    done = run("video", clip, "--realtime", "--out", tmp_path, blocked=True)
    assert done.returncode == 0, done.stderr


def test_the_python_api_needs_no_mediapipe(face):
    code = (
        "import leaf_rt\n"
        "with leaf_rt.Recognizer() as recognizer:\n"
        "    print(len(recognizer.image(sys.argv[1])))\n"
        "assert sys.modules.get('mediapipe') is None\n"
    )
    done = run(face, code=code, blocked=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_without_mediapipe_asking_for_it_is_one_clear_sentence(face):
    code = "from leaf_rt.cli import main; sys.exit(main(sys.argv[1:]))"
    done = run("image", face, "--detector", "mediapipe", "--no-save-picture", "--no-jsonl", code=code, blocked=True)
    assert done.returncode == 10
    assert "error: --detector mediapipe: MediaPipe cannot be loaded" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_prepare_with_mediapipe_says_what_it_sends(leaf, pictures, tmp_path):
    done = leaf("prepare", "--data", pictures, "--out", tmp_path / "crops", "--detector", "mediapipe")
    assert "face found and aligned: 4" in done.err
    assert NOTICE in " ".join((done.out + done.err).split())


def test_the_start_block_names_the_detector_and_why(leaf, clip, tmp_path):
    text = " ".join(leaf("video", clip, "--out", tmp_path).err.split())
    assert f"range auto, {choose_detector().reason}" in text
    text = " ".join(leaf("video", clip, "--out", tmp_path, "--detector", "openvino", "--range", "short").err.split())
    assert "range short, OpenVINO" in text
    assert "requested with --detector" in text
