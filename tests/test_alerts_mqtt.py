"""MQTT against a real mosquitto that is slow, down, and back, and what Home Assistant reads."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2.sandbox
import numpy as np
import pytest
from commands import Leaf
from receivers import Broker, broker, subscriber, until
from streams import INFO, LABELS, LIVE, estimates, frame
from test_alerts_webhook import SCHEMA, Said

from leaf_rt.alerts.address import broker as read_broker
from leaf_rt.alerts.homeassistant import discovery
from leaf_rt.alerts.mqtt import MqttSink
from leaf_rt.results.events import EventTracker


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Broker]:
    with broker(tmp_path) as running:
        yield running


def make(port: int, said: Said, login: str = "") -> MqttSink:
    return MqttSink(read_broker(f"mqtt://{login}127.0.0.1:{port}"), LABELS, EventTracker(LABELS), said)


def show(sink: MqttSink, index: int, *emotions: int, live: bool = True) -> None:
    """One frame with a person per emotion."""
    one = replace(estimates(index / 10, len(emotions)), emotion=np.array(emotions, np.int64))
    info = LIVE if live else INFO
    at = 1_700_000_000 + index / 10 if live else None
    sink.write(info, frame(index, index / 10, info.name, captured_at=at), one, 0.0)


def test_events_state_and_availability(mosquitto: Broker) -> None:
    import jsonschema

    said = Said()
    with subscriber(mosquitto.port) as seen:
        sink = make(mosquitto.port, said)
        until(lambda: seen.last("leaf-rt/availability") == "online")
        show(sink, 0, 1)
        show(sink, 1, 1, 3)
        show(sink, 2, 4, 3)
        until(lambda: len(seen.events("leaf-rt/cam/event")) == 4)
        events = seen.events("leaf-rt/cam/event")
        assert [(e["track_id"], e["phase"], e["emotion"]) for e in events] == [
            (1, "start", "happiness"),
            (2, "start", "sadness"),
            (1, "end", "happiness"),
            (1, "start", "anger"),
        ]
        for event in events:
            jsonschema.validate(event, SCHEMA)
        until(lambda: json.loads(seen.last("leaf-rt/cam/state") or "{}").get("emotion") == "anger")
        state = json.loads(seen.last("leaf-rt/cam/state") or "")
        assert (state["source"], state["people"]) == ("cam", 2)
        assert [face["emotion"] for face in state["showing"]] == ["sadness", "anger"]
        assert seen.last("leaf-rt/cam/availability") == "online"
        sink.source_gone(LIVE)
        until(lambda: seen.last("leaf-rt/cam/availability") == "offline")
        show(sink, 9, 1)
        until(lambda: seen.last("leaf-rt/cam/availability") == "online")
        sink.close()
        sink.close()
        until(lambda: seen.last("leaf-rt/availability") == "offline")
        assert seen.last("leaf-rt/cam/availability") == "offline"
        assert json.loads(seen.last("leaf-rt/cam/state") or "")["emotion"] == "none"
        count = len(seen.events("leaf-rt/cam/event"))
    assert said.texts == ["connected", f"{count} events delivered, 0 dropped"]
    with subscriber(mosquitto.port) as late:  # what the broker retains: no event, and every state
        until(lambda: late.last("leaf-rt/availability") and late.last("leaf-rt/cam/availability"))
        until(lambda: sum(topic.startswith("homeassistant/") for topic, _, _ in late.messages) == 3)
        retained = {topic: payload for topic, payload, kept in late.messages if kept}
    assert retained["leaf-rt/cam/availability"] == "offline"
    assert not any(topic.endswith("/event") for topic in retained)
    assert sum(topic.startswith("homeassistant/") for topic in retained) == 3


def test_files_send_events_but_are_no_device(mosquitto: Broker) -> None:
    with subscriber(mosquitto.port) as seen, make(mosquitto.port, Said()) as sink:
        show(sink, 0, 1, live=False)
        until(lambda: seen.events("leaf-rt/clip-mp4/event"))
        topics = {topic for topic, _, _ in seen.messages}
    assert topics <= {"leaf-rt/clip-mp4/event", "leaf-rt/availability"}


def test_a_broker_that_is_down_and_back_gets_every_event_in_order_and_the_newest_state(mosquitto: Broker) -> None:
    said = Said()
    mosquitto.stop()
    sink = make(mosquitto.port, said)
    show(sink, 0, 1)
    until(lambda: any("cannot be reached" in text for text in said.texts))
    mosquitto.start()
    until(lambda: "connected" in said.texts)
    mosquitto.stop(kill=True)
    until(lambda: any("connection is lost" in text for text in said.texts))
    for index in range(1, 41):
        show(sink, index, index % 2)
    mosquitto.start()
    with subscriber(mosquitto.port) as seen:
        until(lambda: seen.last("leaf-rt/cam/state"))
        until(lambda: len({(e["event_id"], e["phase"]) for e in seen.events("leaf-rt/cam/event")}) >= 79)
        until(lambda: json.loads(seen.last("leaf-rt/cam/state") or "")["emotion"] == LABELS[0])
        until(lambda: sum(topic.startswith("homeassistant/") for topic, _, _ in seen.messages) >= 3)
        sink.close()
        events = seen.events("leaf-rt/cam/event")
    order = [(e["start_s"], e["phase"]) for e in events if e["phase"] == "start"]
    assert order == sorted(order)
    assert said.texts[-1].endswith("0 dropped")


def test_a_broker_that_stands_still_costs_nothing_and_drops_are_counted(
    mosquitto: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leaf_rt.alerts.mqtt._DRAIN_TIMEOUT", 0.5)
    said = Said()
    sink = make(mosquitto.port, said)
    until(lambda: said.texts == ["connected"])
    assert mosquitto.process is not None
    os.kill(mosquitto.process.pid, signal.SIGSTOP)
    try:
        begin = time.perf_counter()
        for index in range(800):
            show(sink, index, index % 2)
        assert time.perf_counter() - begin < 20  # a wait for the broker would take longer
        begin = time.perf_counter()
        sink.close()
        assert time.perf_counter() - begin < 4
    finally:
        os.kill(mosquitto.process.pid, signal.SIGCONT)
    delivered, dropped = (int(word) for word in said.texts[-1].split() if word.isdigit())
    assert delivered + dropped == 1600
    assert dropped >= 600
    assert "1000 events wait; new ones are dropped" in said.texts


def test_a_wrong_password_is_said_once_and_not_shown(tmp_path: Path) -> None:
    said = Said()
    with broker(tmp_path, lines="allow_anonymous false\n") as strict:
        with make(strict.port, said, login="me:topsecret@") as sink:
            until(lambda: said.texts)
            show(sink, 0, 1)
            time.sleep(2.5)  # further attempts
        assert "the broker refuses the connection" in said.texts[0]
        assert said.texts[1:] == ["0 events delivered, 2 dropped"]
        assert "topsecret" not in repr(said.messages) + sink.name


def test_the_last_will_of_a_killed_process_is_offline(mosquitto: Broker) -> None:
    import subprocess

    code = f"""
import sys, time
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from test_alerts_mqtt import Said, make, show
sink = make({mosquitto.port}, Said())
time.sleep(0.5)
show(sink, 0, 1)
time.sleep(60)
"""
    with subscriber(mosquitto.port) as seen:
        process = subprocess.Popen([sys.executable, "-c", code])
        try:
            until(lambda: seen.last("leaf-rt/availability") == "online", 30)
        finally:
            process.kill()
            process.wait(10)
        until(lambda: seen.last("leaf-rt/availability") == "offline")


def render(template: str, payload: dict[str, Any]) -> str:
    return jinja2.sandbox.ImmutableSandboxedEnvironment().from_string(template).render(value_json=payload)


def test_home_assistant_finds_the_entities(mosquitto: Broker) -> None:
    """The required keys of Home Assistant's documentation, and its templates on real messages."""
    configs = discovery("home/faces", "camera 0", "camera-0", LABELS, "1.0")
    assert sorted(configs) == [
        "homeassistant/event/home-faces_camera-0_event/config",
        "homeassistant/sensor/home-faces_camera-0_expression/config",
        "homeassistant/sensor/home-faces_camera-0_people/config",
    ]
    assert len({config["unique_id"] for config in configs.values()}) == 3
    for config in configs.values():
        assert config["device"]["identifiers"] == ["home-faces_camera-0"]
        assert config["availability_mode"] == "all"
        topics = [entry["topic"] for entry in config["availability"]]
        assert topics == ["home/faces/availability", "home/faces/camera-0/availability"]
        assert config["origin"]["name"] == "leaf-rt"
    event, expression, people = (configs[name] for name in sorted(configs))
    with subscriber(mosquitto.port) as seen, make(mosquitto.port, Said()) as sink:
        until(lambda: seen.last("leaf-rt/availability"))
        show(sink, 0, 1)
        until(lambda: json.loads(seen.last("leaf-rt/cam/state") or "{}").get("people") == 1)
        until(lambda: seen.last("leaf-rt/cam/event"))
        state, told = (json.loads(seen.last(f"leaf-rt/cam/{name}") or "") for name in ("state", "event"))
    assert render(expression["value_template"], state) == "happiness"
    assert "happiness" in expression["options"]
    assert expression["device_class"] == "enum"
    assert render(people["value_template"], state) == "1"
    rendered = json.loads(render(event["value_template"], told))
    assert rendered == {**told, "event_type": "start"}
    assert rendered["event_type"] in event["event_types"]


def test_the_command_publishes(leaf: Leaf, clip: Path, mosquitto: Broker) -> None:
    options = ("--no-save-video", "--no-plot", "--no-jsonl", "--realtime", "--event-emotions", "happiness,neutral")
    with subscriber(mosquitto.port) as seen:
        done = leaf("video", clip, *options, "--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}/home")
        until(lambda: seen.last("home/availability") == "offline")
        events = seen.events("home/face-mp4/event")
    assert done.code == 0, done.err
    assert {event["emotion"] for event in events} <= {"happiness", "neutral"}
    assert f"mqtt://127.0.0.1:{mosquitto.port}/home: {len(events)} event" in done.err


def test_an_unknown_emotion_is_refused(leaf: Leaf, clip: Path) -> None:
    done = leaf("video", clip, "--no-save-video", "--no-plot", "--no-jsonl", "--events", "-", "--event-emotions", "joy")
    assert done.code == 8
    assert "--event-emotions: the model has no class joy; choose from neutral" in done.sentence()


def test_an_endless_packet_ends_the_connection() -> None:
    """A broker may announce 256 MiB; what leaf-rt needs of it has a few bytes."""
    sent = 0
    with socket.create_server(("127.0.0.1", 0)) as door:
        sink = make(door.getsockname()[1], Said())
        with door.accept()[0] as one:
            one.settimeout(20)
            assert one.recv(1)[0] == 0x10  # CONNECT
            one.sendall(b"\x20\x02\0\0")
            one.sendall(b"\x30\xff\xff\xff\x7f")  # PUBLISH of 256 MiB
            with contextlib.suppress(OSError):  # the connection is closed
                while sent < 64 << 20:
                    sent += one.send(bytes(1 << 16))
        sink.close()
    assert sent < 64 << 20
