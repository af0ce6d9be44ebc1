"""Who may call the server: token, Host, Origin, and the headers of every answer.

Knows ASGI messages only; must not know routes.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leaf_rt.web.options import WebOptions, host_name, is_loopback

COOKIE = "leaf_rt_token_"  # and the port: cookies belong to a host, on which several servers may run
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
}
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Refusal(Exception):
    """A request that is not served."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Guard:
    """ASGI middleware: checks every request and WebSocket before anything else sees it.

    Args:
        app: What it protects.
        options: How the server is set up.
        token: What clients must know; "" if nothing.
    """

    def __init__(self, app: ASGIApp, options: WebOptions, token: str) -> None:
        self._app, self._token = app, token
        self._local = options.is_local
        self._hosts = {name.lower() for name in options.allow_hosts} | {"localhost"}
        if not self._local:
            self._hosts |= {options.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer[name] = value
                answer.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check_host(headers.get("host", ""))
            self._check_origin(scope, headers)
            if scope["type"] == "http" and await self._log_in(scope, send_with_headers):
                return
            self._check_token(headers, _cookie_name(scope))
        except Refusal as e:
            await refuse(scope, receive, send_with_headers, e)
            return
        await self._app(scope, receive, send_with_headers)

    def _check_host(self, host: str) -> None:
        """Refuse names that others may point at this machine (DNS rebinding)."""
        name = host_name(host)
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            known = name in self._hosts
        else:
            known = is_loopback(name) if self._local else not address.is_unspecified
        if not known:
            raise Refusal(421, "this server does not answer under this name; start it with --allow-host NAME")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse what a page of another origin does. Programs send no Origin."""
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
        scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
        own = f"{scheme}://{headers.get('host', '')}".lower()
        if origin is not None and (changes or origin != "null") and origin.lower() != own:
            raise Refusal(403, "this request comes from a page of another origin")
        navigates = scope["type"] == "http" and scope["path"] == "/" and scope["method"] in _SAFE_METHODS
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not navigates:
            raise Refusal(403, "this request comes from a page of another origin")

    async def _log_in(self, scope: Scope, send: Send) -> bool:
        """Answer ``/?token=...`` with a cookie and a redirect; returns whether it did."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if scope["path"] != "/" or not given:
            return False
        headers = [(b"location", b"/"), (b"content-length", b"0")]
        if self._token:
            if not self._is_token(given[0]):
                raise Refusal(401, "the token is wrong; use the address that leaf-rt printed at its start")
            secure = "; Secure" if scope["scheme"] == "https" else ""
            cookie = f"{_cookie_name(scope)}={self._token}; Path=/; HttpOnly; SameSite=Strict{secure}"
            headers.append((b"set-cookie", cookie.encode()))
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return True

    def _check_token(self, headers: Headers, name: str) -> None:
        if not self._token:
            return
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        cookie = cookie_parser(headers.get("cookie", "")).get(name, "")  # other programs' cookies may be malformed
        right = self._is_token(cookie) | (self._is_token(bearer.strip()) and kind.lower() == "bearer")
        if not right:
            raise Refusal(401, "this server needs its token; use the address that leaf-rt printed at its start")

    def _is_token(self, given: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token.encode())


def _cookie_name(scope: Scope) -> str:
    return f"{COOKIE}{(scope.get('server') or ('', 0))[1]}"


def make_token() -> str:
    """A new random token."""
    return secrets.token_urlsafe(24)


async def refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    """Answer a request, or a WebSocket before it opens, with one sentence."""
    body = json.dumps({"detail": refusal.detail}).encode()
    prefix = "websocket." if scope["type"] == "websocket" else ""
    if prefix:
        await receive()  # the request to connect
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": f"{prefix}http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": body})
