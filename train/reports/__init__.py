"""What a run tells afterwards: evaluation, report page, dry run.

Knows runs. It changes none.
"""

__all__ = ["dry_run", "evaluation", "run_report"]
