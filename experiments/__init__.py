"""Outside the wheel: the study of docs/results.md, the benchmarks of the training step, the GPU and the live page."""
