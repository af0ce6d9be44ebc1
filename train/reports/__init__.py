"""Reports on runs: evaluation, report page, dry run.

They read runs and models and change none.
"""

__all__ = ["comparison", "degraded", "dry_run", "evaluation", "honesty", "run_report"]
