"""Clusters of item vectors for a search by inner product."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from martlet.core import SpecError, rng
from martlet.kernels.topk import topk_dot
from martlet.scorers.table import blocks

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

POINTS = 39  # vectors a cluster, below which its centre is a matter of chance
_SAMPLE = 64  # vectors a cluster that its centre is learnt from, at most
_ITERATIONS = 10


def num_clusters(n: int, nlist: int | None) -> int:
    """Return how many clusters ``n`` items make where ``nlist`` is asked for.

    None takes sqrt(n), fewer where a cluster would be too small to learn: more would cut the rows
    scanned, but add centres and starts of runs, and take longer to learn.

    Raises:
        SpecError: more clusters than items, or fewer than one.
    """
    if nlist is None:
        return max(1, min(round(sqrt(n)), n // POINTS))
    if not 1 <= nlist <= n:
        raise SpecError(f"nlist is {nlist}: expected 1 to {n}, the number of items")
    return nlist


def clustered(vectors: F32, nlist: int, seed: int) -> tuple[F32, I32]:
    """Return the (nlist, d) means of the clusters and the (n,) cluster of each vector.

    By k-means from a sample. A cluster left empty begins anew at the vector that is farthest from
    its centre. O(nlist^2 d) an iteration, of which there are ten, then O(n nlist d).

    **Source**: Lloyd, "Least squares quantization in PCM" (1982).
    **Differs**: vectors go to the nearest mean by Euclidean distance though queries choose clusters
    by inner product: by inner product the longest means would take nearly all of them.
    """
    n = len(vectors)
    random = rng(seed, "index", "clusters")
    rows = np.sort(random.permutation(n)[: _SAMPLE * nlist])
    points = vectors[rows]
    centres = points[np.sort(random.permutation(len(points))[:nlist])]
    for _ in range(_ITERATIONS):
        cluster, near = _nearest(points, centres)
        centres, counts = _means(points, cluster, nlist)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            far = np.einsum("ij,ij->i", points, points) - 2 * near
            centres[empty] = points[np.argsort(-far, kind="stable")[: len(empty)]]
    found = np.empty(n, np.int32)
    for start, stop in blocks(*vectors.shape):
        found[start:stop] = _nearest(vectors[start:stop], centres)[0]
    return _means(vectors, found, nlist)[0], found


def _nearest(points: F32, centres: F32) -> tuple[I32, F32]:
    """Return the nearest centre of each point, and x . c - |c|^2 / 2, which is largest there."""
    half = np.einsum("ij,ij->i", centres, centres)[:, None] / np.float32(2)
    ones = np.ones((len(points), 1), np.float32)
    both = np.hstack([points, ones]), np.ascontiguousarray(np.hstack([centres, -half]).T)
    cluster, near = topk_dot(*both, 1)
    return cluster[:, 0], near[:, 0]


def _means(points: F32, cluster: I32, nlist: int) -> tuple[F32, NDArray[np.integer]]:
    """Return the (nlist, d) mean of each cluster's points, zeros for none, and their counts."""
    counts = np.bincount(cluster, minlength=nlist)
    order = np.argsort(cluster, kind="stable")
    sums = np.zeros((nlist, points.shape[1]), np.float32)
    filled = np.flatnonzero(counts)
    starts = (np.cumsum(counts) - counts)[filled]
    sums[filled] = np.add.reduceat(points[order], starts, axis=0)
    sums /= np.maximum(counts, 1)[:, None].astype(np.float32)
    return sums, counts
