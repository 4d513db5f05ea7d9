import numpy as np
import pytest

from martlet.core import CSR, Queries, QueryError, Text
from martlet.core.queries import context_at, is_missing

TABLE = {"age": np.array([30, 40, 50], np.int64), "city": Text.of(["Graz", "", "雨"])}


def test_columns_are_gathered_by_row_and_none_has_no_value():
    found = context_at(TABLE, ("age", "city", "shoe"), np.array([2, -1, 0]))
    assert list(found) == ["age", "city"]
    assert np.isnan(found["age"][1])
    assert found["age"][[0, 2]].tolist() == [50, 30]
    assert found["city"].tolist() == ["雨", "", "Graz"]
    assert is_missing(found["age"]).tolist() == is_missing(found["city"]).tolist()
    assert context_at(TABLE, ("age",), np.array([1]))["age"].dtype == np.int64
    assert context_at(TABLE, (), np.array([1])) == {}


def test_no_rows_have_columns_too():
    found = context_at(TABLE, ("age", "city"), np.array([], np.int32))
    assert Queries.of(CSR.empty(0, 3), context=found).context["city"].shape == (0,)


@pytest.mark.parametrize("column", [[1.0], [[1.0], [2.0]], [None, 1], [b"a", b"b"]])
def test_a_column_that_is_no_value_a_query_is_refused(column):
    with pytest.raises(QueryError, match=r"context 'age' is .*expected a number or a text for"):
        Queries.of(CSR.empty(2, 3), context={"age": column})


def test_a_slice_has_its_own_values():
    queries = Queries.of(CSR.empty(3, 3), context={"age": [1, 2, 3], "city": ["a", "b", "c"]})
    part = queries.slice(1, 3)
    assert part.context["age"].tolist() == [2, 3]
    assert part.context["city"].tolist() == ["b", "c"]
