"""The addresses of alerts: what is accepted, and that no message shows a secret."""

from __future__ import annotations

import pytest
from commands import Leaf

from leaf_rt.alerts.address import broker, web_address
from leaf_rt.alerts.homeassistant import topic_level


@pytest.mark.parametrize(
    ("url", "shown", "sent"),
    [
        (
            "https://hooks.example/services/T0/B0/KEY",
            "https://hooks.example",
            "https://hooks.example/services/T0/B0/KEY",
        ),
        ("http://[::1]:8123/api/webhook/id", "http://[::1]:8123", "http://[::1]:8123/api/webhook/id"),
        ("http://ha", "http://ha", "http://ha/"),
        ("http://ha/ä?q=ü", "http://ha", "http://ha/%C3%A4?q=%C3%BC"),
        ("http://bücher.example/x#part", "http://xn--bcher-kva.example", "http://xn--bcher-kva.example/x"),
    ],
)
def test_web_addresses(url: str, shown: str, sent: str) -> None:
    address = web_address(url)
    assert (address.shown, address.url, address.authorization) == (shown, sent, None)


def test_brokers() -> None:
    plain = broker("mqtt://ha.local")
    assert (plain.host, plain.port, plain.tls, plain.base, plain.user) == ("ha.local", 1883, False, "leaf-rt", None)
    full = broker("mqtts://me:p%40ss@[::1]:9999/home/faces/")
    assert (full.host, full.port, full.tls, full.base) == ("::1", 9999, True, "home/faces")
    assert (full.user, full.password) == ("me", "p@ss")
    assert full.shown == "mqtts://[::1]:9999/home/faces"
    assert "p@ss" not in repr(full)


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("--on-event", "ftp://me:SECRET@host/x"),
        ("--on-event", "host/SECRET"),
        ("--on-event", "http://me:SECRET@/x"),
        ("--on-event", "http://me:SECRET@host:port/x"),
        ("--on-event", "http://me:SEC/RET@host:99999/x"),
        ("--on-event", "http://host/SECRET x"),
        ("--on-event", ""),
        ("--mqtt", "http://me:SECRET@host"),
        ("--mqtt", "mqtt://me:SECRET@host:0x1"),
        ("--mqtt", "mqtt://me:SEC?RET@host"),
        ("--mqtt", "mqtt://me:SECRET@host/faces/#"),
        ("--mqtt", "mqtt://me:SECRET@host/faces/+/x"),
        ("--mqtt", "mqtt://me:SECRET@host/$SYS"),
    ],
)
def test_a_wrong_address_is_one_sentence_without_the_secret(leaf: Leaf, option: str, url: str) -> None:
    done = leaf("video", "x.mp4", option, url)
    assert done.code == 2
    assert option in done.err
    for secret in ("SECRET", "SEC", "RET"):
        assert secret not in done.err


def test_a_level_of_a_topic_has_only_allowed_characters_and_stays_different() -> None:
    assert topic_level("camera 0") == "camera-0"
    assert topic_level("door/+#$1") == "door-1"
    names = ["кухня", "дверь", "///", "café", "cafe"]
    assert len({topic_level(name) for name in names}) == len(names)
    assert all(set(topic_level(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_") for name in names)


@pytest.mark.parametrize("option", [("--event-emotions", "sadness"), ("--event-min-dwell", "2")])
def test_a_filter_needs_something_to_filter(leaf: Leaf, option: tuple[str, str]) -> None:
    done = leaf("video", "x.mp4", *option)
    assert done.code == 2
    assert option[0] in done.err
    assert "needs --events, --on-event or --mqtt" in done.err
