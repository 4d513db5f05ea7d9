import numpy as np
from hypothesis import given, settings

from martlet.core import CSR
from martlet.kernels.rank import ranks_dot, ranks_dot_reference
from support.searches import searches


@given(searches())
@settings(deadline=None)
def test_ranks_are_the_places_in_the_full_list(search):
    vectors, items, _, hidden, allow = search
    size, n = len(vectors), items.shape[1]
    targets = CSR.from_rows([np.unique(np.arange(min(3, n)) * 2 % max(n, 1))] * size, n)
    for more in ((hidden, allow), (None, None)):
        places, counts = ranks_dot(vectors, items, targets, *more, 2)
        expected, taken = ranks_dot_reference(vectors, items, targets, *more)
        assert places.tolist() == expected.tolist()
        assert counts.tolist() == taken.tolist()


def test_places_worked_out_by_hand():
    scores = np.array([[3, 9, 5, np.nan, 7]], np.float32)
    one, targets = np.ones((1, 1), np.float32), CSR.from_rows([[0, 1, 3]], 5)
    hidden, allow = CSR.from_rows([[1, 2]], 5), np.array([True, True, True, True, False])
    for find in (ranks_dot, ranks_dot_reference):
        places, counts = find(one, scores, targets)
        assert (places.tolist(), counts.tolist()) == ([3, 0, -1], [4])
        places, counts = find(one, scores, targets, hidden, allow)
        assert (places.tolist(), counts.tolist()) == ([1, 0, -1], [2])
