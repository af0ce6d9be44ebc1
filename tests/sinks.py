"""Makes sinks of every kind, for tests of all sinks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streams import LABELS

from leaf_rt.sinks.base import Sink
from leaf_rt.sinks.csv import CsvSink
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sinks.parquet import ParquetSink
from leaf_rt.sinks.video import VideoSink
from leaf_rt.types import U8, Estimates


def plain(image: U8, estimates: Estimates, labels: Sequence[str]) -> U8:
    return image


def make(kind: str, path: Path) -> Sink:
    if kind == "video":
        return VideoSink(path, LABELS, plain)
    if kind == "parquet":
        return ParquetSink(path, LABELS)
    return JsonlSink(path, LABELS) if kind == "jsonl" else CsvSink(path, LABELS)
