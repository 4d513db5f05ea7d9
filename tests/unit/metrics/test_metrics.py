import gzip

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.core import CSR, DataError, Queries, SpecError
from martlet.metrics import (
    METRICS,
    Tally,
    benjamini_hochberg,
    bootstrap,
    holm,
    paired_bootstrap,
    per_user,
    quality_of_table,
    sampled,
    sampled_quality,
    sign_flip,
)

OF_USERS = [name for name, m in METRICS.items() if m.of_users and m.needs != "scores"]


@st.composite
def lists(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size, n, k = draw(st.integers(1, 20)), draw(st.integers(5, 40)), 5
    rows = np.stack([rng.permutation(n)[:k] for _ in range(size)]).astype(np.int32)
    rows[rng.random(size) < 0.2, 3:] = -1
    truth = [np.sort(rng.choice(n, rng.integers(1, 5), replace=False)) for _ in range(size)]
    return rows, CSR.from_rows(truth, n)


@given(lists())
def test_every_share_lies_between_0_and_1_and_recall_grows_with_k(drawn):
    rows, truth = drawn
    n = truth.num_cols
    found = per_user(
        rows, truth, ks=(1, 3, 5), metrics=OF_USERS, value=np.ones(n), popularity=np.full(n, 0.5)
    )
    for name, values in found.items():
        assert ((values >= 0) & (values <= 1 + 1e-12)).all(), name
    assert (found["recall@1"] <= found["recall@3"]).all()
    assert (found["recall@3"] <= found["recall@5"]).all()


@given(lists(), st.integers(1, 7))
def test_batches_do_not_change_a_digit(drawn, step):
    rows, truth = drawn
    names = ("recall", "ndcg", "coverage", "gini")
    whole, parts = Tally(truth.num_cols, (2, 5), names), Tally(truth.num_cols, (2, 5), names)
    whole.add(rows, truth)
    for start in range(0, len(rows), step):
        at = np.arange(start, min(start + step, len(rows)))
        parts.add(rows[at], truth.take(at))
    assert whole.figures() == parts.figures()


@given(lists())
def test_a_table_of_another_library_gives_the_same_figures(drawn):
    rows, truth = drawn
    user, place = np.nonzero(rows >= 0)
    ranked = pl.DataFrame(
        {
            "u": [f"user {row}" for row in user],
            "i": [f"item {row}" for row in rows[user, place]],
            "r": place + 1,
        }
    ).sample(fraction=1, shuffle=True, seed=0)
    relevant = pl.DataFrame(
        {
            "u": [f"user {row}" for row in truth.row_numbers()],
            "i": [f"item {row}" for row in truth.indices],
        }
    )
    figures, users = quality_of_table(
        ranked, relevant, ks=(3, 5), metrics=("ndcg", "recall", "map"), columns=("u", "i", "r")
    )
    expected = per_user(rows, truth, ks=(3, 5), metrics=("ndcg", "recall", "map"))
    for name, values in expected.items():
        assert users[name].tolist() == values.tolist()
        assert figures[name] == values.mean()


SMALL_TRUTH = {"user": [1, 2], "item": [10, 20]}


class TestTables:
    def test_a_file_ids_of_other_types_and_users_without_a_list(self, tmp_path):
        path = tmp_path / "top.parquet"
        pl.DataFrame({"user": ["1", "9"], "item": ["10", "20"], "rank": [0, 0]}).write_parquet(path)
        figures, users = quality_of_table(path, SMALL_TRUTH, ks=(1,))
        assert users["recall@1"].tolist() == [1.0, 0.0]
        assert figures["recall@1"] == 0.5

    def test_whole_numbers_kept_as_floats_are_the_same_ids(self):
        ranked = {"user": [1.0, 2.0], "item": ["10", "20"], "rank": [1.0, 1.0]}
        assert quality_of_table(ranked, SMALL_TRUTH, ks=(1,))[0]["recall@1"] == 1.0

    @pytest.mark.parametrize("kind", ["pandas", "arrow"])
    def test_frames_of_other_libraries(self, kind):
        ranked = pl.DataFrame({"user": [1, 2], "item": [10, 10], "rank": [1, 1]})
        if kind == "pandas":
            pd = pytest.importorskip("pandas")
            table = pd.DataFrame(ranked.to_dict(as_series=False))
        else:
            table = ranked.to_arrow()
        assert quality_of_table(table, SMALL_TRUTH, ks=(1,))[0]["recall@1"] == 0.5

    @pytest.mark.parametrize("first", [0, 1])
    @pytest.mark.parametrize("user", ["user", "user_id"])
    @pytest.mark.parametrize("item", ["item", "item_id"])
    def test_names_and_the_first_rank_are_found(self, first, user, item):
        ranked = {user: [1, 1, 2], item: [30, 10, 20], "rank": [first, first + 1, first + 1]}
        truth = {item: [10, 20], user: [1, 2]}
        _, users = quality_of_table(ranked, truth, ks=(1, 2), metrics=("mrr",))
        assert users["mrr@1"].tolist() == [0.0, 0.0]
        assert users["mrr@2"].tolist() == [0.5, 0.5]

    def test_the_first_rank_as_it_was_given(self):
        ranked = {"user": [1], "item": [10], "rank": [1]}
        found = quality_of_table(ranked, SMALL_TRUTH, ks=(1, 2), first_rank=0)[0]
        assert (found["recall@1"], found["recall@2"]) == (0.0, 0.5)
        with pytest.raises(DataError, match="rank 1 is below 2, the first rank"):
            quality_of_table(ranked, SMALL_TRUTH, first_rank=2)

    def test_scores_rank_where_there_is_no_rank(self):
        ranked = {
            "user": [2, 1, 1, 2, 1, 9],
            "item": [30, 31, 10, 20, 32, 10],
            "score": [0.5, 0.1, 0.7, 0.5, 0.9, 3.0],
        }
        truth = {"user": [1, 2], "item": [10, 20]}
        _, users = quality_of_table(ranked, truth, ks=(3,), metrics=("mrr",))
        # Equal scores keep the order of the table: 30 stands before 20.
        assert users["mrr@3"].tolist() == [0.5, 0.5]
        ranked["rank"] = [1, 3, 1, 2, 2, 1]
        _, users = quality_of_table(ranked, truth, ks=(3,), metrics=("mrr",))
        assert users["mrr@3"].tolist() == [1.0, 0.5]

    @pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "csv.gz", "jsonl", "ndjson.gz"])
    def test_files_by_their_ending(self, tmp_path, ending):
        path = tmp_path / f"top.{ending.removesuffix('.gz')}"
        table = pl.DataFrame({"user": ["007", "b,b"], "item": ["1", "x"], "rank": [1, 1]})
        if ending == "parquet":
            table.write_parquet(path)
        elif "json" in ending:
            table.write_ndjson(path)
        else:
            table.write_csv(path, separator="\t" if ending == "tsv" else ",")
        if ending.endswith(".gz"):
            plain, path = path, tmp_path / f"top.{ending}"
            path.write_bytes(gzip.compress(plain.read_bytes()))
        truth = {"user": ["007", "b,b"], "item": ["1", "y"]}
        _, users = quality_of_table(path, truth, ks=(1,), metrics=("recall",))
        assert users["recall@1"].tolist() == [1.0, 0.0]
        assert quality_of_table(path, path, ks=(1,))[0]["recall@1"] == 1.0

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            (
                "x.csv",
                b"",
                "x.csv is no readable .csv table \\(empty CSV\\): expected columns user_id",
            ),
            ("x.csv", b"user,item,rank\n", "the ranked table is empty"),
            ("x.csv", b"user,item,rank\n1,2,3,4\n", "x.csv is no readable .csv table"),
            ("x.parquet", b"PAR1 and no more", "x.parquet is no readable .parquet table"),
            ("x.jsonl", b"{", "x.jsonl is no readable .jsonl table"),
            ("x.xlsx", b"", "x.xlsx is no table that can be read: expected .parquet, .pq, .csv"),
        ],
    )
    def test_files_that_are_no_table(self, tmp_path, name, content, reason):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=reason):
            quality_of_table(tmp_path / name, SMALL_TRUTH)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(DataError, match=r"x\.csv is no readable \.csv table"):
            quality_of_table(tmp_path / "x.csv", SMALL_TRUTH)

    def test_an_empty_truth(self):
        with pytest.raises(DataError, match="the truth is empty: expected a row for each user"):
            quality_of_table({"user": [1], "item": [10], "rank": [1]}, {"user": [], "item": []})

    def test_metrics_that_need_more_than_lists(self):
        ranked = {"user": [1, 2], "item": [10, 20], "rank": [1, 1]}
        how = {"ks": (1,), "metrics": ("novelty",)}
        found, users = quality_of_table(ranked, SMALL_TRUTH, popularity={10: 0.5, 20: 0.25}, **how)
        assert users["novelty@1"].tolist() == [1.0, 2.0]
        assert found["novelty@1"] == 1.5
        with pytest.raises(SpecError, match="novelty needs the popularity of every item"):
            quality_of_table(ranked, SMALL_TRUTH, **how)
        with pytest.raises(SpecError, match="auc needs the scores of every item"):
            quality_of_table(ranked, SMALL_TRUTH, metrics=("auc",))

    def test_value_by_item_id(self):
        ranked = {"user": [1, 2], "item": [10, 10], "rank": [1, 1]}
        figures, _ = quality_of_table(
            ranked, SMALL_TRUTH, ks=(1,), metrics=("value_recall",), value={10: 5.0}
        )
        assert figures["value_recall@1"] == 0.5

    def test_a_value_below_nothing(self):
        ranked = {"user": [1, 2], "item": [10, 10], "rank": [1, 1]}
        with pytest.raises(DataError, match="the value of item 20 is -3: value_recall is a share"):
            quality_of_table(
                ranked, SMALL_TRUTH, ks=(1,), metrics=("value_recall",), value={10: 5.0, 20: -3.0}
            )

    @pytest.mark.parametrize(
        ("ranked", "message"),
        [
            (
                {"user": [1], "item": [10]},
                "the ranked table has no column 'rank' or 'score': it has u",
            ),
            ({"user": [1], "rank": [0]}, "the ranked table has no column 'item_id' or 'item'"),
            ({"user": [], "item": [], "rank": []}, "the ranked table is empty: expected a row"),
            ({"user": [1], "item": [10], "rank": [-1]}, "rank -1 is below 0"),
            ({"user": [7], "item": [10], "rank": [1]}, "no user of the truth has a list: .* 7, "),
            ({"user": [1], "item": [10], "rank": ["1st"]}, "rank holds '1st': expected whole"),
            ({"user": [1], "item": [10], "score": ["good"]}, "score holds 'good': expected numbe"),
            ({"user": [1], "item": [10], "score": [np.inf]}, "empty values in 'score'"),
            ({"user": [1, 1], "item": [10, 20], "rank": [1, 1]}, "one rank twice"),
            ({"user": [1, 1], "item": [10, 10], "rank": [1, 2]}, "one item twice"),
            ({"user": [1, None], "item": [10, 20], "rank": [1, 2]}, "empty values in 'user'"),
            ({"user": [1], "item": [10.5], "rank": [np.nan]}, "empty values in 'rank'"),
            ({"user": [1], "item": [10], "rank": [1.5]}, "rank holds Float64"),
        ],
    )
    def test_tables_that_make_no_sense(self, ranked, message):
        with pytest.raises(DataError, match=message):
            quality_of_table(ranked, SMALL_TRUTH)


class TestRefusals:
    TRUTH = CSR.from_rows([[0]], 2)
    ROWS = np.zeros((1, 3), np.int32)

    def test_an_unknown_metric(self):
        with pytest.raises(SpecError, match="no metric is called 'ndgc': expected one of recall"):
            Tally(2, metrics=("ndgc",))

    @pytest.mark.parametrize("name", ["value_recall", "novelty"])
    def test_a_missing_column(self, name):
        with pytest.raises(SpecError, match=f"{name} needs the {METRICS[name].needs}"):
            Tally(2, metrics=(name,))

    def test_auc_has_no_list(self):
        with pytest.raises(SpecError, match="auc needs the scores of every item: ask measure"):
            Tally(2, metrics=("auc",))

    def test_k_below_one(self):
        with pytest.raises(SpecError, match=r"k is \[0\]"):
            Tally(2, ks=(0,))

    def test_lists_too_short(self):
        with pytest.raises(SpecError, match="lists of 3 places cannot be measured at k = 5"):
            per_user(self.ROWS, self.TRUTH, ks=[5])

    @pytest.mark.parametrize("worth", [-1.0, np.nan])
    def test_a_value_of_which_there_are_no_shares(self, worth):
        with pytest.raises(DataError, match=f"the value of item 1 is {worth:g}: value_recall is a"):
            per_user(
                self.ROWS, self.TRUTH, ks=[1], metrics=["value_recall"], value=np.array([1, worth])
            )

    def test_an_unknown_way_with_ties(self):
        with pytest.raises(SpecError, match="ties is 'lucky'"):
            sampled_quality(np.zeros((1, 2)), ties="lucky")

    def test_no_queries(self):
        with pytest.raises(SpecError, match="no queries to measure"):
            sampled_quality(np.zeros((0, 2)))

    def test_samples_that_do_not_fit_the_queries(self):
        queries = Queries.of(CSR.empty(2, 5))
        with pytest.raises(SpecError, match="2 queries, 1 positives and 2 rows of negatives"):
            sampled(Rising(), queries, np.zeros(1, int), np.zeros((2, 3), int))


class Rising:
    """Scores an item by its row."""

    def score(self, queries, candidates):
        return np.where(candidates < 0, -np.inf, candidates).astype(np.float32)


class TestSampled:
    def test_the_positive_among_its_negatives_is_left_out_whatever_the_batch(self):
        queries = Queries.of(CSR.empty(3, 9))
        positives = np.array([5, 7, 1])
        negatives = np.array([[5, 6, 5], [7, 7, 1], [8, 2, -1]])
        for batch in (1, 2, 9):
            found = sampled(Rising(), queries, positives, negatives, ks=(1, 2), batch=batch)
            assert found["hit_rate@1"] == pytest.approx(1 / 3)
            assert found["hit_rate@2"] == pytest.approx(2 / 3)
            assert found["ndcg@2"] == pytest.approx((1 / np.log2(3) + 1) / 3)

    def test_scores_that_are_none(self):
        scores = np.array([[np.nan, 1.0], [-np.inf, -np.inf], [0.0, np.nan]])
        for ties in ("fair", "first", "last"):
            assert sampled_quality(scores, (1,), ties=ties)["hit_rate@1"] == pytest.approx(1 / 3)

    def test_a_scorer_that_knows_nothing_gets_chance(self):
        found = sampled_quality(np.zeros((4, 100)), (10, 200))
        assert found["hit_rate@10"] == pytest.approx(0.1)
        assert found["hit_rate@200"] == pytest.approx(1.0)


class TestIntervals:
    def test_the_interval_holds_the_mean_at_its_level(self):
        random = np.random.default_rng(0)
        held = 0
        for trial in range(200):
            interval = bootstrap(random.exponential(size=60), draws=400, seed=trial)
            held += interval.low <= 1.0 <= interval.high
        assert 175 <= held <= 199

    def test_pairs_are_sharper_than_their_parts(self):
        random = np.random.default_rng(1)
        first = random.random(300)
        second = first + 0.01 + random.normal(0, 0.01, 300)
        pair = paired_bootstrap(first, second)
        assert 0 < pair.low < 0.01 < pair.high < 0.02
        assert sign_flip(first, second) < 0.001
        assert sign_flip(first, first[::-1]) > 0.05
        assert str(pair).startswith("0.0")

    def test_many_pairs_hold_together(self):
        random = np.random.default_rng(2)
        missed = np.zeros(2)
        for trial in range(150):
            pairs = [random.normal(size=(2, 200)) for _ in range(8)]
            for at, comparisons in enumerate((1, 8)):
                found = [
                    paired_bootstrap(*pair, draws=400, seed=trial, comparisons=comparisons)
                    for pair in pairs
                ]
                missed[at] += any(one.low > 0 or one.high < 0 for one in found)
        # Of eight intervals of 95% one or more misses in a third of the trials; together, in 5%.
        assert missed[0] / 150 > 0.25
        assert missed[1] / 150 < 0.1

    def test_each_comparison_widens_the_interval(self):
        first, second = np.random.default_rng(3).random((2, 100))
        one, two, many = (paired_bootstrap(first, second, comparisons=c) for c in (1, 2, 20))
        assert one == paired_bootstrap(first, second)
        assert one.mean == two.mean == many.mean
        assert many.low < two.low < one.low < one.high < two.high < many.high
        with pytest.raises(SpecError, match="comparisons is 0: expected a whole number of 1"):
            paired_bootstrap(first, second, comparisons=0)

    def test_the_same_seed_gives_the_same_interval(self):
        values = np.arange(50.0)
        assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
        assert bootstrap(values, seed=3) != bootstrap(values, seed=4)

    @pytest.mark.parametrize("test", [paired_bootstrap, sign_flip])
    def test_other_users_cannot_be_paired(self, test):
        with pytest.raises(SpecError, match="2 and 3 users"):
            test(np.zeros(2), np.zeros(3))

    @pytest.mark.parametrize("values", [[], [1.0, np.nan]])
    def test_values_that_have_no_interval(self, values):
        with pytest.raises(SpecError, match="needs finite values"):
            bootstrap(np.array(values))

    def test_corrections_by_hand(self):
        assert holm([0.5, 0.9]) == [1.0, 1.0]
        assert benjamini_hochberg([0.04, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
