"""``python -m engines``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from engines.cli import main  # in here: who presses Ctrl-C while Python still loads gets no traceback

        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
