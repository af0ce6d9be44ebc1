"""The state of a run for machines: /metrics for Prometheus, /healthz for health checks, and a small server for both.

Knows the counters of a run and prometheus-client, which is imported when a server starts; must not know pipelines.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from leaf_rt.errors import BackendError, LeafError, OutputError, install_hint
from leaf_rt.stream.stats import RunStats, SourceStats, StageStats
from leaf_rt.system.closing import Closing
from leaf_rt.web.options import host_name, is_loopback

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_COUNTERS = {
    "captured": "Frames received",
    "processed": "Frames processed",
    "dropped": "Frames dropped because a newer one arrived",
    "failed": "Frames on which the pipeline failed",
    "reconnects": "Reconnections",
    "stalls": "Times that no frame arrived for too long",
    "jumps": "Jumps of the clock of the stream",
    "damaged": "Damaged packets and pictures",
}
_GAUGES = {
    "capture_fps": "Frames received per second, over the last seconds",
    "fps": "Frames processed per second, over the last seconds",
    "faces": "People in the newest frame",
    "queued": "Frames waiting for the pipeline",
    "level": "Level of load shedding, 0 for none",
    "demand": "Work needed to process all live frames, as a share of the available time",
    "frozen": "1 while the picture does not change",
}
_IDLE_SECONDS = 10.0  # until a client must have sent something
_CLIENTS = 32  # at the same time
_QUANTILES = ("0.5", 50.0), ("0.95", 95.0)


class Exposition:
    """The metrics of a run in the text format of Prometheus.

    Args:
        stats: Returns the counters.
        option: What needs them, for the error message.

    Raises:
        BackendError: prometheus-client is not installed.

    Attributes:
        media_type: Of the text.
    """

    def __init__(self, stats: Callable[[], RunStats], option: str = "--metrics", extra: str = "metrics") -> None:
        try:
            from prometheus_client import CollectorRegistry, generate_latest
            from prometheus_client.exposition import CONTENT_TYPE_LATEST
        except ImportError as e:
            raise BackendError(f"{option}: needs prometheus-client; {install_hint(extra)}") from e
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(stats))
        self._generate = generate_latest
        self.media_type: str = CONTENT_TYPE_LATEST

    def text(self) -> bytes:
        """All metrics now."""
        return self._generate(self._registry)


class MetricsServer(Closing):
    """Answers GET /metrics and GET /healthz until it is closed; a context manager.

    Args:
        port: TCP port; 0 means a free port, which the attribute ``port`` then names.
        host: Address to listen on; the default accepts connections from this machine only.
        clock: The clock of the run, s, monotonic.

    Raises:
        BackendError: prometheus-client is not installed.
        OutputError: The port is in use.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", clock: Callable[[], float] = time.monotonic) -> None:
        self._stats = RunStats()
        self._clock = clock
        metrics = Exposition(lambda: self._stats)

        class Handler(BaseHTTPRequestHandler):
            timeout = _IDLE_SECONDS

            def do_GET(self) -> None:
                if not own_names(host_name(self.headers.get("Host", ""))):  # a page that points its name at us
                    self._answer(421, "text/plain", b"this server does not answer under this name\n")
                elif self.path.partition("?")[0] == "/metrics":
                    self._answer(200, metrics.media_type, metrics.text())
                elif self.path.partition("?")[0] == "/healthz":
                    healthy, body = health(server._stats, server._clock())
                    self._answer(200 if healthy else 503, "application/json", json.dumps(body).encode())
                else:
                    self._answer(404, "text/plain", b"not found; use /metrics or /healthz\n")

            def _answer(self, code: int, kind: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Do not log requests."""

        def own_names(name: str) -> bool:
            return is_loopback(name) or not is_loopback(host)

        server = self
        try:
            self._server = _QuietServer((host, port), Handler)
        except OSError as e:
            raise OutputError(f"--metrics {port}: cannot listen on {host}:{port} ({e.strerror}); choose another") from e
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def update(self, stats: RunStats) -> None:
        """Serve the state of this run from now on. Can be passed as ``Hooks.progress``."""
        self._stats = stats

    def close(self) -> None:
        """Stop the server. May be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _QuietServer(ThreadingHTTPServer):
    """Says nothing about clients that go away, and serves only so many at the same time."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.BoundedSemaphore(_CLIENTS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client in a thread of its own, if there is a place."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a client."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client went away, or sent what is no HTTP."""


def health(stats: RunStats, now: float, *, may_be_idle: bool = False) -> tuple[bool, dict[str, Any]]:
    """The health of a run.

    Args:
        stats: Its counters.
        now: s on its clock.
        may_be_idle: Whether it is healthy without sources.

    Returns:
        Whether all sources and sinks work, and the details as JSON values.
    """
    sources = [_health(source, now) for source in stats.sources]
    failures = [str(e) if isinstance(e, LeafError) else type(e).__name__ for e in stats.failures]
    off = [sink.name for sink in stats.sinks if sink.off]
    working = all(s["state"] in ("open", "stopped", "ended") for s in sources) and (may_be_idle or bool(sources))
    healthy = working and not failures and not off
    return healthy, {"healthy": healthy, "sources": sources, "sinks_off": off, "failures": failures}


def _health(source: SourceStats, now: float) -> dict[str, Any]:
    return {
        "source": source.info.name,
        "state": source.state,
        "since_s": round(now - source.since, 1),
        "last_frame_s": None if source.last_frame is None else round(now - source.last_frame, 1),
        "frozen": source.frozen,
        "fps": round(source.fps, 1),
    }


class _Collector:
    """Reads the counters of a run for each request."""

    def __init__(self, stats: Callable[[], RunStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """All metrics of the run."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        stats = self._stats()
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"leaf_{name}", text, labels=["source"])
            for source in stats.sources:
                counter.add_metric([source.info.name], getattr(source, name))
            yield counter
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"leaf_{name}", text, labels=["source"])
            for source in stats.sources:
                gauge.add_metric([source.info.name], float(getattr(source, name)))
            yield gauge
        up = GaugeMetricFamily("leaf_up", "1 while a source delivers frames", labels=["source"])
        for source in stats.sources:
            up.add_metric([source.info.name], float(source.state == "open"))
        yield up
        for name in ("written", "dropped", "failed"):
            counter = CounterMetricFamily(f"leaf_sink_{name}", f"Frames {name} by a sink", labels=["sink"])
            for sink in stats.sinks:
                counter.add_metric([sink.name], getattr(sink, name))
            yield counter
        queue = GaugeMetricFamily("leaf_sink_queued", "Frames waiting for a sink", labels=["sink"])
        for sink in stats.sinks:
            queue.add_metric([sink.name], sink.queued)
        yield queue
        alerts = [(sink.name, sink.delivery) for sink in stats.sinks if sink.delivery is not None]
        for name in ("delivered", "dropped"):
            counter = CounterMetricFamily(f"leaf_alert_{name}", f"Events {name} by a network output", labels=["sink"])
            for sink_name, delivery in alerts:
                counter.add_metric([sink_name], getattr(delivery, name))
            yield counter
        waiting = GaugeMetricFamily("leaf_alert_waiting", "Events waiting for a receiver", labels=["sink"])
        for sink_name, delivery in alerts:
            waiting.add_metric([sink_name], delivery.waiting)
        yield waiting
        yield CounterMetricFamily("leaf_inference_errors", "Failed calls of the back end", stats.inference_errors)
        yield CounterMetricFamily("leaf_batches", "Calls of the back end with at least one face", stats.batches)
        latency = SummaryMetricFamily("leaf_latency_seconds", "Time from capture to estimates", labels=["source"])
        percentile = GaugeMetricFamily(
            "leaf_latency_newest_seconds", "Quantiles over the newest frames", labels=["source", "quantile"]
        )
        for source in stats.sources:
            _add(latency, percentile, source.info.name, source.latency)
        stages = SummaryMetricFamily("leaf_stage_seconds", "Time in a stage", labels=["stage"])
        stage_percentile = GaugeMetricFamily(
            "leaf_stage_newest_seconds", "Quantiles over the newest frames", labels=["stage", "quantile"]
        )
        for name, stage in stats.stages.items():
            _add(stages, stage_percentile, name, stage)
        yield from (latency, percentile, stages, stage_percentile)


def _add(summary: Any, percentiles: Any, name: str, values: StageStats) -> None:
    summary.add_metric([name], count_value=values.count, sum_value=values.total)
    for label, q in _QUANTILES:
        percentiles.add_metric([name, label], values.percentile(q))
