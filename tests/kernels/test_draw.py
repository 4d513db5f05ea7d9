"""The drawing kernel: known random numbers, and each thing that it promises of a history."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.kernels.draw import (
    _at,
    _next,
    arcs,
    draw_histories,
    draw_histories_reference,
    numbers_reference,
)

EVEN = np.linspace(0, 1, 9)
N = 40


def drawn(lengths, *, seed=7, first=0, popularity=None, circles=1, width=0.5, repeat=0.0, **given):
    """Return items, times and the item map of users who may differ in ``start`` to ``lean``."""
    users, popularity = len(lengths), np.ones(N) if popularity is None else popularity
    item_map = arcs(popularity, circles, np.random.default_rng(3))
    items, times = draw_histories(
        np.uint64(seed), first, np.asarray(lengths, np.int64),
        given.get("start", np.zeros(users)), given.get("span", np.ones(users)),
        given.get("lean", np.zeros(users)), EVEN, EVEN, np.arange(1, circles + 1) / circles,
        width, repeat, *item_map,
        given.get("slope", np.zeros(len(popularity))), given.get("level", np.zeros(N)),
    )  # fmt: skip
    return items, times, item_map


def gaps(items, order):
    """Return how many places on a circle lie between the two items of each user."""
    place = np.argsort(order)[items].reshape(-1, 2)
    gap = np.abs(place[:, 0] - place[:, 1])
    return np.minimum(gap, len(order) - gap)


def test_the_random_numbers_are_splitmix64s():
    known = [  # of seed 1234567, as published with the generator's reference code
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    expected = [(number >> 11) * 2.0**-53 for number in known]
    state = np.array([1234567], np.uint64)
    assert [_next(state) for _ in known] == expected
    assert list(islice(numbers_reference(1234567), len(known))) == expected


@given(
    st.lists(st.integers(0, N), max_size=6),
    st.integers(1, 3),
    st.floats(0.002, 1),
    st.sampled_from([0.0, 0.3]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
def test_histories_are_the_reference(lengths, circles, width, repeat, seed, first):
    """Up to the whole catalogue, where the tries run out."""
    stream, users = np.random.default_rng(seed), len(lengths)
    order, mass, guide = arcs(1 / np.arange(1, N + 1), circles, stream)
    each = [stream.random(users) / 2, stream.random(users) / 2, 4 * stream.normal(size=users)]
    curves = [np.array([0.0, *np.sort(stream.random(7)), 1.0]) for _ in range(2)]
    given = (np.uint64(seed), first, np.array(lengths, np.int64), *each, *curves)
    given += (np.append(np.sort(stream.random(circles - 1)), 1.0), width, repeat, order, mass)
    rest = 4 * stream.normal(size=N), np.linspace(0.5, -0.5, N)
    items, times = draw_histories(*given, guide, *rest)
    expected, at = draw_histories_reference(*given, *rest)
    np.testing.assert_array_equal(items, expected)
    np.testing.assert_allclose(times, at, rtol=0, atol=1e-12)


@given(st.lists(st.floats(0, 10), min_size=2, max_size=9), st.floats(0, 1))
@settings(deadline=None)
def test_a_curve_is_read_as_numpy_interpolates(steps, share):
    curve = np.cumsum(steps)
    places = np.linspace(0, 1, len(curve))
    assert _at(curve, share) == pytest.approx(np.interp(share, places, curve), abs=1e-9)


@given(
    st.lists(st.integers(1, N), min_size=1, max_size=8),
    st.integers(1, 3),
    st.floats(0.002, 1),
    st.integers(0, 2**63),
)
@settings(max_examples=60, deadline=None)
def test_every_history_is_whole_in_order_and_without_repeats(lengths, circles, width, seed):
    """Up to the whole catalogue, where nothing but the fallback finds what is left."""
    stream = np.random.default_rng(seed)
    start, span = stream.random(len(lengths)) / 2, stream.random(len(lengths)) / 2
    given = {"lean": 4 * stream.normal(size=len(lengths)), "slope": 4 * stream.normal(size=N)}
    given["level"] = np.linspace(0.5, -0.5, N)
    items, times, _ = drawn(
        lengths, seed=seed, circles=circles, width=width, start=start, span=span, **given
    )
    assert len(items) == len(times) == sum(lengths)
    end = np.cumsum(lengths)
    for user, (a, b) in enumerate(zip(end - lengths, end, strict=True)):
        assert len(set(items[a:b].tolist())) == b - a
        assert items[a:b].min() >= 0
        assert items[a:b].max() < N
        assert (np.diff(times[a:b]) >= 0).all()
        assert times[a] >= start[user] - 1e-12
        assert times[b - 1] <= start[user] + span[user] + 1e-12


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9), st.data())
@settings(max_examples=30, deadline=None)
def test_chunks_change_no_digit(lengths, data):
    cut = data.draw(st.integers(1, len(lengths) - 1))
    whole = drawn(lengths, circles=3)
    parts = drawn(lengths[:cut], circles=3), drawn(lengths[cut:], first=cut, circles=3)
    for at in (0, 1):
        np.testing.assert_array_equal(whole[at], np.concatenate([part[at] for part in parts]))


def test_a_seed_and_a_user_have_a_stream_of_their_own():
    one = drawn(np.full(9, 5), seed=1)[0]
    np.testing.assert_array_equal(one, drawn(np.full(9, 5), seed=1)[0])
    assert (one == drawn(np.full(9, 5), seed=2)[0]).mean() < 0.2
    assert (one == drawn(np.full(9, 5), seed=1, first=1)[0]).mean() < 0.2


@pytest.mark.parametrize("width", [0.01, 1.0])
def test_popularity_is_left_as_it_was_given(width):
    popularity = 1 / np.arange(1, N + 1)
    items, _, _ = drawn(np.ones(200_000, int), popularity=popularity, circles=2, width=width)
    share = np.bincount(items, minlength=N) / len(items)
    wanted = popularity / popularity.sum()
    assert np.abs(share - wanted).max() < 5 * np.sqrt(wanted.max() / len(items))


def test_events_gather_around_an_interest():
    items, _, (order, _, _) = drawn(np.full(20_000, 2), width=0.01)
    assert (gaps(items, order[0]) <= 4).mean() > 0.5
    items, _, (order, _, _) = drawn(np.full(20_000, 2), width=1.0)
    # 4 neighbours on each side of 39 others
    assert abs((gaps(items, order[0]) <= 4).mean() - 8 / 39) < 0.02


def test_users_lean_to_the_popular_items_or_to_the_rare():
    level = np.linspace(0.5, -0.5, N)
    means = [
        level[drawn(np.full(5_000, 3), lean=np.full(5_000, lean), level=level)[0]].mean()
        for lean in (-3.0, 0.0, 3.0)
    ]
    assert means[0] < -0.15 < means[1] < 0.15 < means[2]


def test_items_rise_and_fall_over_the_log():
    slope = np.where(np.arange(N) < N // 2, 3.0, -3.0)
    items, times, _ = drawn(np.full(20_000, 2), slope=slope)
    rising = items < N // 2
    shares = [rising[times < 0.2].mean(), rising[times > 0.8].mean()]
    assert shares[0] < 0.3
    assert shares[1] > 0.7
    assert abs(rising.mean() - 0.5) < 0.02


def test_some_events_repeat():
    items, _, _ = drawn(np.full(4_000, 10), repeat=0.25)
    distinct = sum(len(set(row)) for row in items.reshape(-1, 10).tolist())
    # The first of ten cannot repeat; the others do with the given chance.
    assert abs((1 - distinct / len(items)) - 0.25 * 9 / 10) < 0.01


def test_users_spread_over_the_circles():
    """Half of them are near one another on each of two circles; or all of them on the first."""
    item_map = arcs(np.ones(N), 2, np.random.default_rng(3))
    users = 4_000
    zero, one, none = np.zeros(users), np.ones(users), np.zeros(N)
    near = {}
    for share in (0.5, 1.0):
        items, _ = draw_histories(
            np.uint64(1), 0, np.full(users, 2), zero, one, zero, EVEN, EVEN,
            np.array([share, 1.0]), 0.01, 0.0, *item_map, none, none,
        )  # fmt: skip
        near[share] = [(gaps(items, order) <= 4).mean() for order in item_map[0]]
    assert near[1.0][0] > near[0.5][0] + 0.1
    assert abs(near[0.5][0] - near[0.5][1]) < 0.05
    assert abs(near[1.0][1] - 8 / 39) < 0.05


def test_arcs_are_as_long_as_the_popularity():
    popularity = np.array([5.0, 1.0, 3.0, 1.0])
    order, mass, guide = arcs(popularity, 3, np.random.default_rng(0))
    for row in range(3):
        assert sorted(order[row].tolist()) == [0, 1, 2, 3]
        np.testing.assert_allclose(np.diff(mass[row], prepend=0), popularity[order[row]] / 10)
        for j, place in enumerate(guide[row].tolist()):
            assert place == np.flatnonzero(mass[row] > j / 4)[0]
