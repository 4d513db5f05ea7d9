"""Specs and fitted columns as plain JSON, and back with every part checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from martlet.core import Array, BundleError, SpecError
from martlet.features.bag import Bag, FittedMany, Sequence, Words
from martlet.features.bucket import Bucket, FittedBucket
from martlet.features.category import Category, FittedCategory, FittedHashed, Hashed
from martlet.features.cross import Cross, FittedCross
from martlet.features.fitted import Fitted, Spec
from martlet.features.numeric import FittedNumeric, Numeric
from martlet.features.vector import FittedVector, Vector

KINDS: Mapping[str, tuple[type[Spec], type[Fitted]]] = {
    "numeric": (Numeric, FittedNumeric),
    "category": (Category, FittedCategory),
    "hashed": (Hashed, FittedHashed),
    "bucket": (Bucket, FittedBucket),
    "cross": (Cross, FittedCross),
    "bag": (Bag, FittedMany),
    "sequence": (Sequence, FittedMany),
    "words": (Words, FittedMany),
    "vector": (Vector, FittedVector),
}
_KIND = {spec: kind for kind, (spec, _) in KINDS.items()}


def spec_to_plain(spec: Any) -> dict[str, Any]:
    """Return a spec as plain JSON."""
    told: dict[str, Any] = {"kind": _KIND[type(spec)]}
    for item in fields(spec):
        value = getattr(spec, item.name)
        if isinstance(value, tuple):
            value = [spec_to_plain(one) if isinstance(one, Spec) else one for one in value]
        told[item.name] = value
    return told


def spec_of_plain(told: Any) -> Spec:
    """Return the spec that ``spec_to_plain`` told of.

    Raises:
        SpecError: it tells of none.
    """
    kind = told.get("kind") if isinstance(told, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise SpecError(f"{kind!r} is no kind of column: expected one of {', '.join(KINDS)}")
    values = {name: value for name, value in told.items() if name != "kind"}
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(
                spec_of_plain(one) if isinstance(one, Mapping) else one for one in value
            )
    try:
        return KINDS[kind][0](**values)
    except TypeError as error:
        raise SpecError(f"a column of kind {kind!r}: {error}") from error


def to_plain(column: Fitted) -> dict[str, Any]:
    """Return a fitted column, but for its arrays, as plain JSON."""
    return {"spec": spec_to_plain(column.spec), "state": dict(column.state)}


def of_plain(told: Any, stored: Mapping[str, Array]) -> Fitted:
    """Return the fitted column that ``to_plain`` told of.

    Raises:
        BundleError: a part that no fitted column has.
    """
    if not isinstance(told, Mapping) or not isinstance(told.get("state"), Mapping):
        raise BundleError("the features are damaged: a column without a spec or a state")
    try:
        spec = spec_of_plain(told.get("spec"))
    except SpecError as error:
        raise BundleError(f"the features are damaged: {error}") from error
    return KINDS[told["spec"]["kind"]][1](spec, told["state"], stored)
