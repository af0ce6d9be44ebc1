"""Outside the wheel: the study of docs/results.md, the benchmark of the training step, and of the live page."""
