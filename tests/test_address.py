"""What an address is: an allow-list of schemes, file URLs are files, everything else that FFmpeg knows is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clips import demo_frames, write_clip
from commands import Leaf

from leaf_rt.errors import LeafError, NotAVideo
from leaf_rt.sources.address import parse
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.sources.opening import open_source
from leaf_rt.sources.sources_file import load_targets


@pytest.mark.parametrize(
    ("target", "kind", "opened"),
    [
        ("0", "camera", "0"),
        ("/dev/video12", "camera", "/dev/video12"),
        ("٣", "file", "٣"),  # int() would read this digit
        ("clip.mp4", "file", "clip.mp4"),
        ("12:30.mp4", "file", "12:30.mp4"),
        ("a:b/c.mp4", "file", "a:b/c.mp4"),
        ("file:///clip.mp4", "file", "/clip.mp4"),
        ("FILE:///my%20clip.mp4", "file", "/my clip.mp4"),
        ("file://localhost/clip.mp4", "file", "/clip.mp4"),
        ("file:clip.mp4", "file", "clip.mp4"),
        ("file:0", "file", "./0"),
        ("file:rtsp://x", "file", "./rtsp://x"),
        ("HTTP://Cam/Live", "network", "http://Cam/Live"),
        (" RtSp://cam/live\n", "network", "rtsp://cam/live"),
        ("udp://@239.0.0.1:1234", "network", "udp://@239.0.0.1:1234"),
        ("srt://cam:9000", "network", "srt://cam:9000"),
    ],
)
def test_an_address_that_is_read(target: str, kind: str, opened: str) -> None:
    address = parse(target)
    assert (address.kind, address.target, address.problem) == (kind, opened, "")
    assert parse(opened) == address
    assert Target(target).target == opened


@pytest.mark.parametrize("target", ["rtsp://a]b/x", "http://[::1/x", "rtsp://\u2100/x", "http://h:99999999/x"])
def test_a_malformed_host_is_an_error_like_any_other(target: str) -> None:
    assert parse(target).name
    for redirects in (True, False):
        with pytest.raises(LeafError):
            open_source(target, SourceOptions(redirects=redirects, open_timeout=2))


REFUSED = """
subfile,,start,0,end,9,,:/etc/passwd subfile:/etc/passwd crypto:secret.mp4 crypto+http://h/x tee:a|b gopher://h/x
data:video/mp4;base64,AAAA concat:a.mp4|b.mp4 concatf:list pipe:0 fd:0 ftp://h/x sftp://h/x smb://h/x unix:/run/x
async:file:x cache:http://h/x md5: hls+http://h/x httpproxy://h foo://h/x rtsp:/h/x rtsp:h http:/h
file://h/x file: file:/// file:///a%00b
"""


@pytest.mark.parametrize("target", [*REFUSED.split(), "http://h/x\r\nCookie: a=b", "a\0b"])
def test_an_address_that_is_refused(target: str) -> None:
    with pytest.raises(NotAVideo) as caught:
        open_source(target)
    assert "\n" not in str(caught.value).strip()
    assert parse(target).kind == "refused"


def test_a_refused_address_is_one_sentence(leaf: Leaf) -> None:
    done = leaf("video", "gopher://host/x")
    assert done.code == NotAVideo.exit_code
    assert "leaf-rt does not read gopher: addresses; use rtsp://" in done.sentence()


def test_a_file_url_is_a_file(leaf: Leaf, tmp_path: Path) -> None:
    """Every frame is read once, and the results lie beside the clip, as with its path."""
    clip = write_clip(tmp_path / "my clip.mp4", demo_frames(30))
    url = clip.as_uri()
    assert "%20" in url
    done = leaf("video", url, "--no-save-video", "--no-plot")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "my clip.leaf.jsonl").read_text().splitlines()]
    assert {row["frame_index"] for row in rows} == set(range(30))
    assert {row["source"] for row in rows} == {"my clip.mp4"}
    with open_source(url.replace("file:", "FILE:")) as source:
        assert (source.info.kind, source.info.is_live, source.info.path) == ("file", False, clip)


def test_file_urls_in_a_list(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", demo_frames(2))
    (tmp_path / "list.toml").write_text(
        f'[[source]]\ntarget = "{clip.as_uri()}"\n[[source]]\ntarget = "file:a.mp4"\n[[source]]\ntarget = "HTTP://h/x"\n'
    )
    targets = load_targets(tmp_path / "list.toml")
    assert [target.target for target in targets] == [str(clip), str(clip), "http://h/x"]
