"""The merged tables of a model of fields and its dense part: one lookup and one update a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from martlet.core import SpecError
from martlet.scorers.bundle import Bundle
from martlet.scorers.field_rows import Layout
from martlet.scorers.fields import Fields
from martlet.scorers.shared import Placed
from martlet.scorers.table import Table
from martlet.train.embeddings import Embedding
from martlet.train.export import onnx_of
from martlet.train.field_batch import Batch
from martlet.train.field_batches import Events, Rows
from martlet.train.field_transfer import rows_in
from martlet.train.sharing import embedding_of, take_tables
from martlet.train.structure import tables_from, take_over

if TYPE_CHECKING:
    from martlet.train.field_model import FieldModel


class FieldNetwork(nn.Module):
    """The merged tables, and how the fields meet."""

    def __init__(self, spec: FieldModel, layout: Layout, seed: int) -> None:
        super().__init__()
        given: dict[str, Any] = {"optimizer": spec.table_optimizer, "rate": spec.table_rate}
        of_vectors = given | {"seed": 2 * seed, "storage": spec.storage}
        rows = layout.num_vector_rows
        self.vectors = embedding_of(spec.sharing, rows, spec.dim, **of_vectors)
        self.place = None if spec.sharing == "none" else layout.places
        self.wide = None
        if spec.has_wide:
            self.wide = Embedding(layout.num_rows, 1, seed=2 * seed + 1, init_scale=0, **given)
        self.interaction = spec.interaction(layout.num_vectors, layout.num_numbers)

    @property
    def core(self) -> nn.Module:
        """What a bundle keeps the parameters of beside the tables."""
        return self.interaction

    def take(self, bundle: Bundle, layout: Layout, items: NDArray[np.int64]) -> None:
        """Take over a bundle's network, or what pruning left of it, and the rows that it knows.

        Args:
            bundle: of the same family.
            layout: of this network.
            items: (num_items,) the bundle's row of each item of the layout, -1 for none.

        Raises:
            SpecError: it is of another family or shape, or reads other columns.
        """
        scorer = bundle.scorer
        try:
            if not isinstance(scorer, Fields):
                raise SpecError("it has no fields")
            if (self.wide is None) != (scorer.wide is None):
                raise SpecError("one alone has a weight for each value")
            at = rows_in(scorer.layout, layout, items)
            _take_rows(self.vectors, scorer.vectors, at[: layout.num_vector_rows])
            if self.wide is not None and scorer.wide is not None:
                _take_rows(self.wide, scorer.wide, at)
            take_over(self.interaction, scorer.parameters)
        except SpecError as error:
            raise SpecError(
                f"the bundle to start from is {type(scorer).__name__} of other parameters: "
                f"expected one of the same family, shape and columns ({error})"
            ) from error

    @property
    def device(self) -> torch.device:
        """Where the network lies; the tables stay on the CPU."""
        return next(self.interaction.parameters()).device

    def forward(self, batch: Batch) -> Tensor:
        """Return (N,) logits."""
        vectors, numbers = [], []
        rows = batch.rows if self.place is None else self.place[batch.rows]
        found = self.vectors(rows).cpu()  # projections of narrow rows may lie elsewhere
        for part, pieces in zip(batch.parts, batch.split(found), strict=True):
            single = pieces[0].reshape(part.size, -1, pieces[0].shape[1])
            own = [single, *part.means(pieces[1:])]
            vectors.append(part.repeated(_joined(own)))
            numbers.append(part.repeated(part.numbers))
        joined = _joined(vectors).to(self.device), _joined(numbers).to(self.device)
        deep: Tensor = self.interaction(*(joined if joined[1].shape[1] else joined[:1]))
        if self.wide is None:
            return deep
        wide = []
        found_wide = self.wide(batch.wide_rows)
        for part, pieces in zip(batch.parts, batch.split_wide(found_wide), strict=True):
            total = pieces[0].reshape(part.size, -1).sum(1)
            for mean in part.means(pieces[1:]):
                total = total + mean[:, 0, 0]
            wide.append(part.repeated(total))
        if len(batch.pairs):
            last = found_wide[len(found_wide) - len(batch.pairs) :]
            wide.append(last.reshape(len(batch.label), -1).sum(1))
        return deep + torch.stack(wide).sum(0).to(self.device)

    def export(self, spec: FieldModel, source: Rows | Events | Fields) -> Fields:
        """Return the torch-free scorer that gives the same answers."""
        self.cpu().eval()
        layout = source.layout
        inputs = {"vectors": torch.zeros(3, layout.num_vectors, spec.dim)}
        if layout.num_numbers:
            inputs["numbers"] = torch.zeros(3, layout.num_numbers)
        vectors = self.vectors.export()
        return Fields(
            vectors if isinstance(vectors, Table) else Placed(vectors, layout.places),
            None if self.wide is None else self.wide.export(),
            onnx_of(self.interaction, inputs, "logit"),
            layout,
            "odds" if spec.odds else spec.loss,
            source.items,
            spec.max_length,
            tables_from(self.interaction),
            source.unit,
        )


def _take_rows(table: nn.Module, stored: Table | Placed, at: NDArray[np.int64]) -> None:
    """Set each row to row ``at`` of what was stored; -1 leaves it as it is."""
    parts = {"": stored} if isinstance(stored, Table) else stored.tables()
    if np.array_equal(at, np.arange(stored.shape[0])):
        take_tables(table, parts)
        return
    if not isinstance(table, Embedding) or not isinstance(stored, Table):
        raise SpecError("rows that share numbers start from the same rows alone")
    if table.dim != stored.shape[1]:
        raise SpecError(f"its vectors have {stored.shape[1]} numbers: {table.dim} here")
    known = np.flatnonzero(at >= 0)
    table.take(stored.rows(at[known]), known)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)
