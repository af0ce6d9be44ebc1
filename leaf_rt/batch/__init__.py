"""Archives: thousands of files on all cores, or on a Ray cluster; a start that was cut off goes on exactly.

Knows files, worker processes and the manifest. It must not know the command line.
"""

__all__ = ["archive", "clips", "cluster", "job", "manifest", "processes"]
