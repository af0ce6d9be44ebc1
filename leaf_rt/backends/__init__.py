"""Back ends run a model file; see ``leaf_rt.backends.base``."""
