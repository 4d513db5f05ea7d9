"""Synthetic logs against the log that the shipped calibration was fitted to, and at other sizes."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.core import Interactions, OutputError, SpecError
from martlet.data import synthetic
from martlet.data.calibration import Calibration, falling
from martlet.data.likeness import Likeness
from martlet.data.sources import get
from martlet.data.synthetic import synthesize, synthesize_parquet
from martlet.metrics.quality import gini

# What the statistics of ``Likeness`` are on MovieLens 100K, and how far a drawn log may be.
ML_100K = {
    "length": ([20, 21, 23, 33, 65, 148, 244.4, 310.6, 442.54, 688.016], 0.02),
    "taste": ([5.8789, 6.3695, 6.5859, 6.8482, 7.1426, 7.4276, 7.646, 7.7773, 7.9654, 8.096], 0.12),
    "cosine": ([0.082, 0.1232, 0.1502, 0.2099, 0.3005, 0.3969, 0.4828, 0.5354, 0.6295, 0.7236],
               0.025),
    "log_lift": ([-0.6707, -0.2938, -0.0981, 0.3086, 0.7807, 1.1709, 1.4418, 1.6108, 1.934, 2.2456],
                 0.11),
    "spectrum": ([-2.2925, -4.2768, -4.8057, -5.1434, -5.9155, -6.4042, -6.9664, -7.3309, -7.6919,
                  -7.8986, -8.3712], 0.45),
    "clock": ([0.0054, 0.0321, 0.0869, 0.2545, 0.4365, 0.7292, 0.8974, 0.9155, 0.9798, 0.9995],
              0.03),
    "drift": (0.6852, 0.04),
    "weight_by_item": (0.1947, 0.05),
    "weight_by_user": (0.1515, 0.04),
    "repeat_share": (0.0, 0.0),
}  # fmt: skip
STRUCTURE = ("taste", "cosine", "log_lift", "spectrum", "drift", "weight_by_item", "weight_by_user",
             "repeat_share")  # fmt: skip
ITEM_COUNTS = [2.0, 6.0, 27.0, 80.0, 169.0, 229.85, 369.09]  # at 10, 25, 50, 75, 90, 95 and 99%
GINI = 0.629
RATINGS = np.array([6110, 11370, 27145, 34174, 21201]) / 100_000
SIZES = {"num_users": 943, "num_items": 1682, "num_events": 100_000}


def apart(found, name):
    wanted, value = np.asarray(ML_100K[name][0], float), np.asarray(getattr(found, name))
    gap = np.log2(value / wanted) if name == "length" else value - wanted
    return float(np.abs(gap).mean())


@pytest.fixture(scope="module", params=[0, 1])
def drawn(request):
    return Likeness(synthesize(**SIZES, seed=request.param))


class TestAgainstMovieLens:
    @pytest.mark.parametrize("name", ML_100K)
    def test_the_statistic_is_the_sources(self, drawn, name):
        assert apart(drawn, name) <= ML_100K[name][1]

    @pytest.mark.parametrize("name", STRUCTURE)
    def test_a_log_of_the_same_counts_and_no_structure_is_told_apart(self, drawn, name):
        """The bounds above are not so wide that chance would pass."""
        stream, log = np.random.default_rng(0), drawn.log
        columns = (stream.permutation(c) for c in (log.item_row, log.weight, log.time_s))
        chance = Interactions.sort(log.user_row, *columns, num_users=943, num_items=1682)
        assert apart(Likeness(chance), name) > 1.2 * ML_100K[name][1]

    def test_popularity(self, drawn):
        counts = drawn.item_count
        assert abs(gini(counts) - GINI) < 0.02
        found = np.quantile(counts, [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
        np.testing.assert_allclose(found[2:], ITEM_COUNTS[2:], rtol=0.1)
        assert np.abs(found[:2] - ITEM_COUNTS[:2]).max() <= 2.5
        assert len(counts) > 0.96 * SIZES["num_items"]
        curve, wanted = falling(counts), Calibration.default().popularity
        assert np.abs(np.log2(np.divide(curve, wanted)))[:50].mean() < 0.08

    def test_ratings(self, drawn):
        share = np.bincount(drawn.log.weight.astype(int), minlength=6)[1:] / len(drawn.log)
        assert np.abs(share - RATINGS).max() < 0.02

    def test_times_lie_on_the_sources_clock(self, drawn):
        begin, end = Calibration.default().clock_s
        assert begin <= drawn.log.time_s.min() <= begin + 0.01 * (end - begin)
        assert end - 0.01 * (end - begin) <= drawn.log.time_s.max() <= end

    def test_rows_fall_by_frequency_as_far_as_chance_lets_them(self, drawn):
        counts = drawn.log.item_count
        assert np.corrcoef(np.argsort(-counts), np.arange(1682))[0, 1] > 0.97
        assert (np.diff(np.bincount(drawn.log.user_row)) <= 0).all()

    def test_the_numbers_above_are_movielenss(self, monkeypatch):
        monkeypatch.setenv("MARTLET_OFFLINE", "1")
        try:
            path = get("ml-100k") / "ml-100k.inter"
        except Exception as error:
            pytest.skip(f"MovieLens 100K is not in the cache: {error}")
        frame = pl.read_csv(path, separator="\t", new_columns=["user", "item", "rating", "time"])
        rows = [np.unique(frame[name], return_inverse=True)[1] for name in ("user", "item")]
        columns = frame["rating"].to_numpy(), frame["time"].to_numpy()
        log = Interactions.sort(*rows, *columns, num_users=943, num_items=1682)
        source = Likeness(log)
        for name in ML_100K:
            assert apart(source, name) < 1e-3, name
        assert abs(gini(source.item_count) - GINI) < 1e-3
        assert falling(source.item_count) == Calibration.default().popularity


class TestSizes:
    def test_four_times_the_users_are_users_alike(self):
        grown = Likeness(synthesize(num_users=3772, num_items=1682, num_events=400_000))
        for name in ("length", "cosine", "log_lift", "clock", "weight_by_item", "weight_by_user"):
            assert apart(grown, name) <= 1.5 * ML_100K[name][1], name
        assert abs(gini(grown.item_count) - GINI) < 0.02
        np.testing.assert_allclose(grown.item_count[:50], 4 * _head()[:50], rtol=0.1)

    def test_twice_the_users_and_items(self):
        grown = Likeness(synthesize(num_users=1886, num_items=3364, num_events=200_000))
        assert len(grown.log) == 200_000
        assert grown.log.matrix.nnz == 200_000
        for name in ("length", "clock", "weight_by_item", "weight_by_user"):
            assert apart(grown, name) <= 1.5 * ML_100K[name][1], name
        assert abs(gini(grown.item_count) - GINI) < 0.02

    @pytest.mark.parametrize(
        "sizes", [(1, 5, 1), (1, 5, 4), (7, 1, 5), (3, 2000, 4000), (900, 40, 900)]
    )
    def test_small_and_odd_sizes(self, sizes):
        users, items, events = sizes
        if events < users:
            with pytest.raises(SpecError):
                synthesize(num_users=users, num_items=items, num_events=events)
            return
        log = synthesize(num_users=users, num_items=items, num_events=events)
        assert len(log) == log.matrix.nnz == events
        assert np.bincount(log.user_row, minlength=users).min() >= 1

    @pytest.mark.parametrize(
        ("sizes", "words"),
        [
            ((0, 5, 5), "0 users and 5 items: expected 1 or more of each"),
            ((5, 0, 5), "5 users and 0 items: expected 1 or more of each"),
            ((5, 5, 4), "4 events of 5 users and 5 items: .* an event for every user"),
            ((5, 5, 21), "over 80% of all pairs would be met; ask for more users or items"),
        ],
    )
    def test_sizes_that_no_log_has(self, sizes, words):
        users, items, events = sizes
        with pytest.raises(SpecError, match=words):
            synthesize(num_users=users, num_items=items, num_events=events)

    @given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30), st.integers(1, 60), st.data())
    def test_lengths_add_up_within_their_bounds(self, shape, longest, data):
        shape = np.sort(shape)[::-1] / np.mean(shape)
        total = data.draw(st.integers(len(shape), len(shape) * longest))
        lengths = synthetic._lengths(shape, total, longest)
        assert lengths.sum() == total
        assert lengths.min() >= 1
        assert lengths.max() <= longest
        assert (np.diff(lengths) <= 1).all()


def _head():
    """Return the events of the items that the shipped calibration says, at MovieLens's size."""
    from martlet.data.calibration import spread

    return spread(Calibration.default().popularity, 1682) * 100_000 / 1682


class TestSeeds:
    def test_the_same_seed_draws_the_same_log(self):
        sizes = {"num_users": 50, "num_items": 60, "num_events": 900}
        assert synthesize(**sizes, seed=3).hash == synthesize(**sizes, seed=3).hash
        assert synthesize(**sizes, seed=3).hash != synthesize(**sizes, seed=4).hash

    def test_a_calibration_without_times_draws_none(self, tmp_path):
        timeless = replace(Calibration.default(), clock_s=None)
        sizes = {"num_users": 50, "num_items": 60, "num_events": 900}
        assert synthesize(timeless, **sizes).time_s is None
        path = synthesize_parquet(tmp_path / "log.parquet", timeless, **sizes)
        assert pl.read_parquet(path).columns == ["user_id", "item_id", "rating"]

    def test_a_calibration_of_repeats_draws_them(self):
        repeating = replace(Calibration.default(), repeat_share=0.3)
        log = synthesize(repeating, num_users=200, num_items=300, num_events=20_000)
        assert abs(Likeness(log).repeat_share - 0.3) < 0.02


class TestParquet:
    SIZES = {"num_users": 943, "num_items": 700, "num_events": 40_000}  # noqa: RUF012

    @pytest.fixture
    def written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(synthetic, "CHUNK_EVENTS", 5_000)
        self.told = []
        return synthesize_parquet(
            tmp_path / "log.parquet", **self.SIZES, seed=5,
            progress=lambda *words: self.told.append(words),
        )  # fmt: skip

    def test_it_holds_the_same_events_under_shuffled_ids(self, written):
        frame, log = pl.read_parquet(written), synthesize(**self.SIZES, seed=5)
        assert frame.columns == ["user_id", "item_id", "rating", "timestamp"]
        assert frame.height == 40_000
        for name, rows in (("user_id", log.user_row), ("item_id", log.item_row)):
            ids = frame[name].to_numpy()
            size = self.SIZES[f"num_{name[:4]}s"]
            assert 1 <= ids.min() <= ids.max() <= size
            counts = np.bincount(ids, minlength=size + 1)[1:], np.bincount(rows, minlength=size)
            np.testing.assert_array_equal(np.sort(counts[0]), np.sort(counts[1]))
            # The order of the ids says nothing of how frequent they are.
            assert abs(np.corrcoef(counts[0], np.arange(size))[0, 1]) < 0.15
        np.testing.assert_array_equal(np.sort(frame["timestamp"]), np.sort(log.time_s))

    def test_a_row_group_holds_whole_users_in_time_order(self, written):
        file = pq.ParquetFile(written)
        groups = [pl.from_arrow(file.read_row_group(at)) for at in range(file.num_row_groups)]
        assert len(groups) >= 8
        longest = max(group.group_by("user_id").len()["len"].max() for group in groups)
        assert all(group.height <= 5_000 + longest for group in groups)
        assert all(group["timestamp"].is_sorted() for group in groups)
        users = [set(group["user_id"]) for group in groups]
        assert sum(map(len, users)) == len(set().union(*users)) == 943

    def test_progress_is_told_to_the_end(self, written):
        done = [events for _, events, _ in self.told]
        assert done == sorted(done)
        assert self.told[-1] == ("synthesize", 40_000, 40_000)
        assert len(done) >= 8

    def test_the_same_seed_writes_the_same_file(self, written, tmp_path):
        again = synthesize_parquet(tmp_path / "again.parquet", **self.SIZES, seed=5)
        assert again.read_bytes() == written.read_bytes()

    def test_nothing_is_left_of_a_log_cut_short(self, tmp_path, monkeypatch):
        monkeypatch.setattr(synthetic, "CHUNK_EVENTS", 5_000)

        def stop(*words):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            synthesize_parquet(tmp_path / "log.parquet", **self.SIZES, progress=stop)
        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_cannot_be_written_to(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="could not write"):
            synthesize_parquet(tmp_path / "file" / "log.parquet", **self.SIZES)

    def test_memory_is_that_of_one_row_group(self, tmp_path):
        """A million events more would take 100 MB if they were drawn at once."""
        program = (
            "import resource, sys\n"
            "from martlet.data import synthetic\n"
            "synthetic.CHUNK_EVENTS = 50_000\n"
            "def write(events):\n"
            "    synthetic.synthesize_parquet(\n"
            "        sys.argv[1], num_users=events // 100, num_items=3000, num_events=events)\n"
            "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
            "first = write(50_000)\n"
            "print(write(1_500_000) - first)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "log.parquet"],
            env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert float(done.stdout) < 40
        assert pq.ParquetFile(tmp_path / "log.parquet").metadata.num_rows == 1_500_000
