"""Messages as JSON on stderr, one object per line, for programs that collect logs.

Every line has `time` (UTC), `level`, `source`, `event` and `text`; that of a finished source has its `summary` too. No
line contains credentials of an address.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from leaf_rt.credentials import mask_in

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_log = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """Formats a log record as one line of JSON.

    Args:
        typed: What the user typed, so that credentials in it are found.
    """

    def __init__(self, typed: Collection[str] = ()) -> None:
        super().__init__()
        self._typed = typed

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without a newline. It has a `traceback` if the record has one."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "source": getattr(record, "source", ""),
            "event": getattr(record, "event", record.name.rpartition(".")[2]),
            "text": mask_in(record.getMessage(), self._typed, getattr(record, "keep", "")),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = mask_in(self.formatException(record.exc_info), self._typed)
        return json.dumps(line)


@contextlib.contextmanager
def json_log(debug: bool, typed: Collection[str] = ()) -> Iterator[None]:
    """Log the whole runtime to stderr while the block runs.

    Args:
        debug: Whether to log messages for developers too.
        typed: The arguments of the command.
    """
    root = logging.getLogger("leaf_rt")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(typed))
    # The reporter logs the events of a run, with their kind; the stream's own log would repeat them.
    handler.addFilter(lambda record: record.name != "leaf_rt.stream")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def log(
    level: str,
    text: str,
    source: str = "",
    event: str = "note",
    error: BaseException | None = None,
    fields: Mapping[str, Any] | None = None,
    keep: str = "",
) -> None:
    """Log one message.

    Args:
        level: "info", "warning" or "error".
        text: One sentence for people.
        source: Name of the source or sink; empty for the command as a whole.
        event: What happened, in one word for programs.
        error: Adds the traceback of this exception.
        fields: More fields of the line, such as the numbers of a summary.
        keep: A part of the text that looks like credentials and is meant to be shown; see ``mask_in``.
    """
    extra = {"source": source, "event": event, "fields": dict(fields or {}), "keep": keep}
    _log.log(_LEVELS[level], "%s", text, extra=extra, exc_info=error)


def log_error(error: BaseException, debug: bool, sentence: str) -> None:
    """Log the error that ended a command, with its traceback if ``debug`` is set."""
    log("error", sentence, event="error", error=error if debug else None)
