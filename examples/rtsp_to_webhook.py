"""Watch a stream and call a web address whenever somebody's expression changes.

python examples/rtsp_to_webhook.py rtsp://camera/1 http://127.0.0.1:8000/hook [SECONDS]
"""

import json
import sys
from urllib.error import URLError
from urllib.request import Request, urlopen

import leaf_rt


def post(address: str, body: dict[str, object]) -> None:
    request = Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        urlopen(request, timeout=5).close()
    except URLError as error:
        print(f"not delivered: {error}", file=sys.stderr)


def main(stream: str, webhook: str, seconds: str | None = None) -> None:
    shown: dict[int, str] = {}
    duration = float(seconds) if seconds is not None else None
    with leaf_rt.Recognizer() as recognizer:
        # The stream is read in the background: a slow web server costs frames, never delay.
        for frame in recognizer.stream(stream, duration=duration):
            for face in frame.faces:
                if not face.low_quality and shown.get(face.track_id) != face.emotion:
                    shown[face.track_id] = face.emotion
                    body = {"source": frame.source, "time": frame.time, "person": face.track_id}
                    post(webhook, {**body, "emotion": face.emotion, "probs": face.smoothed})


if __name__ == "__main__":
    main(*sys.argv[1:])
