"""``python -m benchmarks``, from the root of a clone."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from leaf_rt.cli import main  # imported here so that Ctrl-C during the import prints no traceback

        sys.exit(main(commands="benchmarks.commands", name="python -m benchmarks"))
    except KeyboardInterrupt:
        sys.exit(130)
