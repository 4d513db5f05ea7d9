"""Numba's ``njit``, imported without SciPy's linear algebra: a quarter of a first answer's time.

At its first dispatch Numba imports ``scipy.linalg`` only to note whether it is there. Here that one
look is left out while the module that takes it is imported; a kernel that does use linear algebra
imports it when it is compiled or run, as ever. See ``docs/decisions/imports.md``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from numba import njit

__all__ = ["njit"]


def _skip_the_look() -> None:
    linalg: Any = import_module("numba.np.linalg")
    look = getattr(linalg, "ensure_blas", None)
    if look is None:  # another version of Numba, which looks elsewhere: slower, nothing worse
        return
    linalg.ensure_blas = lambda: None
    try:
        import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = look


_skip_the_look()
