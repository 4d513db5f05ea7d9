import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.core import CSR, SpecError
from martlet.train.negatives import Negatives
from martlet.train.sequences import Pieces

histories = st.lists(st.lists(st.integers(0, 9), max_size=30), max_size=20)


def seen(pieces, epoch=0):
    """Return every (history so far within the piece, target) of an epoch."""
    found = Counter()
    for batch in pieces.batches(epoch):
        tokens = pieces.take(batch)
        assert tokens.rows.shape == tokens.mask.shape
        at = 0
        for row, mask in zip(tokens.rows, tokens.mask, strict=True):
            inputs = row[mask].tolist()
            for place in range(len(inputs)):
                found[(tuple(inputs[: place + 1]), int(tokens.target[at]))] += 1
                at += 1
        assert at == len(tokens.target)
    return found


@given(histories, st.integers(1, 8), st.integers(1, 60))
def test_every_event_but_the_first_is_a_target_once(rows, max_length, tokens):
    pieces = Pieces(CSR.from_rows(rows, 10), max_length, tokens, 0)
    expected = Counter()
    for row in rows:
        for at in range(1, len(row)):
            begin = at - 1 - (max_length - 1 - (len(row) - 1 - at) % max_length) % max_length
            expected[(tuple(row[max(0, begin) : at]), row[at])] += 1
    found = seen(pieces)
    assert sum(found.values()) == pieces.num_targets == sum(expected.values())
    assert Counter(t for _, t in found.elements()) == Counter(t for _, t in expected.elements())
    assert found == expected


@given(histories, st.integers(1, 8), st.integers(1, 60))
def test_batches_keep_the_budget_and_hold_like_lengths(rows, max_length, tokens):
    pieces = Pieces(CSR.from_rows(rows, 10), max_length, tokens, 0)
    batches = pieces.batches(0)
    for batch in batches:
        mask = pieces.take(batch).mask
        assert mask.size <= tokens or len(batch) == 1
    # The lengths of one batch do not reach into those of another.
    ends = sorted(
        (pieces.take(b).mask.sum(1).min(), pieces.take(b).mask.sum(1).max()) for b in batches
    )
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(ends))


def test_epochs_differ_and_repeat_under_the_seed():
    csr = CSR.from_rows([list(range(3)) for _ in range(50)], 10)
    pieces, again = (Pieces(csr, 5, 20, 7) for _ in range(2))
    one, two = pieces.batches(0), pieces.batches(1)
    assert len(one) == len(two)
    assert [b.tolist() for b in one] == [b.tolist() for b in again.batches(0)]
    assert [b.tolist() for b in one] != [b.tolist() for b in two]
    assert [b.tolist() for b in one] != [b.tolist() for b in Pieces(csr, 5, 20, 8).batches(0)]


def test_whose_pieces_they_are():
    pieces = Pieces(CSR.from_rows([[1], [1, 2, 3, 4], [5, 6]], 10), 2, 100, 0)
    assert pieces.users(np.arange(3)).tolist() == [1, 1, 2]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_items_are_drawn_as_their_popularity_says(power):
    count = np.array([0, 3, 8, 99])
    drawn = Negatives(count, power, 0).draw((400, 500), 3)
    share = (count + 1.0) ** power / ((count + 1.0) ** power).sum()
    np.testing.assert_allclose(
        np.bincount(drawn.ravel(), minlength=4) / drawn.size, share, atol=5e-3
    )
    np.testing.assert_allclose(np.exp(Negatives(count, power, 0).log_q), share, rtol=1e-5)


def test_a_draw_is_a_function_of_seed_and_step():
    draws = [Negatives(np.ones(1000, int), 0.5, seed).draw((50,), step).tolist()
             for seed, step in ((0, 0), (0, 0), (0, 1), (1, 0))]  # fmt: skip
    assert draws[0] == draws[1]
    assert draws[0] != draws[2] != draws[3]


class TestHiddenEvents:
    pieces = Pieces(CSR.from_rows([[7, *range(6)], [8, 9], [3], [4, 5, 6, 7]], 10), 4, 100, 0)

    def hide(self, share, step):
        return self.pieces.hide(np.concatenate(self.pieces.batches(0)), share, step)

    @given(st.floats(0, 0.9), st.integers(0, 50))
    def test_every_piece_hides_one_at_least_and_tells_what_it_was(self, share, step):
        cloze = self.hide(share, step)
        assert cloze.hidden.any(1).all()
        assert not (cloze.hidden & ~cloze.mask).any()
        np.testing.assert_array_equal(cloze.target, cloze.rows[cloze.hidden])
        np.testing.assert_array_equal(cloze.target, self.pieces.histories.indices[cloze.event])

    def test_a_piece_holds_its_last_target_too(self):
        cloze = self.hide(0.0, 0)
        found = sorted(row[mask].tolist() for row, mask in zip(cloze.rows, cloze.mask, strict=True))
        assert found == [[1, 2, 3, 4, 5], [4, 5, 6, 7], [7, 0, 1], [8, 9]]
        # Nothing was drawn, so the last event of each is hidden.
        ends = cloze.mask.sum(1) - 1
        assert cloze.hidden[np.arange(len(ends)), ends].all()
        assert cloze.hidden.sum() == len(ends)

    def test_the_share_is_met_and_now_and_then_the_last_is_hidden_alone(self):
        pieces = Pieces(CSR.from_rows([list(range(10))] * 4000, 10), 20, 10**6, 0)
        cloze = pieces.hide(np.arange(4000), 0.5, 3)
        alone = (cloze.hidden.sum(1) == 1) & cloze.hidden[:, -1]
        assert 0.09 < alone.mean() < 0.13
        assert abs(cloze.hidden[~alone].mean() - 0.5) < 0.01

    def test_what_is_hidden_is_a_function_of_the_step(self):
        one, same, other = (self.hide(0.5, step).hidden for step in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()


@pytest.mark.parametrize("power", [1e30, -300.0, float("nan")])
def test_a_power_that_leaves_no_chances_is_refused(power):
    with pytest.raises(SpecError, match=r"negative_power is .*: expected a number from"):
        Negatives(np.ones(3, int), power, 0)
