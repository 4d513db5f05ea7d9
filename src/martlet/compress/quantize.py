"""Values in fewer bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from martlet.compress.calibrate import moments
from martlet.compress.transform import before_index
from martlet.core import Dataset, Progress, SpecError
from martlet.core.checks import settle
from martlet.scorers.bundle import Bundle
from martlet.scorers.storages import storage_of
from martlet.scorers.table import Table

_GROUPED = ("int4", "int2")
_FAMILIES = ("fp16", "bf16", "int8", *_GROUPED, "pq")
_EXPECTED = "expected quantize:fp16, :bf16, :int8, :int4, :int2 or such as :pq:16x8"


@dataclass(frozen=True)
class Quantize:
    """Store the rows of items and users in fewer bits; what ranks is computed from the codes.

    fp16 and bf16 round each value. Codes of 8, 4 and 2 bits share a scale: int8 a row, a column or
    a table, int4 and int2 a group of columns of a row. A value in int8 is off by at most 1/254 of
    the largest magnitude that its scale is for. pq:16x8 is product quantization: 16 codes of 8 bits
    a row, each the number of an entry in a codebook learnt from the rows; pq:32x4+32x8 adds finer
    codes, by which the best by the first are scored again (``scorers/pq.py``). A table whose rows
    are neither items nor users (the Gram matrix of a fold-in, the weights of a network) is small
    and amplifies errors, so it stays as it is; so does one that would take more bytes with its
    scales or codebooks than without.

    Attributes:
        storage: "fp16", "bf16", "int8", "int4", "int2", or product quantization such as "pq:16x8".
        per: what has a scale in int8: "row", "column" or "table".
        group: columns that share a scale in int4 and int2; None takes 32.
        affine: whether the middle of each range is stored too, for values that are not around 0.
        calibrate: whether ranges are clipped, or codebooks learnt, for the least error of scores,
            on queries of the dataset's training part, in place of the least error of values.
        of: "tables", or "network": its products in int8, see ``quantize_network``.
    """

    storage: str = "int8"
    per: Literal["row", "column", "table"] = "row"
    group: int | None = None
    affine: bool = False
    calibrate: bool = False
    of: Literal["tables", "network"] = "tables"

    def __post_init__(self) -> None:
        settle(self)
        family = self.storage.partition(":")[0]
        if family not in _FAMILIES or (":" in self.storage and family != "pq"):
            raise SpecError(f"quantize:{self.storage} is unknown: {_EXPECTED}")
        for name, families in (("per", ("int8",)), ("group", _GROUPED)):
            if getattr(self, name) not in ("row", None) and family not in families:
                raise SpecError(
                    f"quantize:{self.storage},{name}={getattr(self, name)}: {name} goes with "
                    f"{' and '.join(families)}"
                )
        for name in ("affine", "calibrate"):
            fits = family.startswith("int") or (family == "pq" and name == "calibrate")
            if getattr(self, name) and not fits:
                raise SpecError(
                    f"quantize:{self.storage},{name}=yes: {self.storage} has no ranges; "
                    f"{name} goes with int8, int4 and int2"
                )
        if self.of == "network" and self.label != "quantize:int8,of=network":
            raise SpecError(f"{self.label}: a network goes with quantize:int8 and nothing besides")
        try:
            storage_of(self.stored_as)
        except SpecError as error:
            raise SpecError(f"quantize:{self.storage} is unknown: {_EXPECTED} ({error})") from error

    @property
    def stored_as(self) -> str:
        """Name of the storage that dense tables get."""
        per = "" if self.per == "row" else f"-{self.per}"
        group = "" if self.group is None else f":{self.group}"
        return f"{self.storage}{per}{'-affine' if self.affine else ''}{group}"

    @property
    def _of_entries(self) -> str:
        """How the entries of sparse tables are stored."""
        return "fp16" if self.storage in ("fp16", "bf16") else "int8"

    @property
    def label(self) -> str:
        """The text that ``parse`` reads the transform from."""
        own = [] if self.per == "row" else [f"per={self.per}"]
        own += [] if self.group is None else [f"group={self.group}"]
        own += [f"{name}=yes" for name in ("affine", "calibrate") if getattr(self, name)]
        own += ["of=network"] if self.of == "network" else []
        return ",".join([f"quantize:{self.storage}", *own])

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
                fewer bytes, all are sparse and have no such storage, a value does not fit, or
                ranges are to be calibrated without a dataset or a product to calibrate them for.
        """
        scorer = bundle.scorer
        before_index(self.label, scorer)
        if self.of == "network":
            from martlet.compress.quantize_network import quantize_network

            return quantize_network(self.label, bundle)
        tables, names = dict(scorer.tables()), rows_of_things(bundle)
        found = self._moments(bundle, dataset, seed)
        sparse = [name for name in names if tables[name].sparse]
        if sparse == names and sparse and self != Quantize(self._of_entries):
            raise SpecError(
                f"{self.label} over the sparse table {sparse[0]}: the place of an entry takes 32 "
                "bits, so there is little to save on its value; expected quantize:fp16 or :int8"
            )
        changed: dict[str, str] = {}
        for done, name in enumerate(names):
            if progress is not None:
                progress(f"{self.label}: {name}", done, len(names))
            smaller = self._smaller(name, tables[name], found.get(name))
            if smaller is not None:
                tables[name], changed[name] = smaller, smaller.storage
        if not changed:
            said = ", ".join(f"{name} is {tables[name].storage}" for name in names)
            raise SpecError(
                f"{self.label} would store no table of this {scorer.kind} scorer in fewer bytes "
                f"({said or 'it has none of items or users'}): leave it out"
            )
        line: dict[str, Any] = {"transform": self.label, "tables": changed}
        if self.storage.startswith("pq:"):  # a few rows do not pay for codebooks
            line["kept"] = sorted(set(names) - changed.keys())
        if self.calibrate:
            line |= {"seed": seed, "calibrated": sorted(found.keys() & changed.keys())}
        return bundle.then(scorer.with_tables(tables), line)  # type: ignore[arg-type]

    def _moments(self, bundle: Bundle, dataset: Dataset | None, seed: int) -> dict[str, Any]:
        """Return for each table whose rows make scores what vectors they are multiplied by."""
        if not self.calibrate:
            return {}
        if dataset is None:
            raise SpecError(
                f"{self.label} needs a dataset: ranges are fitted to queries of its training part"
            )
        found = moments(bundle, dataset, seed)
        if not found:
            raise SpecError(
                f"{self.label} over a {bundle.scorer.kind} scorer: its scores are no products of "
                "vectors; leave out calibrate"
            )
        return found

    def _smaller(self, name: str, table: Table, moment: Any) -> Table | None:
        """Return the table quantized, or None where it stays as it is."""
        wanted = self._of_entries if table.sparse else self.stored_as
        kind = storage_of(f"csr-{wanted}" if table.sparse else wanted)
        if table.kind.bits <= kind.bits:
            return None
        if self.storage in _GROUPED and table.shape[1] == 1:
            return None  # a scale a value
        pays = getattr(kind, "pays", None)
        if pays is not None and not pays(table):
            return None
        try:
            smaller = table.to(wanted, moment)
        except SpecError as error:
            raise SpecError(f"{self.label} does not fit table {name}: {error}") from error
        return smaller if smaller.nbytes < table.nbytes else None


def rows_of_things(bundle: Bundle) -> list[str]:
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
