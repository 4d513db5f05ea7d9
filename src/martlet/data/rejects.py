"""Every row put aside goes to a file with its reason, as it is met: nothing vanishes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from martlet.core import OutputError, new_file


class Rejects:
    """Takes rows put aside; keeps none of them."""

    def __init__(self, path: Any = None, names: Sequence[str] = (), writer: Any = None) -> None:
        self._path, self._names, self._writer = path, names, writer

    @property
    def wanted(self) -> bool:
        """Whether there is a file that they go to."""
        return self._writer is not None

    def add(self, rows: pl.DataFrame) -> None:
        """Write rows, their values as text; a column that they lack is null.

        Raises:
            OutputError: the disk refused.
        """
        if self._writer is not None:
            given = {name: pl.col(name) for name in rows.columns}
            columns = [given.get(name, pl.lit(None).alias(name)) for name in self._names]
            table = rows.select(columns).cast(pl.String)
            try:
                self._writer.write_table(table.to_arrow(compat_level=pl.CompatLevel.oldest()))
            except OSError as error:  # told as what it is: a log is being read around it
                raise OutputError(
                    f"could not write {self._path}: {error.strerror or error}; nothing was left "
                    "there. Free some space or choose another file for the rejects"
                ) from error


@contextmanager
def rejects_to(path: str | Path | None, columns: Sequence[str]) -> Iterator[Rejects]:
    """Yield what writes rows with the given columns, ``row`` and ``reason`` as Parquet.

    Raises:
        OutputError: the file could not be written; nothing of it is left.
    """
    if path is None:
        yield Rejects()
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(["row", "reason", *columns, "weight", "time"]))
    schema = pa.schema([(name, pa.large_string()) for name in names])
    with new_file(path) as target, pq.ParquetWriter(target, schema) as writer:
        yield Rejects(path, names, writer)
