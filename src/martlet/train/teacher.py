"""What a teacher answers to the history up to each event, asked once before training."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from martlet.core import CSR, Dataset, OutputError, Progress, Queries, SpecError, new_file
from martlet.core.queries import context_at
from martlet.scorers.bundle import Bundle
from martlet.scorers.network import Network
from martlet.scorers.registry import context_of
from martlet.scorers.search import topk_vectors

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Distil = Literal["scores", "ranks", "features"]

_CHUNK = 2048  # histories that are asked at a time
_CALIBRATED = 2000  # users of the validation part that the teacher's scale is found on


@dataclass(frozen=True, eq=False)
class Answers:
    """A teacher's answers to the histories up to each event that another one follows.

    They lie in one file, a record an event, of which a batch reads its own: 8 k bytes for the best
    items and their scores, or 4 d for a vector.

    Attributes:
        events: (P,) int64 rising: places of those events among all of the training histories.
        kept: (P,) records, memory-mapped.
    """

    events: I64
    kept: NDArray[Any]

    def lesson(self, kind: Distil, events: I64, temperature: float) -> dict[str, NDArray[Any]]:
        """Return what the teacher says of the histories up to T events.

        Either "vector" (T, d) float32; or "row" (T, k) int64, its best items, and "share" (T, k)
        float32, how much each counts. A row of shares adds up to 1, or to 0 where it is silent.
        Shares are a softmax of the scores over the temperature, or fall with the rank r from 0 on
        as exp(-r / temperature), whatever the scores are.
        """
        found = self.kept[np.searchsorted(self.events, events)]
        if kind == "features":
            return {"vector": np.array(found["vector"])}
        named = found["row"] >= 0
        if kind == "scores":
            power = np.where(named, found["score"], -np.inf) / temperature
            power -= np.maximum(power[:, :1], np.finfo(np.float32).min)
        else:
            power = np.where(named, -np.arange(named.shape[1]) / temperature, -np.inf)
        share = np.exp(power)
        share /= np.maximum(share.sum(1, keepdims=True), np.finfo(np.float32).tiny)
        row = np.maximum(found["row"], 0).astype(np.int64)
        return {"row": row, "share": share.astype(np.float32)}

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self.kept.dtype["vector"].shape[0])


def ask(
    teacher: Bundle,
    dataset: Dataset,
    *,
    kind: Distil,
    k: int,
    folder: Path | None,
    progress: Progress | None = None,
) -> Answers:
    """Return what the teacher answers to every history of the train part up to every event.

    Any scorer may teach by scores or ranks: its k best items of those that both catalogues know by
    id, what the history holds left out, as validation leaves it out. A network's histories of like
    length run through it together.

    Args:
        teacher: its catalogue may have another order, and other items.
        dataset: histories of the train part, and columns of its users where the teacher reads
            such; validation finds the scale of the scores.
        kind: of what is learnt.
        k: items an answer.
        folder: where the answers are kept, and found again by a run that goes on; None keeps them
            in a file without a name.
        progress: told how far it is.

    Raises:
        SpecError: no common item, or a teacher without vectors.
        OutputError: the disk has no room for them.
    """
    asked = _Asked(teacher, dataset)
    lengths = dataset.train.histories.lengths
    last = dataset.train.histories.indptr[1:][lengths > 0] - 1
    events = np.delete(np.arange(dataset.train.histories.nnz), last)
    if kind == "features":
        record = np.dtype([("vector", np.float32, (asked.dim,))])
    else:
        record = np.dtype([("row", np.int32, (k,)), ("score", np.float32, (k,))])
    parts = (teacher.id, kind, k, dataset.train.hash, dataset.valid.hash, dataset.items.hash)
    key = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]
    path = None if folder is None else Path(folder) / f"teacher-{key}.bin"
    size = len(events) * record.itemsize
    if path is not None and path.exists() and path.stat().st_size == size:
        return Answers(events, np.memmap(path, record, "r"))
    _check_room(Path(tempfile.gettempdir()) if folder is None else Path(folder), size)
    scale = 1.0 if kind == "features" else asked.scale(k)

    def write(file: IO[bytes]) -> None:
        for start in range(0, len(events), _CHUNK):
            some = asked.up_to(events[start : start + _CHUNK])
            found = np.empty(len(some), record)
            if kind == "features":
                found["vector"] = asked.encode(some)
            else:
                found["row"], score = asked.best(some, k)
                found["score"] = score * np.float32(scale)
            file.write(found.tobytes())
            if progress is not None:
                progress("ask the teacher", start + len(found), len(events))

    if path is not None:
        with new_file(path) as target, open(target, "wb") as file:
            write(file)
        return Answers(events, np.memmap(path, record, "r"))
    with tempfile.TemporaryFile() as unnamed:  # it lives as long as it is mapped
        write(unnamed)
        unnamed.flush()
        return Answers(events, np.memmap(unnamed, record, "r"))


class _Asked:
    """A teacher that is asked and answers in the rows of the student's dataset."""

    def __init__(self, teacher: Bundle, dataset: Dataset) -> None:
        self.scorer: Any = teacher.scorer
        self.dataset = dataset
        own = dataset.items.names(np.arange(dataset.num_items))
        self.theirs = teacher.items.rows(own)
        if (self.theirs < 0).all():
            raise SpecError(
                "the teacher knows none of the dataset's items by id: expected a bundle that was "
                "fitted on the same catalogue, or on a part of it"
            )
        self.ours = np.full(len(teacher.items), -1, np.int32)
        known = np.flatnonzero(self.theirs >= 0)
        self.ours[self.theirs[known]] = known

    @property
    def dim(self) -> int:
        """Length of the teacher's vectors."""
        if not hasattr(self.scorer, "encode"):
            raise SpecError(
                f"a teacher of kind {self.scorer.kind} has no vectors: "
                "distil by scores or ranks, or take a teacher with vectors"
            )
        return int(self.scorer.tables()["items"].shape[1])

    def up_to(self, events: I64) -> Queries:
        """Return the histories up to and with each of these events."""
        histories = self.dataset.train.histories
        users = np.searchsorted(histories.indptr, events, side="right") - 1
        return self._queries(users, histories.indptr[users], events + 1)

    def encode(self, queries: Queries) -> F32:
        """Return the (B, d) vectors."""
        if isinstance(self.scorer, Network):
            return encode_together(self.scorer, queries.history)
        return np.asarray(self.scorer.encode(queries), np.float32)

    def best(self, queries: Queries, k: int) -> tuple[NDArray[np.int32], F32]:
        """Return (B, k) rows of the student's catalogue, -1 where there are fewer, and scores."""
        if isinstance(self.scorer, Network):
            found = topk_vectors(self.encode(queries), self.scorer.items, queries, k)
        else:
            found = self.scorer.topk(queries, k)
        # It has nothing to say of a user it knows nothing of.
        named = (found.item_row >= 0) & (queries.history.lengths > 0)[:, None]
        return np.where(named, self.ours[found.item_row], np.int32(-1)), found.score

    def scale(self, k: int) -> float:
        """Return the factor that makes a softmax of the scores most likely on what came next.

        Scores of closed forms have no scale of their own, and those of a trained network are too
        sure of themselves. The likelihood is that of the validation part's items among the k best;
        where there are none, the scores get a standard deviation of 1.

        **Source**: Guo et al., "On Calibration of Modern Neural Networks" (2017), section 4.2.
        """
        histories, truth = self.dataset.train.histories, self.dataset.valid.matrix
        known = histories.lengths > 0
        users = np.flatnonzero(known & (truth.lengths > 0) if len(self.dataset.valid) else known)
        users = users[:_CALIBRATED]
        queries = self._queries(users, histories.indptr[users], histories.indptr[users + 1])
        rows, score = self.best(queries, k)
        named = rows >= 0
        wanted = truth.take(users)
        key = wanted.row_numbers().astype(np.int64) * truth.num_cols + wanted.indices
        line = np.arange(len(users), dtype=np.int64)[:, None] * truth.num_cols
        hit = named & np.isin(line + rows, key)
        spread = float(np.std(score[named])) if named.any() else 0.0
        start = 1 / spread if spread > 0 else 1.0
        met = np.flatnonzero(hit.any(1))
        if not len(met):
            return start
        score, hit = np.where(named, score, -np.inf)[met].astype(np.float64), hit[met]
        score -= score.max(1, keepdims=True)
        factors = start * np.geomspace(1 / 64, 64, 97)

        def likelihood(factor: float) -> float:
            one = score * factor
            mass = np.log(np.exp(one).sum(1, keepdims=True))
            return float((one - mass)[hit].sum())

        return float(max(factors, key=likelihood))

    def _queries(self, users: NDArray[np.integer], start: I64, stop: I64) -> Queries:
        """Return what is asked of users: their events ``start`` to ``stop``, in its own rows."""
        train = self.dataset.train
        lengths = stop - start
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        at = np.arange(indptr[-1]) + np.repeat(start - indptr[:-1], lengths)
        rows = self.theirs[train.histories.indices[at]]
        keep = rows >= 0
        indptr, at = np.concatenate([[0], np.cumsum(keep)])[indptr].astype(np.int64), at[keep]
        values = train.histories.values
        return Queries.of(
            CSR(indptr, rows[keep], None if values is None else values[at], len(self.ours)),
            time_s=None if train.time_s is None else train.time_s[at],
            context=context_at(self.dataset.user_table, context_of(self.scorer), users),
            allow=None if (self.ours >= 0).all() else self.ours >= 0,
        )


def encode_together(network: Network, histories: CSR) -> F32:
    """Return what ``network.encode`` gives to within rounding; those of like length run at once."""
    table = network.items if network.inputs is None else network.inputs
    vectors = np.zeros((histories.num_rows, network.items.shape[1]), np.float32)
    lengths = np.minimum(histories.lengths, network.max_length)
    for length in np.unique(lengths[lengths > 0]).tolist():
        at = np.flatnonzero(lengths == length)
        rows = histories.indices[(histories.indptr[at + 1] - length)[:, None] + np.arange(length)]
        x = table.rows(rows.ravel()).reshape(*rows.shape, -1)
        vectors[at] = network.runtime.run(x=x, lengths=np.full(len(at), length))
    return vectors


def _check_room(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"the teacher's answers take {size / 1e6:,.0f} MB and {folder} has room for "
            f"{free / 1e6:,.0f}: lower distil_top, or choose a run folder on another disk"
        )


def shift(vectors: Tensor, items: Tensor, target: Tensor, row: Tensor, share: Tensor) -> Tensor:
    """Return what turns a softmax loss over targets into that over the teacher's shares.

    The cross-entropy of shares q is log sum exp s - sum q s: it differs from that of a target by
    the score of the target less the mean score by q, so the softmax itself is run once for both.
    Where the teacher is silent its place is taken by the target.

    Args:
        vectors: (T, d).
        items: (n, d).
        target: (T,) int64.
        row: (T, k) int64 the teacher's items.
        share: (T, k) how much each counts.
    """
    middle = F.embedding_bag(row, items, per_sample_weights=share, mode="sum")
    left = 1 - share.sum(1, keepdim=True)
    return (vectors * ((1 - left) * items[target] - middle)).sum(1).mean()


def disagreement_among(vectors: Tensor, items: Tensor, row: Tensor, share: Tensor) -> Tensor:
    """Return the cross-entropy of the shares among the teacher's own items, a mean over T rows."""
    scores = torch.einsum("td,tkd->tk", vectors, items[row])
    silent = share.sum(1) == 0
    among = torch.logsumexp(scores, 1) - (share * scores).sum(1)
    return among.masked_fill(silent, 0.0).mean()


def unlike(lifted: Tensor, vector: Tensor) -> Tensor:
    """Return the mean of 1 - cosine between (T, d) vectors and the teacher's."""
    return 1 - F.cosine_similarity(lifted, vector, dim=1).mean()
