"""What Home Assistant must know to show a source: the messages of its MQTT discovery.

One retained message per entity, because every version of Home Assistant reads this form:
https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery. Knows topics and JSON; does not know MQTT connections.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any

from leaf_rt.labels import UNCERTAIN

NONE = "none"  # state of the sensor while no expression is shown
_PREFIX = "homeassistant"  # where Home Assistant looks, unless its user changes it


def discovery(base: str, source: str, level: str, labels: Sequence[str], version: str) -> dict[str, dict[str, Any]]:
    """Build the discovery messages of one source.

    Args:
        base: First levels of all topics.
        source: Name of the source.
        level: Level of its topics; see ``topic_level``.
        labels: Class names in the order of the model.
        version: Version of leaf-rt.

    Returns:
        The payload of every topic.
    """
    device_id = f"{topic_level(base)}_{level}"
    topic = f"{base}/{level}"
    common: dict[str, Any] = {
        "availability": [{"topic": f"{base}/availability"}, {"topic": f"{topic}/availability"}],
        "availability_mode": "all",
        "device": {
            "identifiers": [device_id],
            "name": source,
            "manufacturer": "leaf-rt",
            "model": "Facial expressions",
            "sw_version": version,
        },
        "origin": {"name": "leaf-rt", "sw_version": version},
        "qos": 1,
    }
    expression = {
        "name": "Expression",
        "icon": "mdi:emoticon-outline",
        "state_topic": f"{topic}/state",
        "value_template": "{{ value_json.emotion }}",
        "device_class": "enum",
        "options": [*labels, UNCERTAIN, NONE],
        "json_attributes_topic": f"{topic}/state",
    }
    people = {
        "name": "People",
        "icon": "mdi:account-multiple",
        "state_topic": f"{topic}/state",
        "value_template": "{{ value_json.people }}",
        "state_class": "measurement",
    }
    event = {
        "name": "Expression event",
        "icon": "mdi:emoticon-outline",
        "state_topic": f"{topic}/event",
        "event_types": ["start", "end"],
        "value_template": "{{ dict(value_json, event_type=value_json.phase) | tojson }}",
    }
    entities: dict[str, tuple[str, dict[str, Any]]] = {
        "expression": ("sensor", expression),
        "people": ("sensor", people),
        "event": ("event", event),
    }
    return {
        f"{_PREFIX}/{component}/{device_id}_{key}/config": {**payload, "unique_id": f"{device_id}_{key}", **common}
        for key, (component, payload) in entities.items()
    }


def topic_level(name: str) -> str:
    """A name as one level of a topic, of the characters that Home Assistant allows: letters, digits, "_" and "-".

    Example:
        >>> topic_level("cam.local/door 1")
        'cam-local-door-1'
    """
    level = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    if name.isascii() and level:
        return level
    return f"{level or 'source'}-{zlib.crc32(name.encode()):08x}"  # other alphabets: names must stay different
