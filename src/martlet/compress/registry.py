"""Transforms by name; a transform's module is imported when it is asked for."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any

from martlet.core import SpecError

_HOMES = {
    "index": "martlet.compress.index:Index",
    "quantize": "martlet.compress.quantize:Quantize",
}


def names() -> list[str]:
    """Return the names of every transform.

    >>> names()
    ['index', 'quantize']
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

    >>> parse("quantize:int8")
    Quantize(storage='int8')
    >>> parse("index:ivf,nprobe=8").nprobe
    8
    """
    name, _, rest = text.strip().partition(":")
    cls = transform_class(name)
    first, *others = [field.name for field in fields(cls)]
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
        given[key] = value if key == first else _number(text, key, value)
    return cls(**given)


def _number(text: str, key: str, value: str) -> float:
    try:
        return float(value) if key == "recall" else int(value)
    except ValueError as error:
        raise SpecError(f"{key} in {text!r} is {value!r}: expected a number") from error
