"""``python -m train``; also what torchrun starts."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from train.cli import main  # in here: who presses Ctrl-C while Python still loads gets no traceback

        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
