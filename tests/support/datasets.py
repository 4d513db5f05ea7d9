"""Small datasets with a taste in them, for tests of whole paths."""

import numpy as np

from martlet.core import Dataset, Interactions, Vocabulary, rng

NUM_USERS, NUM_ITEMS = 60, 40


def tasteful():
    """Users of two tastes, each half of the items; train, valid and test in time order."""
    random = rng(0, "datasets")
    parts = []
    for part, size in enumerate((1500, 300, 300)):
        user = random.integers(0, NUM_USERS, size)
        item = random.zipf(1.4, size) % (NUM_ITEMS // 2) + NUM_ITEMS // 2 * (user % 2)
        time = np.full(size, 1_600_000_000 + part)
        sizes = {"num_users": NUM_USERS, "num_items": NUM_ITEMS}
        parts.append(Interactions.sort(user, item, None, time, **sizes))
    users, items = (Vocabulary.of(f"{x}{i}" for i in range(n)) for x, n in
                    (("u", NUM_USERS), ("i", NUM_ITEMS)))  # fmt: skip
    return Dataset(users, items, *parts)
