"""Publishes events and the state of every source to an MQTT broker. The only module that imports paho-mqtt.

The client of paho-mqtt has its own thread: it connects again after a loss, and keeps what the broker has not confirmed.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import leaf_rt
from leaf_rt.alerts.address import Broker
from leaf_rt.alerts.homeassistant import NONE, discovery, topic_level
from leaf_rt.alerts.outbox import CAPACITY, Notify
from leaf_rt.errors import BackendError, install_hint
from leaf_rt.results.events import DeliveryStats, EventTracker
from leaf_rt.system.closing import Closing
from leaf_rt.text import counted
from leaf_rt.types import Estimates, Frame, SourceInfo

_KEEP_ALIVE = 30  # s
_MAX_DELAY = 30  # s between attempts to connect; from 1 s, doubled after each
_MAX_PACKET = 1 << 10  # bytes of a packet from the broker; confirmations have four
_DRAIN_TIMEOUT = 5.0  # s for what waits at the end
# The broker confirms each event. After a loss of the connection it may get some twice. What it retains has QoS 0: it is
# published again after every loss, and an old state must not follow a newer one.
_EVENT_QOS = 1


@dataclass(slots=True)
class _Source:
    """A live source. ``showing`` holds the start of every event that has not ended, by its id."""

    name: str
    level: str
    online: bool = False
    showing: dict[str, dict[str, Any]] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """The payload of its state topic."""
        faces = [
            {key: event[key] for key in ("track_id", "person_id", "emotion", "start_at")}
            for event in self.showing.values()
        ]
        return {
            "source": self.name,
            "emotion": faces[-1]["emotion"] if faces else NONE,
            "people": len({event["person_id"] for event in self.showing.values()}),
            "showing": faces,
        }


class MqttSink(Closing):
    """Publishes events; see ``Sink`` and docs/alerts.md.

    Args:
        broker: Where to publish.
        labels: Class names in the order of the model.
        tracker: Finds the events.
        notify: Gets messages about the connection, from another thread.

    Attributes:
        delivery: The counters.

    Raises:
        BackendError: paho-mqtt is not installed.
    """

    wants_image = False

    def __init__(self, broker: Broker, labels: Sequence[str], tracker: EventTracker, notify: Notify) -> None:
        try:
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as e:
            raise BackendError(f"--mqtt needs paho-mqtt; {install_hint('mqtt')}") from e
        self.name = broker.shown
        self._broker, self._labels = broker, tuple(labels)
        self._tracker, self._notify = tracker, notify
        self._lock = threading.RLock()
        self._sources: dict[str, _Source] = {}  # live ones, by name
        self._levels: dict[str, str] = {}  # level of the topics of every source, by name
        self._waiting: set[int] = set()  # numbers of the events that the broker has not confirmed
        self._confirmed: deque[int] = deque(maxlen=4 * CAPACITY)  # numbers of messages that it has; no lock needed
        self.delivery = DeliveryStats()
        self._connected = self._closed = self._trouble = False
        self._client = _client_class()(CallbackAPIVersion.VERSION2, client_id=f"leaf-rt-{uuid.uuid4().hex[:12]}")
        self._start()

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Publish what began and what ended with this frame; never waits."""
        with self._lock:
            if source.is_live:
                self._came(source.name)
            self._publish_events(source.name, self._tracker.update(source.name, frame, estimates))

    def source_gone(self, source: SourceInfo) -> None:
        """Publish the ends of what the source showed, and that it is offline; never waits."""
        with self._lock:
            self._publish_events(source.name, self._tracker.end(source.name))
            live = self._sources.get(source.name)
            if live is not None and live.online:
                live.online = False
                self._publish_availability(live)

    def close(self) -> None:
        """Publish what waits, for a few seconds at most, and report how many events were delivered and dropped."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for event in self._tracker.close():
                self._publish_events(event["source"], [event])
            for source in self._sources.values():
                source.online = False
                self._publish_availability(source)
        deadline = time.monotonic() + _DRAIN_TIMEOUT
        while self._connected and self._count_confirmed() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._connected:  # the last will is for a loss of the connection only
            last = self._client.publish(f"{self._broker.base}/availability", "offline", retain=True)
            with contextlib.suppress(RuntimeError):  # the connection was lost at this moment
                last.wait_for_publish(max(deadline - time.monotonic(), 0.1))
        self._client.disconnect()
        stopping = threading.Thread(target=self._client.loop_stop, daemon=True)  # an attempt to connect may take long
        stopping.start()
        stopping.join(max(deadline - time.monotonic(), 1.0))
        self.delivery.dropped += self._count_confirmed()
        self.delivery.waiting = 0
        self._notify("warning" if self.delivery.dropped else "info", self.name, str(self.delivery))

    def _start(self) -> None:
        client, broker = self._client, self._broker
        client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            client.tls_set()
        client.will_set(f"{broker.base}/availability", "offline", _EVENT_QOS, retain=True)
        client.max_queued_messages_set(CAPACITY)
        client.reconnect_delay_set(1, _MAX_DELAY)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail, client.on_publish = self._on_connect_fail, self._on_publish
        client.connect_async(broker.host, broker.port, _KEEP_ALIVE)
        client.loop_start()

    def _came(self, name: str) -> None:
        """Announce a live source at its first frame, and after every loss."""
        source = self._sources.get(name)
        if source is None:
            source = self._sources[name] = _Source(name, self._level(name))
        if not source.online:
            source.online = True
            self._announce(source)

    def _level(self, name: str) -> str:
        if name not in self._levels:
            wanted, number = topic_level(name), 2
            level = wanted
            while level in self._levels.values():
                level, number = f"{wanted}-{number}", number + 1
            self._levels[name] = level
        return self._levels[name]

    def _announce(self, source: _Source) -> None:
        for topic, payload in discovery(
            self._broker.base, source.name, source.level, self._labels, leaf_rt.__version__
        ).items():
            self._retain(topic, payload)
        self._retain(f"{self._broker.base}/{source.level}/state", source.state())
        self._publish_availability(source)

    def _publish_availability(self, source: _Source) -> None:
        self._retain(f"{self._broker.base}/{source.level}/availability", "online" if source.online else "offline")

    def _publish_events(self, name: str, events: Sequence[dict[str, Any]]) -> None:
        source = self._sources.get(name)
        for event in events:
            number = self._publish_event(f"{self._broker.base}/{self._level(name)}/event", event)
            if number is None:
                self.delivery.dropped += 1
                self._trouble_begins(f"{CAPACITY} events wait; new ones are dropped")
            else:
                self._waiting.add(number)
            if source is not None and event["phase"] == "start":
                source.showing[event["event_id"]] = event
            elif source is not None:
                source.showing.pop(event["event_id"], None)
        if events:
            self._count_confirmed()
        if events and source is not None:
            self._retain(f"{self._broker.base}/{source.level}/state", source.state())

    def _retain(self, topic: str, payload: Any) -> None:
        """Publish something that the broker keeps. Without a connection it is left to ``_on_connect``."""
        if self._connected:
            self._client.publish(topic, payload if isinstance(payload, str) else _json(payload), retain=True)

    def _publish_event(self, topic: str, event: dict[str, Any]) -> int | None:
        """Queue an event; returns its number, or None if the queue is full."""
        from paho.mqtt.enums import MQTTErrorCode

        sent = self._client.publish(topic, _json(event), _EVENT_QOS)
        return None if sent.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE else sent.mid

    def _count_confirmed(self) -> int:
        """Count the confirmed events; returns how many still wait."""
        while self._confirmed:
            number = self._confirmed.popleft()
            if number in self._waiting:
                self._waiting.remove(number)
                self.delivery.delivered += 1
        self.delivery.waiting = len(self._waiting)
        return self.delivery.waiting

    def _trouble_begins(self, text: str) -> None:
        if not (self._trouble or self._closed):
            self._trouble = True
            self._notify("warning", self.name, text)

    # Called by paho-mqtt, in its thread. ``_on_publish`` holds a lock of the client, so it must not wait for ours.

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._trouble_begins(f"the broker refuses the connection ({reason}); trying again")
            return
        with self._lock:
            self._connected = True
            self._retain(f"{self._broker.base}/availability", "online")
            for source in self._sources.values():
                self._announce(source)
            dropped, self._trouble = self.delivery.dropped if self._trouble else 0, False
        lost = f"; {counted(dropped, 'event')} dropped so far" if dropped else ""
        self._notify("info", self.name, f"connected{lost}")

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        was, self._connected = self._connected, False
        if was:
            self._trouble_begins("the connection is lost; leaf-rt tries again, and events wait meanwhile")

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        self._trouble_begins("the broker cannot be reached; leaf-rt tries again, and events wait meanwhile")

    def _on_publish(self, client: Any, userdata: Any, number: int, reason: Any, properties: Any) -> None:
        self._confirmed.append(number)
        if self._lock.acquire(blocking=False):  # else the next confirmation or event counts it
            try:
                self._count_confirmed()
            finally:
                self._lock.release()


def _client_class() -> Any:
    """The client of paho-mqtt, which reads packets of up to 256 MiB, with a bound: leaf-rt subscribes to nothing."""
    from paho.mqtt.client import Client

    class Bounded(Client):
        def _sock_recv(self, bufsize: int) -> bytes:
            if bufsize > _MAX_PACKET:
                raise ConnectionError("the broker sends a packet that is too large")
            return bytes(super()._sock_recv(bufsize))

    return Bounded


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
