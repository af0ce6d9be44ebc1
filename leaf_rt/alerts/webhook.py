"""Posts every event to a URL as JSON. Knows HTTP; does not know queues or threads."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import IO, Any

import leaf_rt
from leaf_rt.alerts.address import WebAddress
from leaf_rt.alerts.outbox import Notify, NotNow, Outbox
from leaf_rt.results.events import EventTracker
from leaf_rt.system.closing import Closing
from leaf_rt.types import Estimates, Frame, SourceInfo

_TIMEOUT = 5.0  # s for each step of a request: to connect, to send, to get the answer
_WHOLE_TIMEOUT = 15.0  # s from the connection to the answer, however slowly or endlessly the receiver sends
_MAX_REASON = 120  # characters of what a receiver says
_DRAIN_TIMEOUT = 5.0  # s for what waits at the end
_MAX_RETRY_AFTER = 300.0  # s; a receiver cannot ask for a longer pause
_TRY_LATER = (408, 425, 429)  # time-out, too early, too many requests; all codes from 500 on, too


class WebhookSink(Closing):
    """Posts events; see ``Sink`` and docs/alerts.md.

    Args:
        address: Where to post.
        tracker: Finds the events.
        notify: Gets messages about the delivery, from another thread.
        secret: Key of the signature; None for no signature.

    Attributes:
        delivery: The counters.
    """

    wants_image = False

    def __init__(self, address: WebAddress, tracker: EventTracker, notify: Notify, secret: str | None = None) -> None:
        self.name = f"webhook {address.shown}"
        self._address, self._tracker, self._notify = address, tracker, notify
        self._secret = None if secret is None else secret.encode()
        self._opener = urllib.request.build_opener(_NoRedirect, _Http, _Https)
        self._outbox: Outbox[dict[str, Any]] = Outbox(self.name, self._post, notify)
        self.delivery = self._outbox.stats
        self._closed = False

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Queue what began and what ended with this frame; never waits."""
        for event in self._tracker.update(source.name, frame, estimates):
            self._outbox.put(event)

    def source_gone(self, source: SourceInfo) -> None:
        """Queue the ends of what the source showed; never waits."""
        for event in self._tracker.end(source.name):
            self._outbox.put(event)

    def close(self) -> None:
        """Post what waits, for a few seconds at most, and report how many events were delivered and dropped."""
        if self._closed:
            return
        self._closed = True
        for event in self._tracker.close():
            self._outbox.put(event)
        self._outbox.close(_DRAIN_TIMEOUT)
        self._notify("warning" if self.delivery.dropped else "info", self.name, str(self.delivery))

    def _post(self, event: Mapping[str, Any]) -> None:
        body = json.dumps(event, ensure_ascii=False).encode()
        request = urllib.request.Request(self._address.url, body, self._headers(event, body), method="POST")
        try:
            with self._opener.open(request, timeout=_TIMEOUT):
                return
        except urllib.error.HTTPError as e:
            with e:
                answer = f"the receiver answered {e.code} {str(e.reason)[:_MAX_REASON]}".rstrip()
                if e.code in _TRY_LATER or e.code >= 500:
                    raise NotNow(answer, _retry_after(e.headers.get("Retry-After"))) from e
            if 300 <= e.code < 400:
                answer += " with another address; give that address"
            raise _Refused(answer) from e
        except urllib.error.URLError as e:
            raise NotNow(_reason(e.reason)) from e
        except (OSError, http.client.HTTPException) as e:
            raise NotNow(_reason(e)) from e

    def _headers(self, event: Mapping[str, Any], body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"leaf-rt/{leaf_rt.__version__}",
            "Idempotency-Key": f"{event['event_id']}-{event['phase']}",
        }
        if self._address.authorization is not None:
            headers["Authorization"] = self._address.authorization
        if self._secret is not None:
            headers["X-Leaf-Signature"] = f"sha256={hmac.new(self._secret, body, hashlib.sha256).hexdigest()}"
        return headers


class _Refused(Exception):
    """The receiver does not take this event, and would not take it later."""


class _Connection(http.client.HTTPConnection):
    """A connection that is cut after a while. A timeout of the socket counts from byte to byte only."""

    _end: threading.Timer | None = None
    _line: socket.socket | None = None

    def connect(self) -> None:
        """Connect, and start the clock."""
        super().connect()
        self._line = line = self.sock.dup()  # TLS will take the socket itself away
        self._end = threading.Timer(_WHOLE_TIMEOUT, _cut, [line])
        self._end.daemon = True
        self._end.start()

    def getresponse(self) -> http.client.HTTPResponse:
        """The head of the answer; nobody reads more."""
        try:
            return super().getresponse()
        finally:
            self._stop_clock()

    def close(self) -> None:
        """Close it; also called after an error."""
        self._stop_clock()
        super().close()

    def _stop_clock(self) -> None:
        if self._end is not None and self._line is not None:
            self._end.cancel()
            self._line.close()


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    """The same with TLS, whose connection begins with that of ``_Connection``."""


def _cut(line: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        line.shutdown(socket.SHUT_RDWR)


class _Http(urllib.request.HTTPHandler):
    """Opens http:// with ``_Connection``."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send a request."""
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    """Opens https:// with ``_SecureConnection``."""

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send a request."""
        return self.do_open(_SecureConnection, req, context=ssl.create_default_context())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would turn the POST into a GET, and might send the event to somebody else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Answer that there is no other request, so that the code becomes an error."""


def _reason(error: object) -> str:
    """Why a receiver cannot be reached, in a few words. Errors of the network name no URL."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT:g} s"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()[:_MAX_REASON]


def _retry_after(value: str | None) -> float | None:
    """The pause, s, that a receiver asks for in seconds or by a date."""
    if value is None:
        return None
    try:
        date = None if value.strip().isdigit() else email.utils.parsedate_to_datetime(value).timestamp()
    except ValueError:
        return None
    seconds = float(value) if date is None else date - time.time()
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)
