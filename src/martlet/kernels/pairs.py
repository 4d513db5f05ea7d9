"""Products of a user's vector with those of the items beside it, and their slopes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread

F32 = NDArray[np.float32]
_GRAIN = 256  # users that are worth a thread


def pair_dots(users: F32, items: F32, num_threads: int) -> F32:
    """Return (B, C) products of (B, d) with (B, C, d), all float32 and C-contiguous. O(B C d)."""
    found = np.empty(items.shape[:2], np.float32)
    spread(lambda a, b: _dots(users, items, found, a, b), len(users), num_threads, _GRAIN)
    return found


def pair_dots_reference(users: F32, items: F32) -> F32:
    """Do the same in NumPy."""
    return np.asarray(np.einsum("bd,bcd->bc", users, items))


def pair_slopes(users: F32, items: F32, gradient: F32, num_threads: int) -> tuple[F32, F32]:
    """Return the slopes by ``users`` (B, d) and ``items`` (B, C, d), given that by the products.

    O(B C d).

    Args:
        users: (B, d) float32 C-contiguous.
        items: (B, C, d) float32 C-contiguous.
        gradient: (B, C) float32.
        num_threads: at most.
    """
    of_users, of_items = np.empty_like(users), np.empty_like(items)
    spread(
        lambda a, b: _slopes(users, items, gradient, of_users, of_items, a, b),
        len(users), num_threads, _GRAIN,
    )  # fmt: skip
    return of_users, of_items


def pair_slopes_reference(users: F32, items: F32, gradient: F32) -> tuple[F32, F32]:
    """Do the same in NumPy."""
    of_users = np.einsum("bc,bcd->bd", gradient, items)
    return of_users, gradient[:, :, None] * users[:, None]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _dots(users: Any, items: Any, found: Any, start: int, stop: int) -> None:
    for row in range(start, stop):
        user = users[row]
        for at in range(found.shape[1]):
            item, total = items[row, at], np.float32(0)
            for f in range(len(user)):
                total += user[f] * item[f]
            found[row, at] = total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _slopes(
    users: Any, items: Any, gradient: Any, of_users: Any, of_items: Any, start: int, stop: int
) -> None:
    for row in range(start, stop):
        user, mine = users[row], of_users[row]
        mine[:] = 0
        for at in range(gradient.shape[1]):
            item, theirs, g = items[row, at], of_items[row, at], gradient[row, at]
            for f in range(len(user)):
                mine[f] += g * item[f]
                theirs[f] = g * user[f]
