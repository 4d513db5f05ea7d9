"""What adds least is left out: values, entries, rows, dimensions, or parts of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from martlet.compress.basis import F64, Basis, columns
from martlet.compress.prune_tables import without_entries, without_rows, without_values
from martlet.compress.queries import training_queries
from martlet.compress.transform import before_index, smaller
from martlet.compress.turned import Cut
from martlet.core import Dataset, Progress, SpecError
from martlet.scorers.bundle import Bundle

What = Literal["values", "entries", "rows", "dims", "units", "heads", "layers"]
By = Literal["magnitude", "frequency", "gradient"]
_NETWORK = ("units", "heads", "layers")
# By what each is told, the default first.
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "values": ("magnitude",),
    "entries": ("magnitude", "frequency"),
    "rows": ("frequency", "magnitude"),
    "dims": ("magnitude",),
    **dict.fromkeys(_NETWORK, ("magnitude", "gradient")),
}


@dataclass(frozen=True)
class Prune:
    """Leave out the share that adds least, so that fewer bytes are read or less is computed.

    - ``values``: the smallest numbers of the vectors become 0, and only the others are stored.
    - ``entries``: the smallest weights of items by items are dropped.
    - ``rows``: the vectors of what is seldom met become one, their mean, which is stored once; a
      user's is dropped, and the history stands in for it.
    - ``dims``: dimensions of the vectors that give least to the scores go; a network keeps its
      width inside.
    - ``units``, ``heads``, ``layers``: of a network, which is trained on after each step.

    Attributes:
        what: one of these.
        share: how much of it goes.
        by: "magnitude"; "frequency" (of the item or user, for rows, and for entries by the item of
            the history); "gradient" (what the loss would change by, for networks). None takes
            frequency for rows where it is known, else magnitude.
        steps: in which a network loses its share; None takes what ``prune_network`` does.
        epochs: of training after the last step; 0 trains nothing, None as for steps.
    """

    what: What
    share: float = 0.5
    by: By | None = None
    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise SpecError(
                f"prune:{self.what} is unknown: expected one of {', '.join(get_args(What))}"
            )
        if not 0 < self.share < 1:
            raise SpecError(f"share is {self.share}: expected a number between 0 and 1")
        if self.by is not None and self.by not in _KNOWN[self.what]:
            raise SpecError(
                f"prune:{self.what} by {self.by}: expected by {' or '.join(_KNOWN[self.what])}"
            )
        for name, least in (("steps", 1), ("epochs", 0)):
            given = getattr(self, name)
            if given is None:
                continue
            if self.what not in _NETWORK:
                raise SpecError(f"prune:{self.what} trains nothing: leave {name} out")
            if given < least:
                raise SpecError(f"{name} is {given}: expected at least {least}")

    @property
    def label(self) -> str:
        """The text that ``parse`` reads the transform from."""
        own = [
            f"{one.name}={getattr(self, one.name)}"
            for one in fields(self)[1:]
            if getattr(self, one.name) != one.default
        ]
        return ",".join([f"prune:{self.what}", *own])

    def of_tables(
        self,
        bundle: Bundle,
        dataset: Dataset | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Bundle:
        """Return a new bundle without what adds least. O(values) but for networks.

        Raises:
            SpecError: the bundle has an index, nothing of the kind, or codes in its place; the
                result would take more bytes; or what ``prune_network`` refuses.
        """
        if self.what in _NETWORK:
            return self._network(bundle, dataset, seed, progress)
        scorer: Any = bundle.scorer
        before_index(self.label, scorer)
        if self.what == "dims":
            cut = Cut(self.label, self._columns, training_queries(bundle, dataset, seed))
            found, told = cut.of(scorer)
        else:
            by = self.by or self._default(scorer)
            found, told = _TABLES[self.what](self.label, bundle, self.share, by)
        after = bundle.then(found, {"transform": self.label, "seed": seed, "tables": told})
        return smaller(self.label, bundle, after, "give a larger share or leave it out")

    def _columns(self, gram: F64, moment: F64 | None) -> Basis:
        return columns(gram, moment, self.share)

    def _default(self, scorer: Any) -> str:
        """Return what tells: how often a field's value is met, no bundle knows."""
        return "magnitude" if scorer.kind == "fields" else _KNOWN[self.what][0]

    def _network(
        self, bundle: Bundle, dataset: Dataset | None, seed: int, progress: Progress | None
    ) -> Bundle:
        from martlet.compress.prune_network import Schedule, prune_network

        for line in bundle.lineage[1:]:
            if str(line.get("transform", "")).startswith(("low-rank", "prune:dims")):
                raise SpecError(
                    f"{self.label} after {line['transform']}: a network is restored at full width; "
                    f"put {self.label} first"
                )
        names = ("share", "by", "steps", "epochs")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        schedule = Schedule(**{name: one for name, one in given.items() if one is not None})
        what: Any = self.what
        return prune_network(
            self.label, bundle, what, schedule, dataset, seed=seed, progress=progress
        )


_TABLES: Mapping[str, Callable[[str, Bundle, float, str], tuple[Any, dict[str, Any]]]] = {
    "values": without_values,
    "entries": without_entries,
    "rows": without_rows,
}
