"""How the verbs speak: people get tables, machines one JSON document, progress goes to stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from martlet.core import Progress


def print_json(document: Any) -> None:
    """Write one JSON document to standard output; what JSON cannot say (NaN) becomes null."""
    print(json.dumps(_plain(document), ensure_ascii=False, allow_nan=False), flush=True)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table for people below its title, every cell as it is; numbers stand on the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold")
    for i, name in enumerate(header):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*map(number, row))
    print(title)
    width = None if sys.stdout.isatty() else 120
    # Titles and names hold [...] and :...: of their own, which are neither styles nor pictures.
    Console(markup=False, emoji=False, highlight=False, width=width).print(table)


def number(value: Any) -> str:
    """Return a value as people read it: four significant digits, thousands apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Yield a ``Progress`` that draws bars with the step and the time left on standard error.

    A step ``explore: fit ease`` moves the bar ``explore``, and tells what is under way.
    """
    if quiet:
        yield lambda step, done, total: None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=24),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    display = bars.Progress(*columns, console=Console(stderr=True))
    tasks: dict[str, bars.TaskID] = {}

    def note(step: str, done: int, total: int) -> None:
        display.start()  # with the first step: a failure before it is told alone
        bar = step.partition(": ")[0]
        if bar not in tasks:
            tasks[bar] = display.add_task(step, total=total)
        display.update(tasks[bar], description=step, completed=done, total=total)

    try:
        yield note
        for task in display.tasks:
            display.update(task.id, completed=task.total)
    finally:
        if tasks:
            display.stop()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
