"""Transforms by name; a transform's module is imported when it is asked for."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any, get_args, get_type_hints

from martlet.core import SpecError

_HOMES = {
    "index": "martlet.compress.index:Index",
    "low-rank": "martlet.compress.low_rank:LowRank",
    "prune": "martlet.compress.prune:Prune",
    "quantize": "martlet.compress.quantize:Quantize",
}


def names() -> list[str]:
    """Return the names of every transform.

    >>> names()
    ['index', 'low-rank', 'prune', 'quantize']
    """
    return list(_HOMES)


def transform_class(name: str) -> type[Any]:
    """Return the class of the transform called ``name``; its docstring tells what it does.

    Raises:
        SpecError: no such transform.
    """
    if name not in _HOMES:
        raise SpecError(f"no transform is called {name!r}: expected one of {', '.join(names())}")
    module, attribute = _HOMES[name].split(":")
    return getattr(import_module(module), attribute)  # type: ignore[no-any-return]


def parse(text: str) -> Any:
    """Return the transform that a text such as ``index:ivf,nprobe=8`` names.

    After the colon stands the first option, then others by name.

    Raises:
        SpecError: an unknown name, option or value.

    >>> parse("quantize:int8,per=column").stored_as
    'int8-column'
    >>> parse("index:ivf,nprobe=8").nprobe
    8
    """
    name, _, rest = text.strip().partition(":")
    cls = transform_class(name)
    first, *others = [field.name for field in fields(cls)]
    hints = get_type_hints(cls)
    given: dict[str, Any] = {}
    for place, part in enumerate(rest.split(",") if rest else []):
        key, equals, value = part.strip().partition("=")
        if not equals:
            key, value = (first, key) if place == 0 else (key, "")
        if key not in (first, *others) or not value or key in given:
            raise SpecError(
                f"{part.strip()!r} in {text!r}: expected {first} and then, each once, "
                f"{' or '.join(f'{other}=...' for other in others) or 'nothing'}"
            )
        given[key] = _read(text, key, value, hints[key])
    return cls(**given)


def _read(text: str, key: str, value: str, hint: Any) -> Any:
    """Return a value as the type of its field asks for; text where that is no number."""
    kinds = {hint, *get_args(hint)}
    try:
        if bool in kinds:
            return {"yes": True, "no": False}[value]
        if kinds & {float, int}:
            return float(value) if float in kinds else int(value)
    except (KeyError, ValueError) as error:
        expected = "yes or no" if bool in kinds else "a number"
        raise SpecError(f"{key} in {text!r} is {value!r}: expected {expected}") from error
    return value
