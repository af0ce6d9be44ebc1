"""Runs sources through the pipeline into sinks: threads, queues, reconnects, load shedding, shutdown.

The only room that owns threads and reads clocks. It must not know the command line.
"""

__all__ = [
    "capture",
    "load_shedding",
    "options",
    "reconnect",
    "runner",
    "sink_worker",
    "source_worker",
    "stats",
]
