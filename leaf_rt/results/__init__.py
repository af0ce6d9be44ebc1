"""What a run gives to programs: records and summaries.

Knows estimates. It must not know files, formats or threads.
"""

__all__ = ["columns", "records", "summary"]
