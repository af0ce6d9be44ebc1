"""Observes leaf-rt: checks of the machine, end-to-end benchmark.

Knows every room of the runtime except the command line.
"""

__all__ = ["bench", "doctor"]
