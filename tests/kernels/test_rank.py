import numpy as np
from hypothesis import given, settings

from martlet.core import CSR
from martlet.kernels.rank import ranks_dot
from martlet.kernels.topk import topk_dot_reference
from support.searches import searches


@given(searches())
@settings(deadline=None)
def test_ranks_are_the_places_in_the_full_list(search):
    vectors, items, _, hidden, allow = search
    size, n = len(vectors), items.shape[1]
    targets = CSR.from_rows([np.unique(np.arange(min(3, n)) * 2 % max(n, 1))] * size, n)
    places, counts = ranks_dot(vectors, items, targets, hidden, allow, 2)
    for user in range(size):
        drop = np.zeros(n, bool)
        drop[hidden.row(user)] = True
        if allow is not None:
            drop |= ~allow
        drop[targets.row(user)] = False
        one = CSR.from_rows([np.flatnonzero(drop)], n)
        rows, _ = topk_dot_reference(vectors[user : user + 1], items, n + 1, one)
        full = [row for row in rows[0].tolist() if row >= 0]
        assert counts[user] == len(full)
        found = places[targets.indptr[user] : targets.indptr[user + 1]].tolist()
        expected = [full.index(t) if t in full else -1 for t in targets.row(user).tolist()]
        assert found == expected
