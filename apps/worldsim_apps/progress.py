"""How far long work has come: a bar on stderr where somebody watches, nothing where nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Advance = Callable[[float], None]
"""Moves the bar on by that much of its total."""


@contextmanager
def progress(label: str, total: float, *, quiet: bool = False) -> Iterator[Advance]:
    """Show a bar on stderr until the block ends. Nothing is shown when quiet, or when stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)

        def advance(amount: float) -> None:
            bar.advance(task, amount)

        yield advance
