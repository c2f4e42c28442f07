"""How far long work has come: a bar on stderr where somebody watches, nothing where nobody does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Bar:
    """One piece of work on its way; see progress."""

    def __init__(self, shown: Progress, label: str, total: float) -> None:
        self._shown = shown
        self._label = label
        self._task = shown.add_task(label, total=total)

    def advance(self, amount: float) -> None:
        """Move on by that much of the total."""
        self._shown.advance(self._task, amount)

    def reach(self, done: float, note: str) -> None:
        """Move to that much of the total, with a note beside the label."""
        self._shown.update(self._task, completed=done, description=f"{self._label}, {note}")


@contextmanager
def progress(label: str, total: float, *, quiet: bool = False) -> Iterator[Bar]:
    """Show a bar on stderr until the block ends. Nothing is shown when quiet, or when stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as shown:
        yield Bar(shown, label, total)
