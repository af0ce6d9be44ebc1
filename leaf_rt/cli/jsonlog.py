"""What a run has to say as JSON, one object per line on stderr, for programs that collect logs.

Knows the standard library's logging; every line has `time` (UTC), `level`, `source`, `event` and `text`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_log = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """A log record as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, without its end; `traceback` is there where the record has one."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "source": getattr(record, "source", ""),
            "event": getattr(record, "event", record.name.rpartition(".")[2]),
            "text": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextlib.contextmanager
def json_log(debug: bool) -> Iterator[None]:
    """Log the whole runtime to stderr, as it is now, until the block ends.

    Args:
        debug: Whether to log what is of use to developers alone too.
    """
    root = logging.getLogger("leaf_rt")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(lambda record: record.name != "leaf_rt.stream")  # its events come through `say`, with their kind
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def say(level: str, text: str, source: str = "", event: str = "note", error: BaseException | None = None) -> None:
    """Log one thing.

    Args:
        level: "info", "warning" or "error".
        text: A sentence for people.
        source: Name of the source or sink; empty for the run as a whole.
        event: A word for programs.
        error: What the traceback shows, if one is wanted.
    """
    _log.log(_LEVELS[level], "%s", text, extra={"source": source, "event": event}, exc_info=error)


def failure(error: BaseException, debug: bool, sentence: str) -> None:
    """Log what ended a command, with its traceback where that helps (``debug``)."""
    say("error", sentence, event="error", error=error if debug else None)
