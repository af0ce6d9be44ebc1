"""No result replaces an input or another result, whatever paths and links lead there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Done, Leaf

from leaf_rt.errors import OutputError
from leaf_rt.models.spec import DEFAULT_MODEL
from leaf_rt.sinks.paths import OutputPaths

NOTHING = ("--no-save-video", "--no-plot", "--no-jsonl")


@pytest.fixture
def video(clip: Path, tmp_path: Path) -> Path:
    """A copy of the clip in a writable folder."""
    return Path(shutil.copy(clip, tmp_path / "c.mp4"))


def refused(done: Done, *words: str) -> None:
    assert done.code == 9, done.err
    assert all(word in done.sentence() for word in words), done.err
    assert done.out == ""


@pytest.mark.parametrize("option", ["--jsonl", "--csv", "--events", "--parquet", "--plot"])
def test_no_option_replaces_an_input(leaf: Leaf, video: Path, option: str) -> None:
    film = video.rename(video.with_name("c"))  # a name that a timeline can have, too
    before = film.read_bytes()
    film.with_name("soft").symlink_to(film)
    film.with_name("hard").hardlink_to(film)
    for place in (film, film.with_name("soft"), film.with_name("hard"), f"{film.parent}/../{film.parent.name}/c"):
        refused(leaf("video", film, option, place), option, "is an input")
        if option != "--plot":
            refused(leaf("video", "none.mp4", film, option, place), option, "is an input")
    assert film.read_bytes() == before
    assert sorted(p.name for p in film.parent.iterdir()) == ["c", "hard", "soft"]


@pytest.mark.parametrize("option", ["--jsonl", "--csv", "--parquet"])
def test_no_option_replaces_a_picture(leaf: Leaf, face: Path, tmp_path: Path, option: str) -> None:
    picture = Path(shutil.copy(face, tmp_path / "a.png"))
    before = picture.read_bytes()
    refused(leaf("image", face, picture, option, picture, "--out", tmp_path / "out"), option, "a.png")
    assert picture.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_result_next_to_the_file_does_not_replace_an_input(
    leaf: Leaf, video: Path, link: Callable[[Path, Path], None]
) -> None:
    before = video.read_bytes()
    link(video, video.with_name("c.leaf.mp4"))
    table = video.with_name("table.csv")
    table.write_text("from an earlier run")
    refused(leaf("video", video, "--csv", table), "c.leaf.mp4", "c.mp4", "--out")
    assert (video.read_bytes(), table.read_text()) == (before, "from an earlier run")


def test_pictures_and_tables_of_earlier_runs_are_kept(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    picture = Path(shutil.copy(face, tmp_path / "a.png"))
    before = picture.read_bytes()
    picture.with_name("a.leaf.jsonl").symlink_to(picture)
    table = tmp_path / "table.csv"
    table.write_text("from an earlier run")
    refused(leaf("image", picture, "--csv", table), "a.leaf.jsonl", "a.png", "--out")
    assert (picture.read_bytes(), table.read_text()) == (before, "from an earlier run")


def test_sources_file_and_model_are_inputs(leaf: Leaf, video: Path, model: Path) -> None:
    listing = video.with_name("cameras.toml")
    listing.write_text('[[source]]\ntarget = "c.mp4"\n')
    before = listing.read_text()
    refused(leaf("video", "--sources", listing, *NOTHING, "--csv", listing), "--csv", "cameras.toml")
    assert listing.read_text() == before
    for path in (model, model.with_suffix(".json")):
        before_model = path.read_bytes()
        refused(leaf("video", video, "--model", model, *NOTHING, "--events", path), "--events", path.name)
        assert path.read_bytes() == before_model
    assert DEFAULT_MODEL.is_file()


def test_a_file_url_is_a_file(leaf: Leaf, video: Path) -> None:
    before = video.read_bytes()
    refused(leaf("video", f"file://{video}", "--csv", video), "--csv")
    assert video.read_bytes() == before


def test_two_results_cannot_share_a_file(leaf: Leaf, video: Path) -> None:
    shared = video.with_name("x.png")
    for first, second in (("--plot", "--csv"), ("--jsonl", "--csv"), ("--parquet", "--events"), ("--plot", "--jsonl")):
        refused(leaf("video", video, "--no-save-video", first, shared, second, shared), first, second)
    refused(leaf("video", video, "--csv", video.with_name("c.leaf.png")), "c.leaf.png", "--csv")
    assert [path.name for path in video.parent.iterdir()] == ["c.mp4"]


def test_several_results_may_use_a_device() -> None:
    null = Path(os.devnull)
    OutputPaths([null], [("--csv", null), ("--events", null)])


def test_paths_are_reserved_once_and_never_on_a_chosen_path(tmp_path: Path) -> None:
    paths = OutputPaths([], [("--csv", tmp_path / "b.leaf.mp4")])
    assert [paths.reserve(tmp_path, "a", ".mp4").name for _ in range(2)] == ["a.leaf.mp4", "a-2.leaf.mp4"]
    with pytest.raises(OutputError, match="--csv"):
        paths.reserve(tmp_path, "b", ".mp4")


@pytest.mark.parametrize("option", ["--plot", "--parquet"])
def test_no_result_replaces_a_device_or_pipe(leaf: Leaf, video: Path, option: str) -> None:
    pipe, link = video.with_name("pipe"), video.with_name("null")
    os.mkfifo(pipe)
    link.symlink_to(os.devnull)
    for place in (pipe, link, video.parent):
        refused(leaf("video", video, "--no-save-video", "--no-jsonl", option, place), option, "not a regular file")
    for place in map(Path, (os.devnull, "/dev/stdout", "/dev/fd/1")):
        with pytest.raises(OutputError, match="not a regular file"):
            OutputPaths([], [(option, place)])
    with pytest.raises(OutputError, match="not a regular file"):
        OutputPaths([], [("--parquet, while written,", pipe)])
    assert pipe.is_fifo()
    assert sorted(p.name for p in video.parent.iterdir()) == ["c.mp4", "null", "pipe"]


def test_a_chosen_file_may_exist(video: Path) -> None:
    OutputPaths([], [("--plot", video), ("--parquet", video.with_name("new.parquet"))])
    OutputPaths([], [("--jsonl", Path("/dev/stdout")), ("--csv", Path(os.devnull))])


@pytest.mark.parametrize("replay", ["--loop", "--realtime"])
def test_outputs_of_a_replayed_file_are_checked(leaf: Leaf, video: Path, replay: str) -> None:
    out = video.with_name("out")
    out.mkdir()
    table = out / "c.leaf.jsonl"
    table.write_text("from an earlier run")
    refused(leaf("video", video, replay, "--out", out, "--csv", table, "--duration", "1"), "c.leaf.jsonl", "--csv")
    assert table.read_text() == "from an earlier run"


def test_outputs_of_a_named_source_are_checked(leaf: Leaf, video: Path) -> None:
    listing = video.with_name("cameras.toml")
    listing.write_text('[[source]]\ntarget = "c.mp4"\nname = "hall"\n')
    named, other = video.with_name("hall.leaf.jsonl"), video.with_name("c.leaf.jsonl")
    named.write_text("from an earlier run")
    refused(leaf("video", "--sources", listing, "--no-save-video", "--no-plot", "--csv", named), "hall.leaf.jsonl")
    assert named.read_text() == "from an earlier run"
    done = leaf("video", "--sources", listing, "--no-save-video", "--no-plot", "--csv", other)
    assert done.code == 0, done.err
    assert named.read_text().startswith("{")
    assert other.read_text().startswith("schema_version")


@pytest.mark.parametrize("command", ["video", "image"])
def test_numbered_paths_are_checked(leaf: Leaf, video: Path, face: Path, command: str) -> None:
    files = [video.with_name(folder) / ("c.mp4" if command == "video" else "c.png") for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        shutil.copy(video if command == "video" else face, file)
    table = video.with_name("out") / "c-2.leaf.jsonl"
    table.parent.mkdir()
    table.write_text("from an earlier run")
    no_pictures = "--no-save-video" if command == "video" else "--no-save-picture"
    refused(leaf(command, *files, no_pictures, "--out", table.parent, "--csv", table), "c-2.leaf.jsonl", "--csv")
    assert table.read_text() == "from an earlier run"
    assert [path.name for path in table.parent.iterdir()] == [table.name]


def test_invalid_paths_are_not_checked(tmp_path: Path) -> None:
    paths = OutputPaths([Path("a\0b"), tmp_path / ("x" * 5000)], [("--csv", tmp_path / "t.csv")])
    for stem in ("a\0b", "c"):
        paths.copy().reserve(tmp_path, stem, ".mp4")
    with pytest.raises(OutputError, match="is an input"):
        OutputPaths([Path("a\0b")], [("--csv", Path("a\0b"))])
