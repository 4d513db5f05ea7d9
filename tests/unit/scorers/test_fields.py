from dataclasses import replace

import numpy as np
import pytest

from martlet.compress.compress import compress
from martlet.core import CSR, BundleError, Queries, QueryError, Text, Vocabulary, rng
from martlet.features import Bag, Category, Cross, Features, Numeric
from martlet.scorers.bundle import Bundle
from martlet.scorers.field_rows import Layout, in_turn, mean_of_bags
from martlet.scorers.fields import ARRAYS, Fields, chance, last_events
from martlet.scorers.storage import read_tensors, write_tensors
from martlet.scorers.table import Table
from support.networks import field_network

PLAN = (Category("city"), Bag("tags"), Numeric("age"), Cross(("city", "hour"), min_count=1))


def columns(size, seed=0):
    random = rng(seed, "columns")
    tags = [
        "|".join(f"t{t}" for t in random.integers(0, 5, many))
        for many in random.integers(0, 4, size)
    ]
    return {
        "city": Text.of(f"c{c}" for c in random.integers(0, 6, size)),
        "tags": Text.of(tags),
        "age": random.normal(size=size),
        "hour": random.integers(0, 3, size),
    }


def draw(name, *shape):
    return rng(0, "fields", name).normal(size=shape).astype(np.float32)


@pytest.fixture
def scorer():
    layout = Layout.of({"row": Features.fit(PLAN, columns(200))})
    return Fields(
        Table.of(draw("vectors", layout.num_vector_rows, 3)),
        Table.of(draw("wide", layout.num_rows, 1)),
        field_network(draw("out", 3 * layout.num_vectors + layout.num_numbers)),
        layout,
    )


@pytest.fixture
def ranker():
    """Items with a street and tags of their own."""
    about = {"street": Text.of(f"s{i % 3}" for i in range(9)), "tags": columns(9)["tags"]}
    plan = (Category("street"), Bag("tags"), Cross(("street", "tags"), min_count=1))
    layout = Layout.of({"item": Features.fit(plan, about), "user": None}, 9)
    side = layout.sides["item"]
    return Fields(
        Table.of(draw("vectors", layout.num_vector_rows, 3)),
        Table.of(draw("wide", layout.num_rows, 1)),
        field_network(draw("out", 3 * layout.num_vectors)),
        layout,
        items=side.with_item(side.encode(about, 9), np.arange(9)),
    )


def bundle(scorer):
    nobody = Vocabulary.of([])
    return Bundle(scorer, nobody, nobody, CSR.empty(0, 0), np.empty(0, np.float32))


def formula(scorer, given):
    """What the scorer answers, row by row and field by field."""
    encoded = scorer.layout.sides["row"].features.apply(given)
    vectors, wide = scorer.vectors.dense(), scorer.wide.dense()[:, 0]
    out = draw("out", 3 * scorer.layout.num_vectors + scorer.layout.num_numbers)
    (bag,) = encoded.bags
    answers = []
    for row in range(len(encoded)):
        tags = bag.rows[bag.indptr[row] : bag.indptr[row + 1]]
        mean = vectors[tags].mean(0) if len(tags) else np.zeros(3)
        deep = np.concatenate([vectors[encoded.rows[row, 0]], mean, encoded.numbers[row]]) @ out
        weights = wide[encoded.rows[row]].sum() + (wide[tags].mean() if len(tags) else 0)
        answers.append(1 / (1 + np.exp(-deep - weights)))
    return np.array(answers)


class TestPredict:
    def test_it_is_the_formula(self, scorer):
        given = columns(50, seed=1)
        np.testing.assert_allclose(scorer.predict(given), formula(scorer, given), rtol=1e-4)

    def test_a_batch_is_its_single_rows(self, scorer):
        given = columns(600, seed=1)
        whole = scorer.predict(given)
        for row in (0, 255, 256, 599):
            alone = {n: c.take(np.array([row])) if isinstance(c, Text) else c[row : row + 1]
                     for n, c in given.items()}  # fmt: skip
            assert scorer.predict(alone)[0] == whole[row]

    def test_what_is_absent_is_missing(self, scorer):
        given = columns(4)
        missing = {"city": Text.of([""] * 4), "tags": given["tags"], "age": np.full(4, np.nan)}
        np.testing.assert_array_equal(
            scorer.predict({"tags": given["tags"]}), scorer.predict(missing)
        )

    def test_texts_may_come_as_an_array(self, scorer):
        given = columns(4)
        told = given | {"city": np.array(list(given["city"]))}
        np.testing.assert_array_equal(scorer.predict(told), scorer.predict(given))

    def test_squared_answers_are_numbers(self, scorer):
        given = columns(5)
        numbers = replace(scorer, loss="squared").predict(given)
        np.testing.assert_array_equal(chance(numbers), scorer.predict(given))

    def test_no_columns_and_the_wrong_question_are_told(self, scorer, ranker):
        with pytest.raises(QueryError, match="no columns are given"):
            scorer.predict({})
        with pytest.raises(QueryError, match="ranks items for users: ask for topk or score"):
            ranker.predict(columns(2))
        queries = Queries.of(CSR.empty(1, 0))
        with pytest.raises(QueryError, match="fitted on rows without items: ask it to predict"):
            scorer.topk(queries, 1)

    def test_quantized_it_takes_fewer_bytes_and_answers_alike(self, scorer):
        given = columns(300, seed=2)
        before = bundle(scorer)
        wanted = before.scorer.predict(given)
        for storage, far in (("fp16", 0.01), ("bf16", 0.02), ("int8", 0.05), ("int4", 0.2)):
            after = compress(before, [f"quantize:{storage}"])
            assert after.scorer.vectors.storage == storage
            assert after.scoring_bytes < before.scoring_bytes
            np.testing.assert_allclose(after.scorer.predict(given), wanted, atol=far)


class TestSaved:
    def test_it_answers_alike(self, scorer, ranker, tmp_path):
        given = columns(20, seed=3)
        bundle(scorer).save(tmp_path / "rows")
        again = Bundle.load(tmp_path / "rows").scorer
        np.testing.assert_array_equal(again.predict(given), scorer.predict(given))

    @pytest.mark.parametrize(
        ("name", "change", "why"),
        [
            ("items/rows", lambda a: a[:-1], r"the rows of the items are int32\(8, 3\), expected"),
            ("items/rows", lambda a: a.astype(np.int64), "the rows of the items are int64"),
            ("items/rows", lambda a: a - 99, "the items have rows beyond the tables'"),
            ("items/rows", lambda a: a + 99, "the items have rows beyond the tables'"),
            ("items/numbers", lambda a: a[:, :0].astype(np.float64), "the numbers of the items"),
            ("items/bag0", lambda a: a + 999, "has columns"),
            ("items/indptr0", lambda a: a[:-1], "a bag has 8 rows for 9 items"),
            ("items/indptr0", lambda a: a[::-1], "offsets that do not rise"),
        ],
    )
    def test_rows_that_the_tables_do_not_have_are_refused(
        self, ranker, name, change, why, tmp_path
    ):
        (folder := tmp_path / "files").mkdir()
        ranker.save_files(folder)
        arrays = dict(read_tensors(folder / ARRAYS))
        arrays[name] = change(arrays[name])
        write_tensors(folder / ARRAYS, arrays)
        with pytest.raises(BundleError, match=why):
            Fields.from_parts(ranker.config(), ranker.tables(), folder)

    @pytest.mark.parametrize("name", ["vectors", "wide"])
    def test_tables_of_another_size_are_refused(self, scorer, name, tmp_path):
        scorer.save_files(tmp_path)
        tables = dict(scorer.tables())
        tables[name] = Table.of(tables[name].dense()[1:])
        with pytest.raises(BundleError, match=f"table {name} has .* rows, its features"):
            Fields.from_parts(scorer.config(), tables, tmp_path)


class TestRows:
    def test_crossed_fields_of_either_side_lie_behind_all_vectors(self):
        crossed = (Category("city"), Cross(("city", "hour"), min_count=1))
        both = Features.fit(crossed, columns(50))
        layout = Layout.of({"item": both, "user": both}, 5)
        item, user = layout.sides["item"], layout.sides["user"]
        given = columns(8, seed=1)
        rows = np.concatenate([side.encode(given, 8).rows for side in (item, user)], 1)
        plain = both.apply(given).rows
        split = both.num_vector_rows
        np.testing.assert_array_equal(rows[:, 0], plain[:, 0] + 6)
        np.testing.assert_array_equal(rows[:, 2], plain[:, 0] + 6 + split + 6)
        np.testing.assert_array_equal(rows[:, 1], plain[:, 1] - split + layout.num_vector_rows)
        width = both.num_rows - split
        np.testing.assert_array_equal(rows[:, 3], rows[:, 1] + width)
        assert layout.num_rows == layout.num_vector_rows + 2 * width
        assert (layout.num_vectors, layout.num_crossed, layout.num_numbers) == (4, 2, 0)

    @pytest.mark.parametrize("seed", range(9))
    def test_rows_of_fields_in_turn(self, seed):
        sizes = rng(seed, "sizes").integers(1, 10, 1 + seed).tolist()
        rows = [(row, -size, at) for at, size in enumerate(sizes) for row in range(size)]
        stands = {one: place for place, one in enumerate(sorted(rows))}
        assert in_turn(sizes).tolist() == [stands[one] for one in rows]

    def test_the_mean_of_bags(self):
        found = np.arange(8, dtype=np.float32).reshape(4, 2)
        mean = mean_of_bags(found, np.array([0, 0, 3, 3, 4, 4]))
        assert mean.tolist() == [[0, 0], [2, 3], [0, 0], [6, 7], [0, 0]]
        assert mean_of_bags(found[:0], np.zeros(3, np.int64)).tolist() == [[0, 0], [0, 0]]

    def test_the_last_events(self):
        whole = CSR.from_rows([[1, 2, 3], [], [4], [5, 6]], 9)
        kept = last_events(whole, 2)
        assert [kept.row(i).tolist() for i in range(4)] == [[2, 3], [], [4], [5, 6]]
        assert last_events(whole, 3) is whole

    def test_chances_near_0_keep_their_digits(self):
        found = chance(np.array([-200, -30, 0, 30], np.float32))
        np.testing.assert_allclose(found, [0, np.exp(-30.0), 0.5, 1], rtol=1e-5)
