"""leaf-rt beside the packages that it asks for and nothing else: after `pip install .`, and in the container image."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo.mp4"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEADLESS = "opencv-python-headless"
# What the image leaves out, and what it has instead.
LEFT_OUT, ADDED = {"mediapipe", "matplotlib", "opencv-contrib-python"}, {HEADLESS}
IMAGE_EXTRAS = ("metrics", "mqtt", "web")
UNUSED = "onnxruntime/capi/libonnxruntime.so"  # the Dockerfile removes it


def image_requirements() -> list[str]:
    """The packages that the Dockerfile asks for, one requirement each."""
    lines = (ROOT / "deploy" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def names(requirements: Iterable[str]) -> set[str]:
    """Names of packages, as the index spells them."""
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def with_all_they_need(requirements: Iterable[str]) -> dict[str, Distribution]:
    """The installed packages that these need, all the way down, by name."""
    found: dict[str, Distribution] = {}
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if name not in found:
            found[name] = distribution(name)
            waiting += [(Requirement(text), "") for text in found[name].requires or []]
        waiting += [(Requirement(text), each) for each in requirement.extras for text in found[name].requires or []]
    return found


def size(packages: Iterable[Distribution]) -> float:
    """What their files have in MB, without byte code."""
    files = {
        Path(str(package.locate_file(file)))
        for package in packages
        for file in package.files or ()
        if file.suffix != ".pyc" and UNUSED not in str(file)
    }
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def environment(folder: Path, packages: Iterable[Distribution]) -> Path:
    """Make an environment that has these packages, as links, and leaf-rt. Returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    (place,) = folder.glob("lib/python*/site-packages")
    for package in [*packages, distribution("leaf-rt")]:
        tops = {file.parts[0] for file in package.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops - {each.name for each in place.iterdir()}:
            if not top.startswith("__editable__"):
                (place / top).symlink_to(Path(str(package.locate_file(top))))
    if not (place / "leaf_rt").exists():  # installed from this folder, in place
        (place / "leaf_rt").symlink_to(ROOT / "leaf_rt")
    return folder / "bin" / "python"


def leaf(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run leaf-rt there."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-m", "leaf_rt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=variables, check=False)


def results(folder: Path) -> set[str]:
    return {path.name.partition(".leaf.")[2] for path in folder.iterdir()}


@pytest.fixture(scope="module")
def default_install() -> dict[str, Distribution]:
    return with_all_they_need(PROJECT["dependencies"])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Distribution]:
    """The packages of the image. OpenCV without windows is fetched, because it cannot be installed beside the other."""
    (opencv,) = [text for text in image_requirements() if Requirement(text).name == HEADLESS]
    folder = tmp_path_factory.mktemp("headless")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(folder)]
    done = subprocess.run([*command, opencv], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        pytest.skip(f"{opencv} cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    (headless,) = [found for found in distributions(path=[str(folder)]) if found.name == HEADLESS]
    others = [text for text in image_requirements() if text != opencv]
    return {**with_all_they_need(others), HEADLESS: headless}


def test_the_image_has_the_packages_of_the_project_but_for_those_that_it_names() -> None:
    wanted = names(PROJECT["dependencies"])
    for extra in IMAGE_EXTRAS:
        wanted |= names(PROJECT["optional-dependencies"][extra])
    assert names(image_requirements()) == (wanted - LEFT_OUT) | ADDED
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert "--requirement deploy/requirements.txt" in dockerfile
    assert UNUSED in dockerfile


def test_the_default_install_is_small(default_install: dict[str, Distribution]) -> None:
    assert size(default_install.values()) < 870


@pytest.mark.slow
def test_a_default_install_runs_the_commands(
    default_install: dict[str, Distribution], face: Path, tmp_path: Path
) -> None:
    """No extra is there: no web server, no Parquet, no PyTorch."""
    assert not {"starlette", "fastapi", "torch", "pyarrow", "prometheus-client"} & set(default_install)
    python = environment(tmp_path / "env", default_install.values())
    video = leaf(python, "video", DEMO, "--end", "0.5", "--out", tmp_path / "video")
    assert video.returncode == 0, video.stderr
    assert results(tmp_path / "video") == {"mp4", "jsonl", "png", "html", "summary.json"}
    picture = leaf(python, "image", face, "--out", tmp_path / "image")
    assert (picture.returncode, "1 face" in picture.stdout) == (0, True), picture.stderr
    for arguments, extra in ((("video", DEMO, "--metrics", "0"), "metrics"), (("serve",), "web")):
        refused = leaf(python, *arguments)
        assert refused.returncode == 10, refused.stderr
        assert f'".[{extra}]"' in refused.stderr, refused.stderr


@pytest.mark.slow
def test_the_packages_of_the_image_run_the_demo_and_are_small(image: dict[str, Distribution], tmp_path: Path) -> None:
    assert not LEFT_OUT & set(image)
    own = sum(file.stat().st_size for file in (ROOT / "leaf_rt").rglob("*") if file.suffix != ".pyc") / 1e6
    assert size(image.values()) + own < 450
    python = environment(tmp_path / "env", image.values())
    demo = leaf(python, "video", DEMO, "--out", tmp_path / "out")
    assert demo.returncode == 0, demo.stderr
    assert results(tmp_path / "out") == {"mp4", "jsonl", "html", "summary.json"}  # a timeline needs Matplotlib
    numbers = json.loads((tmp_path / "out" / "demo.leaf.summary.json").read_text(encoding="utf-8"))
    assert numbers["frames"] == 472
    plot = leaf(python, "video", DEMO, "--plot", tmp_path / "timeline.png")
    assert plot.returncode == 10
    assert "--plot" in plot.stderr
    assert "pip install matplotlib" in plot.stderr
    doctor = leaf(python, "doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert re.search("timelines +Matplotlib is not installed", doctor.stdout)
