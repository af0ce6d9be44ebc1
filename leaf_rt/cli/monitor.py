"""How other programs watch a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Monitor:
    """How programs watch a run.

    Attributes:
        metrics: TCP port of this machine that answers /metrics and /healthz, 0 for a free one; None for no such thing.
        log_json: Whether stderr carries JSON lines in place of words for people.
    """

    metrics: int | None = None
    log_json: bool = False
