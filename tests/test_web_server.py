"""The server as people use it: `leaf-rt serve` in a process of its own, real clips, real sockets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
from clips import DEMO, demo_frames, write_clip
from rtsp_server import RtspServer, encode
from web import ROOT, Served, eventually, split

SCHEMA = json.loads((ROOT / "leaf_rt" / "record.schema.json").read_text())


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served() as one:
        yield one
    assert not [line for line in one.lines if "Traceback" in line], one.lines


def test_the_sample_clip_is_shown_with_records_that_keep_their_schema(server: Served) -> None:
    source = server.add("sample")
    try:
        assert source["name"] == "Sample clip"
        with server.viewer(source["id"]) as viewer:
            found = [viewer.frame() for _ in range(12)]
            header, picture = found[-1]
            image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
            assert image.shape == (header["height"], header["width"], 3) == (360, 640, 3)
            indices = [h["frame_index"] for h, _ in found]
            assert indices == sorted(set(indices))
            faces = [record for h, _ in found for record in h["records"]]
            assert faces
            for record in faces:
                jsonschema.validate(record, SCHEMA)
            assert abs(header["sent_at_ms"] / 1000 - time.time()) < 5
            eventually(lambda: viewer.frame() and viewer.lists and viewer.lists[-1][0]["state"] == "live")
        stored = server.json("GET", f"/v1/sources/{source['id']}/records?seconds=600")["records"]
        assert {r["frame_index"] for r in faces} <= {r["frame_index"] for r in stored}, "a reload loses nothing"
        status, head, data = server.ask("GET", f"/v1/sources/{source['id']}/snapshot.jpg")
        assert (status, head["content-type"]) == (200, "image/jpeg")
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (360, 640, 3)
    finally:
        server.ask("DELETE", f"/v1/sources/{source['id']}")
    assert server.sources() == []


def test_records_as_json_lines_and_csv_are_the_same(server: Served) -> None:
    source = server.add("sample")
    path = f"/v1/sources/{source['id']}/records?seconds=600&format="
    eventually(lambda: server.json("GET", path + "json")["records"])
    server.json("PATCH", f"/v1/sources/{source['id']}", {"state": "stopped"})
    eventually(lambda: server.state("Sample clip") == "stopped")
    time.sleep(0.5)  # a frame may still be on its way
    records = server.json("GET", path + "json")["records"]
    lines = server.ask("GET", path + "jsonl")[2].decode().splitlines()
    table = server.ask("GET", path + "csv")[2].decode().splitlines()
    server.ask("DELETE", f"/v1/sources/{source['id']}")
    assert [json.loads(line) for line in lines] == records
    assert table[0].startswith("schema_version,source,frame_index")
    assert len(table) == len(records) + 1


def test_stage_times_are_those_of_the_work(server: Served) -> None:
    """In most frames the detector and the back end have nothing to do, so a median would be near 0."""
    source = server.add("sample")
    try:
        eventually(lambda: server.sources()[0]["faces"])
        with server.viewer(source["id"]) as viewer:
            for _ in range(30):
                viewer.frame()
        stages = server.sources()[0]["stages_ms"]
        assert set(stages) == {"decode", "detect", "track", "align", "infer", "smooth"}
        assert stages["infer"] > 0.5
        assert stages["detect"] > 0.5
    finally:
        server.ask("DELETE", f"/v1/sources/{source['id']}")


def test_a_wrong_request_is_answered_with_a_sentence(server: Served) -> None:
    body = b'{"target": "sample"}'
    status, _, answer = server.ask("POST", "/v1/sources", body, Content_Type="application/x-www-form-urlencoded")
    assert (status, json.loads(answer)["detail"]) == (
        422, "the body must be a JSON object; send the header Content-Type: application/json with it",
    )  # fmt: skip
    status, _, answer = server.ask("GET", "/v1/image")
    assert (status, json.loads(answer)["detail"].split(";")[0]) == (405, "this address does not accept this method")
    status, _, answer = server.ask("GET", "/v1/nothing")
    assert (status, json.loads(answer)["detail"].split(";")[0]) == (404, "there is nothing at this address")


def test_stop_and_start_continue_the_time(server: Served) -> None:
    source = server.add("sample")
    path = f"/v1/sources/{source['id']}"
    with server.viewer(source["id"]) as viewer:
        before = viewer.frame()[0]
        assert server.json("PATCH", path, {"state": "stopped"})["state"] == "stopped"
        server.json("PATCH", path, {"state": "running"})
        after = before
        while after["pts_s"] < before["pts_s"] + 1.0:  # the pause counts as one second of media time
            after = viewer.frame()[0]
        assert after["frame_index"] > before["frame_index"]
    server.ask("DELETE", path)
    assert server.ask("DELETE", path)[0] == 404


def test_only_cameras_and_the_sample_may_be_added(server: Served) -> None:
    for target in ("/etc/passwd", str(DEMO), "rtsp://127.0.0.1/x", "http://169.254.169.254/latest", "file:///etc/hosts",
                   "concat:/etc/passwd", "../examples/demo.mp4"):  # fmt: skip
        status, _, body = server.ask("POST", "/v1/sources", {"target": target})
        assert status == 403, target
        assert "--allow-source" in json.loads(body)["detail"]
    camera = server.add("/dev/video77")
    refused = eventually(lambda: next((s for s in server.sources() if s["state"] == "refused"), None))
    assert refused["kind"] == "camera"
    assert refused["reason"]
    assert server.ask("DELETE", f"/v1/sources/{camera['id']}")[0] == 204


def test_a_picture_gives_the_records_of_the_command(server: Served, media: Path, tmp_path: Path) -> None:
    from leaf_rt.cli import main

    file = media / "angry.jpg"
    data = file.read_bytes()
    raw = server.json("POST", "/v1/image", data, Content_Type="image/jpeg")
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + data + b"\r\n--x--\r\n"
    form = server.json("POST", "/v1/image", body, Content_Type="multipart/form-data; boundary=x")
    assert form == raw
    assert main(["image", str(file), "--out", str(tmp_path), "--backend", "onnxruntime", "--no-save-picture"]) == 0
    (lines,) = tmp_path.glob("*.jsonl")
    expected = [json.loads(line) for line in lines.read_text().splitlines()]

    def same(record: dict[str, object]) -> dict[str, object]:
        return {k: v for k, v in record.items() if k not in ("source", "latency_ms")}

    assert [same(r) for r in raw["records"]] == [same(r) for r in expected]
    assert raw["records"][0]["emotion"] == "anger"


def test_what_is_no_picture_is_refused_in_one_sentence(server: Served) -> None:
    for body in (b"hello", b"\xff\xd8\xff\xe0 not really", b"GIF89a" + bytes(40)):
        status, _, answer = server.ask("POST", "/v1/image", body, Content_Type="image/jpeg")
        assert status == 422
        assert json.loads(answer)["detail"].count("\n") == 0
    assert server.ask("POST", "/v1/image", b"")[0] == 422
    bomb = cv2.imencode(".png", np.zeros((9000, 9000), np.uint8))[1].tobytes()
    status, _, answer = server.ask("POST", "/v1/image", bomb)
    assert status == 422
    assert "too large" in json.loads(answer)["detail"]
    status, _, _ = server.ask("POST", "/v1/image", bytes(21 << 20))
    assert status == 413


def test_a_clip_is_a_job_with_progress_and_every_frame(server: Served, clip: Path) -> None:
    job = server.json("POST", "/v1/video", clip.read_bytes(), Content_Type="video/mp4")
    assert job["state"] in ("queued", "running")

    def done() -> dict[str, object] | None:
        state = server.json("GET", f"/v1/jobs/{job['id']}")
        assert state["state"] != "failed", state
        return state if state["state"] == "done" else None

    state = eventually(done, 60)
    assert (state["progress"], state["frames"]) == (1.0, 30)
    records = server.json("GET", f"/v1/jobs/{job['id']}/records")["records"]
    assert {r["frame_index"] for r in records} <= set(range(30))
    assert len({r["frame_index"] for r in records}) > 20
    for record in records:
        jsonschema.validate(record, SCHEMA)
    assert server.sources() == [], "a job is no source of the page"
    assert server.ask("DELETE", f"/v1/jobs/{job['id']}")[0] == 204
    assert server.ask("GET", f"/v1/jobs/{job['id']}/records")[0] == 404


def test_clips_that_are_none_are_refused(server: Served, tmp_path: Path) -> None:
    for body in (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n", b"x" * 50):
        status, _, answer = server.ask("POST", "/v1/video", body)
        assert status == 415, answer
    job = server.json("POST", "/v1/video", b"\0\0\0\x18ftypmp42" + bytes(200))
    state = eventually(lambda: (s := server.json("GET", f"/v1/jobs/{job['id']}"))["state"] == "failed" and s)
    assert state["reason"]
    assert "/tmp" not in state["reason"]
    assert not list(Path("/tmp").glob("leaf-rt-*/clip"))


def test_the_camera_of_a_browser_end_to_end(server: Served) -> None:
    pictures = [cv2.imencode(".jpg", image)[1].tobytes() for image in demo_frames(20)]
    with server.socket("/v1/camera") as camera:
        camera.send(json.dumps({"type": "hello", "width": 640, "height": 360, "name": "My phone\x1b[31m"}))
        hello = json.loads(camera.recv(10))
        assert hello["type"] == "source"
        described = next(s for s in server.sources() if s["id"] == hello["id"])
        assert described["kind"] == "browser"
        assert "\x1b" not in described["name"]
        assert server.ask("PATCH", f"/v1/sources/{hello['id']}", {"state": "stopped"})[0] == 409
        with server.viewer(hello["id"]) as viewer:
            answered, faces = [], 0
            for number, picture in enumerate(pictures):
                sent = np.float64(1000.5 + number).tobytes() + picture
                camera.send(sent)
                header, jpeg = split(camera.recv(10))
                assert jpeg == b""
                answered.append(header["client_time_ms"])
                faces += len(header["records"])
            assert answered == [1000.5 + n for n in range(len(pictures))]
            assert faces > 10
            header, jpeg = viewer.frame()
            assert header["client_time_ms"] in answered
            assert jpeg.startswith(b"\xff\xd8")
    eventually(lambda: server.sources() == [])


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (["nonsense"], "first message"),
        ([json.dumps({"type": "hello", "width": 9000, "height": 9000, "name": ""})], "too large"),
        ([json.dumps({"type": "hello", "width": 640, "height": 360, "name": "x"}), b"short"], "float64"),
        (
            [json.dumps({"type": "hello", "width": 640, "height": 360, "name": "x"}), bytes(8) + b"not a jpeg"],
            "picture",
        ),
    ],
)
def test_a_bad_camera_is_told_why_and_closed(server: Served, messages: list[str | bytes], expected: str) -> None:
    with server.socket("/v1/camera") as camera:
        for message in messages:
            camera.send(message)
        found = json.loads(camera.recv(10))
        if found["type"] == "source":
            found = json.loads(camera.recv(10))
        assert found["type"] == "error"
        assert expected in found["message"]
        with pytest.raises(Exception, match="1008"):
            camera.recv(10)
    eventually(lambda: server.sources() == [])


def test_viewers_share_a_source_and_a_slow_one_delays_nobody(server: Served) -> None:
    source = server.add("sample")
    with server.viewer(source["id"]) as quick, server.viewer(source["id"]) as slow:
        slow.frame(ack=False)
        first, last = quick.frame()[0], {}
        begin, count = time.monotonic(), 0
        while time.monotonic() - begin < 3:
            last = quick.frame()[0]
            count += 1
        assert count > 6
        slow.socket.send('{"type": "ack"}')
        newest = slow.frame()[0]
        assert newest["frame_index"] >= last["frame_index"] - 5, "it gets the newest frame, not the next one"
        assert newest["frame_index"] >= first["frame_index"] + count
    server.ask("DELETE", f"/v1/sources/{source['id']}")


def test_records_and_events_are_streamed(server: Served) -> None:
    import urllib.request

    source = server.add("sample")
    for kind in ("record", "event"):
        with urllib.request.urlopen(f"{server.base}/v1/{kind}s?source={source['id']}", timeout=60) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = iter(stream)
            line = next(text for text in lines if text.startswith(b"event:"))
            assert line == f"event: {kind}\n".encode()
            found = json.loads(next(lines).removeprefix(b"data: "))
            assert found["source"] == "Sample clip"
    server.ask("DELETE", f"/v1/sources/{source['id']}")
    assert server.ask("GET", "/v1/records?source=s999")[0] == 404


def test_health_metrics_and_openapi(server: Served) -> None:
    assert server.json("GET", "/healthz")["healthy"] is True
    status, head, body = server.ask("GET", "/metrics")
    assert status == 200
    assert head["content-type"].startswith("text/plain")
    assert b"leaf_batches" in body
    paths = server.json("GET", "/openapi.json")["paths"]
    assert {"/v1/image", "/v1/video", "/v1/sources", "/v1/events", "/v1/records", "/healthz", "/metrics"} <= set(paths)
    assert server.ask("GET", "/docs")[0] == 404


def test_the_sources_of_the_command_line_and_an_rtsp_source_that_dies_and_comes_back(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "door.mp4", demo_frames(40))
    units = encode(demo_frames(24))
    with RtspServer(units) as rtsp:
        pattern = f"rtsp://127.0.0.1:{rtsp.port}/*"
        with Served("--loop", str(clip), "--allow-source", pattern, "--out", str(tmp_path / "out")) as server:
            eventually(lambda: server.state("door.mp4") == "live")
            source = server.add(rtsp.url(), "hall")
            assert server.ask("POST", "/v1/sources", {"target": "rtsp://127.0.0.1:1/live"})[0] == 403
            eventually(lambda: server.state("hall") == "live")
            with server.viewer(source["id"]) as viewer:
                before = viewer.frame()[0]
                rtsp.refusing = True
                rtsp.drop()
                eventually(lambda: server.state("hall") == "offline")
                lost = next(s for s in server.sources() if s["name"] == "hall")
                assert lost["reason"]
                assert server.ask("GET", "/healthz")[0] == 503
                assert server.state("door.mp4") == "live"
                rtsp.refusing = False
                eventually(lambda: server.state("hall") == "live")
                after = viewer.frame()[0]
                while after["frame_index"] <= before["frame_index"]:
                    after = viewer.frame()[0]
                assert after["pts_s"] > before["pts_s"]
            assert server.ask("DELETE", f"/v1/sources/{source['id']}")[0] == 204
            eventually(lambda: any("hall:" in line for line in server.lines))  # its summary
            assert server.json("GET", "/v1/info")["stored"] == ["records", "timeline", "report"]
            assert server.stop() == 0
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
            f"{name}.leaf.{kind}" for name in ("door", "hall") for kind in ("html", "jsonl", "png", "summary.json")
        ]
        assert not [line for line in server.lines if "Traceback" in line]


def test_a_stop_ends_open_connections_and_the_command(tmp_path: Path) -> None:
    import urllib.request

    with Served() as server:
        source = server.add("sample")
        stream = urllib.request.urlopen(f"{server.base}/v1/records", timeout=30)
        with server.viewer(source["id"]) as viewer, stream:
            viewer.frame()
            begin = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begin < 15
    assert not [line for line in server.lines if "Traceback" in line or "error" in line.lower()], server.lines


def test_the_page_beside_a_command_ends_with_it(clip: Path, tmp_path: Path) -> None:
    with Served(str(clip), "--out", str(tmp_path), "--realtime", command="video") as server:
        assert eventually(server.sources)[0]["name"] == "face.mp4"
        assert server.process.wait(30) == 0
