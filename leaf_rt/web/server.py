"""The server: an event loop in a thread of its own beside the run.

Knows the parts of the room and uvicorn; must not know the command line.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from typing import Any

import uvicorn

from leaf_rt.backends.base import Backend
from leaf_rt.errors import OutputError
from leaf_rt.labels import UNCERTAIN, rgb
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.sources.base import SourceOptions
from leaf_rt.stream.control import RunControl
from leaf_rt.system.closing import Closing
from leaf_rt.system.reading import read_regular
from leaf_rt.web.app import build_app
from leaf_rt.web.bounds import bounded_protocol
from leaf_rt.web.hub import Hub
from leaf_rt.web.manager import SourceManager, sample_clip
from leaf_rt.web.metrics import Exposition
from leaf_rt.web.options import WebOptions
from leaf_rt.web.pictures import PictureRecognizer
from leaf_rt.web.security import make_token

NOTICE = (
    "For lawful uses only: the EU AI Act, Article 5(1)(f), forbids emotion recognition at work and in education, "
    "except for medical and safety reasons."
)
_START, _STOP = 15.0, 5.0  # s
_MAX_PEM = 1 << 20  # bytes


class WebServer(Closing):
    """Serves the page and the API until it is closed; a context manager.

    Args:
        options: How to serve.
        recognition: How faces are recognized.
        backend: The back end of the run.
        source_options: How added sources are read.
        blur: Whether to hide all faces in the pictures.
        stored: What the command writes, one phrase each, for the page.
        keep_open: Whether its runs go on without sources.

    Raises:
        OutputError: The address cannot be used.
        BackendError: prometheus-client is not installed.

    Attributes:
        hub: The sink that feeds the page; give it to every run.
        address: The address of the page, with its token.
    """

    def __init__(
        self,
        options: WebOptions,
        recognition: RecognitionConfig,
        backend: Backend,
        source_options: SourceOptions | None = None,
        *,
        blur: bool = False,
        stored: list[str] | None = None,
        keep_open: bool = False,
    ) -> None:
        labels = backend.spec.labels
        self.hub = Hub(labels, blur=blur)
        try:
            self._manager = SourceManager(options, self.hub, source_options, keep_open=keep_open)
        except ValueError as e:
            raise OutputError(f"--allow-source {e}") from e
        self.token = options.token or ("" if options.is_local else make_token())
        self._pictures = PictureRecognizer(recognition, backend, self._manager, options.limits.image_pixels)
        metrics = Exposition(lambda: self._manager.visible_stats, "leaf-rt serve", "web")
        info = _info(options, recognition, backend, blur=blur, stored=stored or [])
        self._socket = _listen(options.host, options.port)
        self._options = options

        def app() -> Any:
            return build_app(options, self.token, self.hub, self._manager, self._pictures, metrics, info)

        config = uvicorn.Config(
            app,
            factory=True,
            http=bounded_protocol(options.limits),
            ws="websockets-sansio",
            ws_max_size=options.limits.camera_bytes,
            ws_per_message_deflate=False,  # JPEG does not shrink
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=1,
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
        )
        for library in ("uvicorn", "python_multipart"):  # the terminal belongs to the command
            logging.getLogger(library).addHandler(logging.NullHandler())
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns at every write to a client that has gone
        try:
            _check_certificate(options)  # uvicorn would fail in its thread
        except OSError as e:
            self._socket.close()
            raise OutputError(
                f"--tls-cert {options.certificate}: cannot be used ({e}); give PEM files, the key without a passphrase"
            ) from e
        self._server = uvicorn.Server(config)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)
        self._thread.start()
        self._wait_until_started()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    @property
    def address(self) -> str:
        """The address of the page, with its token."""
        scheme = "https" if self._options.certificate is not None else "http"
        host = self._options.host
        if host in ("0.0.0.0", "::", ""):
            host = socket.gethostname()
        shown = f"[{host}]" if ":" in host else host
        return f"{scheme}://{shown}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def next_run(self) -> RunControl:
        """What the next run must be given as its control, so that the page can change its sources."""
        return self._manager.next_run()

    def close(self) -> None:
        """Stop the server. May be called twice."""
        self._server.should_exit = True
        self._thread.join(_STOP)
        self._socket.close()
        self._pictures.close()

    def _serve(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        except BaseException as e:  # noqa: BLE001 it comes out in the thread that waits for the start
            self._failure = e

    def _wait_until_started(self) -> None:
        waited = threading.Event()
        for _ in range(int(_START / 0.02)):
            if self._server.started:
                return
            if not self._thread.is_alive():
                break
            waited.wait(0.02)
        self.close()
        raise OutputError(f"--web: the server did not start ({self._failure!r})")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise OutputError(f"--web {host}:{port}: cannot listen there ({reason}); choose another address") from e


def _check_certificate(options: WebOptions) -> None:
    """Load certificate and key once. Raises OSError, also for a key with a passphrase, and for what is no file."""
    if options.certificate is None:
        return
    for path in filter(None, (options.certificate, options.key)):
        read_regular(path, _MAX_PEM)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key, password="")  # without it, OpenSSL asks on the terminal


def _info(
    options: WebOptions, recognition: RecognitionConfig, backend: Backend, *, blur: bool, stored: list[str]
) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("leaf-rt")
    except PackageNotFoundError:
        own = "unknown"
    spec = backend.spec
    return {
        "version": own,
        "labels": list(spec.labels),
        "colors": {label: "#{:02x}{:02x}{:02x}".format(*rgb(label)) for label in (*spec.labels, UNCERTAIN)},
        "model": {
            "name": recognition.model.stem,
            "precision": recognition.precision or spec.precision,
            "training": spec.training,
            "metrics": spec.metrics,
            "licence": spec.licence,
        },
        "detector": f"range {recognition.range}, {recognition.choose_detector().reason}",
        "backend": backend.name,
        "reason": backend.reason,
        "notice": NOTICE,
        "camera": True,
        "add_sources": True,
        "thumbnails": options.thumbnails and not blur,
        "stored": stored,
        "sample": sample_clip() is not None,
        "classify_fps": recognition.pipeline.classify_fps,
    }
