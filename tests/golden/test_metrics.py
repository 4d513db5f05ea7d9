"""Values worked out by hand."""

from math import log2

import numpy as np
import pytest

from martlet.core import CSR
from martlet.metrics import Tally, per_user, sampled_quality

# One user, relevant items 1, 4 and 6; shown 4 (hit), 0, 6 (hit), 2, 9. Another hits nothing.
ROWS = np.array([[4, 0, 6, 2, 9], [7, 8, -1, -1, -1]], np.int32)
TRUTH = CSR.from_rows([[1, 4, 6], [2]], 10)
VALUE = np.array([9, 10, 9, 9, 20, 9, 30, 9, 9, 9], float)
SHARE = np.array([0.5, 1, 0.25, 1, 0.125, 1, 1, 0.5, 0.25, 1])


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("recall@3", 2 / 3, 0),
        ("recall@1", 1 / 3, 0),
        ("precision@3", 2 / 3, 0),
        ("precision@5", 2 / 5, 0),
        ("hit_rate@1", 1, 0),
        ("ndcg@1", 1, 0),
        ("ndcg@3", (1 + 1 / log2(4)) / (1 + 1 / log2(3) + 1 / log2(4)), 0),
        ("mrr@5", 1, 0),
        ("map@3", (1 / 1 + 2 / 3) / 3, 0),
        ("map@1", 1, 0),
        ("value_recall@3", 50 / 60, 0),
        ("novelty@3", (3 + 1 + 0) / 3, (1 + 2) / 2),
    ],
)
def test_of_users(name, first, second):
    metric, k = name.split("@")
    found = per_user(ROWS, TRUTH, ks=[int(k)], metrics=[metric], value=VALUE, popularity=SHARE)[
        name
    ]
    assert found == pytest.approx([first, second])


def test_of_all_lists_together():
    tally = Tally(10, ks=(2, 5), metrics=("coverage", "gini", "ndcg"))
    tally.add(ROWS, TRUTH)
    figures = tally.figures()
    assert figures["coverage@2"] == 4 / 10
    assert figures["coverage@5"] == 7 / 10
    # Four items shown once, six never: 2 (7 + 8 + 9 + 10) / (10 * 4) - 11 / 10.
    assert figures["gini@2"] == pytest.approx(2 * 34 / 40 - 1.1)
    assert list(figures) == ["coverage@2", "coverage@5", "gini@2", "gini@5", "ndcg@2", "ndcg@5"]


def test_one_positive_among_sampled_negatives():
    # Places 0, 2, and a tie with one other from place 1 on.
    scores = np.array([[9, 1, 2, 3], [2, 3, 4, 1], [5, 5, 6, 0.0]])
    fair = sampled_quality(scores, (2,))
    assert fair["hit_rate@2"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert fair["ndcg@2"] == pytest.approx((1 + 0 + 0.5 / log2(3)) / 3)
    assert sampled_quality(scores, (2,), ties="first")["hit_rate@2"] == pytest.approx(2 / 3)
    assert sampled_quality(scores, (2,), ties="last")["hit_rate@2"] == pytest.approx(1 / 3)
