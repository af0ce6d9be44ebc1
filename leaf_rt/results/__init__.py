"""What a run gives to programs: records, columns, events and summaries.

Knows estimates. Does not know files, file formats or threads.
"""

__all__ = ["columns", "events", "numbers", "records", "summary"]
