"""The live page and the HTTP API: one more sink and one more kind of source of a run.

Knows runs and what they give. It must not know the command line. FastAPI and uvicorn come with the extra `web`.
"""

__all__ = ["metrics", "options", "server"]
