"""What the hyper-parameters of many specs must be."""

from numbers import Integral
from typing import Any

from martlet.core.errors import SpecError


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
