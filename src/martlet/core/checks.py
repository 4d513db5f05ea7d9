"""What the hyper-parameters of many specs must be."""

from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from martlet.core.errors import SpecError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def settle(spec: Any) -> None:
    """Refuse attributes of another type than a dataclass states, and make numbers Python's own.

    A whole number may stand for any, a list for a tuple, and nothing else for another. NumPy's
    numbers could not be written into a lineage.

    Raises:
        SpecError: the first that does not fit, by its name and value.
    """
    for name, options in _options_of(spec.__class__).items():
        value = getattr(spec, name)
        found = [one for option in options for one in _as(value, option)]
        if not found:
            choices = " or ".join(map(spelled, options))
            raise SpecError(f"{name} is {value!r}: expected {choices}")
        object.__setattr__(spec, name, found[0])


def spelled(option: Any) -> str:
    """Return how a type that a value may have is told to people.

    >>> spelled(int), spelled(None), spelled(Literal["adam", "sgd"])
    ('a whole number', 'none', 'one of adam, sgd')
    """
    if get_origin(option) is Literal:
        return f"one of {', '.join(get_args(option))}"
    if option in (None, type(None)):
        return "none"
    return _WORDS.get(option, str(getattr(option, "__name__", option)))


def check_counts(spec: object, *names: str) -> None:
    """Refuse attributes that are no whole number above 0.

    Raises:
        SpecError: the first that is none, by its name and value.
    """
    for name in names:
        value = getattr(spec, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise SpecError(f"{name} is {value!r}: expected a whole number above 0")


def check_dropout(spec: Any) -> None:
    """Refuse a spec that leaves out all numbers, or fewer than none.

    Raises:
        SpecError: the value, and what was expected.
    """
    if not 0 <= spec.dropout < 1:
        raise SpecError(f"dropout is {spec.dropout}: expected 0 or more, and below 1")


@cache
def _options_of(cls: type[Any]) -> dict[str, tuple[Any, ...]]:
    """Return what each field of a dataclass may be."""
    types = get_type_hints(cls)
    found = {}
    for field in fields(cls):
        wanted = types[field.name]
        found[field.name] = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (
            wanted,
        )  # fmt: skip
    return found


def _as(value: Any, option: Any) -> list[Any]:
    """Return the value as the option has it; none where it is nothing of the kind."""
    kind = get_origin(option) or option
    if kind is Literal:
        return [value] if isinstance(value, str) and value in get_args(option) else []
    if kind in (int, float):
        wanted = Integral if kind is int else Real
        if isinstance(value, bool) or not isinstance(value, wanted):
            return []
        try:
            return [kind(value)]
        except OverflowError:  # a whole number that no float holds
            return []
    if kind is tuple and isinstance(value, list):
        return [tuple(value)]
    return [value] if isinstance(value, kind) else []
