"""What is learned from a batch: losses, thresholds and the objective of every method.

Knows outputs of a network. It must not know pictures, networks or processes.
"""

__all__ = ["losses", "objective", "thresholds"]
