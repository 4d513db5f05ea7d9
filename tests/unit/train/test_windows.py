import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR
from martlet.train.windows import Windows, window_means


@st.composite
def logs(draw):
    lengths = draw(st.lists(st.integers(0, 40), min_size=1, max_size=8))
    stream = np.random.default_rng(draw(st.integers(0, 99)))
    return CSR.from_rows([stream.integers(0, 9, n) for n in lengths], 9)


@settings(deadline=None, max_examples=60)
@given(logs(), st.integers(1, 12), st.integers(1, 50), st.booleans())
def test_every_event_is_an_example_once_after_what_stood_before_it(log, length, size, first):
    windows = Windows(log, length, size, seed=3, first=first)
    met = []
    for batch in windows.batches(1):
        one = windows.take(batch)
        met += one.place.tolist()
        for t, place in enumerate(one.place.tolist()):
            user = int(np.searchsorted(log.indptr, place, side="right")) - 1
            own = log.indices[max(log.indptr[user], place - length) : place]
            assert one.events[one.start[t] : one.stop[t]].tolist() == own.tolist()
            assert (one.target[t], one.user[t]) == (log.indices[place], user)
    begins = set(log.indptr[:-1][log.lengths > 0].tolist())
    wanted = [p for p in range(log.nnz) if first or p not in begins]
    assert sorted(met) == wanted
    assert windows.num_targets == len(wanted)


@settings(deadline=None, max_examples=30)
@given(logs(), st.integers(1, 50))
def test_batches_are_as_many_in_every_epoch_and_about_as_large(log, size):
    windows = Windows(log, 5, size, seed=0)
    for epoch in range(4):
        sizes = [len(windows.take(batch).target) for batch in windows.batches(epoch)]
        assert len(sizes) == -(-windows.num_targets // size)
        assert all(n < size + 16 for n in sizes)


def test_the_seed_and_the_epoch_decide_the_order():
    log = CSR.from_rows([range(9)] * 50, 9)
    one, two = (np.concatenate(Windows(log, 5, 20, 0).batches(e)) for e in (0, 1))
    assert one.tolist() == np.concatenate(Windows(log, 5, 20, 0).batches(0)).tolist()
    assert one.tolist() != two.tolist()


def test_a_window_reads_few_events_beside_its_targets():
    """Sixteen targets with a history of fifty read 65 events, not 800."""
    log = CSR.from_rows([range(100)], 100)
    windows = Windows(log, 50, 16, seed=0)
    read = [len(windows.take(batch).events) for batch in windows.batches(0)]
    assert max(read) <= 16 + 50 - 1


def test_means_and_their_slope_are_those_of_a_loop():
    torch.manual_seed(0)
    vectors = torch.randn(30, 4, requires_grad=True)
    start = torch.tensor([0, 0, 3, 7, 29, 5])
    stop = torch.tensor([0, 1, 9, 30, 30, 5])
    found = window_means(vectors, start, stop)
    spans = list(zip(start.tolist(), stop.tolist(), strict=True))
    plain = torch.stack(
        [vectors[a:b].mean(0) if b > a else vectors[:1].sum(0) * 0 for a, b in spans]
    )
    torch.testing.assert_close(found, plain)
    weight = torch.randn_like(found)
    slopes = [
        torch.autograd.grad((one * weight).sum(), vectors, retain_graph=True)[0]
        for one in (found, plain)
    ]
    torch.testing.assert_close(*slopes)


def test_late_windows_are_as_exact_as_early_ones():
    vectors = torch.full((200_000, 1), 1.1)
    vectors[-3:] = 1e-3
    late = window_means(vectors, torch.tensor([199_997]), torch.tensor([200_000]))
    assert late.item() == pytest.approx(1e-3, rel=1e-5)
