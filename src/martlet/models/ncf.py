"""A network scores a user and an item from the vectors of both."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from martlet.core import (
    CSR,
    DataError,
    Dataset,
    SpecError,
    check_counts,
    check_dropout,
    rng,
)
from martlet.kernels.unmet import draw_unmet
from martlet.metrics import Tally
from martlet.scorers.bundle import Bundle
from martlet.scorers.projections import Lookup
from martlet.scorers.ranker import Ranker
from martlet.scorers.shown import best_of_all
from martlet.scorers.table import Table
from martlet.train import losses
from martlet.train.device import device_of
from martlet.train.embeddings import Embedding, TableOptimizer
from martlet.train.export import onnx_of
from martlet.train.loop import fingerprint, train
from martlet.train.pair_products import pair_products, shrunk
from martlet.train.plan import Plan
from martlet.train.run import Run
from martlet.train.stand_in import stand_in
from martlet.train.structure import Group, chain, tables_from, take_over
from martlet.train.transfer import check_same_rows

_K = 10
_START = 0.05  # standard deviation of the first vectors
_ASKED = 500  # users of the validation part whose whole catalogue is ranked after an epoch
_PAIRS = 1 << 17  # that are scored at a time there


@dataclass(frozen=True, kw_only=True)
class NCF(Plan):
    """The product of two vectors, and a perceptron over two others.

        gmf    s = p . q
        mlp    s = g . relu(W_L ... relu(W_1 [p' ; q'] + b_1) ... + b_L)
        neumf  the sum of both, each with vectors of its own

    trained by cross-entropy on the events and on items that their users have not met, drawn evenly
    anew in each epoch.

    W_1 [p' ; q'] is the sum of a part of the user and one of the item, so the user's is made once
    for an event and all that is drawn for it, and what is fitted holds both parts ready made.

    **Source**: He et al., "Neural Collaborative Filtering" (2017).
    **Differs**: the product has no weights of its own, for p can hold them, and where they are free
    they undo ``reg``, which is the L2 of Rendle et al., "Neural Collaborative
    Filtering vs. Matrix Factorization Revisited" (2020), on the vectors that a step reads; vectors
    take row-wise steps; an unknown user has the mean over the history of what stands for an item,
    see ``stand_in``.

    Attributes:
        kind: "gmf", "mlp" or "neumf".
        dim: length of the vectors that are multiplied.
        inner: length of the vectors that the perceptron reads, and width of its first layer.
        layers: hidden layers, each half as wide as that before.
        dropout: share of the hidden numbers that a training step leaves out.
        negatives: items drawn for each event.
        batch: events of a step.
        reg: L2 strength; reg (|p|^2 + |q|^2) / 2 goes with the loss of every pair.
        table_optimizer: of the vectors.
        table_rate: length of their step.
    """

    kind: Literal["gmf", "mlp", "neumf"] = "neumf"
    dim: int = 64
    inner: int = 32
    layers: int = 3
    dropout: float = 0.0
    negatives: int = 4
    batch: int = 2048
    reg: float = 0.0
    table_optimizer: TableOptimizer = "adam"
    table_rate: float = 1e-3
    epochs: int = 20
    accepts: ClassVar[tuple[str, ...]] = ("init", "run")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "dim", "inner", "layers", "negatives", "batch")
        check_dropout(self)
        if not 0 <= self.reg < np.inf:
            raise SpecError(f"reg is {self.reg}: expected a finite number, 0 or more")
        if self.inner >> (self.layers - 1) < 1:
            raise SpecError(
                f"inner is {self.inner} and layers {self.layers}: the last layer would have no "
                "unit; expected fewer layers, or a larger inner"
            )

    @property
    def split(self) -> tuple[int, int]:
        """Return how many numbers of a vector are multiplied, and how many the perceptron reads."""
        return (
            0 if self.kind == "mlp" else self.dim,
            0 if self.kind == "gmf" else self.inner,
        )

    def flops(self, dataset: Dataset) -> int:
        """Operations of all epochs: 6 a weight and pair, the user's part once an event."""
        dim, inner = self.split
        pair = dim + inner**2
        if inner:
            widths = [inner >> at for at in range(self.layers)]
            pair += sum(wide * narrow for wide, narrow in itertools.pairwise([*widths, 1]))
        events = self.epochs * dataset.train.matrix.nnz
        return 6 * events * (inner**2 + (1 + self.negatives) * pair)

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted tables: two vectors an item, and the weights of the network."""
        own = 0 if self.kind == "gmf" else sum(p.numel() for p in _hidden(self).parameters())
        return 4 * (2 * num_items * sum(self.split) + own)

    def fit(
        self,
        dataset: Dataset,
        *,
        seed: int = 0,
        init: Bundle | None = None,
        run: Run | None = None,
    ) -> Ranker:
        """Return the trained network over a vector a user and a vector an item.

        Raises:
            DataError: the train part holds nothing.
            SpecError: an ``init`` of another shape, or of other users or items.
            Diverged: the loss is no finite number.
        """
        if not dataset.train.matrix.nnz:
            raise DataError("the train part has no event: there is nothing to learn from")
        torch.manual_seed(seed)
        if init is None:
            network = Pairs(self, dataset.num_users, dataset.num_items, seed)
        else:
            check_same_rows(init, dataset)
            network = self.restore(init)
        task = self.task(network.to(device_of(self.device)), dataset, seed)
        origin = None if init is None else init.id
        key = fingerprint(type(self).__name__, asdict(self), seed, dataset.train.hash, origin)
        train(task, self, seed=seed, key=key, run=run)
        return network.export(dataset.train.matrix)

    def restore(self, bundle: Bundle) -> Pairs:
        """Return the network of a bundle that was fitted with this spec, to train or to prune on.

        The perceptron's first layer was made one with the vectors: it starts as the identity.

        Raises:
            SpecError: a bundle of another shape.
        """
        network = Pairs(self, len(bundle.users), len(bundle.items), 0)
        network.take(bundle)
        return network

    def export(self, network: Pairs, bundle: Bundle) -> Ranker:
        """Return the scorer of what was restored from ``bundle``."""
        met, size = bundle.histories, len(bundle.items)
        key = np.unique(met.row_numbers().astype(np.int64) * size + met.indices)
        ones = np.ones(len(key), np.float32)
        return network.export(CSR.from_pairs(key // size, key % size, ones, (met.num_rows, size)))

    def task(self, network: Pairs, dataset: Dataset, seed: int) -> _Task:
        """Return the training of a network, as the loop sees it."""
        return _Task(self, network, dataset, seed)


class Pairs(nn.Module):
    """Vectors of users and items, what is made of each alone, and what is made of both.

    Those that are multiplied and those that the perceptron reads have tables of their own.
    """

    here: Tensor

    def __init__(self, spec: NCF, num_users: int, num_items: int, seed: int) -> None:
        super().__init__()
        self.reg = spec.reg
        stream = rng(seed, "ncf")

        def table(size: int, dim: int) -> Embedding:
            return Embedding(
                size, dim, rate=spec.table_rate, optimizer=spec.table_optimizer,
                seed=int(stream.integers(2**31)), init_scale=_START,
            )  # fmt: skip

        dim, inner = spec.split
        sides = {"user": num_users, "item": num_items}
        self.product = nn.ModuleDict({side: table(n, dim) for side, n in sides.items() if dim})
        self.read = nn.ModuleDict({side: table(n, inner) for side, n in sides.items() if inner})
        self.dim, self.inner = dim, inner
        self.register_buffer("here", torch.zeros(0), persistent=False)  # tells the device
        self.first = nn.ModuleDict(
            {side: nn.Linear(inner, inner, side == "user") for side in sides if inner}
        )
        self.hidden = _hidden(spec) if inner else None

    @property
    def device(self) -> torch.device:
        """Where the dense arithmetic runs."""
        return self.here.device

    @property
    def core(self) -> nn.Module | None:
        """What a bundle keeps the parameters of beside the vectors; None where there is nothing."""
        return self.hidden

    @torch.no_grad()
    def take(self, bundle: Bundle) -> None:
        """Take over a bundle's vectors and perceptron, or what pruning left of it.

        Raises:
            SpecError: they are of another shape.
        """
        scorer: Any = bundle.scorer
        try:
            projection = getattr(scorer, "projection", None)
            if not isinstance(projection, Lookup) or scorer.items.shape[1] != (
                self.dim + self.inner
            ):
                raise SpecError(f"it has no vectors of length {self.dim + self.inner}")
            if self.hidden is not None:
                take_over(self.hidden, scorer.parameters)
        except SpecError as error:
            raise SpecError(
                f"the bundle to start from is {type(scorer).__name__} of other parameters: "
                f"expected one of ncf, of the same kind and widths ({error})"
            ) from error
        for side, table in (("user", projection.users), ("item", scorer.items)):
            vectors = table.dense()
            for parts, own in ((self.product, vectors[:, : self.dim]),
                               (self.read, vectors[:, self.dim :])):  # fmt: skip
                if own.shape[1]:
                    parts.get_submodule(side).take(own)  # type: ignore[operator]
        for name, p in self.first.named_parameters():
            (nn.init.eye_ if name.endswith("weight") else nn.init.zeros_)(p)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Return (B, C) logits of user rows (B,) and item rows (B, C)."""
        parts = []
        if self.product:
            of_users, of_items = self._vectors(self.product, users, items)
            parts.append(pair_products(of_users, of_items))
        if self.hidden is not None:
            of_users, of_items = self._vectors(self.read, users, items)
            both = self.first["user"](of_users)[:, None] + self.first["item"](of_items)
            parts.append(self.hidden(both)[..., 0])
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _vectors(self, tables: nn.ModuleDict, users: Tensor, items: Tensor) -> list[Tensor]:
        # A user's vector is one of each of its pairs, and the loss is their mean.
        pairs = items.numel()
        times = {"user": self.reg * items.shape[1] / pairs, "item": self.reg / pairs}
        return [
            shrunk(tables[side](rows).to(self.device), times[side])
            for side, rows in (("user", users), ("item", items))
        ]

    def parts(self) -> tuple[Tensor, Tensor]:
        """Return what the network takes of each user and of each item: (users, d) and (items, d).

        The first numbers are multiplied, the others added up for the perceptron.
        """
        found: list[list[Tensor]] = [[], []]
        for at, side in enumerate(("user", "item")):
            if self.product:
                found[at].append(_values(self.product[side]))
            if self.hidden is not None:
                found[at].append(self.first[side](_values(self.read[side]).to(self.device)).cpu())
        return torch.cat(found[0], 1), torch.cat(found[1], 1)

    def export(self, met: CSR) -> Ranker:
        """Return the torch-free scorer that gives the same answers."""
        self.cpu().eval()
        with torch.inference_mode():
            users, items = (part.numpy() for part in self.parts())
        width = items.shape[1]
        asked = {"user": torch.zeros(2, width), "item": torch.zeros(2, width)}
        network = onnx_of(Joined(self.dim, self.hidden).eval(), asked, "logit")
        weights = {} if self.hidden is None else tables_from(self.hidden)
        history = stand_in(users, met)
        users[met.lengths == 0] = 0  # of whom nothing was observed nothing is known
        return Ranker(
            Table.of(items), Lookup(Table.of(users)), network, Table.of(history), parameters=weights
        )


def _values(table: Any) -> Tensor:
    return torch.from_numpy(table.export().dense())


class Joined(nn.Module):
    """The logit of what the network takes of a user and of an item."""

    def __init__(self, dim: int, hidden: nn.Sequential | None) -> None:
        super().__init__()
        self.dim, self.hidden = dim, hidden

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return (...) logits of (..., d) and (..., d)."""
        logit = (user[..., : self.dim] * item[..., : self.dim]).sum(-1)
        if self.hidden is None:
            return logit
        deep: Tensor = self.hidden(user[..., self.dim :] + item[..., self.dim :])
        return logit + deep[..., 0]


class Perceptron(nn.Sequential):
    """Layers from the sum of what is known of a user and of an item to a logit."""

    def prunable(self) -> dict[str, list[Group]]:
        """Return what can be left out of it."""
        return {"units": chain(**dict(self.named_children()))}


def _hidden(spec: NCF) -> Perceptron:
    """Return the perceptron from the sum of its first layer's parts to a logit."""
    widths = [spec.inner >> at for at in range(spec.layers)]
    found: list[nn.Module] = [nn.ReLU(), nn.Dropout(spec.dropout)]
    for wide, narrow in itertools.pairwise(widths):
        found += [nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(spec.dropout)]
    return Perceptron(*found, nn.Linear(widths[-1], 1))


class _Task:
    """Telling events from drawn items, as the loop sees it."""

    figure = f"ndcg@{_K}"

    def __init__(self, spec: NCF, network: Pairs, dataset: Dataset, seed: int) -> None:
        self.spec, self.network, self.dataset, self.seed = spec, network, dataset, seed
        self.met = dataset.train.matrix
        self.rows = self.met.row_numbers()

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        order = rng(self.seed, "order", epoch).permutation(self.met.nnz)
        return [
            order[start : start + self.spec.batch]
            for start in range(0, len(order), self.spec.batch)
        ]

    def take(self, batch: NDArray[np.int64], step: int) -> list[Tensor]:
        users = self.rows[batch].astype(np.int64)
        seed = int(rng(self.seed, "negatives", step).integers(2**63))
        drawn = draw_unmet(self.met, users, self.spec.negatives, seed)
        items = np.column_stack([self.met.indices[batch], drawn])
        return [torch.from_numpy(users), torch.from_numpy(items)]

    def loss(self, tensors: list[Tensor]) -> tuple[Tensor, int]:
        users, items = tensors
        logits = self.network(users, items)
        label = torch.zeros_like(logits)
        label[:, 0] = 1
        return losses.logistic(logits.reshape(-1), label.reshape(-1)), logits.numel()

    def validate(self) -> float | None:
        """Return NDCG over the whole catalogue, what was met left out, of some users."""
        truth = self.dataset.valid.matrix
        users = np.flatnonzero((truth.lengths > 0) & (self.met.lengths > 0))
        if not len(users):
            return None
        if len(users) > _ASKED:
            users = users[np.linspace(0, len(users) - 1, _ASKED).astype(np.int64)]
        of_users, of_items = self.network.parts()
        device = self.network.device
        joined = Joined(self.network.dim, self.network.hidden)
        tally = Tally(self.dataset.num_items, (_K,), ("ndcg",))
        step = max(1, _PAIRS // self.dataset.num_items)
        for start in range(0, len(users), step):
            some = users[start : start + step]
            scores = joined(of_users[some][:, None].to(device), of_items.to(device)).cpu().numpy()
            seen = self.met.take(some)
            scores[seen.row_numbers(), seen.indices] = -np.inf
            ranked = [best_of_all(score, _K).item_row for score in scores]
            tally.add(np.concatenate(ranked), truth.take(some))
        return tally.figures()[self.figure]

    def describe(self, batch: NDArray[np.int64]) -> str:
        users = np.unique(self.rows[batch])
        names = ", ".join(self.dataset.users.names(users[:3]))
        return f"the events of users {names}" + (" ..." if len(users) > 3 else "")
