"""From the bytes of a body to a question or rows, or the reason why they are none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from martlet.core import QueryError
from martlet.serve.engine import Ask, Rows

_MAX_TOLD = 200
"""Characters of a client's own words that an error repeats."""
_HIGH, _LOW = rb"u[dD][89abAB][0-9a-fA-F]{2}", rb"u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rb"\\(?:%b\\%b|(%b|%b)|.)" % (_HIGH, _LOW, _HIGH, _LOW), re.DOTALL)
"""An escape of JSON; the group holds half a surrogate pair that stands alone."""

_decode = msgspec.json.Decoder(Ask).decode
_decode_rows = msgspec.json.Decoder(Rows).decode
T = TypeVar("T")


def told(text: str) -> str:
    """Return a client's own words as an error repeats them: quoted and cut."""
    return repr(text if len(text) <= _MAX_TOLD else text[:_MAX_TOLD] + "...")


def question(body: bytes) -> Ask:
    """Return the question that a JSON body holds.

    Raises:
        QueryError: the body is no JSON, holds another shape, or gives a name twice.
    """
    return _checked(_decode, body, "is not a question")


def rows_of(body: bytes) -> Rows:
    """Return the rows that a JSON body holds.

    Raises:
        QueryError: as in ``question``.
    """
    return _checked(_decode_rows, body, "does not hold rows")


def _checked(decode: Callable[[bytes], T], body: bytes, wrong: str) -> T:
    try:
        found = decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error)[:_MAX_TOLD]
        if "surrogate" in reason or "truncated" in reason:  # it takes one near the end for a cut
            reason = _lone_surrogate(body) or reason
        raise QueryError(f"the body {wrong}: {reason}") from error
    # The decoder takes the last of two values of a name and says nothing.
    json.loads(body, object_pairs_hook=partial(_names_once, wrong), parse_int=str, parse_float=str)
    return found


def _lone_surrogate(body: bytes) -> str:
    """Return what is wrong with the first half of a surrogate pair that stands alone; else ""."""
    for escape in _ESCAPE.finditer(body):
        if escape[1]:
            return (
                f"\\{escape[1].decode()} (byte {escape.start()}) is half a surrogate pair: "
                "expected both halves, or the character itself in UTF-8"
            )
    return ""


def _names_once(wrong: str, pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise QueryError(f"the body {wrong}: {told(twice)} is given twice")
