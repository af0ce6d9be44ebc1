"""Experiments on the trainer that are not part of the wheel: the study of docs/results.md and the step benchmark."""
