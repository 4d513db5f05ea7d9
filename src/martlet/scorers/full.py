"""Back to full width: the tables of a network's scorer as they were before their rank was cut."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from martlet.scorers.table import Table

TURNED = "network.turned."  # then the name of a side: (r, d), which leads back to full width
FIRST, SECOND = ".first", ".second"  # of a layer that became a product: (in, r) and (r, out)


def full_width(tables: Mapping[str, Table]) -> dict[str, Table]:
    """Return the tables with every one that was cut at its full width again. O(values).

    What lay outside the directions that were kept is lost; all else is as it was, so a network
    that is made of these tables gives the answers of the smaller one.
    """
    full = {name: table for name, table in tables.items() if not name.startswith(TURNED)}
    for name, table in tables.items():
        if name.startswith(TURNED):
            for side in sides_of(name.removeprefix(TURNED)):
                if side in full:
                    full[side] = Table.of(full[side].dense() @ table.dense())
        elif name.startswith("network.") and name.endswith(FIRST):
            layer = name.removesuffix(FIRST)
            first, second = full.pop(name).dense(), full.pop(layer + SECOND).dense()
            full[layer] = Table.of(np.ascontiguousarray((first @ second).T))
    return full


def sides_of(turn: str) -> tuple[str, ...]:
    """Return the tables that a turn called so holds for."""
    return ("history", "projection.users", "projection.inputs") if turn == "users" else (turn,)
