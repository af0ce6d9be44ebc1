"""Runs sources through the pipeline into sinks: threads, queues, reconnects, load shedding, shutdown.

The only room that starts threads and reads clocks. It must not know the command line.
"""

__all__ = ["control", "options", "runner", "stats"]
