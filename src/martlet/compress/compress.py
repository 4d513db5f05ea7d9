"""One bundle in, a smaller or faster one out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from martlet.compress.registry import parse
from martlet.compress.transform import IndexTransform, TableTransform, Transform
from martlet.core import Dataset, Progress, SpecError
from martlet.scorers.bundle import Bundle


def compress(
    bundle: Bundle,
    transforms: Sequence[Transform | str],
    dataset: Dataset | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bundle:
    """Return the bundle after each transform in turn; the given one stays as it is.

    Transforms of tables come first, then at most one index.

    Args:
        bundle: what to compress.
        transforms: such as ``[Quantize("int8"), Index("ivf")]``, or as text: ``"quantize:int8"``.
        dataset: whose training users a transform is tuned on; an index without one, on those of
            the bundle.
        seed: of whatever a transform draws.
        progress: told of each step.

    Raises:
        SpecError: a transform is unknown, does not apply, or stands in the wrong order.
    """
    steps = [parse(step) if isinstance(step, str) else step for step in transforms]
    tables, indexes = _in_order(steps)
    for done, table in enumerate(tables):
        if progress is not None:
            progress(table.label, done, len(steps))
        bundle = table.of_tables(bundle, dataset, seed, progress)
    for index in indexes:
        bundle = index.of_index(bundle, dataset, seed, progress).bundle
    if progress is not None:
        progress("compress", len(steps), len(steps))
    return bundle


def _in_order(steps: Sequence[Any]) -> tuple[list[TableTransform], list[IndexTransform]]:
    """Return the transforms of tables and the index, if there is one."""
    tables: list[TableTransform] = []
    indexes: list[IndexTransform] = []
    for step in steps:
        if hasattr(step, "of_index"):
            indexes.append(step)
        elif hasattr(step, "of_tables"):
            if indexes:
                raise SpecError(
                    f"{step.label} after {indexes[0].label}: the index would know the old "
                    f"vectors; put {step.label} first"
                )
            tables.append(step)
        else:
            raise SpecError(
                f"{step!r} is no transform: expected such as quantize:int8 or index:ivf"
            )
    if len(indexes) > 1:
        raise SpecError(f"{indexes[1].label} after {indexes[0].label}: one index is enough")
    return tables, indexes
