"""Labelled rows with something to learn in them, and a small scorer that learns it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from martlet.core import Examples, QueryError, Tabular, Text, rng
from martlet.models.fit import fit
from martlet.scorers import registry
from martlet.scorers.table import Table

CITIES = ("Oslo", "Łódź", "Bern", "")


def labelled(sizes=(600, 200, 200)) -> Tabular:
    """Rows of age (numbers, some missing) and city (text, some missing); both tell of the label."""
    random = rng(0, "rows")
    parts = []
    for size in sizes:
        age = random.integers(18, 80, size).astype(float)
        city = random.integers(0, len(CITIES), size)
        logit = (age - 50) / 8 + np.array([1.5, -1.5, 0, 0])[city]
        label = random.random(size) < 1 / (1 + np.exp(-logit))
        age[random.random(size) < 0.1] = np.nan
        columns = {"age": age, "city": Text.of(CITIES[c] for c in city)}
        parts.append(Examples(columns, label.astype(np.float32)))
    return Tabular(*parts, {"source": ["rows"]})


def _design(columns) -> np.ndarray:
    size = len(next(iter(columns.values())))
    age = np.array([np.nan if v in (None, "") else v for v in columns.get("age", [np.nan] * size)])
    age = age.astype(float)
    cities = list(columns.get("city", [""] * size))
    parts = [np.ones(size), np.nan_to_num((age - 50) / 10), np.isnan(age)]
    return np.stack([*parts, *([city == name for city in cities] for name in CITIES)], 1)


@dataclass(frozen=True, eq=False)
class Logistic:
    """Logistic regression over ``age`` and ``city``."""

    weight: Table
    kind: ClassVar[str] = "logistic"
    num_items: ClassVar[int] = 0

    def predict(self, columns: Mapping[str, Any]) -> np.ndarray:
        if not columns:
            raise QueryError("no columns are given")
        logit = _design(columns) @ self.weight.dense()[:, 0]
        return (1 / (1 + np.exp(-logit))).astype(np.float32)

    def tables(self):
        return {"weight": self.weight}

    def with_tables(self, tables):
        return Logistic(tables["weight"])

    def config(self):
        return {}

    @staticmethod
    def from_parts(config, tables, files):
        return Logistic(tables["weight"])

    def topk(self, queries, k):
        raise AssertionError("a bundle of labelled rows never asks for a ranking")

    score = explain = topk


@dataclass(frozen=True)
class LogisticRegression:
    """Its spec: gradient descent.

    Attributes:
        steps: of it.
    """

    steps: int = 300
    takes_rows: ClassVar[bool] = True

    def fit(self, dataset, *, seed):
        design, label = _design(dataset.train.columns), dataset.train.label
        weight = np.zeros(design.shape[1])
        for _ in range(self.steps):
            chance = 1 / (1 + np.exp(-design @ weight))
            weight += design.T @ (label - chance) / len(label)
        return Logistic(Table.of(weight[:, None].astype(np.float32)))


registry.KINDS["logistic"] = f"{__name__}:Logistic"


def predicting(data=None, steps=300):
    """A bundle fitted on labelled rows."""
    return fit(LogisticRegression(steps), labelled() if data is None else data)
