"""The command line: options, commands and what they print.

Knows every room, and `train` and `engines` inside its commands. No other room may import it.
"""

from leaf_rt.cli.entry import main

__all__ = ["main"]
