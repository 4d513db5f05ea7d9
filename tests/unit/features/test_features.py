import json

import numpy as np
import pytest

from martlet.core import CSR, SpecError, Text
from martlet.features import Bag, Category, Cross, Features, Hashed, Numeric, Sequence

BIRDS = {
    "tail": Text.of(["long", "short", "long", "", "forked"]),
    "wing_cm": np.array([12.0, 30.0, 21.0, np.nan, 17.0]),
    "sings": np.array([1, 0, 1, 1, 0]),
    "food": Text.of(["flies|worms", "seeds", "flies", "", "worms | flies"]),
    "seen": CSR.from_rows([[2, 0], [1], [], [3, 3, 1], [0]], num_cols=4),
}
PLAN = [
    Cross(("tail", "sings"), min_count=1),
    Category("tail"),
    Numeric("wing_cm"),
    Bag("food"),
    Category("sings"),
    Sequence("seen", max_length=2),
    Hashed("wing_cm", buckets=5),
]


@pytest.fixture
def features():
    return Features.fit(PLAN, BIRDS)


def test_the_table_is_plain_fields_bags_crosses(features):
    assert features.fields == ("tail", "sings", "wing_cm", "tail x sings")
    assert features.bags == ("food", "seen")
    assert features.wide_only == ("tail x sings",)
    assert features.numbers == ("wing_cm", "wing_cm missing")
    # long, forked, short; 0 and 1; 5 buckets; 3 foods; 4 given rows; 3 known pairs; and unknown.
    assert np.diff(features.offsets).tolist() == [4, 3, 6, 4, 5, 4]
    assert features.num_rows == 26
    assert features.num_vector_rows == 22


def test_rows_of_each_field(features):
    encoded = features.apply(BIRDS)
    assert encoded.rows.dtype == np.int32
    tail, sings, _, cross = (encoded.rows - features.offsets[[0, 1, 2, 5]]).T.tolist()
    assert tail[0] == tail[2] == 1
    assert sorted(tail) == [0, 1, 1, 2, 3]
    assert sings == [1, 2, 1, 1, 2]
    assert cross[0] == cross[2] == 1
    assert cross[3] == 0
    food, seen = encoded.bags
    assert np.diff(food.indptr).tolist() == [2, 1, 1, 0, 2]
    assert food.rows[0] == food.rows[3] == features.offsets[3] + 1
    assert (seen.rows - features.offsets[4]).tolist() == [3, 1, 2, 4, 2, 1]
    assert encoded.numbers[3].tolist() == [0, 1]
    assert encoded.numbers[:, 0].mean() == pytest.approx(0, abs=1e-6)


def test_stored_and_read_again_it_gives_the_same(features):
    told = json.loads(json.dumps(features.to_json()))
    again = Features.from_parts(told, features.arrays())
    assert again.to_json() == features.to_json()
    mine, theirs = features.apply(BIRDS), again.apply(BIRDS)
    np.testing.assert_array_equal(mine.rows, theirs.rows)
    np.testing.assert_array_equal(mine.numbers, theirs.numbers)
    for one, other in zip(mine.bags, theirs.bags, strict=True):
        np.testing.assert_array_equal(one.indptr, other.indptr)
        np.testing.assert_array_equal(one.rows, other.rows)


def test_take(features):
    encoded = features.apply(BIRDS)
    taken = encoded.take(np.array([3, 0, 3]))
    assert len(taken) == 3
    np.testing.assert_array_equal(taken.rows, encoded.rows[[3, 0, 3]])
    np.testing.assert_array_equal(taken.numbers, encoded.numbers[[3, 0, 3]])
    assert np.diff(taken.bags[1].indptr).tolist() == [2, 2, 2]
    assert taken.bags[1].rows[:2].tolist() == encoded.bags[1].rows[3:5].tolist()


def test_a_plan_must_name_distinct_fields():
    with pytest.raises(SpecError, match="the plan has 'tail' twice"):
        Features.fit([Category("tail"), Hashed("tail")], BIRDS)
    with pytest.raises(SpecError, match="the plan is empty"):
        Features.fit([], BIRDS)
    with pytest.raises(SpecError, match="2 labels for 5 rows"):
        Features.fit(PLAN, BIRDS, np.zeros(2))
