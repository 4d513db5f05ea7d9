"""Retrieve, then rank: two models of the registry in a row, or two bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from martlet.core import Dataset, SpecError, check_counts, settle
from martlet.models.registry import spec, spec_class
from martlet.scorers.cascade import Cascade as Pair

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle
    from martlet.train.run import Run


@dataclass(frozen=True)
class Cascade:
    """Candidates by one model, their order by another; both are fitted on the same train part.

    **Source**: Covington, Adams and Sargin, "Deep Neural Networks for YouTube Recommendations"
    (2016), figure 2.
    **Differs**: any two models of the registry.

    Attributes:
        retrieve: the model that searches the catalogue: a name, or a name with hyper-parameters,
            such as ``ials:dim=64,reg=0.01``.
        rank: the model that orders what was found.
        depth: candidates a query.
    """

    retrieve: str = "ials"
    rank: str = "ease"
    depth: int = 200
    accepts: ClassVar[tuple[str, ...]] = ("run",)

    def __post_init__(self) -> None:
        settle(self)
        check_counts(self, "depth")

    @property
    def parts(self) -> dict[str, Any]:
        """The specs of ``retrieve`` and ``rank``.

        Raises:
            SpecError: an unknown model or hyper-parameter.
        """
        return {name: _parsed(getattr(self, name)) for name in ("retrieve", "rank")}

    def fit(self, dataset: Dataset, *, seed: int = 0, run: Run | None = None) -> Pair:
        """Return both fitted models in a row; each of a ``run`` has a folder of its own in it.

        Raises:
            SpecError: an unknown model or hyper-parameter.
        """
        fitted = []
        for name, one in self.parts.items():
            given: dict[str, Any] = {}
            if run is not None and "run" in getattr(one, "accepts", ()):
                folder = None if run.folder is None else Path(run.folder) / name
                given["run"] = replace(run, folder=folder)
            fitted.append(one.fit(dataset, seed=seed, **given))
        return Pair(fitted[0], fitted[1], self.depth)

    def flops(self, dataset: Dataset) -> int:
        """Operations of both fits."""
        return sum(int(one.flops(dataset)) for one in self.parts.values())

    def bytes(self, num_items: int) -> int:
        """Bytes of both models' tables."""
        return sum(int(one.bytes(num_items)) for one in self.parts.values())


def cascade(retrieve: Bundle, rank: Bundle, *, depth: int = 200) -> Bundle:
    """Return the bundle that lets one bundle find ``depth`` candidates and another order them.

    Nothing is fitted. Both lineages are kept in the first line of the new one.

    Raises:
        SpecError: the bundles have other users, items or histories, or ``depth`` is below 1.
    """
    for name, of in (("users", "user"), ("items", "item")):
        mine, other = getattr(retrieve, name), getattr(rank, name)
        if mine.hash != other.hash:
            raise SpecError(
                f"the two bundles number {len(mine):,} and {len(other):,} {name} differently: "
                f"expected one {of} vocabulary; fit both on one dataset"
            )
    if not _same_events(retrieve, rank):
        raise SpecError(
            "the two bundles know other histories: expected two fits on the same train part"
        )
    pair = Pair(retrieve.scorer, rank.scorer, depth)
    both = {"retrieve": retrieve, "rank": rank}
    first = {name: bundle.lineage[0] if bundle.lineage else {} for name, bundle in both.items()}
    trained = [hash for line in first.values() for hash in line.get("trained_on", ())]
    line = {
        "spec": "cascade",
        "params": {name: _text(line) for name, line in first.items()} | {"depth": depth},
        "trained_on": list(dict.fromkeys(trained)),
        "users": retrieve.users.hash,
        "items": retrieve.items.hash,
        "bundles": {
            name: {"id": bundle.id, "lineage": list(bundle.lineage)}
            for name, bundle in both.items()
        },
    }
    return replace(
        retrieve,
        scorer=pair,
        catalogue={**rank.catalogue, **retrieve.catalogue},
        user_table={**rank.user_table, **retrieve.user_table},
        lineage=(line,),
    )


def _same_events(one: Bundle, other: Bundle) -> bool:
    mine, theirs = one.histories, other.histories
    return np.array_equal(mine.indptr, theirs.indptr) and np.array_equal(
        mine.indices, theirs.indices
    )


def _parsed(text: str) -> Any:
    """Return the spec that ``name`` or ``name:key=value,key=value`` stands for."""
    name, _, rest = text.partition(":")
    given: dict[str, str] = {}
    for part in rest.split(",") if rest else []:
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not key or key in given:
            raise SpecError(
                f"{part.strip()!r} in {text!r}: expected a model's name, a colon and key=value, "
                "each key once"
            )
        given[key] = value
    return spec(name.strip(), **given)


def _text(line: Mapping[str, Any]) -> str:
    """Return what ``_parsed`` reads the spec from that a lineage tells of; "" where it has none."""
    name, params = str(line.get("spec", "")), line.get("params", {})
    try:
        usual = {field.name: field.default for field in fields(spec_class(name))}
    except SpecError:
        return name
    own = [f"{key}={value}" for key, value in params.items() if value != usual.get(key)]
    return f"{name}:{','.join(own)}" if own else name
