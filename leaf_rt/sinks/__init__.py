"""Where results go: records and videos; see ``leaf_rt.sinks.base``."""
