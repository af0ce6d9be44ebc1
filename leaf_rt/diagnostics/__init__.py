"""Looks at the whole and changes nothing: doctor, bench, metrics.

Knows every runtime room but the command line.
"""

__all__ = ["bench", "doctor", "metrics"]
