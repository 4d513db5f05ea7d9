"""What every sequence model shares: item vectors, batches, losses, validation and export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from martlet.core import CSR, DataError, Dataset, Queries, SpecError, check_counts, check_dropout
from martlet.metrics import Tally
from martlet.scorers.bundle import Bundle
from martlet.scorers.network import Network
from martlet.scorers.search import topk_vectors
from martlet.scorers.table import Table
from martlet.train import losses
from martlet.train.device import device_of
from martlet.train.export import to_onnx
from martlet.train.loop import fingerprint, train
from martlet.train.negatives import Negatives
from martlet.train.noise import Noise
from martlet.train.run import Run
from martlet.train.sequences import Pieces
from martlet.train.structure import tables_from, take_over
from martlet.train.teacher import Answers, Distil, ask, disagreement_among, shift, unlike
from martlet.train.transfer import freeze, item_vectors

_K = 10


@dataclass(frozen=True, kw_only=True)
class NextItem(Noise, ABC):
    """A model that reads a history and gives the vector of what comes next.

    A family adds its own hyper-parameters and ``encoder``; the vectors of the items are read and
    ranked alike.

    Attributes:
        dim: length of the vectors.
        max_length: events that are read, the last ones.
        dropout: share of the numbers that a training step leaves out.
        tokens: events of a batch, padding included.
        loss: "softmax" over the whole catalogue; "sampled" softmax with the correction for
            popularity; "gbce"; "bpr".
        negatives: items drawn a batch ("sampled") or an event ("gbce", "bpr").
        negative_power: of popularity, by which "sampled" and "bpr" draw.
        distil: what is learnt of a teacher, where one is given: its "scores", softened; its
            "ranks"; or its "features", the vectors it makes of a history, through a linear map.
        distil_weight: share of what is learnt of the teacher in the loss; the rest is the log's.
        distil_top: items of each of its answers.
        temperature: by which scores are softened; for ranks, how many count.
        freeze: patterns of the names of parameters that do not move, apart by commas: "items",
            "encoder.*".
    """

    dim: int = 64
    max_length: int = 50
    dropout: float = 0.5
    tokens: int = 4096
    loss: Literal["softmax", "sampled", "gbce", "bpr"] = "softmax"
    negatives: int = 256
    negative_power: float = 0.5
    distil: Distil = "scores"
    distil_weight: float = 0.5
    distil_top: int = 100
    temperature: float = 1.0
    freeze: str = ""
    accepts: ClassVar[tuple[str, ...]] = ("init", "teacher", "run")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "dim", "max_length", "tokens", "negatives", "distil_top")
        check_dropout(self)
        if self.distil not in get_args(Distil):
            raise SpecError(f"distil is {self.distil!r}: expected {', '.join(get_args(Distil))}")
        if not 0 <= self.distil_weight <= 1:
            raise SpecError(f"distil_weight is {self.distil_weight}: expected a share, 0 to 1")
        if not self.temperature > 0:
            raise SpecError(f"temperature is {self.temperature}: expected a number above 0")

    @property
    def hidden_share(self) -> float:
        """Share of the events that a training step hides; 0 where each place tells the next."""
        return 0.0

    @abstractmethod
    def encoder(self) -> nn.Module:
        """Return a network from (B, L, dim) vectors to (B, L, dim); place l sees places up to l."""

    def flops(self, dataset: Dataset) -> int:
        """Operations of all epochs: 6 a parameter and event, and 6 d an item and target.

        The latter is the softmax over the catalogue; a sampled loss has the drawn items in place.
        Of a masked model's events only those that it hides are targets.
        """
        targets = int(np.maximum(dataset.train.histories.lengths - 1, 0).sum())
        inner = sum(p.numel() for p in self.encoder().parameters() if p.ndim > 1)
        ranked = dataset.num_items if self.loss == "softmax" else self.negatives + 1
        told = self.hidden_share or 1
        return int(6 * self.epochs * targets * (inner + told * self.dim * ranked))

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted tables: a vector an item, and the encoder's parameters."""
        inner = sum(p.numel() for p in self.encoder().parameters())
        return 4 * (num_items * self.dim + inner)

    def fit(
        self,
        dataset: Dataset,
        *,
        seed: int = 0,
        init: Bundle | None = None,
        teacher: Bundle | None = None,
        run: Run | None = None,
    ) -> Network:
        """Return the trained network as an ONNX encoder over its item vectors.

        Raises:
            DataError: no user has two events to learn an order from.
            SpecError: an ``init`` of another family, dimension or length; a teacher of a masked
                model, of another catalogue, or without the vectors that are to be learnt; a
                pattern that freezes nothing, or all.
        """
        torch.manual_seed(seed)
        network = ItemNetwork(dataset.num_items, self.dim, self.encoder(), self.dropout)
        if init is not None:
            network.start_from(init, dataset)
        task = self.task(network, dataset, seed)
        if teacher is not None:
            task.learn_from(teacher, run or Run())
        freeze(network.to(device_of(self.device)), self.freeze)
        origins = [None if one is None else one.id for one in (init, teacher)]
        key = fingerprint(type(self).__name__, asdict(self), seed, dataset.train.hash, *origins)
        train(task, self, seed=seed, key=key, run=run)
        return network.export(self.max_length)

    def restore(self, bundle: Bundle) -> ItemNetwork:
        """Return the network of a bundle that was fitted with this spec, to train or to prune on.

        Raises:
            SpecError: a bundle of another family, dimension or length.
        """
        network = ItemNetwork(len(bundle.items), self.dim, self.encoder(), self.dropout)
        network.take_encoder(bundle)
        with torch.no_grad():
            network.items.copy_(torch.from_numpy(bundle.scorer.tables()["items"].dense()))
        return network

    def export(self, network: ItemNetwork, bundle: Bundle) -> Network:
        """Return the scorer of what was restored from ``bundle``."""
        return network.export(self.max_length)

    def task(self, network: ItemNetwork, dataset: Dataset, seed: int) -> _Task:
        """Return the training of a network, as the loop sees it."""
        return _Task(self, network, dataset, seed)


class ItemNetwork(nn.Module):
    """Item vectors, and an encoder over those of a history."""

    def __init__(self, num_items: int, dim: int, encoder: nn.Module, dropout: float) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.randn(num_items, dim) * 0.02)
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.lift: nn.Linear | None = None  # from its vectors to a teacher's, for training alone

    def forward(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the (T, d) vectors from which the targets of a batch are told."""
        x = nn.functional.embedding(tensors["rows"], self.items)
        if "hidden" not in tensors:
            return self.encoder(self.dropout(x))[tensors["mask"]]  # type: ignore[no-any-return]
        hole: Any = self.encoder.hole
        x = torch.where(tensors["hidden"][:, :, None], hole, x)
        return self.encoder(self.dropout(x), tensors["mask"])[tensors["hidden"]]  # type: ignore[no-any-return]

    def answer(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Return the (B, d) vectors of what comes after histories, (B, L) rows padded behind."""
        return self.last(nn.functional.embedding(rows, self.items), lengths)  # type: ignore[no-any-return]

    @property
    def core(self) -> nn.Module:
        """What a bundle keeps the parameters of beside the vectors."""
        return self.encoder

    @property
    def last(self) -> nn.Module:
        """What is served."""
        return _Last(self.encoder)

    def start_from(self, bundle: Bundle, dataset: Dataset) -> None:
        """Take over a bundle's encoder and its vectors: by id, or from the catalogue's columns."""
        self.take_encoder(bundle)
        found, known = item_vectors(bundle, dataset)
        with torch.no_grad():
            self.items[torch.from_numpy(known)] = torch.from_numpy(found[known])

    def take_encoder(self, bundle: Bundle) -> None:
        """Take over a bundle's encoder, or what pruning left of it.

        Raises:
            SpecError: it is of another family, dimension or length.
        """
        scorer, vectors = bundle.scorer, bundle.scorer.tables().get("items")
        try:
            if vectors is None or vectors.shape[1] != self.items.shape[1]:
                raise SpecError(f"it has no vectors of length {self.items.shape[1]}")
            take_over(self.encoder, getattr(scorer, "parameters", {}))
        except SpecError as error:
            raise SpecError(
                f"the bundle to start from is {type(scorer).__name__} of other parameters: "
                f"expected one of the same family, dimension and length ({error})"
            ) from error

    def export(self, max_length: int) -> Network:
        """Return the torch-free scorer that gives the same vectors."""
        self.cpu().eval()
        items = Table.of(self.items.detach().numpy())
        model = to_onnx(self.last.eval(), self.items.shape[1], max_length)
        return Network(items, model, None, max_length, tables_from(self.encoder))


class _Last(nn.Module):
    """The vector after the last event of each history."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, d), of x (B, L, d) and lengths (B,)."""
        hole, at = getattr(self.encoder, "hole", None), lengths[:, None] - 1
        if hole is None:
            found: Tensor = self.encoder(x)
        else:
            at = at + 1
            x = nn.functional.pad(x, (0, 0, 0, 1))
            step = torch.arange(x.shape[1], device=x.device)
            x = torch.where((step == at)[:, :, None], hole, x)
            found = self.encoder(x, step <= at)
        return found.gather(1, at[:, :, None].expand(-1, 1, found.shape[2]))[:, 0]


class _Task:
    """Predicting the next item, as the loop sees it."""

    figure = f"ndcg@{_K}"

    def __init__(self, spec: NextItem, network: ItemNetwork, dataset: Dataset, seed: int) -> None:
        self.spec, self.network, self.dataset = spec, network, dataset
        self.pieces = Pieces(dataset.train.histories, spec.max_length, spec.tokens, seed)
        if not self.pieces.num_targets:
            raise DataError(
                "no user of the train part has two events: there is no order to learn from; use "
                "a gentler split, or a model without order"
            )
        power = 0.0 if spec.loss == "gbce" else spec.negative_power
        self.drawn = Negatives(dataset.train.item_count, power, seed)
        self._log_q = torch.from_numpy(self.drawn.log_q)
        self._answers: Answers | None = None
        self._per_epoch = len(self.pieces.batches(0))

    def learn_from(self, teacher: Bundle, run: Run) -> None:
        """Ask the teacher, and add what is learnt of it to the loss."""
        spec = self.spec
        if spec.hidden_share:
            raise SpecError(
                "a teacher answers what comes next, and a masked model is taught what is hidden: "
                "set masked=0"
            )
        self._answers = ask(
            teacher,
            self.dataset,
            kind=spec.distil,
            k=spec.distil_top,
            folder=run.folder,
            progress=run.progress,
        )
        if spec.distil == "features":
            self.network.lift = nn.Linear(spec.dim, self._answers.dim)

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        return self.pieces.batches(epoch)

    def take(self, batch: NDArray[np.int64], step: int) -> dict[str, Tensor]:
        spec, share = self.spec, self.spec.hidden_share
        found = self.pieces.hide(batch, share, step) if share else self.pieces.take(batch)
        arrays: dict[str, NDArray[Any]] = found._asdict()
        event = arrays.pop("event")
        if spec.loss != "softmax":
            count = spec.negatives
            shape = (count,) if spec.loss == "sampled" else (len(event), count)
            arrays["drawn"] = self.drawn.draw(shape, step)
        arrays["done"] = np.array(step / (spec.epochs * self._per_epoch))
        if spec.weighted:
            at = event if share else event + 1
            arrays["weight"] = self.pieces.histories.weights()[at]
        if self._answers is not None:
            arrays |= self._answers.lesson(spec.distil, event, spec.temperature)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def loss(self, tensors: dict[str, Tensor]) -> tuple[Tensor, int]:
        tensors = {name: one.to(self.network.items.device) for name, one in tensors.items()}
        vectors, target = self.network(tensors), tensors["target"]
        return self._taught(vectors, target, tensors), len(target)

    def _taught(self, vectors: Tensor, target: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Return the loss with the teacher's part in it, where there is one."""
        spec, items, share = self.spec, self.network.items, self.spec.distil_weight
        plain = self._plain(vectors, target, tensors)
        if self.network.lift is not None:
            return (1 - share) * plain + share * unlike(
                self.network.lift(vectors), tensors["vector"]
            )
        if "share" not in tensors:
            return plain
        heat = spec.temperature if spec.distil == "scores" else 1.0
        soft, lesson = vectors / heat, (tensors["row"], tensors["share"])
        if spec.loss != "softmax":
            taught = disagreement_among(soft, items, *lesson)
        elif heat == 1 and not spec.doubts and not spec.weighted:
            # Both parts are a softmax over the same scores, and it is run once.
            return plain + share * shift(vectors, items, target, *lesson)
        else:
            taught = losses.softmax(soft, items, target) + shift(soft, items, target, *lesson)
        return (1 - share) * plain + share * heat**2 * taught

    def _plain(self, vectors: Tensor, target: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Return the loss of the log alone."""
        spec, items = self.spec, self.network.items
        weight, done = tensors.get("weight"), float(tensors["done"])
        if spec.loss == "softmax":
            rows = losses.softmax_rows(vectors, items, target) if spec.doubts else None
            return losses.softmax(vectors, items, target, spec.trust(rows, weight, done))

        def mean(rows: Tensor) -> Tensor:
            return spec.mean(rows, weight, done)

        drawn = tensors["drawn"]
        positive = (vectors * items[target]).sum(1)
        if spec.loss == "sampled":
            log_q, negative = self._log_q.to(items.device), vectors @ items[drawn].T
            hit = target[:, None] == drawn
            return losses.sampled_softmax(
                positive, negative, log_q[target], log_q[drawn], hit, mean
            )
        negative = torch.einsum("td,tmd->tm", vectors, items[drawn])
        # The target itself, drawn, counts for nothing.
        negative = negative.masked_fill(drawn == target[:, None], -torch.inf)
        if spec.loss == "bpr":
            return losses.bpr(positive, negative, mean)
        share = spec.negatives / max(1, len(items) - 1)
        return losses.gbce(positive, negative, share, mean=mean)

    def validate(self) -> float | None:
        """Return NDCG over the whole catalogue, what was met before left out."""
        valid, histories = self.dataset.valid, self.dataset.train.histories
        truth = valid.matrix
        users = np.flatnonzero((truth.lengths > 0) & (histories.lengths > 0))
        if not len(users):
            return None
        items = Table.of(self.network.items.detach().cpu().numpy())
        tally = Tally(self.dataset.num_items, (_K,), ("ndcg",))
        users = users[np.argsort(histories.lengths[users], kind="stable")]
        for some in np.array_split(users, -(-len(users) // 512)):
            vectors = self._encode(histories, some)
            ranking = topk_vectors(vectors, items, Queries.of(histories.take(some)), _K)
            tally.add(ranking.item_row, truth.take(some))
        return tally.figures()[self.figure]

    def describe(self, batch: NDArray[np.int64]) -> str:
        users = np.unique(self.pieces.users(batch))
        names = ", ".join(self.dataset.users.names(users[:3]))
        return f"the histories of users {names}" + (" ..." if len(users) > 3 else "")

    def _encode(self, histories: CSR, users: NDArray[np.int64]) -> NDArray[np.float32]:
        length = np.minimum(histories.lengths[users], self.spec.max_length)
        step = np.arange(length.max())
        mask = step < length[:, None]
        at = (histories.indptr[users + 1] - length)[:, None] + step
        rows = np.where(mask, histories.indices[np.where(mask, at, 0)], 0).astype(np.int64)
        device = self.network.items.device
        given = (torch.from_numpy(array).to(device) for array in (rows, length))
        return self.network.answer(*given).cpu().numpy()
