"""Specs by name; a spec's module is imported when it is asked for."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, get_args, get_type_hints

from martlet.core import Spec, SpecError

_OWN = {
    "popularity": "martlet.models.popularity:Popularity",
    "item-knn": "martlet.models.item_knn:ItemKNN",
    "ease": "martlet.models.ease:EASE",
    "gfcf": "martlet.models.gfcf:GFCF",
    "ials": "martlet.models.ials:IALS",
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
    return getattr(import_module(module), attribute)  # type: ignore[no-any-return]


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
    """Return ``value`` as the type that a field is annotated with; text is read as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value.lower() if value.lower() in ("true", "false") else value)
        except json.JSONDecodeError:
            value = None if value.lower() == "none" and _allows(wanted, None) else value
    if isinstance(value, int) and not isinstance(value, bool) and not _allows(wanted, value):
        value = float(value)
    if not _allows(wanted, value):
        words = getattr(wanted, "__name__", None) or str(wanted).replace("typing.", "")
        raise SpecError(f"{key} of {name} is {value!r}: expected {words}")
    return value


def _allows(wanted: Any, value: Any) -> bool:
    """Return whether ``value`` fits an annotation of plain types, choices and literals."""
    options = get_args(wanted)
    if not options:
        return wanted is Any or type(value) is wanted
    if all(not isinstance(option, type) for option in options):
        return value in options
    if hasattr(wanted, "__origin__") and not isinstance(None, options):
        return isinstance(value, wanted.__origin__)
    return any(_allows(option, value) for option in options)
