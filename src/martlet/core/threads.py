"""How many threads a computation may use: one number, decided in one place."""

import os

from martlet.core.errors import SpecError


def num_threads() -> int:
    """Return how many threads to use: ``MARTLET_THREADS``, else the cores this process may use.

    Raises:
        SpecError: ``MARTLET_THREADS`` is not a positive whole number.
    """
    given = os.environ.get("MARTLET_THREADS")
    if given is None:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    if not given.isdigit() or int(given) < 1:
        raise SpecError(
            f"MARTLET_THREADS is {given!r}: expected a positive whole number, such as 2"
        )
    return int(given)
