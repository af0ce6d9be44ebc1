"""What a run gives to programs: records, columns and summaries.

Knows estimates. Does not know files, file formats or threads.
"""

__all__ = ["columns", "records", "summary"]
