"""The PyTorch back end: graph, programs, batches and the back end itself. Every module here imports torch."""
