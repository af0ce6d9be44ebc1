"""Experiments outside the wheel: the study of docs/results.md and the benchmark of the training step."""
