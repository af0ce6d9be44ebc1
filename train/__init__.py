"""Training: data, the LEAF method and its baselines, evaluation, checkpoints."""
