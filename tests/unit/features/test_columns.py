"""What each kind of column gives, and what it refuses."""

import numpy as np
import pytest

from martlet.core import CSR, DataError, SpecError, Text
from martlet.features import (
    Bag,
    Bucket,
    Category,
    Cross,
    Features,
    Hashed,
    Numeric,
    Sequence,
    Vector,
    Words,
)


def fit(spec, **columns):
    return Features.fit([spec], columns)


def rows(features, **columns):
    return features.apply(columns).rows[:, 0].tolist()


def bag(features, **columns):
    found = features.apply(columns).bags[0]
    return [part.tolist() for part in np.split(found.rows, found.indptr[1:-1])]


def numbers(features, **columns):
    return features.apply(columns).numbers.T.tolist()


TAIL = ["long", "short", "long", "", "NaN", "forked", "short", "long"]


def test_a_vocabulary_falls_by_frequency():
    features = fit(Category("tail"), tail=TAIL)
    assert features.num_rows == 4
    assert rows(features, tail=TAIL) == [1, 2, 1, 0, 0, 3, 2, 1]
    assert rows(features, tail=["", "crossed", "forked", "long "]) == [0, 0, 3, 0]
    assert list(features.columns[0].values) == ["long", "short", "forked"]


def test_a_rare_or_a_missing_value_is_unknown():
    features = fit(Category("tail", min_count=2, missing=("short",)), tail=TAIL)
    assert rows(features, tail=TAIL) == [1, 0, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("spec", [Category("tail"), Hashed("tail", buckets=1000)])
@pytest.mark.parametrize(
    "form",
    [
        Text.of(TAIL),
        np.array(TAIL),
        np.array([*TAIL[:-1], "Flügel"]),
        np.array([*TAIL[:3], None, *TAIL[4:]], object),
        [*TAIL[:3], None, *TAIL[4:]],
        tuple(TAIL),
        np.array(TAIL, ">U6"),
    ],
)
def test_text_may_come_in_any_form(spec, form):
    features = fit(spec, tail=TAIL)
    expected = rows(features, tail=TAIL)
    assert rows(features, tail=form)[:-1] == expected[:-1]
    assert fit(spec, tail=form).num_rows >= features.num_rows


def test_unicode_with_a_zero_within_keeps_it():
    features = fit(Category("tail"), tail=["a\0b", "ab", "ab"])
    assert rows(features, tail=np.array(["a\0b", "ab", "a\0"])) == [2, 1, 0]


@pytest.mark.parametrize("spec", [Category("ring"), Hashed("ring", buckets=100_000)])
@pytest.mark.parametrize(
    "form",
    [
        np.array([7, 12, 7, 3]),
        np.array([7.0, 12, 7, 3]),
        [7, 12.0, np.int8(7), np.float32(3)],
        Text.of(["7", "12.0", " 7", "3e0"]),
        np.array(["7", "12", "7.", "3"]),
    ],
)
def test_numbers_may_come_in_any_form(spec, form):
    features = fit(spec, ring=np.array([7, 12, 7, 3, 12, 7]))
    assert rows(features, ring=form) == rows(features, ring=[7, 12, 7, 3])
    assert len(set(rows(features, ring=form))) == 3
    assert rows(features, ring=["", "x", "NaN", "1_2"]) == [0] * 4
    assert rows(features, ring=[None, np.nan]) == [0, 0]


def test_numbers_looked_up_in_text_are_their_digits():
    features = fit(Category("ring"), ring=["7", "12", "7", "0.5", "True"])
    assert rows(features, ring=[7, 12.0, 0.5, np.nan]) == [
        1,
        *rows(features, ring=["12", "0.5"]),
        0,
    ]
    large = 2**53 + 1
    features = fit(Category("ring"), ring=np.array([large, large - 1, large]))
    assert rows(features, ring=[str(large), str(large - 1), str(10**30)]) == [1, 2, 0]


def test_a_number_that_counts_as_missing():
    features = fit(Category("ring", missing=(-1, "none")), ring=[-1, 5, 5, 6])
    assert rows(features, ring=[-1, 5, 6, None]) == [0, 1, 2, 0]
    features = fit(Numeric("wing", missing=(-1,)), wing=[-1, 2, 4])
    assert numbers(features, wing=["-1", "3", "wide"]) == [[0, 0, 0], [1, 0, 1]]


def test_hashed_holds_no_vocabulary():
    features = fit(Hashed("tail", buckets=50), tail=TAIL)
    assert features.arrays() == {}
    assert features.num_rows == 51
    new = rows(features, tail=[f"tail {n}" for n in range(1000)])
    assert set(new) == set(range(1, 51))
    assert rows(features, tail=["", "NaN"]) == [0, 0]


def test_buckets_by_edges():
    features = fit(Bucket("wing", edges=(10, 20.5)), wing=[1.0])
    assert features.fields == ("wing bucket",)
    assert features.num_rows == 4
    assert rows(features, wing=[9.9, 10, 20.4, 20.5, -1e308, np.nan, np.inf]) == [
        1,
        2,
        2,
        3,
        1,
        0,
        0,
    ]


def test_buckets_by_quantiles_hold_as_many_each():
    values = np.random.default_rng(0).permutation(1000).astype(float)
    features = fit(Bucket("wing", buckets=8), wing=values)
    counts = np.bincount(rows(features, wing=values))
    assert counts.tolist() == [0] + [125] * 8
    features = fit(Bucket("wing", buckets=8), wing=[0.0] * 90 + [1.0, 2.0] * 5)
    assert rows(features, wing=[0, 1, 2, 3, None]) == [1, 2, 3, 3, 0]
    assert fit(Bucket("wing"), wing=[np.nan]).num_rows == 2


def test_standard():
    wing = np.array([3.0, 5, 7, np.nan])
    features = fit(Numeric("wing"), wing=wing)
    assert features.numbers == ("wing", "wing missing")
    scaled, missing = numbers(features, wing=wing)
    assert scaled == pytest.approx([-(1.5**0.5), 0, 1.5**0.5, 0])
    assert missing == [0, 0, 0, 1]
    # Beyond the range of training counts as its end.
    assert numbers(features, wing=[99, -99])[0] == pytest.approx([1.5**0.5, -(1.5**0.5)])


def test_without_a_missing_one_there_is_no_mark():
    features = fit(Numeric("wing"), wing=[1, 2])
    assert features.numbers == ("wing",)
    assert numbers(features, wing=[None]) == [[0]]


def test_min_max():
    features = fit(Numeric("wing", "min-max"), wing=[2, 4, 6])
    assert numbers(features, wing=[2, 3, 6, 7]) == [[0, 0.25, 1, 1]]


def test_quantile_is_the_rank():
    wing = np.random.default_rng(0).lognormal(0, 3, 5001)
    features = fit(Numeric("wing", "quantile", quantiles=100), wing=wing)
    scaled = np.array(numbers(features, wing=np.sort(wing))[0])
    assert abs(scaled - np.linspace(-1, 1, 5001)).max() < 0.02
    features = fit(Numeric("wing", "quantile", quantiles=6), wing=[0, 0, 0, 0, 1, 2, 3])
    assert numbers(features, wing=[0, 1, 3])[0] == pytest.approx([-0.5, 1 / 3, 1])


def test_log():
    wing = np.array([-np.e + 1, 0, np.e - 1])
    features = fit(Numeric("wing", "log"), wing=wing)
    assert numbers(features, wing=wing)[0] == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])


def test_none_leaves_numbers_alone():
    features = fit(Numeric("wing", "none"), wing=[1.0, 2.0])
    assert numbers(features, wing=[-7.5, 1e30, np.inf, 1e300])[0] == pytest.approx(
        [-7.5, 1e30, 0, float(np.finfo(np.float32).max)]
    )


@pytest.mark.parametrize("scale", ["standard", "min-max", "quantile", "log", "none"])
@pytest.mark.parametrize(
    "wing",
    [
        [5.0, 5.0],
        [np.nan],
        [1.7e308, -1.7e308, 0.0],
        [5e-324, 1e-310],
        [1e308, np.inf],
        [0.1] * 10,
    ],
)
def test_any_numbers_stay_finite(scale, wing):
    features = fit(Numeric("wing", scale), wing=wing)
    found = features.apply({"wing": [*wing, 0.0, -1e308, 1e308, 5.0, None]}).numbers
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_crosses():
    columns = {"tail": ["a", "a", "b", "b", "a", ""], "wing": [1, 9, 1, 9, 1, 1]}
    features = Features.fit([Cross(("tail", "wing"), min_count=1)], columns)
    assert features.fields == features.wide_only == ("tail x wing",)
    assert features.num_vector_rows == 0
    found = rows(features, **columns)
    assert found[0] == found[4] == 1
    assert sorted(found[1:4]) == [2, 3, 4]
    assert found[5] == 0
    assert rows(features, tail=["a", "c", "b"], wing=[1, 1, 5]) == [1, 0, 0]
    assert Features.fit([Cross(("tail", "wing"))], columns).num_rows == 2


def test_a_cross_of_buckets():
    columns = {"tail": ["a", "b", "a"], "wing": [1.0, 2.0, 30.0]}
    spec = Cross(("tail", Bucket("wing", edges=(10,))), buckets=1000)
    features = Features.fit([spec], columns)
    assert features.fields == ("tail x wing bucket",)
    assert features.uses == ("tail", "wing")
    found = rows(features, tail=["a", "a", "a", "a"], wing=[5, 9, 11, None])
    assert found[0] == found[1] != found[2]
    assert found[3] == 0
    assert features.num_rows == 1001


def test_a_bag():
    features = fit(Bag("food"), food=["flies|worms", "flies", "", "seeds | flies", "NaN", "worms"])
    assert features.num_rows == 4
    assert bag(features, food=["worms|flies|flies", "", "| moss |seeds"]) == [[2, 1, 1], [], [0, 3]]
    assert bag(features, food=[["worms", "flies"], [], "seeds", [None, "moss"]]) == [
        [2, 1],
        [],
        [3],
        [0],
    ]


def test_a_bag_of_buckets_and_of_rare_values():
    features = fit(Bag("food", ",", buckets=20, missing=("none",)), food=["a,b"])
    found = bag(features, food=["a,b,c", "none,a"])
    assert found[1] == found[0][:1]
    assert all(0 < row <= 20 for row in found[0])
    assert bag(fit(Sequence("food", 2**70), food=["a"]), food=["a|a"]) == [[1, 1]]
    features = fit(Bag("food", min_count=2, max_length=2), food=["a|b", "b|c|b"])
    assert bag(features, food=["b|a|b|c", "b"]) == [[1, 0], [1]]


def test_a_bag_of_numbers_is_one_of_their_digits():
    features = fit(Bag("food"), food=np.array([7, 12, 7]))
    assert bag(features, food=[12.0, None, 9]) == [[2], [], [0]]
    assert bag(features, food=["7|12"]) == [[1, 2]]


def test_a_sequence_keeps_the_last_in_order():
    features = fit(Sequence("seen", 3, separator=" "), seen=["a b a c a", "b"])
    assert bag(features, seen=["c c b b a", "a", ""]) == [[2, 2, 1], [1], []]


def test_rows_given_as_a_csr():
    seen = CSR.from_rows([[4, 0], [], [1, 1, 2]], num_cols=5)
    features = fit(Sequence("seen", 2), seen=seen)
    assert features.num_rows == 6
    assert bag(features, seen=seen) == [[5, 1], [], [2, 3]]
    larger = CSR.from_rows([[7, -1, 3]], num_cols=8)
    assert bag(fit(Bag("seen"), seen=seen), seen=larger) == [[0, 0, 4]]


def test_words():
    features = fit(Words("title", buckets=5000), title=["The Wren"])
    (one, other) = bag(features, title=["the wren, the WREN!", "雨燕 wren"])
    assert one[:2] == one[2:]
    assert len(other) == 3
    assert other[2] == one[1]
    features = fit(Words("title", buckets=None, missing=("the",)), title=["The Wren", "wren tit"])
    assert bag(features, title=["the wren and tit"]) == [[1, 0, 2]]


def test_vectors_pass():
    vectors = np.array([[1, 2, 3], [4, np.nan, np.inf]])
    features = fit(Vector("photo"), photo=vectors)
    assert features.numbers == ("photo 0", "photo 1", "photo 2")
    found = features.apply({"photo": vectors}).numbers
    assert found[0].tolist() == [1, 2, 3]
    assert found[1].tolist() == [4, 0, float(np.finfo(np.float32).max)]
    assert features.apply({"other": [1, 2]}).numbers.tolist() == [[0] * 3] * 2


@pytest.mark.parametrize(
    ("spec", "column", "words"),
    [
        (Category("x"), np.zeros((2, 2)), r"column 'x' is float64\(2, 2\): expected text or one"),
        (Category("x"), [[1], [2]], r"column 'x' is object\(2,\): expected text or one number"),
        (Numeric("x"), np.array(["2020-01-01"], "M8[D]"), r"column 'x' is datetime64\[D\]"),
        (Category("x"), CSR.empty(2, 2), "'x' has many values a row: only a Bag or a Sequence"),
        (Vector("x"), [1, 2], r"column 'x' is int64\(2,\): expected a vector a row"),
        (Vector("x"), CSR.empty(2, 2), "expected a vector a row"),
        (Vector("x"), np.zeros((0, 2**20 + 1)), "has vectors of 1,048,577 numbers: too many"),
        (Vector("y"), [1, 2], "there is no column 'y' to fit on: expected one of 'x'"),
        (Cross(("x", "z")), [1, 2], "there is no column 'z' to fit on: expected one of 'x'"),
    ],
)
def test_columns_that_cannot_be_read(spec, column, words):
    with pytest.raises(DataError, match=words):
        fit(spec, x=column)


def test_columns_that_do_not_fit_what_was_fitted():
    with pytest.raises(DataError, match=r"columns of different lengths: \{'a': 2, 'b': 1\}"):
        Features.fit([Category("a")], {"a": [1, 2], "b": [1]})
    with pytest.raises(DataError, match="column 'x' has rows, but it was fitted on text"):
        fit(Bag("x"), x=["a"]).apply({"x": CSR.empty(1, 1)})
    with pytest.raises(DataError, match="'x' was fitted on rows: expected a CSR of them"):
        fit(Bag("x"), x=CSR.empty(1, 1)).apply({"x": ["a"]})
    with pytest.raises(DataError, match="'x' has vectors of 3 numbers: it was fitted on 2"):
        fit(Vector("x"), x=np.zeros((1, 2))).apply({"x": np.zeros((1, 3))})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Category(""), "name is '': expected the name of a column"),
        (lambda: Numeric(3), "name is 3: expected the name of a column"),
        (lambda: Category("x", min_count=0), "min_count is 0: expected a whole number above 0"),
        (lambda: Hashed("x", buckets=1.5), "buckets is 1.5: expected a whole number above 0"),
        (lambda: Bag("x", buckets=0), "buckets is 0"),
        (lambda: Sequence("x", 0), "max_length is 0"),
        (lambda: Words("x", min_count=True), "min_count is True"),
        (lambda: Category("x", missing=["a"]), r"missing is \['a'\]: expected a tuple of texts"),
        (lambda: Category("x", missing=(None,)), r"missing is \(None,\)"),
        (lambda: Numeric("x", "cubic"), "scale is 'cubic': expected one of standard, min-max"),
        (lambda: Numeric("x", quantiles=0), "quantiles is 0"),
        (lambda: Bucket("x", edges=(2, 1)), r"edges is \(2, 1\): expected a tuple of rising"),
        (lambda: Bucket("x", edges=()), r"edges is \(\)"),
        (lambda: Bucket("x", edges=(1, "2")), "edges is"),
        (lambda: Bucket("x", edges=(np.inf,)), "edges is"),
        (lambda: Bucket("x", buckets=0), "buckets is 0"),
        (lambda: Bag("x", separator="::"), "separator is '::': expected one ASCII character"),
        (lambda: Sequence("x", separator="，"), "separator is '，'"),
        (lambda: Cross(("x",)), r"columns is \('x',\): expected a tuple of two or more"),
        (lambda: Cross(("x", 3)), "columns holds 3: expected names of columns, or Buckets"),
        (lambda: Cross(("x", "y"), buckets=0), "buckets is 0"),
        (lambda: Vector(""), "name is ''"),
    ],
)
def test_specs_that_make_no_sense(make, words):
    with pytest.raises(SpecError, match=words):
        make()
