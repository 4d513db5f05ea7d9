"""The receipt: what a bundle is, how good it is, what it costs, and where that was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from martlet.core import DataError

FORMAT = 1


def now() -> str:
    """Return the present time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Receipt:
    """One measurement of one bundle; every field is plain JSON.

    Attributes:
        spec: name and hyper-parameters of what was fitted.
        transforms: what was done to it since, one mapping a transform, in order.
        quality: metric name (``ndcg@10``) to its mean over the users.
        cost: name to value; the name ends in its unit (``_ms``, ``_s``, ``_mb`` = 10^6 bytes,
            ``_qps``); None where it was not measured.
        num_users: users that the quality is a mean of; 0 where no quality was measured, and of
            labelled rows, which ``quality`` counts itself.
        part: the part of the dataset that was asked for, or None.
        k: length of the lists; 0 of labelled rows.
        bundle_id: the bundle's own hash.
        data_hash: hash of the interactions that the quality was measured on, or None.
        seed: the seed of the fit.
        machine: processor, cores, memory, system.
        threads: threads that were used.
        versions: Python and the libraries.
        created: time in UTC, ISO 8601.
    """

    spec: Mapping[str, Any]
    transforms: tuple[Mapping[str, Any], ...]
    quality: Mapping[str, float | None]
    cost: Mapping[str, float | None]
    num_users: int
    part: str | None
    k: int
    bundle_id: str
    data_hash: str | None
    seed: int | None
    machine: Mapping[str, Any]
    threads: Mapping[str, Any]
    versions: Mapping[str, str]
    created: str = field(default_factory=now)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, quality and cost first; a value that JSON cannot say is null."""
        first = {
            "quality": _finite(self.quality),
            "num_users": self.num_users,
            "cost": _finite(self.cost),
        }
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in first}
        return first | rest | {"transforms": list(self.transforms), "format": FORMAT}

    @staticmethod
    def from_json(document: Any) -> Receipt:
        """Return the receipt that ``to_json`` wrote.

        Raises:
            DataError: a field is missing or unknown, of another type, or of another format.
        """
        if not isinstance(document, dict):
            raise DataError(f"a receipt is a JSON object: got {type(document).__name__}")
        if document.get("format") != FORMAT:
            raise DataError(
                f"receipt format {document.get('format')!r}: this version reads {FORMAT}"
            )
        names = {f.name for f in fields(Receipt)}
        given = document.keys() - {"format"}
        if given != names:
            missing, unknown = sorted(names - given), sorted(given - names)
            raise DataError(f"a receipt lacks {missing} and has the unknown fields {unknown}")
        for name in ("spec", "quality", "cost", "machine", "threads", "versions"):
            if not isinstance(document[name], dict):
                raise DataError(f"{name} of a receipt is {document[name]!r}: expected an object")
        for name in ("quality", "cost"):
            for key, value in document[name].items():
                if value is not None and not isinstance(value, int | float):
                    raise DataError(f"{name} {key!r} is {value!r}: expected a number or null")
        values = {name: document[name] for name in names}
        values["transforms"] = tuple(document["transforms"])
        return Receipt(**values)

    @property
    def name(self) -> str:
        """The spec and the transforms after it, such as ``ials + quantize:int8``."""
        steps = [
            self.spec.get("spec", "?"),
            *(line.get("transform", "?") for line in self.transforms),
        ]
        return " + ".join(map(str, steps))

    def __str__(self) -> str:
        whose = f"{self.num_users:,} users of " if self.num_users else ""
        of = f" ({whose}part {self.part})" if self.part else ""
        rows = [f"{self.name}{of}", _told(self.quality), _told(self.cost)]
        return "\n".join(row for row in rows if row)


def _told(values: Mapping[str, float | None]) -> str:
    """Return names and values in a line, an interval behind its own."""
    found = []
    for name, value in values.items():
        low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
        stem = name.removesuffix("_low").removesuffix("_high")
        if value is None or (stem != name and f"{stem}_low" in values):
            continue
        interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
        found.append(f"{name} {value:,}" if type(value) is int else f"{name} {value:.4g}{interval}")
    return "  ".join(found)


def _finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}
