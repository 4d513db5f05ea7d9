"""Interactions with vocabularies, tables and split: what a model is fitted and measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from martlet.core.columns import Array, Column, Text, flatten, unflatten
from martlet.core.errors import DataError
from martlet.core.files import new_folder
from martlet.core.interactions import Interactions
from martlet.core.vocabulary import Vocabulary

FORMAT = 1
PROOF = ("dataset.json", "train.user_row.npy")  # a folder with these is a dataset
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
            about = {"format": FORMAT, "users": len(self.users), "items": len(self.items)}
            about["about"] = dict(self.about)  # type: ignore[assignment]
            (target / "dataset.json").write_text(json.dumps(about, indent=1, ensure_ascii=False))

    @staticmethod
    def load(folder: str | Path) -> Dataset:
        """Read a folder that ``save`` wrote; the arrays are memory-mapped.

        Raises:
            DataError: the folder is no dataset, or is damaged.
        """
        folder = Path(folder)
        try:
            head = json.loads((folder / "dataset.json").read_text())
            groups: dict[str, dict[str, Array]] = {}
            for path in sorted(folder.glob("*.npy")):
                group, name = path.name.removesuffix(".npy").split(".", 1)
                groups.setdefault(group, {})[name] = np.load(
                    path, mmap_mode="r", allow_pickle=False
                )
            if head["format"] != FORMAT:
                raise DataError(
                    f"{folder} has dataset format {head['format']}, this version reads {FORMAT}: "
                    "prepare it again from the log"
                )
            users = Vocabulary.from_arrays(groups["users"])
            items = Vocabulary.from_arrays(groups["items"])
            train, valid, test = (_interactions(groups[p], len(users), len(items)) for p in PARTS)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder} is not a readable dataset ({error}): expected a folder that "
                "'martlet prepare' wrote; prepare it again from the log"
            ) from error
        catalogue = unflatten(groups.get("catalogue", {}))
        user_table = unflatten(groups.get("user_table", {}))
        labels: Any = unflatten(groups.get("labels", {}))
        return Dataset(
            users, items, train, valid, test, catalogue, user_table, head["about"], labels
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


def _interactions(arrays: Mapping[str, Any], num_users: int, num_items: int) -> Interactions:
    extra = {k.removeprefix("extra."): v for k, v in arrays.items() if k.startswith("extra.")}
    columns = arrays["user_row"], arrays["item_row"], arrays["weight"], arrays.get("time_s")
    return Interactions(*columns, num_users, num_items, extra)
