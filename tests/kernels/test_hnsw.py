import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import best
from martlet.kernels.hnsw import Graph, walk
from support.searches import searches

LINKS = 3


def graph_of(codes, seed):
    """Link rows at random: two on a level, and a ring, so that each is reached."""
    random, n = np.random.default_rng(seed), len(codes)
    level = random.geometric(0.6, n) - 1
    offsets = np.concatenate([[0], np.cumsum(LINKS * (2 + level))]).astype(np.int64)
    neighbours = np.full(offsets[-1], -1, np.int32)
    for row in range(n):
        for at in range(level[row] + 1):
            there = np.flatnonzero(level >= at)
            ring = there[(np.searchsorted(there, row) + 1) % len(there)]
            linked = {int(ring), *random.choice(there, min(2, len(there))).tolist()} - {row}
            start = offsets[row] + (0 if at == 0 else LINKS * (at + 1))
            neighbours[start : start + len(linked)] = sorted(linked)
    scale = random.uniform(0.1, 2, n).astype(np.float32)
    return Graph(codes, scale, offsets, neighbours, LINKS, int(level.argmax()), int(level.max()))


def near(graph, row, level):
    start = graph.offsets[row] + (0 if level == 0 else graph.links * (level + 1))
    found = graph.neighbours[start : start + graph.links * (1 if level else 2)]
    return found[: np.argmax(found < 0) if (found < 0).any() else len(found)].tolist()


def walk_reference(vectors, graph, ef, hidden, allow):
    """Walk by heaps and sets of Python."""
    out = np.full((len(vectors), ef), -1, np.int32)
    for b, vector in enumerate(vectors):
        top = np.abs(vector).max()
        z = np.rint(vector * (np.float32(32767) / top if top else np.float32(0))).astype(np.int64)
        score = (graph.codes @ z).astype(np.float32) * graph.scale
        shown = np.ones(len(score), bool) if allow is None else allow.copy()
        shown[hidden.row(b)] = False
        row = graph.entry
        for level in range(graph.top, 0, -1):
            while True:
                better = max(near(graph, row, level), key=lambda r: score[r], default=row)
                if score[better] <= score[row]:
                    break
                row = better
        met, kept, waiting = {row}, [], [(-score[row], row)]
        if shown[row]:
            kept.append(row)
        while waiting:
            first, row = heapq.heappop(waiting)
            if len(kept) == ef and -first < score[kept].min():
                break
            new = [other for other in near(graph, row, 0) if other not in met]
            met |= set(new)
            for other in new:
                if len(kept) < ef or score[other] >= score[kept].min():
                    heapq.heappush(waiting, (-score[other], other))
                    if shown[other]:
                        kept.append(other)
                        rows = np.array(kept, np.int32)
                        kept = best(score[None, rows], rows[None], ef).item_row[0]
                        kept = kept[kept >= 0].tolist()
        rows = np.array(kept, np.int32)
        out[b] = best(score[None, rows], rows[None], ef).item_row[0]
    return out


@settings(deadline=None, max_examples=40)
@given(searches(), st.integers(1, 40))
def test_the_walk_meets_what_the_reference_meets(search, ef):
    vectors, items, _, hidden, allow = search
    # Without ties, whose order within the walk is the kernel's own.
    random = np.random.default_rng(items.shape[1])
    codes = random.integers(-127, 128, items.T.shape).astype(np.int8)
    if not len(codes):
        return
    vectors = random.normal(size=vectors.shape).astype(np.float32)
    graph = graph_of(codes, ef)
    for threads in (1, 2):
        found = walk(vectors, graph, ef, hidden, allow, threads)
        np.testing.assert_array_equal(found, walk_reference(vectors, graph, ef, hidden, allow))


def test_a_walk_that_keeps_everything_meets_everything():
    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, (3000, 8)).astype(np.int8)
    graph = graph_of(codes, 1)
    found = walk(random.normal(size=(2, 8)).astype(np.float32), graph, 3000)
    assert (np.sort(found, axis=1) == np.arange(3000)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_query_that_is_not_finite_finds_nothing(bad):
    graph = graph_of(np.ones((20, 4), np.int8), 0)
    vectors = np.ones((2, 4), np.float32)
    vectors[0, 1] = bad
    found = walk(vectors, graph, 5)
    assert (found[0] == -1).all()
    assert (found[1] >= 0).all()
