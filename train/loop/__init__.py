"""The training loop: steps, checkpoints, log, processes.

Knows data, networks and methods. It must not know the command line.
"""

__all__ = [
    "batches",
    "checkpoint",
    "distillation",
    "distributed",
    "inference",
    "initialization",
    "merging",
    "optimizer",
    "precision",
    "run_log",
    "schedule",
    "state",
    "sums",
    "training",
]
