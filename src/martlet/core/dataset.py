"""Interactions with vocabularies, tables and split: what a model is fitted and measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from martlet.core.columns import Array, Column, Text, flatten
from martlet.core.errors import DataError
from martlet.core.files import new_folder
from martlet.core.interactions import Interactions
from martlet.core.stored import FORMAT, HEAD, Folder
from martlet.core.vocabulary import Vocabulary

PROOF = (HEAD, "train.user_row.npy")  # a folder with these is a dataset
PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """One log, cut into parts over the same vocabularies.

    Rows fall by training frequency (ties by id), so head and tail are row ranges.

    Attributes:
        users: vocabulary of every user of any part.
        items: vocabulary of every item of any part and of the item table.
        train: what ``fit`` sees.
        valid: what a search sees.
        test: what a final measurement sees.
        catalogue: item columns by name (title, category, price ...), a value an item row.
        user_table: user columns by name, a value a user row.
        about: where the log came from, how it was cleaned and split; plain JSON.
        labels: for an extra column of codes, the text that each code stands for; -1 has none.
    """

    users: Vocabulary
    items: Vocabulary
    train: Interactions
    valid: Interactions
    test: Interactions
    catalogue: Mapping[str, Column] = field(default_factory=dict)
    user_table: Mapping[str, Column] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Text] = field(default_factory=dict)

    @property
    def num_users(self) -> int:
        """Rows of the user vocabulary."""
        return len(self.users)

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""
        return len(self.items)

    def part(self, name: str) -> Interactions:
        """Return the part called ``name``.

        Raises:
            DataError: no such part.
        """
        if name not in PARTS:
            raise DataError(f"no part is called {name!r}: expected one of {', '.join(PARTS)}")
        return getattr(self, name)  # type: ignore[no-any-return]

    def before(self, part: str) -> Interactions:
        """Return what is known when ``part`` begins: train for valid, train and valid for test."""
        self.part(part)
        return self._train_and_valid if part == "test" else self.train

    @cached_property
    def _train_and_valid(self) -> Interactions:
        return self.train.union(self.valid) if len(self.valid) else self.train

    def with_valid_in_train(self) -> Dataset:
        """Return the dataset for a last fit, once hyper-parameters are chosen.

        ``about["merged"]`` keeps the hashes of both parts: neither may be measured on any more.
        """
        nothing = self.valid.select(np.zeros(len(self.valid), bool))
        about = {**self.about, "merged": [self.train.hash, self.valid.hash]}
        return replace(self, train=self.train.union(self.valid), valid=nothing, about=about)

    def save(self, folder: str | Path) -> None:
        """Write a folder of ``.npy`` files and ``dataset.json``, whole or not at all.

        Another dataset that is there is replaced.

        Raises:
            OutputError: the folder could not be written, or something else is there.
        """
        with new_folder(folder, proof=PROOF) as target:
            for group, arrays in self._groups().items():
                for name, array in arrays.items():
                    np.save(target / f"{group}.{name}.npy", array, allow_pickle=False)
            head = {"format": FORMAT, "users": len(self.users), "items": len(self.items)}
            (target / HEAD).write_text(json.dumps(head | {"about": dict(self.about)}, indent=1))

    @staticmethod
    def load(folder: str | Path) -> Dataset:
        """Read a folder that ``save`` wrote; the arrays are memory-mapped, and checked in one pass.

        Raises:
            DataError: the folder is no dataset, or is damaged; names the file.
        """
        try:
            place = Path(folder)
        except TypeError as error:
            raise DataError(f"{folder!r} is no path: expected the folder of a dataset") from error
        stored = Folder(place)
        users, items = stored.vocabulary("users"), stored.vocabulary("items")
        train, valid, test = (stored.events(part, len(users), len(items)) for part in PARTS)
        return Dataset(
            users,
            items,
            train,
            valid,
            test,
            stored.columns("catalogue", len(items)),
            stored.columns("user_table", len(users)),
            stored.head["about"],
            stored.labels(*PARTS),
        )

    def _groups(self) -> dict[str, dict[str, Array]]:
        groups = {"users": self.users.arrays(), "items": self.items.arrays()}
        for name in ("catalogue", "user_table", "labels"):
            groups[name] = flatten(getattr(self, name))
        for name in PARTS:
            part = self.part(name)
            arrays: dict[str, Array] = {
                "user_row": part.user_row,
                "item_row": part.item_row,
                "weight": part.weight,
            }
            if part.time_s is not None:
                arrays["time_s"] = part.time_s
            groups[name] = arrays | {f"extra.{key}": value for key, value in part.extra.items()}
        return groups
