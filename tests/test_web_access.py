"""Who may use the server: token, Host, Origin, allow-list, bounds on connections."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from web import Served, eventually
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from leaf_rt.errors import OutputError
from leaf_rt.web.allow import AllowList
from leaf_rt.web.bounds import HEADER_SECONDS
from leaf_rt.web.options import WebOptions, parse_address

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def local() -> Iterator[Served]:
    with Served() as one:
        yield one


@pytest.fixture(scope="module")
def open_to_all() -> Iterator[Served]:
    with Served(host="0.0.0.0", LEAF_RT_TOKEN=TOKEN) as one:
        yield one


def refused(server: Served, path: str, **headers: str) -> int:
    """The status with which a WebSocket is refused before it opens; 101 if it is not."""
    try:
        with server.socket(path, **headers):
            return 101
    except InvalidStatus as e:
        return e.response.status_code


def test_every_answer_has_the_headers_that_keep_a_page_safe(local: Served) -> None:
    for path in ("/v1/info", "/static/nothing.js", "/v1/nothing"):
        head = {key.lower(): value for key, value in local.ask("GET", path)[1].items()}
        policy = head["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert head["x-content-type-options"] == "nosniff"
        assert head["referrer-policy"] == "no-referrer"
        assert head["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in head
        assert "server" not in head


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1@evil", "", "10.0.0.1"]
)
def test_other_names_for_this_machine_are_refused(local: Served, host: str) -> None:
    assert local.ask("GET", "/v1/info", Host=host)[0] in (400, 421)
    assert refused(local, "/v1/live", Origin=f"http://{host}") == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_pages_of_other_origins_are_refused(local: Served, origin: str) -> None:
    for path in ("/v1/live", "/v1/camera"):
        assert refused(local, path, Origin=origin) == 403
    assert local.ask("POST", "/v1/sources", {"target": "sample"}, Origin=origin)[0] == 403
    assert local.ask("POST", "/v1/image", b"x", Origin=origin)[0] == 403
    assert local.ask("GET", "/v1/sources", Sec_Fetch_Site="cross-site")[0] == 403
    assert local.sources() == []


def test_the_own_page_and_programs_are_let_in(local: Served) -> None:
    origin = f"http://127.0.0.1:{local.port}"
    assert refused(local, "/v1/live", Origin=origin) == 101
    assert refused(local, "/v1/live") == 101
    assert local.ask("GET", "/v1/info", Host=f"localhost:{local.port}")[0] == 200
    assert local.ask("GET", "/v1/info", Origin=origin, Sec_Fetch_Site="same-origin")[0] == 200


def test_another_address_needs_the_token(open_to_all: Served) -> None:
    server = open_to_all
    assert server.address.endswith(f"/?token={TOKEN}")
    assert any("--tls-cert" in line for line in server.lines), "cameras of browsers need TLS there"
    for path in ("/", "/v1/info", "/v1/sources", "/healthz", "/metrics", "/openapi.json", "/static/x.js"):
        assert server.ask("GET", path)[0] == 401, path
        assert server.ask("GET", path, Authorization="Bearer wrong-token-wrong-token")[0] == 401
        assert server.ask("GET", path, Authorization=f"Basic {TOKEN}")[0] == 401
        assert server.ask("GET", path, Authorization=f"Bearer {TOKEN}")[0] in (200, 404)
    assert refused(server, "/v1/live") == 401
    assert refused(server, "/v1/camera") == 401
    assert refused(server, "/v1/live", Authorization=f"Bearer {TOKEN}") == 101


def test_the_address_with_the_token_sets_a_cookie_that_no_script_can_read(open_to_all: Served) -> None:
    server = open_to_all
    status, head, _ = server.ask("GET", f"/?token={TOKEN}")
    assert (status, head["location"]) == (303, "/")
    cookie = head["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert server.ask("GET", "/v1/info", Cookie=cookie.partition(";")[0])[0] == 200
    status, head, _ = server.ask("GET", "/?token=wrong-token-wrong-token")
    assert status == 401
    assert "set-cookie" not in head


def test_an_open_server_makes_its_own_token_and_still_checks_names() -> None:
    with Served(host="0.0.0.0") as server:
        token = server.address.partition("token=")[2]
        assert len(token) >= 32
        head = {"Authorization": f"Bearer {token}"}
        assert server.ask("GET", "/v1/info", **head)[0] == 200
        assert server.ask("GET", "/v1/info", Host="evil.example", **head)[0] == 421


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        ("rtsp://10.0.0.*/live*",
         ["rtsp://10.0.0.7/live1", "rtsp://10.0.0.7:554/live"],
         ["rtsp://10.0.0.7/admin", "rtsp://10.0.0.7:8554/live", "rtsp://10.0.0.evil.com/live", "http://10.0.0.7/live",
          "rtsp://10.0.0.7@evil.com/live", "rtsp://evil.com/rtsp://10.0.0.7/live", "rtsp://10.0.0.7\\@evil.com/live",
          "rtsp://10.0.0.7/live/../admin", "rtsp://10.0.0.7 /live", "rtsp://u:p@10.0.0.7/live"]),
        ("https://cam.example:8443", ["https://cam.example:8443/any?x=1"], ["https://cam.example/any", "cam.example"]),
        ("/videos/*.mp4", ["/videos/a.mp4", "/videos/b/../a.mp4"],
         ["/videos/a/b.mp4", "/videos/../etc/x.mp4", "videos/a.mp4", "/videos/a.mkv", "/videos/a\0.mp4"]),
    ],
)  # fmt: skip
def test_the_allow_list(pattern: str, allowed: list[str], refused: list[str]) -> None:
    some = AllowList([pattern])
    assert [target for target in allowed if not some.permits(target)] == []
    assert [target for target in refused if some.permits(target)] == []
    for always in ("0", "/dev/video0", "sample"):
        assert some.permits(always)
    assert not AllowList([]).permits(allowed[0])


def test_a_link_leads_out_of_no_folder(tmp_path: Path) -> None:
    inside, secret = tmp_path / "videos", tmp_path / "secret.mp4"
    inside.mkdir()
    secret.touch()
    (inside / "clip.mp4").touch()
    (inside / "link.mp4").symlink_to(secret)
    some = AllowList([f"{inside.resolve()}/*.mp4"])
    assert some.permits(str(inside / "clip.mp4"))
    assert not some.permits(str(inside / "link.mp4"))


@pytest.mark.parametrize("pattern", ["relative/*.mp4", "rtsp://", "ftp://host/x", "rtsp://user:pw@host/x"])
def test_patterns_that_never_match_are_errors(pattern: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        AllowList([pattern])


def test_addresses_and_tokens_are_checked() -> None:
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert parse_address("9000") == ("127.0.0.1", 9000)
    assert parse_address(":9000") == ("127.0.0.1", 9000)
    assert parse_address("[::1]:0") == ("::1", 0)
    for bad in ("host", "host:", "host:99999", "a:b:c", "http://x:1/y"):
        with pytest.raises(OutputError, match="HOST:PORT"):
            parse_address(bad)
    with pytest.raises(OutputError, match="16"):
        WebOptions(token="short")
    with pytest.raises(OutputError, match="--tls-cert"):
        WebOptions(key=Path("k.pem"))


def test_a_port_in_use_and_a_missing_certificate_are_one_sentence(local: Served) -> None:
    import subprocess
    import sys

    for arguments, text in (
        (["--web", f"127.0.0.1:{local.port}"], "cannot listen"),
        (["--tls-cert", "/nowhere.pem", "--web", "127.0.0.1:0"], "--tls-cert"),
        (["--allow-source", "x/y", "--web", "127.0.0.1:0"], "--allow-source"),
    ):
        line = [sys.executable, "-m", "leaf_rt", "serve", "--backend", "onnxruntime", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        errors = [row for row in done.stderr.splitlines() if row.startswith("error: ")]
        assert done.returncode == 9, done.stderr
        assert len(errors) == 1
        assert text in done.stderr
        assert "Traceback" not in done.stderr


def test_an_installation_without_the_extra_says_what_to_install(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('No module named fastapi', name='fastapi')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    line = [sys.executable, "-m", "leaf_rt", "serve"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 10
    assert done.stderr.count("error: ") == 1
    assert "[web]" in done.stderr.replace("\n", "")


@pytest.mark.slow
def test_a_connection_without_a_request_is_closed(local: Served) -> None:
    with socket.create_connection(("127.0.0.1", local.port)) as one:
        one.sendall(b"GET /v1/info HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        one.settimeout(HEADER_SECONDS + 10)
        begin = time.monotonic()
        for _ in range(3):
            time.sleep(1)
            one.sendall(b"X-Slow: 1\r\n")
        assert one.recv(100) == b""
        assert HEADER_SECONDS - 2 < time.monotonic() - begin < HEADER_SECONDS + 5


def test_small_bodies_are_bounded(local: Served) -> None:
    body = json.dumps({"target": "x" * 100_000}).encode()
    status, _, answer = local.ask("POST", "/v1/sources", body, Content_Type="application/json")
    assert status == 413
    assert "larger" in json.loads(answer)["detail"]
    status, _, answer = local.ask("POST", "/v1/sources", {"target": "x", "more": 1})
    assert status == 422
    assert isinstance(json.loads(answer)["detail"], str)


def test_the_number_of_viewers_is_bounded(local: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(64):  # they read everything: a client that has stopped to read waits 10 s for the end
            stack.enter_context(connect(f"ws://127.0.0.1:{local.port}/v1/live", max_queue=None))
        assert refused(local, "/v1/live") == 503
        assert local.ask("GET", "/v1/records")[0] == 503
    eventually(lambda: refused(local, "/v1/live") == 101)


def test_https_with_an_own_certificate(tmp_path: Path) -> None:
    import ssl
    import subprocess
    import urllib.request

    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    line += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with Served("--tls-cert", str(cert), "--tls-key", str(key)) as server:
        assert server.address.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=str(cert))
        request = urllib.request.Request(f"{server.address}v1/info", headers={"Origin": server.address.rstrip("/")})
        with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
            assert answer.status == 200


def test_the_number_of_sources_is_bounded(local: Served) -> None:
    added = [local.ask("POST", "/v1/sources", {"target": f"/dev/video{70 + n}"}) for n in range(17)]
    assert [status for status, _, _ in added] == [201] * 16 + [429]
    for source in local.sources():
        local.ask("DELETE", f"/v1/sources/{source['id']}")
    eventually(lambda: local.sources() == [])
