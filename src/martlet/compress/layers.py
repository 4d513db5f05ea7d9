"""Layers of a network as products of two thin ones: W ~ A B, in its file and its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.compress.graph import layers, split_layers
from martlet.core import SpecError
from martlet.scorers.full import FIRST, SECOND
from martlet.scorers.table import Table

F32 = NDArray[np.float32]
NETWORKS = ("encoder", "network")  # where the scorers with a network keep it


def thin_layers(
    label: str, scorer: Any, rank: int | None, error: float | None
) -> tuple[Any, dict[str, Any]]:
    """Return the scorer over a network of thin layers, and what is told of each layer.

    A layer stays where the product would have more numbers, or where no parameter of the scorer is
    its weights: the two would disagree.

    Raises:
        SpecError: there is no network, no layer becomes smaller, or ``onnx`` is missing.
    """
    held = next((name for name in NETWORKS if hasattr(scorer, name)), None)
    if held is None:
        raise SpecError(f"{label} over a {scorer.kind} scorer: it has no network")
    model: bytes = getattr(scorer, held)
    parts: dict[str, tuple[F32, F32]] = {}
    parameters, told = dict(scorer.parameters), {}
    for name, weights in layers(model).items():
        owner = _owner(parameters, weights)
        if owner is None and scorer.parameters:
            continue
        first, second, lost = thin(weights, rank, error)
        if first.size + second.size >= weights.size:
            continue
        parts[name] = first, second
        told[owner or name] = {
            "rank": first.shape[1],
            "of": min(weights.shape),
            "error": round(lost, 6),
        }
        if owner is not None:
            del parameters[owner]
            parameters |= {owner + FIRST: Table.of(first), owner + SECOND: Table.of(second)}
    if not parts:
        raise SpecError(
            f"{label} makes no layer of this {scorer.kind} scorer smaller: give a lower rank or a "
            "larger error"
        )
    made = {held: split_layers(model, parts), "parameters": parameters}
    return replace(scorer, **made), {f"network.{name}": line for name, line in told.items()}


def thin(weights: F32, rank: int | None, error: float | None) -> tuple[F32, F32, float]:
    """Return (in, r) and (r, out) nearest to ``weights``, and the share of them that is lost.

    **Source**: Eckart and Young (1936); the singular values are shared out evenly.
    """
    left, values, right = np.linalg.svd(weights.astype(np.float64), full_matrices=False)
    rest = np.append(np.cumsum(values[::-1] ** 2)[::-1], 0.0)
    lost = np.sqrt(rest / max(rest[0], np.finfo(np.float64).tiny))
    if rank is None:
        rank = max(1, int(np.argmax(lost <= (error or 0.0))))
    rank = min(rank, len(values))
    scale = np.sqrt(values[:rank])
    first, second = left[:, :rank] * scale, scale[:, None] * right[:rank]
    return first.astype(np.float32), second.astype(np.float32), float(lost[rank])


def _owner(parameters: Mapping[str, Table], weights: F32) -> str | None:
    """Return the name of the parameter that holds ``weights`` (in, out), as torch does: (out, in).

    A square matrix may be kept either way; one that is kept as it stands is no layer of torch.
    """
    for name, table in parameters.items():
        if table.shape == weights.T.shape and np.array_equal(table.dense(), weights.T):
            return name
    return None
