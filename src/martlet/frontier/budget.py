"""A budget: what the recommender may cost at most, and how good it must be at least."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from martlet.core import SpecError
from martlet.measure.receipt import Receipt

_LIMIT = re.compile(r"\s*([a-z_0-9@]+)\s*(<=|>=)\s*([-+0-9.eE]+)\s*")


@dataclass(frozen=True)
class Limit:
    """One bound on a measured name.

    Attributes:
        name: a cost such as ``p99_ms`` or a quality such as ``ndcg@10``.
        sign: "<=" for at most, ">=" for at least.
        value: the bound, in the unit that ends the name.
    """

    name: str
    sign: Literal["<=", ">="]
    value: float

    def excess(self, receipt: Receipt) -> float:
        """Return by what share of the bound the receipt breaks it; 0 when it keeps it.

        Raises:
            SpecError: the receipt has no such figure.
        """
        figures = figures_of(receipt)
        if self.name not in figures:
            known = ", ".join(sorted(figures))
            raise SpecError(f"the budget limits {self.name!r}, which was not measured: use {known}")
        over = figures[self.name] - self.value
        return max(0.0, over if self.sign == "<=" else -over) / max(abs(self.value), 1e-12)

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.value:g}"


@dataclass(frozen=True)
class Budget:
    """Limits that a receipt keeps or breaks.

    >>> str(Budget.parse("p99_ms<=5, ndcg@10>=0.1"))
    'p99_ms<=5, ndcg@10>=0.1'
    """

    limits: tuple[Limit, ...] = ()

    @staticmethod
    def parse(text: str) -> Budget:
        """Read ``"p99_ms<=5, bundle_mb<=20"``.

        Raises:
            SpecError: a part that is not ``name<=number`` or ``name>=number``.
        """
        limits = []
        for part in filter(str.strip, text.split(",")):
            match = _LIMIT.fullmatch(part)
            try:
                if match is None:
                    raise ValueError
                name, sign, value = match.groups()
                limits.append(Limit(name, "<=" if sign == "<=" else ">=", float(value)))
            except ValueError:
                raise SpecError(
                    f"the budget has {part.strip()!r}: expected name<=number or name>=number, "
                    "such as 'p99_ms<=5, bundle_mb<=20'"
                ) from None
        return Budget(tuple(limits))

    def broken(self, receipt: Receipt) -> list[tuple[Limit, float]]:
        """Return each limit that the receipt breaks, with the figure it has."""
        figures = figures_of(receipt)
        return [(limit, figures[limit.name]) for limit in self.limits if limit.excess(receipt) > 0]

    def nearest(self, receipts: Iterable[Receipt]) -> Receipt:
        """Return the receipt whose largest excess is smallest."""
        return min(receipts, key=lambda r: max((x.excess(r) for x in self.limits), default=0.0))

    def __str__(self) -> str:
        return ", ".join(map(str, self.limits)) or "no limits"


def figures_of(receipt: Receipt) -> dict[str, float]:
    """Return every quality and cost of a receipt by name; what was not measured is left out."""
    figures = {**receipt.quality, **receipt.cost}
    return {name: float(value) for name, value in figures.items() if value is not None}
