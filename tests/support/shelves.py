"""A small log with columns: a user's guild tells the shelf of items that the user reads from."""

import numpy as np

from martlet.core import Dataset, Interactions, Text, Vocabulary

SHELVES, ITEMS, USERS, NEW = 4, 48, 160, 20
GUILDS = ("smith", "baker", "miller", "weaver")


def shelves(seed=0, users=USERS, length=9, new_items=0):
    """Return the log; the last ``NEW`` users have no event but one in valid and one in test.

    The last ``new_items`` items are met in the test part alone.
    """
    stream = np.random.default_rng(seed)
    shelf, guild = np.arange(ITEMS) % SHELVES, np.arange(users) % SHELVES
    old = ITEMS - new_items
    per = np.stack([np.flatnonzero(shelf[:old] == s)[: old // SHELVES] for s in range(SHELVES)])
    rows = np.array([stream.permutation(per[g])[:length] for g in guild])
    if new_items:
        fresh = np.stack([np.flatnonzero(shelf == s) for s in range(SHELVES)])[:, old // SHELVES :]
        rows[:, -1] = fresh[guild, stream.integers(0, fresh.shape[1], users)]
    time = np.tile(np.arange(length), (users, 1)) * 3600 + np.arange(users)[:, None]
    part = np.zeros(rows.shape, int)
    part[:, -2], part[:, -1] = 1, 2
    part[users - NEW :, :-2] = -1
    user = np.repeat(np.arange(users), length).reshape(rows.shape)
    size = {"num_users": users, "num_items": ITEMS}
    train, valid, test = (
        Interactions.sort(user[at], rows[at], time_s=time[at], **size)
        for at in (part == 0, part == 1, part == 2)
    )
    ids = (Vocabulary.of(f"{c}{i}" for i in range(n)) for c, n in (("u", users), ("i", ITEMS)))
    table = {
        "guild": Text.of(GUILDS[g] for g in guild),
        "height": stream.normal(170, 10, users),
    }
    catalogue = {
        "title": Text.of(f"Book {i}" for i in range(ITEMS)),
        "shelf": Text.of(f"s{s}" for s in shelf),
    }
    return Dataset(*ids, train, valid, test, catalogue, table)
