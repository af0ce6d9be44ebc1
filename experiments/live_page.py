"""Measures the live page: what a picture costs on its way to a viewer, and what viewers cost a run.

    python -m experiments.live_page transport CLIP...
    python -m experiments.live_page viewers CLIP --counts 0,1,20,50

``transport`` compares JPEG with H.264, picture by picture, in this process. ``viewers`` starts `leaf-rt serve` on the
clip and connects that many viewers from a second process. Every line of the result is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from leaf_rt.types import U8
from leaf_rt.web.hub import encode

ROOT = Path(__file__).parents[1]


def transport(clip: Path, count: int = 100) -> Iterator[dict[str, Any]]:
    """Cost and size of the pictures of a clip as JPEG and as H.264 with one thread."""
    images: list[U8] = []
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            images.append(np.asarray(frame.to_ndarray(format="bgr24"), dtype=np.uint8))
            if len(images) == count:
                break
    height, width = images[0].shape[:2]
    for name, milliseconds, sizes in (_as_jpeg(images), _as_h264(images)):
        yield {
            "clip": clip.name,
            "size": f"{width}x{height}",
            "format": name,
            "encode_ms_p50": round(statistics.median(milliseconds), 2),
            "encode_ms_p95": round(float(np.percentile(milliseconds, 95)), 2),
            "kbyte_per_frame": round(statistics.mean(sizes) / 1000, 1),
        }


def _as_jpeg(images: Sequence[U8]) -> tuple[str, list[float], list[int]]:
    times, sizes = [], []
    for image in images:
        begin = time.perf_counter()
        data = encode(image, max_width=image.shape[1])
        times.append((time.perf_counter() - begin) * 1e3)
        sizes.append(len(data))
    return "JPEG, quality 80", times, sizes


def _as_h264(images: Sequence[U8]) -> tuple[str, list[float], list[int]]:
    context: Any = av.CodecContext.create("libx264", "w")
    context.height, context.width = images[0].shape[:2]
    context.pix_fmt, context.framerate, context.time_base = "yuv420p", 25, Fraction(1, 25)
    context.thread_count = 1
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "23", "g": "50"}
    times, sizes = [], []
    for image in images:
        begin = time.perf_counter()
        packets = context.encode(av.VideoFrame.from_ndarray(image, format="bgr24"))
        times.append((time.perf_counter() - begin) * 1e3)
        sizes.append(sum(len(bytes(packet)) for packet in packets))
    return "H.264, x264 ultrafast, zero latency, crf 23", times, sizes


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[tuple[str, int]]:
    """`leaf-rt serve` in a process of its own: its address and process id."""
    line = [sys.executable, "-m", "leaf_rt", "serve", *arguments, "--web", "127.0.0.1:0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        try:
            for text in process.stderr:
                if found := re.search(r"live page at (http://[^/]+)", text):
                    break
            else:
                raise SystemExit("the server did not start")
            # Its further messages must not fill the pipe.
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
            yield found.group(1), process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
            drain.wait(5)


def source(address: str) -> dict[str, Any]:
    """The first source of a server."""
    with urllib.request.urlopen(f"{address}/v1/sources", timeout=10) as answer:
        sources: list[dict[str, Any]] = json.loads(answer.read())["sources"]
    return sources[0] if sources else {"state": "none"}


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, s."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(address: str, pid: int, viewers: int, seconds: float, *, slow: int = 0, loris: int = 0) -> dict[str, Any]:
    """Measure the source of a server while some watch it.

    Args:
        address: Of the server.
        pid: Its process.
        viewers: Viewers that answer at once.
        seconds: How long.
        slow: Viewers that answer after one second.
        loris: Connections that send one byte per second.
    """
    clients = None
    if viewers + slow + loris:
        # Low priority: in use, viewers are other machines.
        line = [
            "nice",
            "-n",
            "19",
            sys.executable,
            "-m",
            "experiments.live_page",
            "clients",
            address,
            source(address)["id"],
        ]
        line += map(str, (viewers, slow, loris, seconds + 2.0))
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        clients = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    time.sleep(2.0)
    before, begin, frames = cpu_seconds(pid), time.monotonic(), _frames(address)
    time.sleep(seconds - 1.0)
    passed = time.monotonic() - begin
    result: dict[str, Any] = {
        "viewers": viewers,
        "slow_viewers": slow,
        "slow_loris": loris,
        "source_fps": round((_frames(address) - frames) / passed, 2),
        "server_cpu": round((cpu_seconds(pid) - before) / passed, 3),
    }
    if clients is not None:
        out, _ = clients.communicate(timeout=60)
        result |= json.loads(out)
    return result


def _frames(address: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("leaf_processed_total{"))


async def clients(address: str, source_id: str, viewers: int, slow: int, loris: int, seconds: float) -> dict[str, Any]:
    """Watch a server in this process; returns frames per second and latency as the viewers see them."""
    from websockets.asyncio.client import connect

    latencies: list[float] = []
    counts: list[int] = []

    async def view(delay: float) -> None:
        count = 0
        async with connect(address.replace("http", "ws") + "/v1/live", compression=None, max_size=None) as socket:
            await socket.send(json.dumps({"type": "watch", "source": source_id}))
            try:
                async with asyncio.timeout(seconds):
                    async for message in socket:
                        if not isinstance(message, bytes):
                            continue
                        count += 1
                        if delay == 0:
                            (size,) = struct.unpack_from("<I", message)
                            captured = json.loads(message[4 : 4 + size])["captured_at"]
                            latencies.append(time.time() - datetime.fromisoformat(captured).timestamp())
                        await asyncio.sleep(delay)
                        await socket.send('{"type": "ack"}')
            except TimeoutError:
                pass
        if delay == 0:
            counts.append(count)

    async def drip() -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                for byte in b"GET /v1/info HTTP/1.1\r\nX-Slow: " + b"x" * 600:
                    if time.monotonic() >= end:
                        break
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(1.0)
                writer.close()

    tasks = [view(0.0) for _ in range(viewers)] + [view(1.0) for _ in range(slow)] + [drip() for _ in range(loris)]
    await asyncio.gather(*tasks)
    result: dict[str, Any] = {"viewer_fps": round(statistics.mean(counts) / seconds, 2) if counts else None}
    if latencies:
        result["latency_ms_p50"] = round(statistics.median(latencies) * 1e3, 1)
        result["latency_ms_p95"] = round(float(np.percentile(latencies, 95)) * 1e3, 1)
    return result


def wait_until_live(address: str) -> None:
    """Wait for the first frames of the source."""
    end = time.monotonic() + 60
    while source(address)["state"] != "live":
        if time.monotonic() > end:
            raise SystemExit("the source did not become live")
        time.sleep(0.2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one measurement; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("transport")
    one.add_argument("clips", nargs="+", type=Path)
    two = kinds.add_parser("viewers")
    two.add_argument("clip", type=Path)
    two.add_argument("--counts", default="0,1,20,50")
    two.add_argument("--seconds", type=float, default=10.0)
    two.add_argument("--max-fps", default="10")
    three = kinds.add_parser("clients")
    three.add_argument("address")
    three.add_argument("source")
    three.add_argument("numbers", nargs=4, type=float)
    given = parser.parse_args(arguments)
    if given.kind == "clients":
        viewers, slow, loris, seconds = given.numbers
        found = asyncio.run(clients(given.address, given.source, int(viewers), int(slow), int(loris), seconds))
        _show(found)
    elif given.kind == "transport":
        cv2.setNumThreads(1)
        for clip in given.clips:
            for row in transport(clip):
                _show(row)
    else:
        with server(str(given.clip), "--loop", "--max-fps", given.max_fps) as (address, pid):
            wait_until_live(address)
            time.sleep(3.0)
            for count in map(int, given.counts.split(",")):
                _show(load(address, pid, count, given.seconds))
            _show(load(address, pid, 1, given.seconds, slow=1))
            _show(load(address, pid, 50, given.seconds, loris=200))


def _show(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
