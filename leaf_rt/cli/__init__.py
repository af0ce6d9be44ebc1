"""The command line: options, commands, and what they print.

The top room of the runtime: no other room may import it. Only its commands import `train` and `engines`.
"""

from leaf_rt.cli.entry import main

__all__ = ["main"]
