"""What every model of fields shares: features, merged tables, validation and export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from martlet.core import Dataset, SpecError, Tabular, check_counts, check_dropout
from martlet.features.plain import spec_of_plain, spec_to_plain
from martlet.kernels.embedding import Storage
from martlet.metrics.labels import label_quality
from martlet.scorers.bundle import Bundle
from martlet.scorers.field_rows import Layout
from martlet.scorers.fields import Fields
from martlet.train import losses
from martlet.train.device import device_of
from martlet.train.embeddings import TableOptimizer
from martlet.train.field_batch import Batch
from martlet.train.field_batches import Events, Rows
from martlet.train.field_network import FieldNetwork
from martlet.train.field_transfer import items_in, taught
from martlet.train.loop import fingerprint, train
from martlet.train.noise import Noise
from martlet.train.run import Run
from martlet.train.sharing import Sharing, num_values
from martlet.train.transfer import freeze


@dataclass(frozen=True, kw_only=True)
class FieldModel(Noise, ABC):
    """A model of examples that consist of fields: it learns which of them end well.

    Each value of a field has a vector, in one merged table; some models give it a weight of its
    own too, in a second one. A family adds how the vectors meet, ``interaction``.

    On labelled rows (``Tabular``) the fields are the columns. On events (``Dataset``) an event is
    an example that ended well, beside items drawn evenly that the user never met; the fields are
    the item, its catalogue columns, the user's columns, and the last events before this one.

    Labelled rows count by their weights, and each is trusted as far as ``Noise`` says. An event
    counts by its weight only where ``weighted`` says so, and what is drawn beside it with it; what
    is drawn is never doubted.

    Attributes:
        dim: length of the vectors.
        hidden: width of the hidden layers.
        layers: number of them.
        dropout: share of the hidden numbers that a training step leaves out.
        norm: of the hidden layers: "none", "batch" or "layer".
        batch: examples a step.
        table_optimizer: of the tables: "sgd", or row-wise "adagrad" or "adam".
        table_rate: step length of the tables at its largest.
        storage: of the vectors: "fp32", "fp16", "bf16" or "int8".
        sharing: of the vectors: "none"; "quotient", products of two tables a quarter of the size
            together; "mixed", narrower ones for what is rare, a sixth. Of each field the first
            rows count as frequent: a vocabulary's are, those of a hash are not.
        loss: "logistic" for labels from 0 to 1, "squared" for any number.
        watched: what validation looks at: "auc", or "log-loss"; the squared loss watches its own.
        columns: specs of the columns that are read, from ``martlet.features``, or what
            ``spec_to_plain`` makes of them, which they become; None guesses them from the train
            part. On events, those of the items and of the users together.
        max_length: events of a user that are read, the last ones.
        negatives: items drawn an event.
        distil_weight: share of what a teacher tells in the labels of rows, where one is given.
        freeze: patterns of the names of parameters and tables that do not move, apart by commas:
            "vectors", "interaction.deep.*".
    """

    epochs: int = 10
    patience: int = 2
    dim: int = 16
    hidden: int = 128
    layers: int = 2
    dropout: float = 0.0
    norm: Literal["none", "batch", "layer"] = "none"
    batch: int = 1024
    table_optimizer: TableOptimizer = "adagrad"
    table_rate: float = 0.05
    storage: Storage = "fp32"
    sharing: Sharing = "none"
    loss: Literal["logistic", "squared"] = "logistic"
    watched: Literal["auc", "log-loss"] = "auc"
    columns: tuple | None = None  # type: ignore[type-arg]
    max_length: int = 50
    negatives: int = 4
    distil_weight: float = 0.5
    freeze: str = ""
    accepts: ClassVar[tuple[str, ...]] = ("init", "teacher", "run")
    has_wide: ClassVar[bool] = False
    odds: ClassVar[bool] = False  # whether what ends well weighs, and the odds are the answer
    takes_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "dim", "hidden", "layers", "batch", "max_length", "negatives")
        if self.columns is not None:
            told = [one if isinstance(one, dict) else spec_to_plain(one) for one in self.columns]
            for one in told:
                spec_of_plain(one)
            object.__setattr__(self, "columns", tuple(told))
        check_dropout(self)
        if not 0 <= self.distil_weight <= 1:
            raise SpecError(f"distil_weight is {self.distil_weight}: expected a share, 0 to 1")
        for name, known in (
            ("norm", ("none", "batch", "layer")),
            ("sharing", get_args(Sharing)),
            ("loss", ("logistic", "squared")),
            ("watched", ("auc", "log-loss")),
        ):
            if getattr(self, name) not in known:
                said = ", ".join(known)
                raise SpecError(f"{name} is {getattr(self, name)!r}: expected one of {said}")

    @abstractmethod
    def interaction(self, num_vectors: int, num_numbers: int) -> nn.Module:
        """Return a network from vectors (N, K, dim) and numbers (N, M), if any, to (N,) logits."""

    def product_flops(self, num_vectors: int, num_numbers: int) -> int:
        """Operations of products that no parameter takes part in, for an example."""
        return 0

    def example_flops(self, layout: Layout) -> int:
        """Operations of the network for one example, forward: 2 a weight, and the products."""
        count = layout.num_vectors, layout.num_numbers
        weights = sum(p.numel() for p in self.interaction(*count).parameters() if p.ndim > 1)
        return 2 * weights + self.product_flops(*count)

    def flops(self, dataset: Dataset | Tabular) -> int:
        """Operations of all epochs: three times the forward ones of each example."""
        source = self._source(dataset, 0)
        return 3 * self.epochs * source.num_examples * self.example_flops(source.layout)

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted tables on events without columns, and of the network.

        An item has a row as a candidate, and one as a part of histories.
        """
        inner: int = sum(p.numel() for p in self.interaction(2, 0).state_dict().values())
        rows = 2 * (num_items + 1)
        held = num_values(self.sharing, rows, self.dim) + rows * self.has_wide
        return 4 * (held + inner)

    def fit(
        self,
        dataset: Dataset | Tabular,
        *,
        seed: int = 0,
        init: Bundle | None = None,
        teacher: Bundle | None = None,
        run: Run | None = None,
    ) -> Fields:
        """Return the trained tables, and the network as ONNX.

        Of ``init`` the network is taken over, and the row of each item that it knows by id and of
        each value that its fields know; what it does not know starts at random. Of ``teacher`` the
        answers for the rows are learnt beside their labels.

        Raises:
            DataError: the train part holds no example.
            SpecError: crossed columns for a model that has no weights for them; an ``init`` of
                another family or shape, or of other columns; a teacher of events, or of another
                kind of labels; a pattern that freezes nothing, or all.
        """
        torch.manual_seed(seed)
        if teacher is not None:
            dataset = self._taught(dataset, teacher)
        source = self._source(dataset, seed)
        network = FieldNetwork(self, source.layout, seed)
        if init is not None:
            network.take(init, source.layout, items_in(init, dataset))
        freeze(network.to(device_of(self.device)), self.freeze)
        task = _Task(self, network, source)
        origins = [None if one is None else one.id for one in (init, teacher)]
        key = fingerprint(type(self).__name__, asdict(self), seed, dataset.train.hash, *origins)
        train(task, self, seed=seed, key=key, run=run)
        return network.export(self, source)

    def _taught(self, dataset: Dataset | Tabular, teacher: Bundle) -> Tabular:
        if isinstance(dataset, Dataset) or self.odds:
            raise SpecError(
                "a teacher tells of labelled rows whether they end well: it teaches no "
                + ("events of users and items" if isinstance(dataset, Dataset) else "odds")
            )
        numbers = self.loss == "squared"
        label = taught(teacher, dataset.train, self.distil_weight, numbers=numbers)
        return replace(dataset, train=replace(dataset.train, label=label))

    def restore(self, bundle: Bundle) -> FieldNetwork:
        """Return the network of a bundle that was fitted with this spec, to train or to prune on.

        Raises:
            SpecError: a bundle of another family or shape.
        """
        if not isinstance(bundle.scorer, Fields):
            raise SpecError(f"the bundle is {type(bundle.scorer).__name__}: expected one of fields")
        network = FieldNetwork(self, bundle.scorer.layout, 0)
        network.take(bundle, bundle.scorer.layout, np.arange(bundle.scorer.num_items))
        return network

    def export(self, network: FieldNetwork, bundle: Bundle) -> Fields:
        """Return the scorer of what was restored from ``bundle``."""
        assert isinstance(bundle.scorer, Fields)
        return network.export(self, bundle.scorer)

    def task(self, network: FieldNetwork, dataset: Dataset | Tabular, seed: int) -> _Task:
        """Return the training of a network, as the loop sees it."""
        return _Task(self, network, self._source(dataset, seed))

    def _source(self, dataset: Dataset | Tabular, seed: int) -> Rows | Events:
        kind = Rows if isinstance(dataset, Tabular) else Events
        source = kind(self, dataset, seed)  # type: ignore[arg-type]
        if not source.layout.num_vectors:
            raise SpecError(
                "all columns are numbers, and no field has a vector: name one as a Category, a "
                "Bucket or a Hashed in columns"
            )
        if source.layout.num_crossed and not self.has_wide:
            raise SpecError(
                f"{type(self).__name__} has no weights for crossed columns: leave them out, or "
                "take wide-deep"
            )
        return source


class _Task:
    """Telling examples that end well from others, as the loop sees it."""

    def __init__(self, spec: FieldModel, network: FieldNetwork, source: Rows | Events) -> None:
        self.spec, self.network, self.source = spec, network, source
        self._steps = spec.epochs * len(source.batches(0))
        self.figure = "-squared" if spec.loss == "squared" else spec.watched.replace("log", "-log")

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        return self.source.batches(epoch)

    def take(self, batch: NDArray[np.int64], step: int) -> Batch:
        return replace(self.source.take(batch, step), done=step / self._steps)

    def loss(self, tensors: Batch) -> tuple[Tensor, int]:
        label, weight = tensors.label.to(self.network.device), tensors.weight
        weight = None if weight is None else weight.to(self.network.device)
        of = losses.squared_rows if self.spec.loss == "squared" else losses.logistic_rows
        terms = of(self.network(tensors), label)
        if self.spec.doubts:
            terms = terms * self._trust(terms.detach(), label, tensors.done)
        if self.spec.odds and weight is not None:
            # Divided by the rows, not by their weights: a batch with much to weigh would count for
            # less, and the odds come out too small.
            return (terms * weight).mean(), len(label)
        return losses.weighted_mean(terms, weight), len(label)

    def _trust(self, terms: Tensor, label: Tensor, done: float) -> Tensor:
        """Return (N,) how far each label is trusted, by the (N,) losses; what was drawn is."""
        trust = torch.ones_like(terms)
        told = label > 0 if self.source.draws else torch.ones_like(label, dtype=torch.bool)
        found = self.spec.trust(terms[told], None, done)
        if found is not None:
            trust[told] = found
        return trust

    def validate(self) -> float | None:
        """Return the figure over the validation part; None where it says nothing."""
        answers = [(self.network(batch).cpu(), batch) for batch in self.source.validation()]
        if not answers:
            return None
        score = torch.cat([logit for logit, _ in answers]).double().numpy()
        label = torch.cat([batch.label for _, batch in answers]).double().numpy()
        weight = np.concatenate([_weight(batch) for _, batch in answers])
        if self.spec.loss == "squared":
            mean = np.average((score - label) ** 2, weights=weight)
            return -float(mean) * self.source.unit[1] ** 2
        if self.spec.watched == "log-loss":
            return -float(np.average(np.logaddexp(0, score) - label * score, weights=weight))
        label, score = label[weight > 0], score[weight > 0]
        if label.min(initial=1) == label.max(initial=0):
            return None
        return label_quality(label, score, ["auc"])["auc"].mean

    def describe(self, batch: NDArray[np.int64]) -> str:
        return self.source.describe(batch)


def _weight(batch: Batch) -> NDArray[np.float32]:
    return np.ones(len(batch.label), np.float32) if batch.weight is None else batch.weight.numpy()
