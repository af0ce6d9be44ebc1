"""No user, password or query value of an address is shown, whatever its form and whatever shows it."""

from __future__ import annotations

import itertools
import random
import re
import socket
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from commands import Leaf
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf_rt import cli
from leaf_rt.credentials import mask, mask_in
from leaf_rt.sources.address import parse
from leaf_rt.stream import reconnect

USER, SECRET = "Us3rN4me", "S3cr3tW0rd"

# Beginnings of an address, right and mistyped, times what can follow.
BEGINNINGS = (
    "rtsp://", "RTSP://", "rtsps://", "http://", "HTTP://", "https://", "rtmp://", "rtmps://", "srt://", "udp://", "rtp://",
    "tcp://", "rtsp:/", "rtsp:", "rtsp:///", "http:/", "rtsp:\\\\", "  rtsp://", "\trtsp://", "rtsp//", "//", "", "ftp://",
    "foo://", "crypto+http://", "concat:http://", "subfile,,start,0,end,9,,:http://", "tee:http://", "cache:http://",
)  # fmt: skip
BODIES = (
    "{user}:{secret}@127.0.0.1:1/x",
    "{user}:{secret}@127.0.0.1/x?channel=1",
    "127.0.0.1:1/x?pw={secret}",
    "127.0.0.1/x?{secret}&user={user}",
    "127.0.0.1/user={user}&password={secret}&channel=1",
    "{user}:{secret}@[::1]:1/x",
)
FORMS = [beginning + body for beginning, body in itertools.product(BEGINNINGS, BODIES)]
# Passwords that an address may not contain as they are, and that people type all the same.
NASTY = "/?#@:&=%;+,.~!$'()*[]\\ \"<>|^`{}_-aZ09öé"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("rtsp://user:pa#ss@host/x", "rtsp://host/x"),
        ("rtsp://user:pa?ss@host/x", "rtsp://host/x"),
        ("rtsp://user:pa/ss@host/x", "rtsp://host/x"),
        ("rtsp://us:p@ss/w@ö@127.0.0.1:1/", "rtsp://127.0.0.1:1/"),
        ("rtsp://user:12/34@host/x", "rtsp://host/x"),
        ("rtsp://user@host/x", "rtsp://host/x"),
        (" rtsp://user:pw@host/x", "rtsp://host/x"),
        ("rtsp:/user:pw@host/x", "rtsp:/host/x"),
        ("user:pw@host:80/x", "***@host:80/x"),
        ("rtsp://admin:pw", "rtsp://admin:***"),
        ("rtsp://host:80/x?mail=a@b", "rtsp://***"),
        ("http://host/x?token=abc&w=640", "http://host/x?***"),
        ("http://host/user=admin&password=abc&channel=1", "http://host/user=***"),
        ("rtsp://host/cam@1", "rtsp://host/cam@1"),
        ("rtsp://host:554/live", "rtsp://host:554/live"),
        ("rtsp://[::1]:554/live", "rtsp://[::1]:554/live"),
        ("me@home.mp4", "me@home.mp4"),
        ("run=3/clip 12:30.mp4", "run=3/clip 12:30.mp4"),
        ("/films/12:30.mp4", "/films/12:30.mp4"),
        ("http://user%3Apw%40host:80/x", "http://***"),
        ("http://user%3apw/more@host/x", "http://***"),
        ("rtsp://user:p%40ss@10.0.0.1/a?channel=1&password=hunter2", "rtsp://10.0.0.1/a?***"),
    ],
)
def test_mask(target: str, shown: str) -> None:
    assert mask(target) == shown
    assert mask(shown) == shown
    assert mask_in(f"error: {shown}: no such stream.") == f"error: {shown}: no such stream."


def test_the_token_of_our_own_page_is_shown() -> None:
    page = "http://cam:8000/?token=own"
    text = mask_in(f"page at {page}, not http://u:p@cam/?k=1", keep=page)
    assert text == f"page at {page}, not http://cam/?***"


def test_a_network_source_is_named_by_host_and_path() -> None:
    assert parse("rtsp://u:p@cam:8554/live?pw=x").name == "cam:8554/live"


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(FORMS), st.text(NASTY, max_size=4), st.text(NASTY, max_size=4))
def test_a_password_of_any_characters_is_hidden(form: str, before: str, after: str) -> None:
    target = form.format(user=USER, secret=f"{before}{SECRET}{after}")
    address = parse(target)
    for shown in (mask(target), address.shown, address.name, repr(address), address.problem, mask_in(target, [target])):
        assert SECRET not in shown


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg fails at once, with an error that names the whole address. No name is looked up."""

    def refuse(target: str, *_: object, **__: object) -> None:
        raise OSError(5, f"Input/output error: {target}", target)

    look_up = socket.getaddrinfo

    def local_only(host: Any, *more: Any, **names: Any) -> Any:
        if host != "127.0.0.1":
            raise OSError("unknown host")
        return look_up(host, *more, **names)

    monkeypatch.setattr(av, "open", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", local_only)
    monkeypatch.setattr(reconnect.Backoff, "lost", _lost_at_once)


def _lost_at_once(self: Any, now: float) -> float | None:
    self.attempts += 1
    return 0.0 if self.attempts <= self._max_attempts else None


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--debug",), ("--log-json", "--debug"), ("--number", "2")], ids=" ".join)
def test_nothing_that_a_run_says_shows_it(
    failing: None, options: tuple[str, ...], capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    """Messages, JSON log, traceback, metrics, health and names, for every form."""
    assert len(FORMS) >= 100
    for form in FORMS:
        target = form.format(user=USER, secret=SECRET)
        code = cli.main(["video", target, *options], commands="address_commands")
        sys.stdout.flush()
        shown = "".join(capfd.readouterr())
        assert code not in (0, 70), shown
        assert SECRET not in shown, (target, shown)
        if "--debug" not in options:  # which logs errors that are masked where they are written
            assert SECRET not in caplog.text, target
        if f"{USER}:" in target and "//" in target:
            assert USER not in shown, (target, shown)


COMMANDS = """
{} | --debug {} | video --start {} a.mp4 | video --no-such {} | video --sources {} | video a.mp4 --model {}
video a.mp4 --out {} | video --blur={} a.mp4 | webcam --width={} | webcam --device {} --no-show | image {}
image {} b.png | bench {} | bench --batch {}
export {} --out x | doctor --model {} | train --data {} | train --recipe {} | evaluate {}
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", [part.strip() for part in re.split(r"\||\n", COMMANDS.strip())])
def test_an_address_in_the_wrong_place_is_not_shown(
    leaf: Leaf, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = random.Random(1)
    for form in generator.sample(FORMS, 4):
        target = form.format(user=USER, secret=SECRET)
        done = leaf(*(argument.format(target) for argument in command.split()))
        assert done.code not in (0, 70), done
        assert SECRET not in done.out + done.err, target
