"""No password in an address reaches what people or files get to see."""

import pytest

from leaf_rt.sources import redact


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
    ],
)
def test_redact(target: str, shown: str) -> None:
    assert redact(target) == shown
