"""Options of sources, lists of sources, pictures as sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from leaf_rt.errors import DataError, NotFound
from leaf_rt.sources.base import Selector, SourceOptions
from leaf_rt.sources.opening import open_source
from leaf_rt.sources.sources_file import load_targets

ROOT = Path(__file__).parents[1]


def test_max_fps_is_kept_on_average() -> None:
    selector = Selector(SourceOptions(max_fps=20.0))
    assert sum(selector.selects(i, i / 30) for i in range(300)) == pytest.approx(200, abs=1)


def test_a_picture_is_a_source_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), np.full((1, 1, 4), 128, np.uint8))
    with open_source(str(tmp_path / "p.png")) as source:
        assert (source.info.kind, source.info.frame_count) == ("picture", 1)
        assert [f.image.shape for f in source] == [(1, 1, 3)]


@pytest.mark.parametrize(
    "values", [{"stride": 0}, {"start": -1}, {"start": 2, "end": 1}, {"max_fps": 0}, {"rtsp_transport": "pigeon"},
              {"decode": "gpu"}, {"max_reconnects": -1}, {"open_timeout": 0}, {"start": float("nan")}]
)  # fmt: skip
def test_invalid_options(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"SourceOptions\.\w+: wanted"):
        SourceOptions(**values)


def test_a_list_of_sources(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    path = tmp_path / "sources.toml"
    path.write_text(
        '[[source]]\nname = "door"\ntarget = "rtsp://u:p@cam/1"\nwait = true\n[[source]]\ntarget = "a.mp4"\n'
    )
    door, film = load_targets(path, SourceOptions(max_fps=5))
    assert (door.options.name, door.options.wait, door.options.max_fps) == ("door", True, 5)
    assert film.target == str(tmp_path / "a.mp4")
    assert "u:p" not in repr(door)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[source]\n", "not valid TOML"),
        ("", "got nothing"),
        ("[[camera]]\n", r"wanted only \[\[source\]\] tables"),
        ("[[source]]\nname = 'a'\n", "source 1: target"),
        ("[[source]]\ntarget = 'a'\ncolour = 1\n", "colour: unknown key"),
        ("[[source]]\ntarget = 'a'\nstride = 'two'\n", "stride: wanted int"),
        ("[[source]]\ntarget = 'a'\nstride = 0\n", "stride: wanted an integer"),
        ("[[source]]\ntarget = 'a'\ndecode = 'gpu'\n", "decode: wanted 'cpu', 'auto' or 'nvdec'"),
        ("[[source]]\ntarget='a'\nname='x'\n[[source]]\ntarget='b'\nname='x'\n", "two sources have the name 'x'"),
    ],
)
def test_an_invalid_list_names_the_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        load_targets(path)


def test_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_targets(tmp_path / "none.toml")


def test_the_import_loads_no_decoder() -> None:
    code = "import sys, leaf_rt.sources.opening; sys.exit(any(m in sys.modules for m in ('av', 'cv2')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0
