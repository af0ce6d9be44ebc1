"""The PyTorch back end: graph, programs, batches and the back end. Every module but ``archive`` imports torch."""
