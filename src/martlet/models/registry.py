"""Specs by name; a spec's module is imported when it is asked for."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, get_args, get_type_hints

from martlet.core import Spec, SpecError, spelled

_OWN = {
    "popularity": "martlet.models.popularity:Popularity",
    "item-knn": "martlet.models.item_knn:ItemKNN",
    "ease": "martlet.models.ease:EASE",
    "gfcf": "martlet.models.gfcf:GFCF",
    "ials": "martlet.models.ials:IALS",
    "bpr": "martlet.models.bpr:BPR",
    "matrix-factorization": "martlet.models.matrix_factorization:MatrixFactorization",
    "cascade": "martlet.models.cascade:Cascade",
    "content": "martlet.models.content:Content",
    "ncf": "martlet.models.ncf:NCF",
    "two-tower": "martlet.models.two_tower:TwoTower",
    "watch-time": "martlet.models.watch_time:WatchTime",
    "gru4rec": "martlet.models.gru4rec:GRU4Rec",
    "nextitnet": "martlet.models.nextitnet:NextItNet",
    "sasrec": "martlet.models.sasrec:SASRec",
    "hstu": "martlet.models.hstu:HSTU",
    "wide-deep": "martlet.models.fields:WideDeep",
    "deepfm": "martlet.models.fields:DeepFM",
    "dcnv2": "martlet.models.fields:DCNv2",
    "dlrm": "martlet.models.fields:DLRM",
}


@cache
def _known() -> dict[str, str]:
    """Return "module:Class" by name; other packages add theirs by entry point, never over ours."""
    others = {point.name: point.value for point in entry_points(group="martlet.specs")}
    return others | _OWN


def names() -> list[str]:
    """Return the names of every known spec.

    >>> "popularity" in names()
    True
    """
    return list(_known())


def spec_class(name: str) -> type[Any]:
    """Return the class of the spec called ``name``.

    Raises:
        SpecError: no such spec.
    """
    if name not in _known():
        raise SpecError(f"no model is called {name!r}: expected one of {', '.join(names())}")
    module, attribute = _known()[name].split(":")
    try:
        return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise SpecError(
            f"{name} is trained with torch, which is not installed: pip install 'martlet[deep]'"
        ) from error


def spec(name: str, **params: Any) -> Spec:
    """Return the spec called ``name`` with the given hyper-parameters; text is converted.

    Raises:
        SpecError: an unknown name or parameter, or a value of the wrong type.

    >>> spec("item-knn", neighbours="50")
    ItemKNN(neighbours=50, shrink=10.0, weighting='none', exponent=1.0, weighted=False)
    """
    cls = spec_class(name)
    types = get_type_hints(cls)
    known = [field.name for field in fields(cls) if field.init]
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise SpecError(f"{name} has no parameter {unknown[0]!r}: expected {', '.join(known)}")
    given = {key: _convert(name, key, value, types[key]) for key, value in params.items()}
    return cls(**given)  # type: ignore[no-any-return]


def name_of(one: Spec) -> str:
    """Return the registered name of a spec, or its class's name if it has none."""
    home = f"{type(one).__module__}:{type(one).__qualname__}"
    return next((name for name, place in _known().items() if place == home), type(one).__name__)


def _convert(name: str, key: str, value: Any, wanted: Any) -> Any:
    """Return ``value`` as the type that a field is annotated with; text is read as a literal."""
    options = get_args(wanted) or (wanted,)
    if isinstance(value, str) and value not in options and str not in options:
        words = {"none": None, "true": True, "false": False}
        with suppress(json.JSONDecodeError):
            text = value.lower()
            value = words[text] if text in words else json.loads(value)
    if type(value) is list and tuple in options:
        value = tuple(value)
    if type(value) is int and int not in options and float in options:
        value = float(value)
    if value not in options and type(value) not in options:
        choices = " or ".join(map(spelled, options))
        raise SpecError(f"{key} of {name} is {value!r}: expected {choices}")
    return value
