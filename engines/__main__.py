"""``python -m engines``: ``export``, and the commands for maintainers of the bundled model."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from leaf_rt.cli import main  # imported here so that Ctrl-C during the import prints no traceback

        sys.exit(main(commands="leaf_rt.cli.maintenance", name="python -m engines"))
    except KeyboardInterrupt:
        sys.exit(130)
