"""URLs are shown without their credentials."""

import pytest

from leaf_rt.sources.base import network_name, redact


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
        ("http://host/x?token=abc&w=640", "http://host/x?token=***&w=640"),
        ("rtsp://host/cam@1", "rtsp://host/cam@1"),
        ("rtsp://host:554/live", "rtsp://host:554/live"),
        ("me@home.mp4", "me@home.mp4"),
        ("rtsp://user:pass@cam:554/live", "rtsp://cam:554/live"),
        ("rtsp://user:p%40ss@10.0.0.1/a?channel=1&password=hunter2", "rtsp://10.0.0.1/a?channel=1&password=***"),
        ("http://cam/video?user=me&pwd=secret&token=abc&x=1", "http://cam/video?user=***&pwd=***&token=***&x=1"),
        ("rtsp://user:p@ss@cam/1", "rtsp://cam/1"),
        ("rtsp://user:pass@[::1", "rtsp://***"),
        ("C:/films/a@b.mp4", "C:/films/a@b.mp4"),
    ],
)
def test_redact(target: str, shown: str) -> None:
    assert redact(target) == shown


def test_a_network_source_is_named_by_host_and_path() -> None:
    assert network_name("rtsp://u:p@cam:8554/live?pw=x") == "cam:8554/live"
