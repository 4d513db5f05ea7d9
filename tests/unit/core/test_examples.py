import numpy as np
import pytest

from martlet.core import DataError, Examples, Text


def examples(n=4):
    columns = {"city": Text.of(f"c{i}" for i in range(n)), "age": np.arange(n, dtype=np.float64)}
    return Examples(columns, np.ones(n, np.float32), time_s=np.arange(n))


def test_rows_are_taken_from_every_column():
    some = examples().take(np.array([2, 0]))
    assert list(some.columns["city"]) == ["c2", "c0"]
    assert some.columns["age"].tolist() == [2, 0]
    assert some.time_s.tolist() == [2, 0]
    assert len(some) == 2


def test_the_hash_is_of_what_is_in_it():
    assert examples().hash == examples().hash
    assert examples().hash != examples(5).hash
    assert examples().hash != examples().take(np.array([1, 0, 2, 3])).hash


def test_columns_are_as_long_as_the_labels():
    with pytest.raises(DataError, match="'age' has 2 values for 3 labels"):
        Examples({"age": np.zeros(2)}, np.zeros(3, np.float32))
