import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR
from martlet.kernels.unmet import draw_unmet, draw_unmet_reference


def some_events(users, items, share, seed):
    met = np.random.default_rng(seed).random((users, items)) < share
    return CSR.from_rows([np.flatnonzero(row) for row in met], items), met


@given(
    st.integers(1, 5), st.integers(1, 9), st.floats(0, 1), st.integers(1, 4),
    st.integers(0, 2**64 - 1),
)  # fmt: skip
@settings(deadline=None)
def test_what_is_drawn_is_that_of_the_formula(users, items, share, count, seed):
    matrix, _ = some_events(users, items, share, seed)
    asked = np.random.default_rng(seed).integers(users, size=7)
    found = draw_unmet(matrix, asked, count, seed)
    np.testing.assert_array_equal(found, draw_unmet_reference(matrix, asked, count, seed))


def test_what_is_drawn_was_not_met_and_falls_evenly():
    matrix, met = some_events(3, 20, 0.5, 1)
    asked = np.repeat(np.arange(3), 4000)
    found = draw_unmet(matrix, asked, 2, 5)
    times = np.zeros((3, 20), int)
    np.add.at(times, (asked[:, None], found), 1)
    assert (times[met] == 0).all()
    expected = 8000 / (~met).sum(1)
    off = (times - expected[:, None]) / np.sqrt(expected)[:, None]
    assert abs(off[~met]).max() < 5


def test_who_met_everything_is_given_something():
    matrix = CSR.from_rows([range(4)], 4)
    assert set(draw_unmet(matrix, np.zeros(50, np.int64), 1, 0).flat) <= set(range(4))
