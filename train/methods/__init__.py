"""Losses, thresholds, ramps and the training objective of every method.

Knows outputs of a network. It must not know images, networks or processes.
"""

__all__ = ["losses", "objective", "ramps", "thresholds"]
