"""``python -m train`` is ``leaf-rt train``; torchrun starts it this way."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from leaf_rt.cli import main  # in here: Ctrl-C during the import must print no traceback

        if sys.argv[1:2] not in [[name] for name in ("train", "prepare", "evaluate", "merge")]:
            sys.argv.insert(1, "train")
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
