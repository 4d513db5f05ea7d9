"""One seed drives everything: independent streams are derived from it by name."""

import hashlib

import numpy as np

from martlet.core.errors import SpecError


def rng(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random stream of ``seed`` for the purpose that ``names`` states.

    Two purposes never share a stream, and adding a purpose changes no other.

    Raises:
        SpecError: ``seed`` is not a whole number from 0 on.

    >>> bool(rng(0, "users").random() == rng(0, "users").random())
    True
    >>> bool(rng(0, "users").random() == rng(0, "items").random())
    False
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise SpecError(f"seed is {seed!r}: expected a whole number from 0 on")
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return np.random.default_rng([int(seed), int.from_bytes(digest, "little")])
