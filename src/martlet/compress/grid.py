"""What a sweep tries: transforms as text, by the stage of a composition in which they stand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

Stages = Sequence[Sequence[str]]

GRID: Stages = (
    (
        "prune:rows,share=0.5",
        "prune:dims,share=0.25",
        "prune:dims,share=0.5",
        "prune:values,share=0.5",
        "prune:entries,share=0.5",
        "prune:entries,share=0.8",
        "prune:entries,share=0.9",
        "prune:units,share=0.5",
        "prune:heads,share=0.5",
        "prune:layers,share=0.5",
    ),
    (
        "low-rank:error=0.02",
        "low-rank:error=0.05",
        "low-rank:error=0.1",
        "low-rank:error=0.1,of=network",
    ),
    (
        "quantize:fp16",
        "quantize:bf16",
        "quantize:int8",
        "quantize:int4",
        "quantize:int4,group=16",
        "quantize:int2",
        "quantize:pq:8x8",
        "quantize:pq:16x8",
        "quantize:pq:32x8",
    ),
    ("quantize:int8,of=network",),
    ("index:exact-int8", "index:ivf", "index:ivf-pq", "index:hnsw"),
)
"""Fewer numbers first, then fewer dimensions, then fewer bits, then a search of what is left.

A stage holds alternatives. What a bundle has no place for is refused by the transform itself.
"""


def pairs(stages: Stages) -> list[tuple[str, str]]:
    """Return one of a stage with one of a later stage, each pair of them, in order.

    >>> pairs([("a", "b"), ("c",)])
    [('a', 'c'), ('b', 'c')]
    """
    return [
        (first, second)
        for earlier, later in combinations(stages, 2)
        for first in earlier
        for second in later
    ]
