"""What holds for any table: round trips, order, one row against the batch, unknown values."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR, Text
from martlet.features import (
    Bag,
    Bucket,
    Category,
    Cross,
    Encoded,
    Features,
    Hashed,
    Numeric,
    Sequence,
    Vector,
    Words,
)
from martlet.features.features import Features as Whole

PLAN = [
    Category("tail", min_count=2),
    Category("ring"),
    Hashed("tail_b", buckets=9),
    Bucket("wing", buckets=3),
    Bucket("ring", edges=(0, 2)),
    Cross(("tail", "ring"), min_count=1),
    Cross((Bucket("wing", edges=(0.5,)), "tail_b"), buckets=7),
    Numeric("wing"),
    Numeric("ring", "quantile", quantiles=4, missing=(0,)),
    Bag("food"),
    Sequence("seen", 2),
    Words("title", buckets=20),
    Vector("photo"),
]
letters = st.text("abé雨 |", max_size=3)
number = st.one_of(st.floats(-3, 3), st.just(np.nan))
a_row = st.tuples(
    letters, st.integers(-1, 4), letters, number, letters, st.lists(st.integers(0, 4), max_size=4)
)
tables = st.lists(a_row, min_size=1, max_size=12)


def columns_of(table):
    tail, ring, other, wing, food, seen = zip(*table, strict=True)
    return {
        "tail": Text.of(tail),
        "ring": np.array(ring),
        "tail_b": Text.of(other),
        "wing": np.array(wing),
        "food": Text.of(food),
        "title": Text.of([one + " " + two for one, two in zip(tail, other, strict=True)]),
        "seen": CSR.from_rows(seen, num_cols=5),
        "photo": np.array([[one, one] for one in ring], np.float64),
    }


def same(one: Encoded, other: Encoded):
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.numbers, other.numbers)
    for mine, theirs in zip(one.bags, other.bags, strict=True):
        np.testing.assert_array_equal(mine.indptr, theirs.indptr)
        np.testing.assert_array_equal(mine.rows, theirs.rows)


def reread(features):
    return Features.from_parts(json.loads(json.dumps(features.to_json())), features.arrays())


@settings(deadline=None, max_examples=25)
@given(tables, tables)
def test_read_again_it_gives_the_same(train, test):
    features = Features.fit(PLAN, columns_of(train))
    again = reread(features)
    assert again.num_rows == features.num_rows
    assert again.numbers == features.numbers
    for table in (train, test):
        same(features.apply(columns_of(table)), again.apply(columns_of(table)))


@settings(deadline=None, max_examples=25)
@given(tables, tables)
def test_all_within_their_ranges(train, test):
    features = Features.fit(PLAN, columns_of(train))
    encoded = features.apply(columns_of(test))
    offsets, crossed = features.offsets, len(features.wide_only)
    plain = len(features.fields) - crossed
    order = [*range(plain), *range(len(offsets) - 1 - crossed, len(offsets) - 1)]
    assert (encoded.rows >= offsets[order]).all()
    assert (encoded.rows < offsets[np.array(order) + 1]).all()
    for i, bag in enumerate(encoded.bags, plain):
        assert ((bag.rows >= offsets[i]) & (bag.rows < offsets[i + 1])).all()
    assert np.isfinite(encoded.numbers).all()
    assert features.num_vector_rows == offsets[len(offsets) - 1 - crossed]


@settings(deadline=None, max_examples=25)
@given(tables, tables, st.randoms(use_true_random=False))
def test_the_order_of_rows_means_nothing(train, test, random):
    shuffled = random.sample(train, len(train))
    features, again = (Features.fit(PLAN, columns_of(table)) for table in (train, shuffled))
    assert [plain(one) for one in features.columns] == [plain(one) for one in again.columns]
    order = random.sample(range(len(test)), len(test))
    encoded = features.apply(columns_of(test))
    permuted = features.apply(columns_of([test[row] for row in order]))
    same(encoded.take(np.array(order)), permuted)


def plain(fitted):
    """A fitted column as plain values; a mean depends on the order of its sum a little."""
    state = {key: pytest.approx(x) if type(x) is float else x for key, x in fitted.state.items()}
    return state, {name: array.tolist() for name, array in fitted.stored.items()}


@settings(deadline=None, max_examples=25)
@given(tables, tables)
def test_one_row_equals_the_batch(train, test):
    features = Features.fit(PLAN, columns_of(train))
    encoded = features.apply(columns_of(test))
    for row, one in enumerate(test):
        same(features.apply(columns_of([one])), encoded.take(np.array([row])))


@settings(deadline=None, max_examples=25)
@given(tables)
def test_a_row_of_lists_as_a_query_brings_it(train):
    features = Features.fit(PLAN, columns_of(train))
    given = columns_of(train[:1])
    lists = {name: one if isinstance(one, CSR) else list(one) for name, one in given.items()}
    lists["photo"] = [one.tolist() for one in given["photo"]]
    same(features.apply(lists), features.apply(given))


@settings(deadline=None, max_examples=25)
@given(tables, st.integers(1, 5))
def test_a_vocabulary_holds_what_occurs_often_enough(train, least):
    tail = [one[0] for one in train]
    features = Features.fit([Category("tail", min_count=least)], {"tail": tail})
    counts = {value: tail.count(value) for value in tail if value}
    known = list(features.columns[0].values)
    assert set(known) == {value for value, count in counts.items() if count >= least}
    assert [counts[value] for value in known] == sorted((counts[v] for v in known), reverse=True)
    encoded = features.apply({"tail": [*known, "never", ""]})
    assert encoded.rows[:, 0].tolist() == [*range(1, len(known) + 1), 0, 0]


def test_an_absent_column_is_a_missing_one():
    table = [
        ("a", 1, "b", 0.5, "a|b", [1, 2]),
        ("", 3, "c", np.nan, "", []),
        ("a", 1, "", 1, "", []),
    ]
    features = Features.fit(PLAN, columns_of(table))
    encoded = features.apply({"unknown": [1, 2]})
    assert len(encoded) == 2
    offsets = features.offsets
    plain = len(features.fields) - len(features.wide_only)
    first = np.concatenate([offsets[:plain], offsets[-1 - len(features.wide_only) : -1]])
    assert encoded.rows.tolist() == [first.tolist()] * 2
    assert encoded.numbers[0].tolist() == [
        float(name.endswith("missing")) for name in features.numbers
    ]
    assert all(not len(bag.rows) for bag in encoded.bags)
    assert len(features.apply({})) == 0


def test_nothing_but_the_training_part_is_seen():
    """What ``fit`` learns of the training part stays when other rows come."""
    train = {"tail": ["a", "b", "a"], "wing": [1.0, 2.0, 3.0]}
    plan = [Category("tail"), Numeric("wing", "quantile"), Bucket("wing")]
    features = Features.fit(plan, train)
    before = features.apply(train)
    features.apply({"tail": ["c"] * 100, "wing": [99.0] * 100})
    same(before, features.apply(train))
    assert features.num_rows == 3 + 4


def test_blocks_join(monkeypatch):
    rng = np.random.default_rng(0)
    table = [
        (str(rng.integers(5)), int(rng.integers(5)), "b|a", rng.random(), "a|b" * k, [k % 5] * k)
        for k in rng.integers(0, 4, 50)
    ]
    features = Features.fit(PLAN, columns_of(table))
    whole = features.apply(columns_of(table))
    monkeypatch.setitem(sys.modules[Whole.__module__].__dict__, "_BLOCK", 7)
    given = columns_of(table)
    same(whole, features.apply(given))
    given["tail"], given["wing"] = list(given["tail"]), list(given["wing"])
    same(whole, features.apply(given))


def test_applying_needs_numpy_alone():
    code = (
        "import sys\n"
        "from martlet.features import Category, Features, Numeric\n"
        "f = Features.fit([Category('a'), Numeric('b')], {'a': ['x', 'y'], 'b': [1, 2]})\n"
        "Features.from_parts(f.to_json(), f.arrays()).apply({'a': ['x'], 'b': [1]})\n"
        "print([m for m in ('numba', 'scipy', 'polars', 'pyarrow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
