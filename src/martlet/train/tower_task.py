"""Predicting what is met next by two towers, as the loop sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from martlet.core import Column, DataError, Dataset, Queries, Text
from martlet.features import Encoded, Features
from martlet.features.automatic import guess
from martlet.metrics import Tally
from martlet.scorers.bundle import Bundle
from martlet.scorers.network import Network
from martlet.scorers.search import topk_vectors
from martlet.scorers.side import Side
from martlet.scorers.table import Table
from martlet.train import losses
from martlet.train.device import device_of
from martlet.train.export import onnx_of
from martlet.train.loop import fingerprint, train
from martlet.train.negatives import Negatives
from martlet.train.run import Run
from martlet.train.structure import tables_from
from martlet.train.towers import Served, TowerPlan, Towers, arrays_of, tensors_of
from martlet.train.windows import Windows, window_means

_K = 10


def fit_towers(
    spec: TowerPlan, dataset: Dataset, seed: int, init: Bundle | None, run: Run | None
) -> Network:
    """Return the trained towers as an ONNX encoder over the vectors of the items.

    Raises:
        DataError: there is no event with a history before it.
        SpecError: an ``init`` of another shape.
    """
    torch.manual_seed(seed)
    task = _Task(spec, dataset, seed)
    if init is not None:
        task.network.start_from(init, dataset, task.columns)
    task.network.to(device_of(spec.device))
    origin = None if init is None else init.id
    key = fingerprint(type(spec).__name__, asdict(spec), seed, dataset.train.hash, origin)
    train(task, spec, seed=seed, key=key, run=run)
    return task.export()


class _Task:
    """Predicting what is met next, as the loop sees it."""

    figure = f"ndcg@{_K}"

    def __init__(self, spec: TowerPlan, dataset: Dataset, seed: int) -> None:
        self.spec, self.dataset = spec, dataset
        train = dataset.train
        self.columns = {
            "user": _fitted(dataset.user_table, train.user_row) if spec.user_columns else None,
            "item": _fitted(dataset.catalogue, train.item_row) if spec.item_columns else None,
        }
        user, item = self.columns["user"], self.columns["item"]
        # With columns of the user there is something to go by before the first event.
        first = user is not None
        self.windows = Windows(train.histories, spec.max_length, spec.batch, seed, first)
        if not self.windows.num_targets:
            raise DataError(
                "no user of the train part has two events: there is no history to learn from; "
                "use a gentler split, or a model without order"
            )
        self.network = Towers(spec, dataset.num_items, user, item)
        self.users = None if user is None else user.apply(dataset.user_table)
        self.items = None if item is None else item.apply(dataset.catalogue)
        self.all_items = [] if self.items is None else tensors_of(self.items)
        self.ages = _ages(train.time_s) if spec.age else None
        power = 1.0 if spec.loss == "in-batch" else spec.negative_power
        self.drawn = Negatives(train.item_count, power, seed)
        self._log_q = torch.from_numpy(self.drawn.log_q)

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        return self.windows.batches(epoch)

    def take(self, batch: NDArray[np.int64], step: int) -> dict[str, Tensor]:
        one = self.windows.take(batch)
        rows = {"target": one.target, "events": one.events}
        if self.spec.loss == "sampled":
            rows["drawn"] = self.drawn.draw((self.spec.negatives,), step)
        # As rows of the log, by which the drawing is corrected.
        found: dict[str, NDArray[Any]] = {
            f"{name} row": rows[name] for name in rows if name != "events"
        }
        found |= {"start": one.start, "stop": one.stop, **rows}
        if self.items is not None and self.spec.loss != "softmax":
            # The items' tower runs over those alone that the batch asks for.
            asked = [name for name in rows if name != "events" or self.spec.tied]
            local, at = np.unique(np.concatenate([rows[n] for n in asked]), return_inverse=True)
            cuts = np.cumsum([len(rows[name]) for name in asked])[:-1]
            found |= dict(zip(asked, np.split(at.reshape(-1), cuts), strict=True))
            found |= {"local": local, **_named("item", self.items.take(local))}
        if self.users is not None:
            known, at = np.unique(one.user, return_inverse=True)
            found |= {"user at": at.reshape(-1), **_named("user", self.users.take(known))}
        if self.ages is not None:
            found["age"] = self.ages[one.place]
        return {name: torch.from_numpy(array) for name, array in found.items()}

    def loss(self, tensors: dict[str, Tensor]) -> tuple[Tensor, int]:
        network, device = self.network, self.network.items.device
        given = {name: tensor.to(device) for name, tensor in tensors.items()}
        items = self._items() if "local" not in given else network.item_vectors(
            given["local"], _columns("item", given)
        )  # fmt: skip
        read = items if network.inputs is None else network.inputs
        means = window_means(F.embedding(given["events"], read), given["start"], given["stop"])
        columns, at = _columns("user", given), given.get("user at")
        vectors = network.user_vectors(means, columns, at, given.get("age"))
        target, row = given["target"], given["target row"]
        if self.spec.loss == "softmax":
            return losses.softmax(vectors, items, target), len(target)
        positive = F.embedding(target, items)
        others, other = positive, row
        if self.spec.loss == "sampled":
            others, other = F.embedding(given["drawn"], items), given["drawn row"]
        log_q, hit = self._log_q.to(device), row[:, None] == other
        scores = (vectors * positive).sum(1), vectors @ others.T
        return losses.sampled_softmax(*scores, log_q[row], log_q[other], hit), len(target)

    def _items(self) -> Tensor:
        """Return the vectors of all items."""
        device = self.network.items.device
        return self.network.item_vectors(None, [one.to(device) for one in self.all_items])

    def validate(self) -> float | None:
        """Return NDCG over the whole catalogue, what was met before left out."""
        valid, histories = self.dataset.valid, self.dataset.train.histories
        truth = valid.matrix
        known = histories.lengths > 0 if self.users is None else np.ones(len(truth.lengths), bool)
        users = np.flatnonzero((truth.lengths > 0) & known)
        if not len(users):
            return None
        items = Table.of(self._items().cpu().numpy())
        tally = Tally(self.dataset.num_items, (_K,), ("ndcg",))
        for some in np.array_split(users, -(-len(users) // 512)):
            queries = Queries.of(histories.take(some))
            ranking = topk_vectors(self._encode(queries, some), items, queries, _K)
            tally.add(ranking.item_row, truth.take(some))
        return tally.figures()[self.figure]

    def describe(self, batch: NDArray[np.int64]) -> str:
        users = np.unique(self.windows.users(batch))
        names = ", ".join(self.dataset.users.names(users[:3]))
        return f"the histories of users {names}" + (" ..." if len(users) > 3 else "")

    def _encode(self, queries: Queries, users: NDArray[np.int64]) -> NDArray[np.float32]:
        network, device = self.network, self.network.items.device
        indptr, indices = queries.history.indptr, queries.history.indices.astype(np.int64)
        start = np.maximum(indptr[:-1], indptr[1:] - self.spec.max_length)
        read = self._items() if network.inputs is None else network.inputs
        spans = [torch.from_numpy(part).to(device) for part in (start, indptr[1:])]
        means = window_means(F.embedding(torch.from_numpy(indices).to(device), read), *spans)
        columns = [] if self.users is None else tensors_of(self.users.take(users))
        columns = [one.to(device) for one in columns]
        return network.user_vectors(means, columns, None, None).cpu().numpy()

    @torch.no_grad()
    def export(self) -> Network:
        """Return the torch-free scorer that gives the same vectors."""
        network, user = self.network.cpu().eval(), self.columns["user"]
        if self.items is not None:
            # What nobody met has learnt nothing of its own: its columns alone place it.
            network.items[torch.from_numpy(self.drawn.item_count == 0)] = 0
        side = None
        if user is not None and network.user_columns is not None:
            side = Side(user, Table.of(network.user_columns.vectors.numpy()))
        model = encoder_of(network, side)
        items = Table.of(self._items().numpy())
        own = None if network.inputs is None else Table.of(network.inputs.numpy())
        parameters = tables_from(network.user)
        return Network(items, model, own, self.spec.max_length, parameters, side=side)


def restore_towers(spec: TowerPlan, bundle: Bundle) -> Towers:
    """Return the towers of a bundle; what a tower made of items' columns is in their vectors.

    Raises:
        SpecError: a bundle of other widths.
    """
    side: Side | None = getattr(bundle.scorer, "side", None)
    network = Towers(spec, len(bundle.items), None if side is None else side.features, None)
    network.take_tower(bundle)
    tables = bundle.scorer.tables()
    held = {"items": network.items, "inputs": network.inputs}
    if network.user_columns is not None:
        held["side"] = network.user_columns.vectors
    with torch.no_grad():
        for name, parameter in held.items():
            if parameter is not None:
                parameter.copy_(torch.from_numpy(tables[name].dense()))
    return network


def export_towers(network: Towers, bundle: Bundle) -> Network:
    """Return the scorer of what was restored from ``bundle``."""
    scorer = bundle.scorer
    assert isinstance(scorer, Network)
    model = encoder_of(network, scorer.side)
    return replace(scorer, encoder=model, parameters=tables_from(network.user))


def task_of_towers(spec: TowerPlan, network: Towers, dataset: Dataset, seed: int) -> _Task:
    """Return the training of restored towers, as the loop sees it."""
    task = _Task(spec, dataset, seed)
    task.network = network
    return task


def encoder_of(network: Towers, side: Side | None) -> bytes:
    """Return the user's tower as an ONNX file."""
    inputs = {"x": torch.zeros(2, 3, network.items.shape[1]), "lengths": torch.ones(2).long()}
    if side is not None:
        inputs["side"] = torch.zeros(2, side.width)
    return onnx_of(Served(network.user).eval(), inputs, "vector", {"x": {1: "length"}})


def _fitted(table: Mapping[str, Column], rows: NDArray[np.integer]) -> Features | None:
    """Return the features of a table, fitted on the rows that the train part meets."""
    met = np.unique(rows)
    seen: dict[str, Column] = {
        name: column.take(met) if isinstance(column, Text) else column[met]
        for name, column in table.items()
    }
    plan = [one.spec for one in guess(seen).values() if one.spec is not None] if seen else []
    return Features.fit(plan, seen) if plan else None


def _ages(time_s: NDArray[np.int64] | None) -> NDArray[np.float32] | None:
    """Return (events, 2) ages of the events, from 0 for the last to 1, and their square roots."""
    if time_s is None or time_s.max() == time_s.min():
        return None
    age = (time_s.max() - time_s) / (time_s.max() - time_s.min())
    return np.column_stack([age, np.sqrt(age)]).astype(np.float32)


def _named(side: str, encoded: Encoded) -> dict[str, NDArray[Any]]:
    return {f"{side} column {i}": array for i, array in enumerate(arrays_of(encoded))}


def _columns(side: str, given: Mapping[str, Tensor]) -> list[Tensor]:
    return [tensor for name, tensor in given.items() if name.startswith(f"{side} column ")]
