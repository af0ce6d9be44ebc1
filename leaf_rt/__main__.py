"""``python -m leaf_rt`` is ``leaf-rt``."""

import sys

from leaf_rt.cli import main

if __name__ == "__main__":
    sys.exit(main())
