import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.kernels.ivf import (
    Lists,
    rescore,
    rescore_reference,
    scan_lists,
    scan_lists_reference,
    search_lists,
)
from support.searches import searches


def lists_of(items, nlist, seed):
    """Put rows into clusters at random: what is found must not depend on a good clustering."""
    random = np.random.default_rng(seed)
    cluster = random.integers(0, nlist, len(items))
    rows = np.argsort(cluster, kind="stable").astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(cluster, minlength=nlist))])
    centres = random.integers(-127, 128, (nlist, items.shape[1])).astype(np.int8)
    scale = random.uniform(0, 2, len(items)).astype(np.float32)
    near = random.uniform(0, 2, nlist).astype(np.float32)
    return Lists(centres, near, offsets.astype(np.int64), rows, items[rows], scale)


@settings(deadline=None, max_examples=60)
@given(searches(), st.integers(1, 9), st.data())
def test_the_lists_are_scanned_as_the_reference_does(search, nlist, data):
    vectors, items, k, hidden, allow = search
    codes = np.nan_to_num(items.T, posinf=127, neginf=-127).astype(np.int8)
    lists = lists_of(np.ascontiguousarray(codes), nlist, len(vectors))
    nprobe = data.draw(st.integers(1, nlist))
    for threads in (1, 2):
        found = scan_lists(vectors, lists, nprobe, k, hidden, allow, threads)
        expected = scan_lists_reference(vectors, lists, nprobe, k, hidden, allow)
        np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=60)
@given(searches())
def test_rows_are_scored_again_as_the_reference_does(search):
    vectors, items, k, _, _ = search
    n = items.shape[1]
    random = np.random.default_rng(n)
    found = np.array([random.permutation(n)[:30] for _ in vectors], np.int32)
    found = found.reshape(len(vectors), min(n, 30))
    found[random.random(found.shape) < 0.2] = -1
    values = np.ascontiguousarray(items.T)
    if not n:
        return
    rows, scores = rescore(vectors, values, found, k)
    expected = rescore_reference(vectors, values, found, k)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(scores, expected[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_query_that_is_not_finite_finds_nothing(bad):
    lists = lists_of(np.ones((20, 4), np.int8), 3, 0)
    vectors = np.ones((2, 4), np.float32)
    vectors[1, 2] = bad
    found = scan_lists(vectors, lists, 3, 5)
    assert (found[0] >= 0).all()
    assert (found[1] == -1).all()


def test_many_features_do_not_overflow():
    d = 2000
    codes = np.full((3, d), 127, np.int8)
    lists = lists_of(codes, 1, 0)._replace(scale=np.array([1, 2, 3], np.float32))
    vectors = np.full((1, d), 5.0, np.float32)
    assert scan_lists(vectors, lists, 1, 3)[0].tolist() == [
        lists.rows[place] for place in (2, 1, 0)
    ]


@settings(deadline=None, max_examples=40)
@given(searches(), st.integers(1, 9))
def test_a_search_is_a_scan_scored_again(search, nlist):
    vectors, items, k, hidden, allow = search
    values = np.nan_to_num(np.ascontiguousarray(items.T), posinf=100, neginf=-100)
    lists = lists_of(values.astype(np.int8), nlist, len(vectors))
    again = min(2 * k, len(values))
    for threads in (1, 2):
        found = scan_lists(vectors, lists, nlist, again, hidden, allow)
        expected = rescore(vectors, values, found, k)
        got = search_lists(vectors, lists, nlist, k, again, values, hidden, allow, threads)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])
