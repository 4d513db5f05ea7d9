"""A bundle's files may be damaged or made up: every part is checked before it is used."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import BundleError, DataError
from martlet.features import (
    Bag,
    Bucket,
    Category,
    Cross,
    Features,
    Hashed,
    Numeric,
    Vector,
)

COLUMNS = {
    "tail": ["long", "short", "long"],
    "ring": [3, 4, 4],
    "wing": [1.0, 2.0, np.nan],
    "food": ["a|b", "b", ""],
    "maker": ["x", "y", "x"],
    "photo": np.ones((3, 2)),
}
PLAN = [
    Category("tail"),
    Category("ring"),
    Numeric("wing", "quantile", quantiles=4),
    Bucket("wing", edges=(0, 1.5)),
    Bag("food"),
    Cross(("tail", Bucket("ring", edges=(3.5,))), min_count=1),
    Hashed("maker", buckets=5),
    Vector("photo"),
]


@pytest.fixture
def parts():
    features = Features.fit(PLAN, COLUMNS)
    return json.loads(json.dumps(features.to_json())), dict(features.arrays())


def put(path, value):
    """Return what sets a value within the JSON."""

    def change(told, arrays):
        at = told["columns"]
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


def put_array(name, value):
    return lambda told, arrays: arrays.__setitem__(name, value)


def drop(name):
    return lambda told, arrays: arrays.pop(name)


TEXT = np.frombuffer(b"longshort", np.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put([0], 3), "a column without a spec or a state"),
        (put([0, "state"], []), "a column without a spec or a state"),
        (put([0, "spec", "kind"], "magic"), "'magic' is no kind of column: expected one of num"),
        (put([0, "spec", "kind"], []), r"None is no kind|\[\] is no kind of column"),
        (put([0, "spec"], "tail"), "None is no kind of column"),
        (put([0, "spec", "colour"], 1), "a column of kind 'category': .*colour"),
        (put([0, "spec", "name"], 5), "name is 5"),
        (put([0, "spec", "missing"], [None]), r"missing is \(None,\)"),
        (put([0, "spec", "name"], "ring"), "the plan has 'ring' twice"),
        (put([0, "state", "text"], 1), "text is 1, expected a bool"),
        (put([0, "state", "text"], False), "values is no column of int64"),
        (drop("0.values.blob"), "values.blob is no column of uint8"),
        (put_array("0.values.blob", TEXT.astype(np.int8)), "values.blob is no column of uint8"),
        (put_array("0.values.blob", TEXT[None]), "values.blob is no column of uint8"),
        (put_array("0.values.blob", [1, 2]), "values.blob is no column of uint8"),
        (put_array("0.values.offsets", np.array([0, 5, 4])), "offsets or bytes that are not"),
        (put_array("0.values.offsets", np.array([0, 99])), "offsets or bytes that are not"),
        (put_array("0.values.offsets", np.array([-4, 9])), "offsets or bytes that are not"),
        (put_array("0.values.offsets", np.array([0, 9], np.int32)), "is no column of int64"),
        (put_array("0.values.offsets", np.array([0, 0, 9])), "a value stands twice in its voc"),
        (put_array("1.values", np.array([4, 4])), "'ring' are damaged .a value stands twice"),
        (put_array("1.values", np.array([4, np.nan])), "a value stands twice"),
        (put_array("1.values", np.array(["a"])), "values is no column of int64"),
        (put_array("1.values", np.array([4], np.float32)), "values is no column of int64"),
        (put([2, "state", "marked"], "yes"), "marked is 'yes', expected a bool"),
        (put([2, "state", "low"], 5.0), "low lies above high"),
        (put([2, "state", "high"], None), "high is None, expected a float"),
        (put([2, "state", "mean"], float("nan")), "mean is nan, expected a float"),
        (put([2, "state", "deviation"], 0.0), "deviation is 0.0, expected 2.2.* or more"),
        (put_array("2.cuts", np.zeros(4)), "cuts has 4 values, expected 5"),
        (put_array("2.cuts", np.array([1.0, 2, 0, 3, 4])), "cuts that do not rise"),
        (put_array("2.cuts", np.array([1.0, 2, 3, 4, np.inf])), "cuts that do not rise"),
        (put_array("3.edges", np.array([1.0, 1.0])), "'wing bucket' are damaged .edges that do"),
        (put_array("3.edges", np.array([np.nan, 1.0])), "edges that do not rise"),
        (drop("3.edges"), "edges is no column of float64"),
        (put([4, "state"], {}), "it does not say whether rows are given"),
        (put([4, "state", "given_rows"], -1), "given_rows is -1, expected 0 or more"),
        (put([4, "state", "given_rows"], "3"), "given_rows is '3', expected a int"),
        (put_array("4.values.offsets", np.array([0, 0, 2])), "a value stands twice"),
        (put_array("4.values.offsets", np.array([0, 3])), "offsets or bytes that are not those"),
        (put([4, "state", "given_rows"], 2**31), "the fields need 2,147,483,.* more than"),
        (put([5, "state", "text"], [True]), "text is .True., expected whether each part is text"),
        (put([5, "state", "text"], [True, 0]), "expected whether each part is text"),
        (put([5, "spec", "columns", 1], 3), "columns holds 3"),
        (put([5, "spec", "columns", 1, "edges"], [2, 1]), r"edges is \(2, 1\)"),
        (put_array("5.keys", np.array([7, 7], np.uint64)), "a combination stands twice"),
        (put_array("5.keys", np.array([0], np.uint64)), "a combination stands twice"),
        (put_array("5.keys", np.array([7])), "keys is no column of uint64"),
        (drop("5.edges.1"), "edges.1 is no column of float64"),
        (put_array("5.edges.1", np.array([3.0, 2.0])), "edges that do not rise"),
        (put([6, "spec", "buckets"], -5), "buckets is -5"),
        (put([6, "spec", "buckets"], 2**31), "the fields need 2,147,483,.* more than"),
        (put([6, "state", "text"], None), "text is None, expected a bool"),
        (put([7, "state", "width"], 0), "width is 0, expected 1 or more"),
        (put([7, "state", "width"], 10**12), "width is 1000000000000, more than 1048576"),
        (put([6, "spec", "buckets"], 10**30), "the fields need 1,000,000,.* more than"),
        (put([7, "state", "width"], 2.0), "width is 2.0, expected a int"),
        (lambda told, arrays: told.pop("columns"), "they list no columns"),
        (lambda told, arrays: told["columns"].clear(), "the plan is empty"),
    ],
)
def test_damaged_parts_are_refused(parts, change, words):
    told, arrays = copy.deepcopy(parts[0]), dict(parts[1])
    change(told, arrays)
    with pytest.raises(BundleError, match=words):
        Features.from_parts(told, arrays)


def test_what_is_no_json_object_is_refused(parts):
    with pytest.raises(BundleError, match="they list no columns"):
        Features.from_parts([], parts[1])


def test_sound_parts_pass(parts):
    assert Features.from_parts(*parts).apply(COLUMNS).rows.shape == (3, 5)


SPOILT = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.just(2**70),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.one_of(st.integers(-1, 5), st.text(max_size=2)), max_size=3),
    st.just({}),
)


def places(told, path=()):
    """Yield the path of every value within the JSON."""
    for key in told if isinstance(told, dict) else range(len(told)):
        yield (*path, key)
        if isinstance(told[key], (dict, list)):
            yield from places(told[key], (*path, key))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_is_read_without_an_error_stays_within_its_table(data):
    features = Features.fit(PLAN, COLUMNS)
    told, arrays = json.loads(json.dumps(features.to_json())), dict(features.arrays())
    if data.draw(st.booleans()):
        path = data.draw(st.sampled_from(list(places(told))))
        at = told
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = data.draw(SPOILT)
    else:
        name = data.draw(st.sampled_from(list(arrays)))
        dtype = data.draw(st.sampled_from([arrays[name].dtype, np.dtype(np.int64)]))
        values = data.draw(st.lists(st.integers(0, 100), max_size=len(arrays[name]) + 1))
        arrays[name] = np.array(values, dtype)
    given = {name: column for name, column in COLUMNS.items() if name != "photo"}
    try:
        read = Features.from_parts(told, arrays)
        encoded = read.apply(COLUMNS if data.draw(st.booleans()) else given)
    except (BundleError, DataError):
        return
    for rows in [encoded.rows, *(bag.rows for bag in encoded.bags)]:
        assert ((rows >= 0) & (rows < read.num_rows)).all()
    assert np.isfinite(encoded.numbers).all()
