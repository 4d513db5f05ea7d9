"""Values in fewer bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from martlet.compress.transform import index_of
from martlet.core import Dataset, Progress, SpecError
from martlet.scorers.bundle import Bundle
from martlet.scorers.table import Table

Storage = Literal["fp16", "int8"]
_BITS = {"fp32": 32, "fp16": 16, "int8": 8}


@dataclass(frozen=True)
class Quantize:
    """Store the rows of items and users in fp16 or int8.

    int8 is symmetric with a scale a row: a value is off by at most 1/254 of the largest magnitude
    of its row. A table whose rows are neither items nor users (the Gram matrix of a fold-in, the
    weights of a network) is small and amplifies errors, so it stays as it is; so does one that
    would take more bytes with its scales than without.

    Attributes:
        storage: "fp16" or "int8".
    """

    storage: Storage = "int8"

    def __post_init__(self) -> None:
        if self.storage not in get_args(Storage):
            raise SpecError(f"quantize:{self.storage} is unknown: expected quantize:fp16 or :int8")

    @property
    def label(self) -> str:
        """The text that ``parse`` reads the transform from."""
        return f"quantize:{self.storage}"

    def of_tables(
        self,
        bundle: Bundle,
        dataset: Dataset | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Bundle:
        """Return a new bundle over quantized tables. O(values).

        Raises:
            SpecError: the bundle has an index, its tables are that small already, none would take
                fewer bytes, or a value is beyond fp16.
        """
        scorer = bundle.scorer
        if index_of(scorer) is not None:
            raise SpecError(
                f"{self.label} after {index_of(scorer).kind}: the index knows the old vectors; "
                f"quantize first, then index"
            )
        tables = dict(scorer.tables())
        changed: dict[str, str] = {}
        for name in _rows_of_things(bundle):
            smaller = self._smaller(name, tables[name])
            if smaller is not None:
                tables[name], changed[name] = smaller, smaller.storage
        if not changed:
            found = ", ".join(f"{n} is {tables[n].storage}" for n in _rows_of_things(bundle))
            raise SpecError(
                f"{self.label} would store no table of this {scorer.kind} scorer in fewer bytes "
                f"({found or 'it has none of items or users'}): leave it out"
            )
        line = {"transform": self.label, "tables": changed}
        return bundle.then(scorer.with_tables(tables), line)  # type: ignore[arg-type]

    def _smaller(self, name: str, table: Table) -> Table | None:
        """Return the table quantized, or None where it stays as it is."""
        if _BITS[table.precision] <= _BITS[self.storage]:
            return None
        try:
            smaller = table.to(self.storage)
        except SpecError as error:
            raise SpecError(f"{self.label} does not fit table {name}: {error}") from error
        return smaller if smaller.nbytes < table.nbytes else None


def _rows_of_things(bundle: Bundle) -> list[str]:
    """Return the names of the tables of items or users, a row each; networks' weights aside.

    A scorer of fields names its own: a value of any field has a row there.
    """
    lookups = getattr(bundle.scorer, "lookups", None)
    if lookups is not None:
        return [name for name in lookups if name in bundle.scorer.tables()]
    counts = {len(bundle.items), len(bundle.users)}
    return [
        name
        for name, table in bundle.scorer.tables().items()
        if table.shape[0] in counts and "network" not in name.split(".")
    ]
