"""Which alerts a command sends, and how they are opened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from leaf_rt.alerts.address import Broker, WebAddress, broker, web_address
from leaf_rt.alerts.outbox import Notify
from leaf_rt.results.events import EventFilter

if TYPE_CHECKING:  # loaded where alerts are sent: HTTP and TLS would delay the first record of all other runs
    from leaf_rt.alerts.mqtt import MqttSink
    from leaf_rt.alerts.webhook import WebhookSink

AlertSink: TypeAlias = "WebhookSink | MqttSink"

__all__ = ["AlertConfig", "AlertSink", "Broker", "Notify", "WebAddress", "broker", "open_alerts", "web_address"]


@dataclass(frozen=True, slots=True)
class AlertConfig:
    """Where events are sent.

    Attributes:
        webhook: Receiver of a POST per event; None for none.
        secret: Key of the signature of each POST; None for no signature.
        mqtt: Broker that events and states are published to; None for none.
    """

    webhook: WebAddress | None = None
    secret: str | None = field(default=None, repr=False)
    mqtt: Broker | None = None


@contextlib.contextmanager
def open_alerts(
    config: AlertConfig, labels: Sequence[str], events: EventFilter, notify: Notify
) -> Iterator[Sequence[AlertSink]]:
    """Open the sinks of alerts and close them at the end. They never raise an error of the network.

    Args:
        config: Which ones.
        labels: Class names in the order of the model.
        events: Which events they send.
        notify: Gets messages about the delivery; called from other threads.

    Raises:
        BackendError: A package is not installed.
        ModelError: The model does not have the class that ``events`` asks for.
    """
    with contextlib.ExitStack() as stack:
        sinks: list[AlertSink] = []
        if config.webhook is not None:
            from leaf_rt.alerts.webhook import WebhookSink

            webhook = WebhookSink(config.webhook, events.tracker(labels), notify, config.secret)
            sinks.append(stack.enter_context(webhook))
        if config.mqtt is not None:
            from leaf_rt.alerts.mqtt import MqttSink

            mqtt = MqttSink(config.mqtt, labels, events.tracker(labels), notify)
            sinks.append(stack.enter_context(mqtt))
        yield sinks
