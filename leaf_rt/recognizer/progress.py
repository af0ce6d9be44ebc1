"""A progress bar for a terminal or a notebook."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Update: TypeAlias = Callable[[int, int | None], None]  # frames done, frames in all if known


@contextlib.contextmanager
def progress_bar(name: str, show: bool) -> Iterator[Update]:
    """Show a bar while the block runs; call the function it gives with the number of frames done and their total.

    Args:
        name: What is processed.
        show: False shows nothing.
    """
    console = Console(stderr=True)
    if not show:
        yield lambda done, total: None
    elif console.is_jupyter:
        yield _notebook_bar(name)
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("frames"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _notebook_bar(name: str) -> Update:
    """A bar of HTML: rich needs ipywidgets in a notebook."""
    display: Any = importlib.import_module("IPython.display").display
    handle = display({"text/plain": name}, raw=True, display_id=True)

    def update(done: int, total: int | None) -> None:
        text = f"{name}: {done}{f' of {total}' if total else ''} frames"
        bar = f'<progress value="{done}" max="{max(total, done)}"></progress> ' if total else ""
        handle.update({"text/plain": text, "text/html": f"{bar}{text}"}, raw=True)

    return update
