"""Predictions of a file of any size, written beside its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from martlet.core import DataError, OutputError, Progress, new_file
from martlet.data.formats import stated
from martlet.data.labelled import columns_of
from martlet.data.reading import raw_of
from martlet.data.text import spoilt
from martlet.scorers.registry import tells_numbers

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

_BATCH = 1 << 16
_ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl")


class Predicted(NamedTuple):
    """What was written.

    Attributes:
        num_rows: rows written.
        num_bad: those of them that could not be read, and have no prediction.
        mean: of the predictions; None where there is none.
        missing: columns of the model that no row has.
    """

    num_rows: int
    num_bad: int
    mean: float | None
    missing: list[str]


def predict_file(
    bundle: Bundle,
    rows: Any,
    out: Path,
    *,
    keep: Sequence[str] = (),
    name: str | None = None,
    allow_missing: bool = False,
    format: str | None = None,
    sep: str | None = None,
    progress: Progress | None = None,
) -> Predicted:
    """Write rows with their predictions to ``out``, whole or not at all; one batch is in memory.

    Args:
        bundle: fitted on labelled rows.
        rows: files or a table, as ``prepare_examples`` takes them; a label is not needed.
        out: a .parquet, .csv, .tsv or .jsonl file.
        keep: columns of the rows to write too; none writes all.
        name: of the column of predictions; None is "probability", or "number".
        allow_missing: a column of the model that the rows lack counts as missing in each.
        format: as in ``read``.
        sep: as in ``read``.
        progress: told how far it is.

    Raises:
        DataError: the rows cannot be read, lack a column, or have one called ``name`` already.
        OutputError: the file could not be written, or has another ending.
        QueryError: the bundle ranks items.
    """
    bundle.check_predicts()
    name = name or ("number" if tells_numbers(bundle.scorer) else "probability")
    if out.suffix not in _ENDINGS:
        raise OutputError(f"{out} has no ending that is known: expected {', '.join(_ENDINGS)}")
    raw = raw_of(rows, format=format, sep=sep, named=list(bundle.columns))
    file, names = raw.files[0], raw.names
    missing = [column for column in bundle.columns if column not in names]
    if missing and (not allow_missing or len(missing) == len(bundle.columns)):
        raise DataError(
            f"{file} has no column {missing[0]!r}, which the model was fitted on: it has "
            f"{', '.join(names)}; --allow-missing counts such a column as missing in every row"
        )
    kept = list(keep) or names
    for wanted in kept:
        if wanted not in names:
            raise DataError(f"{file} has no column {wanted!r}: it has {', '.join(names)}")
    if name in kept:
        raise DataError(
            f"{file} has a column {name!r} of its own: give the predictions another --name, or "
            "name the columns to --keep"
        )
    num_rows = num_bad = 0
    total = 0.0
    with new_file(out) as target, ExitStack() as opened:
        write = _writer(target, out.suffix, opened)
        with stated(raw.files):
            empty = raw.parts[0].frame.collect_schema().to_frame()
        write(empty.select(kept).with_columns(pl.Series(name, [], pl.Float32)))
        for batch in _batches(raw):
            bad = np.zeros(len(batch), bool)
            for _, wrong in spoilt(batch) if raw.spoilt else ():
                bad |= wrong.to_numpy()
            told = bundle.predict(columns_of(batch, bundle.columns))
            total += float(told[~bad].sum(dtype=np.float64))
            column = pl.Series(name, told).scatter(np.flatnonzero(bad), None)
            write(batch.select(kept).with_columns(column))
            num_rows, num_bad = num_rows + len(batch), num_bad + int(bad.sum())
            if progress is not None:
                progress("predict", num_rows, num_rows)
    good = num_rows - num_bad
    return Predicted(num_rows, num_bad, total / good if good else None, missing)


def _batches(raw: Any) -> Any:
    with stated(raw.files):
        for part in raw.parts:
            for batch in part.batches(_BATCH):
                if len(batch):
                    yield batch


def _writer(target: Path, ending: str, opened: ExitStack) -> Callable[[pl.DataFrame], None]:
    """Return what appends rows to the file; the first call, with none, fixes the columns."""
    if ending == ".parquet":
        import pyarrow.parquet as pq

        writers: list[Any] = []

        def write_parquet(frame: pl.DataFrame) -> None:
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            if not writers:
                writers.append(opened.enter_context(pq.ParquetWriter(target, table.schema)))
            writers[0].write_table(table.cast(writers[0].schema))

        return write_parquet
    file = opened.enter_context(target.open("wb"))

    def write_text(frame: pl.DataFrame) -> None:
        if ending == ".jsonl":
            frame.write_ndjson(file)
            return
        nested = [n for n, kind in frame.schema.items() if kind.is_nested()]
        if nested:
            raise OutputError(
                f"column {nested[0]!r} holds lists, which {ending} cannot: write .parquet or "
                ".jsonl, or name the columns to --keep"
            )
        frame.write_csv(
            file, include_header=not file.tell(), separator="\t" if ending == ".tsv" else ","
        )

    return write_text
