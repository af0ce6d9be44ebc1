"""The options of the live page, and the command `leaf-rt serve`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from leaf_rt.cli import options as opt

if TYPE_CHECKING:
    from leaf_rt.web.options import WebOptions

DEFAULT_ADDRESS = "127.0.0.1:8000"
_web = partial(typer.Option, rich_help_panel="Live page")

Web: TypeAlias = Annotated[
    str | None,
    _web(
        "--web",
        metavar="HOST:PORT",
        callback=opt.not_empty,
        help="Serve the live page and the HTTP API there, such as 127.0.0.1:8000; port 0 is a free one.",
    ),
]
Address: TypeAlias = Annotated[
    str,
    _web("--web", metavar="HOST:PORT", callback=opt.not_empty, help="Address to serve at; port 0 is a free one."),
]
Token: TypeAlias = Annotated[
    str | None,
    _web(
        "--token",
        metavar="TEXT",
        envvar="LEAF_RT_TOKEN",
        callback=opt.not_empty,
        help="Token that clients must send (default: a new one, if HOST is not this machine only).",
    ),
]
AllowSource: TypeAlias = Annotated[
    list[str] | None,
    _web(
        "--allow-source",
        metavar="PATTERN",
        callback=opt.not_empty,
        help="Let visitors also add this URL or file; * is a wildcard. Repeatable (default: cameras of this machine).",
    ),
]
AllowHost: TypeAlias = Annotated[
    list[str] | None,
    _web("--allow-host", metavar="NAME", callback=opt.not_empty, help="Also answer under this name. Repeatable."),
]
Thumbnails: TypeAlias = Annotated[bool, _web("--thumbnails", help="Let the page show a small picture of each person.")]
Certificate: TypeAlias = Annotated[
    Path | None, _web("--tls-cert", parser=opt.named, metavar="FILE", help="TLS certificate (PEM): serve https.")
]
Key: TypeAlias = Annotated[
    Path | None, _web("--tls-key", parser=opt.named, metavar="FILE", help="Private key (PEM) of that certificate.")
]


@dataclass(frozen=True, slots=True)
class WebGroup:
    """The live page."""

    web: Web = None
    token: Token = None
    allow_source: AllowSource = None
    allow_host: AllowHost = None
    thumbnails: Thumbnails = False
    tls_cert: Certificate = None
    tls_key: Key = None

    def config(self) -> WebOptions | None:
        """Return the configuration; None without a page.

        Raises:
            OutputError: A value cannot be used.
        """
        if self.web is None:
            return None

        from leaf_rt.web.options import WebOptions, parse_address

        host, port = parse_address(self.web)
        return WebOptions(
            host,
            port,
            token=self.token or "",
            allow_sources=tuple(self.allow_source or ()),
            allow_hosts=tuple(self.allow_host or ()),
            thumbnails=self.thumbnails,
            certificate=self.tls_cert,
            key=self.tls_key,
        )


@dataclass(frozen=True, slots=True)
class ServeGroup(WebGroup):
    """The same, always served."""

    web: Address = DEFAULT_ADDRESS
