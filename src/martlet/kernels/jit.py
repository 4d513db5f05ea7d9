"""Numba's ``njit``, without the import of SciPy's linear algebra, and with a cache where it can be.

See ``docs/decisions/imports.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def njit(**options: Any) -> Callable[[F], F]:
    """Return Numba's decorator of the same options.

    Where neither the package's folder nor the user's own can be written to, as in the image of a
    server, ``cache=True`` would be an error; there each process compiles for itself.
    """

    def compiled(function: F) -> F:
        try:
            return numba.njit(**options)(function)
        except RuntimeError:
            return numba.njit(**options | {"cache": False})(function)

    return compiled


def _skip_a_look() -> None:
    """Import a module of Numba without its look whether there is a BLAS in SciPy.

    The look imports ``scipy.linalg``, a quarter of the time to a first answer. A kernel that does
    use linear algebra imports it when it is compiled or run, as ever.
    """
    linalg: Any = import_module("numba.np.linalg")
    look = getattr(linalg, "ensure_blas", None)
    if look is None:  # another version of Numba, which looks elsewhere: slower, nothing worse
        return
    linalg.ensure_blas = lambda: None
    try:
        import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = look


_skip_a_look()
