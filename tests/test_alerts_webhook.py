"""The webhook against real HTTP servers that are slow, down, and back."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from commands import Leaf
from receivers import dripping_server, free_port, silent_server, until, web_receiver
from streams import INFO, LABELS, LIVE, Opener, Script, estimates, frame, play
from test_metrics import get, values

from leaf_rt.alerts.address import web_address
from leaf_rt.alerts.outbox import NotNow, Outbox
from leaf_rt.alerts.webhook import WebhookSink
from leaf_rt.errors import NotFound
from leaf_rt.results.events import EventTracker
from leaf_rt.sources.base import SourceOptions
from leaf_rt.stream.options import Hooks
from leaf_rt.types import Estimates, Frame, SourceInfo
from leaf_rt.web.metrics import MetricsServer

SCHEMA = json.loads((Path(__file__).parents[1] / "leaf_rt" / "event.schema.json").read_text(encoding="utf-8"))


class Said:
    """Messages about the delivery."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, str]] = []

    def __call__(self, level: str, name: str, text: str) -> None:
        self.messages.append((level, name, text))

    @property
    def texts(self) -> list[str]:
        return [text for _, _, text in self.messages]


def make(url: str, said: Said, **options: Any) -> WebhookSink:
    return WebhookSink(web_address(url), EventTracker(LABELS), said, **options)


def show(sink: WebhookSink, count: int, first: int = 0) -> None:
    """Frames that show a new expression each: one start, and one end but for the first."""
    for index in range(first, first + count):
        one = estimates(index / 10)
        one.emotion[:] = index % 2
        sink.write(LIVE, frame(index, index / 10, "cam", captured_at=1_700_000_000 + index / 10), one, 0.0)


def test_events_arrive_in_order_and_match_the_schema() -> None:
    said = Said()
    with web_receiver() as receiver, make(receiver.url, said) as sink:
        show(sink, 3)
        sink.close()
    assert [event["phase"] for event in receiver.events] == ["start", "end", "start", "end", "start", "end"]
    for event in receiver.events:
        jsonschema.validate(event, SCHEMA)
    headers = receiver.headers[0]
    assert headers["content-type"] == "application/json"
    assert headers["idempotency-key"] == f"{receiver.events[0]['event_id']}-start"
    assert "x-leaf-signature" not in headers
    assert said.messages == [("info", f"webhook http://127.0.0.1:{receiver.port}", "6 events delivered, 0 dropped")]


def test_a_secret_signs_the_body_and_a_login_is_sent_but_not_shown() -> None:
    said = Said()
    with web_receiver() as receiver:
        url = receiver.url.replace("//", "//me:p%40ss@") + "?key=hidden"
        with make(url, said, secret="s3cret") as sink:
            show(sink, 1)
    expected = hmac.new(b"s3cret", receiver.bodies[0], hashlib.sha256).hexdigest()
    assert receiver.headers[0]["x-leaf-signature"] == f"sha256={expected}"
    assert receiver.headers[0]["authorization"] == "Basic bWU6cEBzcw=="
    assert receiver.paths[0] == "/hook?key=hidden"
    for secret in ("p%40ss", "p@ss", "hidden", "/hook", "s3cret"):
        assert secret not in repr(said.messages) + sink.name + repr(web_address(url))


def test_a_receiver_that_is_down_and_back_gets_everything_in_order() -> None:
    said = Said()
    with web_receiver() as receiver:
        sink = make(receiver.url, said)
        show(sink, 1)
        until(lambda: receiver.events)
        receiver.stop()
        show(sink, 4, first=1)
        until(lambda: said.messages)
        time.sleep(0.3)
        receiver.start()
        until(lambda: len(receiver.events) == 9)
        sink.close()
    starts = [event["start_s"] for event in receiver.events if event["phase"] == "start"]
    assert starts == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert len({(event["event_id"], event["phase"]) for event in receiver.events}) == 10
    assert "not delivered, trying again: connection refused" in said.texts[0]
    assert said.texts[1:] == ["delivers again; 0 events dropped meanwhile", "10 events delivered, 0 dropped"]


def test_errors_of_the_receiver_are_tried_again_and_refusals_are_not() -> None:
    said = Said()
    answers = [(503, {"Retry-After": "0"}), (429, {"Retry-After": "0"}), (404, {})]
    with web_receiver(answers=answers) as receiver, make(receiver.url, said) as sink:
        show(sink, 2)
        until(lambda: len(receiver.events) == 2)
        sink.close()
    assert receiver.bodies[0] == receiver.bodies[1] == receiver.bodies[2]  # the first event, until it is refused
    assert [event["phase"] for event in receiver.events] == ["end", "start", "end"]
    assert "not delivered, trying again: the receiver answered 503" in said.texts[0]
    assert said.texts[-1] == "3 events delivered, 1 dropped"
    assert said.messages[-1][0] == "warning"


def test_a_redirect_is_not_followed() -> None:
    said = Said()
    with web_receiver() as other, web_receiver(answers=[(302, {"Location": other.url})] * 9) as receiver:
        with make(receiver.url, said) as sink:
            show(sink, 1)
        assert other.bodies == []
    assert "302" in said.texts[0]
    assert "give that address" in said.texts[0]


def test_writing_never_waits_and_the_oldest_events_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaf_rt.alerts.webhook._TIMEOUT", 0.4)
    monkeypatch.setattr("leaf_rt.alerts.webhook._DRAIN_TIMEOUT", 0.6)
    said = Said()
    with silent_server() as port:
        sink = make(f"http://127.0.0.1:{port}/", said)
        begin = time.perf_counter()
        show(sink, 1500)
        assert time.perf_counter() - begin < 1.5
        begin = time.perf_counter()
        sink.close()
        assert time.perf_counter() - begin < 2
    assert said.texts[-1] == "0 events delivered, 3000 dropped"
    assert "no answer within" in said.texts[0]


def test_a_full_outbox_keeps_the_newest_items() -> None:
    got: list[int] = []
    ready, said = threading.Event(), Said()

    def send(item: int) -> None:
        if not ready.wait(0.05):
            raise NotNow("not yet", 0.01)
        got.append(item)

    outbox: Outbox[int] = Outbox("box", send, said, capacity=10)
    for item in range(100):
        outbox.put(item)
    ready.set()
    outbox.close(5)
    assert got[-10:] == list(range(90, 100))
    assert got == sorted(set(got))
    assert outbox.stats.delivered + outbox.stats.dropped == 100
    assert len(got) == outbox.stats.delivered <= 12


def test_an_error_in_one_item_does_not_stop_the_others() -> None:
    got, said = [], Said()

    def send(item: int) -> None:
        got.append(1 / item)

    outbox: Outbox[int] = Outbox("box", send, said)
    for item in (0, 1, 2):
        outbox.put(item)
    outbox.close(5)
    assert got == [1.0, 0.5]
    assert (outbox.stats.delivered, outbox.stats.dropped) == (2, 1)
    assert "division by zero" in said.texts[0]


def test_a_source_that_is_lost_ends_its_events_at_once() -> None:
    said, seen = Said(), threading.Event()

    def look() -> None:
        until(lambda: len(receiver.events) == 2)  # the end comes while the source is away
        seen.set()

    with web_receiver() as receiver, make(receiver.url, said) as sink:
        first = Script(LIVE, [frame(i, i / 25, "cam") for i in range(5)])
        again = Script(LIVE, [look, *(frame(i, i / 25, "cam") for i in range(5))])
        opener = Opener(a=[first, again, NotFound("gone")])
        play(opener, "a", ask=SourceOptions(max_reconnects=1), shared=[sink])
    assert seen.is_set()
    assert [event["phase"] for event in receiver.events] == ["start", "end", "start", "end"]
    assert [event["generation"] for event in receiver.events] == [0, 0, 1, 1]


class Flickering:
    """Passes frames on with a new expression in each."""

    wants_image = False

    def __init__(self, sink: WebhookSink) -> None:
        self.name, self._sink, self.close = sink.name, sink, sink.close

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        shown = np.full(len(estimates), frame.index % 2, np.int64)
        self._sink.write(source, frame, replace(estimates, emotion=shown), latency)


@pytest.mark.parametrize("kind", ["slow", "down", "silent"])
def test_a_file_does_not_wait_for_the_receiver(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 frames and 800 events: with a request of 1 s per event in its way, the run would take minutes."""
    monkeypatch.setattr("leaf_rt.alerts.webhook._DRAIN_TIMEOUT", 0.2)
    with web_receiver(delay=1.0) as slow, silent_server() as silent:
        port = {"slow": slow.port, "down": free_port(), "silent": silent}[kind]
        said = Said()
        sink = Flickering(make(f"http://127.0.0.1:{port}/", said))
        stats = play(Opener(a=[Script(INFO, [frame(i) for i in range(400)])]), "a", shared=[sink])
    assert (stats.processed, stats.sinks[0].written, stats.sinks[0].dropped) == (400, 400, 0)
    assert stats.seconds < 8
    delivered, dropped = (int(word) for word in said.texts[-1].split() if word.isdigit())
    assert delivered + dropped == 800
    assert said.messages[-1][0] == "warning"
    assert stats.failures == []


def test_the_metrics_count_events() -> None:
    with web_receiver(answers=[(404, {})]) as receiver, MetricsServer(0) as server:
        with make(receiver.url, Said()) as sink:
            play(
                Opener(a=[Script(INFO, [frame(i) for i in range(3)])]),
                "a",
                shared=[sink],
                hooks=Hooks(progress=server.update),
            )
        code, text = get(server, "/metrics")
    found = values(text)
    assert code == 200
    assert found["leaf_alert_delivered_total", sink.name] == 1
    assert found["leaf_alert_dropped_total", sink.name] == 1
    assert found["leaf_alert_waiting", sink.name] == 0


def test_the_command_posts_and_masks(leaf: Leaf, clip: Path) -> None:
    with web_receiver() as receiver:
        url = receiver.url.replace("//", "//me:topsecret@").replace("hook", "alsosecret")
        options = ("--no-save-video", "--no-plot", "--no-jsonl", "--event-min-dwell", "0.2")
        done = leaf("video", clip, *options, "--on-event", url)
    assert done.code == 0, done.err
    assert receiver.events[0]["source"] == clip.name
    assert f"webhook http://127.0.0.1:{receiver.port}: {len(receiver.events)} events delivered, 0 dropped" in done.err
    assert "secret" not in done.err + done.out


@pytest.mark.parametrize(
    "answer",
    [[b"HTTP/1.1 100 Continue\r\n\r\n"] * 40, [bytes([letter]) for letter in b"HTTP/1.1 200 OK\r\n" + b"X" * 400],
     [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 90], []],
    ids=["continue", "letters", "headers", "silent"],
)  # fmt: skip
def test_a_receiver_that_answers_without_end_is_left(answer: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout from byte to byte does not end these."""
    monkeypatch.setattr("leaf_rt.alerts.webhook._WHOLE_TIMEOUT", 1.0)
    said = Said()
    with dripping_server(answer, 0.1) as port:
        sink = make(f"http://127.0.0.1:{port}/", said)
        show(sink, 1)
        until(
            lambda: sink.delivery.delivered or any("not delivered" in text for text in said.texts),
            3.0 if answer else 8.0,
        )
        sink.close()


def test_what_a_receiver_says_is_cut() -> None:
    said = Said()
    with dripping_server([b"HTTP/1.1 400 " + b"a" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n"], 0) as port:
        sink = make(f"http://127.0.0.1:{port}/", said)
        show(sink, 1)
        until(lambda: any("400" in text for text in said.texts))
        sink.close()
    assert all(len(text) < 400 for text in said.texts)


def test_tls_that_never_ends_its_handshake_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaf_rt.alerts.webhook._WHOLE_TIMEOUT", 1.0)
    said = Said()
    with dripping_server([b"\x16\x03\x03\x40\x00", *[b"\x02"] * 100], 0.1) as port:
        sink = make(f"https://127.0.0.1:{port}/", said)
        show(sink, 1)
        until(lambda: any("not delivered" in text for text in said.texts), 4.0)
        sink.close()
