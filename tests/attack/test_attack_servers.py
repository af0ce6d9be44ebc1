"""Hostile servers: cameras and receivers that are silent, slow, endless, or lead elsewhere."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import gst_camera
import pytest
from attacks import LONG, MARKS, attacks, check_results, mutate, run
from clips import DEMO, demo_frames, write_clip
from gst_camera import GstCamera
from receivers import dripping_server, silent_server

from leaf_rt.alerts import mqtt, webhook

pytestmark = MARKS

QUICK = ("--backend", "onnxruntime", "--threads", "1")
FAST = (*QUICK, "--no-plot")
LIVE = ("--max-reconnects", "0", "--duration", "6")
_PATIENCE = 120.0  # s for a camera to come back on a busy machine; then it never does
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n"


def answers(whole: bytes, rng: random.Random) -> list[bytes]:
    """What a hostile camera says."""
    files = (DEMO, Path("/dev/zero"), Path("/etc/passwd"))
    named = str(rng.choice(files)).encode()
    lists = (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://%s\n#EXT-X-ENDLIST\n" % named,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-KEY:METHOD=AES-128,URI=\"file://%s\"\n#EXTINF:5,\nx.ts\n" % named,
        b"#EXTM3U\n" + b"#EXTINF:1,\nsame.m3u8\n" * 1000,
        b"ffconcat version 1.0\nfile %s\n" % named,
        b"v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    )  # fmt: skip
    redirects = (
        b"file://%s" % named,
        b"subfile,,start,0,end,0,,:%s" % named,
        b"http://127.0.0.1:1/",
        b"",
        b"//",
        b"/x",
    )
    return rng.choice(
        [
            [HEAD % b"video/mp4" + mutate(whole, rng)],
            [HEAD % b"application/vnd.apple.mpegurl" + rng.choice(lists)],
            [HEAD % b"video/mp4" + rng.choice(lists)],
            [b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % rng.choice(redirects)],
            [HEAD % b"text/html" + b"<html>" * 5000],
            [HEAD % b"multipart/x-mixed-replace; boundary=b", *[b"--b\r\nContent-Length: 9999999999\r\n\r\n"] * 20],
            [HEAD % b"video/mp4" + whole[: len(whole) // 2], *[b"\0"] * 50],
            [b"HTTP/1.1 200 OK\r\n", *[b"X: " + b"y" * 5000 + b"\r\n"] * 200],
            [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"],
            [b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 99999999\r\n\r\n", *[b"x"] * 20],
            [b"RTSP/1.0 302 Found\r\nCSeq: 1\r\nLocation: file://%s\r\n\r\n" % named],
            [rng.randbytes(rng.choice((10, 5000)))],
            [],
        ]
    )


def test_hostile_cameras(tmp_path: Path, model: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", demo_frames(8)).read_bytes()
    for number, rng in enumerate(attacks(6, 270)):
        out = tmp_path / f"out{number}"
        scheme = rng.choice(("http", "http", "http", "https", "rtsp", "rtsps", "tcp"))
        with dripping_server(answers(whole, rng), rng.choice((0.0, 0.05))) as port:
            address = f"{scheme}://me:SECRET@127.0.0.1:{port}/x?key=SECRET"
            given: tuple[str, ...] = (address, *LIVE)
            if number % 2:  # a list can shorten the time for which silent cameras are waited for
                table = f'[[source]]\ntarget = "{address}"\nopen_timeout = 1.5\nread_timeout = 1.5\n'
                (tmp_path / "cameras.toml").write_text(table)
                given = ("--sources", "cameras.toml", "--max-reconnects", "0", "--duration", "3")
            done = run(("video", *given, "--out", out, "--model", model, *FAST), cwd=tmp_path, timeout=60)
            assert "SECRET" not in done.err + done.out, done
            assert "root:" not in done.err + done.out, done
        check_results(out, partial=True)


def test_hostile_receivers(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run never waits for them, and its results are whole."""
    for module, name in ((webhook, "_TIMEOUT"), (webhook, "_DRAIN_TIMEOUT"), (mqtt, "_DRAIN_TIMEOUT")):
        monkeypatch.setattr(module, name, 1.0)  # of 5 s, which say nothing more about the run
    write_clip(tmp_path / "a.mp4", demo_frames(24))
    for number, rng in enumerate(attacks(4, 120)):
        out = tmp_path / f"out{number}"
        parts = rng.choice(
            (
                [b"HTTP/1.1 100 Continue\r\n\r\n" * 100] * 50,
                [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200],
                [b"HTTP/1.1 200 " + b"\x1b[31m" * 20_000 + b"\r\n\r\n"],
                [b"HTTP/1.1 418 \x1b]0;owned\x07\r\nContent-Length: 0\r\n\r\n"],
                [b"HTTP/1.1 307 x\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"],
                [b"HTTP/1.1 503 x\r\nRetry-After: 1e999\r\nContent-Length: 0\r\n\r\n"],
                [b"\x20\x02\x00\x00", *[b"\x30\xff\xff\xff\x7f" + bytes(1000)] * 50],  # MQTT
                [b"\x20\x02\x00\x05"],
                [rng.randbytes(2000)],
                [],
            )
        )  # fmt: skip
        with dripping_server(parts, rng.choice((0.0, 0.05))) as port, silent_server() as silent:
            hook = f"{rng.choice(('http', 'http', 'https'))}://u:SECRET@127.0.0.1:{port}/SECRET"
            chosen: list[Any] = rng.choice(
                (["--on-event", hook], ["--mqtt", f"{rng.choice(('mqtt', 'mqtt', 'mqtts'))}://u:SECRET@127.0.0.1:{port}"],
                 ["--on-event", f"http://127.0.0.1:{silent}/"], ["--mqtt", f"mqtt://127.0.0.1:{silent}"])
            )  # fmt: skip
            done = run(("video", "a.mp4", "--out", out, "--model", model, *FAST, *chosen), cwd=tmp_path, timeout=60)
            assert done.code == 0, done
            assert "SECRET" not in done.err + done.out, done
        assert check_results(out, partial=False) > 0


@pytest.mark.skipif(not gst_camera.available(), reason=gst_camera.MISSING)
@pytest.mark.parametrize(
    ("codec", "transport", "method"),
    [
        ("h264", "tcp", "digest"),
        *(
            pytest.param(*kind, marks=pytest.mark.skipif(not LONG, reason="only in the long form"))
            for kind in (
                ("h264", "udp", "basic"), ("h265", "tcp", "basic"), ("h265", "udp", "digest"),
                ("mjpeg", "tcp", "basic"), ("mjpeg", "udp", "digest"),
            )
        ),
    ],
)  # fmt: skip
def test_an_independent_camera_that_is_killed_and_comes_back(
    tmp_path: Path, model: Path, codec: str, transport: str, method: str
) -> None:
    """GStreamer's RTSP server, which asks for user and password."""
    kills = 3 if LONG else 1
    clip = gst_camera.long_clip(tmp_path, codec, 20)
    login = {"login": "me:SECRET", "method": method}
    for number, rng in enumerate(attacks(1, 60)):
        out = tmp_path / f"out{number}"
        with GstCamera(clip, codec, udp=transport == "udp", **login) as camera:
            command = ("video", camera.url, "--out", out, "--model", model, *FAST, "--rtsp-transport", transport)
            losses = functools.partial(_kill_often, camera=camera, out=out, rng=rng, kills=kills)
            done = run((*command, "--wait"), cwd=tmp_path, timeout=240, meanwhile=losses, codes=[0, 130])
        assert "SECRET" not in done.err + done.out, done
        assert not [path for path in out.iterdir() if b"SECRET" in path.read_bytes()]
        assert check_results(out, partial=False) > 0
        records = [json.loads(line) for line in next(out.glob("*.jsonl")).read_text().splitlines()]
        times = [record["pts_s"] for record in records]
        assert times == sorted(times)
        assert records[-1]["generation"] >= kills


def _kill_often(process: int, camera: GstCamera, out: Path, rng: random.Random, kills: int) -> None:
    """Kill the camera whenever records have come over a new connection, so many times; then end the run."""
    for number in range(kills + 1):
        end = time.monotonic() + _PATIENCE
        while _generation(out) < number and time.monotonic() < end and _lives(process):
            time.sleep(0.1)
        if number < kills:
            time.sleep(rng.uniform(0.0, 2.0))
            camera.kill()
            time.sleep(rng.uniform(0.0, 2.0))
            camera.start()
    os.kill(process, signal.SIGINT)


def _lives(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"


def _generation(out: Path) -> int:
    """Connections before that of the newest record; -1 if there is none."""
    lines = [line for path in out.glob("*.jsonl") for line in path.read_bytes().splitlines(keepends=True)]
    whole = [line for line in lines if line.endswith(b"\n")]
    return int(json.loads(whole[-1])["generation"]) if whole else -1


def test_devices_and_pipes_are_no_inputs(tmp_path: Path, model: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "link.png").symlink_to("/dev/zero")
    (tmp_path / "list.toml").symlink_to("/dev/zero")
    for command in (
        ("image", "/dev/zero"), ("image", "fifo.png"), ("image", "link.png"), ("video", "/dev/zero"),
        ("video", "fifo.png"),
        ("video", "--sources", "list.toml"), ("report", "/dev/zero"), ("report", "fifo.png"),
        ("serve", "--web", "127.0.0.1:0", "--tls-cert", "/dev/zero", "--duration", "1"),
        ("serve", "--web", "127.0.0.1:0", "--tls-cert", "fifo.png", "--duration", "1"),
    ):  # fmt: skip
        more = () if command[0] in ("report", "serve") else ("--out", "out", "--model", str(model), *QUICK)
        done = run((*command, *more), cwd=tmp_path, timeout=20)
        assert done.code not in (0, 2), done


def test_two_servers_on_one_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run(("serve", "--web", f"127.0.0.1:{port}", "--duration", "1"), cwd=tmp_path, codes=[9])
    assert sys.platform != "linux" or not list(Path("/tmp").glob("leaf-rt-*/clip"))
