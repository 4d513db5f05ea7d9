"""Calibration: curves read off by hand-made logs, latent numbers fitted on logs that have them."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from martlet.core import DataError, Interactions
from martlet.data import calibrate as calibrating
from martlet.data.calibrate import calibrate, read_off
from martlet.data.calibration import EVEN, PLACES, Calibration, falling, spread
from martlet.data.likeness import DISTANCES, Likeness
from martlet.data.synthetic import synthesize

SIZES = {"num_users": 400, "num_items": 240}


def hasty(patch, wide=12, narrow=5, turns=2, halvings=5):
    """Search less than calibration does by itself."""
    for name, value in {
        "WIDE": wide,
        "NARROW": narrow,
        "TURNS": turns,
        "HALVINGS": halvings,
    }.items():
        patch.setattr(calibrating, name, value)


def structured():
    """Return a log of eight tastes, steep popularity, rising and falling items, and harsh users."""
    stream = np.random.default_rng(5)
    popularity = (np.arange(240) + 3.0) ** -0.9
    kind, slope = stream.integers(8, size=240), 1.5 * stream.normal(size=240)
    rows = []
    for user in range(400):
        length = int(np.clip(np.exp(stream.normal(3, 0.7)), 5, 120))
        start = 0.9 * stream.random()
        wish = popularity * np.exp(slope * (start - 0.5)) * np.where(kind == user % 8, 6.0, 1.0)
        items = stream.choice(240, size=length, replace=False, p=wish / wish.sum())
        weight = 3 + np.sin(items) + 0.4 * (user % 3 - 1) + 0.8 * stream.normal(size=length)
        when = 1_000_000_000 + 10_000_000 * (start + np.sort(stream.random(length)) / 10)
        rows.append((np.full(length, user), items, np.clip(np.round(weight), 1, 5), when))
    user, item, weight, when = map(np.concatenate, zip(*rows, strict=True))
    return Interactions.sort(user, item, weight, when.astype(np.int64), **SIZES)


def by_chance(log, seed=0):
    """Return the log with items, weights and times dealt anew: all counts, nothing between them."""
    stream = np.random.default_rng(seed)
    columns = (stream.permutation(column) for column in (log.item_row, log.weight, log.time_s))
    return Interactions.sort(
        log.user_row, *columns, num_users=log.num_users, num_items=log.num_items
    )


@pytest.fixture(scope="module")
def source():
    return structured()


@pytest.fixture(scope="module")
def apart(source):
    """Return the distances of a drawn log, and of one by chance, from the source of the first."""
    with pytest.MonkeyPatch.context() as patch:
        hasty(patch)
        calibration = calibrate(source)
    found = synthesize(calibration, **SIZES, num_events=len(source), seed=1)
    here = Likeness(source)
    return here.distance(Likeness(found)), here.distance(Likeness(by_chance(source)))


class TestALogOfKnownStructure:
    LIMITS = {  # noqa: RUF012
        "popularity": 0.1, "gini": 0.03, "length": 0.01, "taste": 0.15, "cosine": 0.01,
        "log_lift": 0.1, "spectrum": 0.15, "clock": 0.04, "drift": 0.2, "repeat_share": 0.0,
        "weight": 0.06, "weight_by_item": 0.1, "weight_by_user": 0.04,
    }  # fmt: skip

    @pytest.mark.parametrize("name", DISTANCES)
    def test_what_is_drawn_is_like_it(self, apart, name):
        assert apart[0][name] <= self.LIMITS[name]

    @pytest.mark.parametrize("name", ["cosine", "log_lift", "spectrum", "drift", "repeat_share",
                                      "weight_by_item", "weight_by_user"])  # fmt: skip
    def test_chance_alone_is_not(self, apart, name):
        assert apart[1][name] > 1.5 * self.LIMITS[name]


def folder():
    return Path(os.environ.get("MARTLET_DATA", "../shared/data")) / "ml-1m" / "ratings.parquet"


@pytest.mark.data
@pytest.mark.skipif(not folder().exists(), reason=f"MovieLens 1M is not at {folder()}")
def test_movielens_1m_fitted_on_some_of_its_users(monkeypatch):
    frame = pl.read_parquet(folder()).sort("user_id", "order")
    rows = [np.unique(frame[name], return_inverse=True)[1] for name in ("user_id", "item_id")]
    columns = [frame[name].to_numpy() for name in ("rating", "timestamp")]
    sizes = {"num_users": 6040, "num_items": 3706}
    log = Interactions.sort(*rows, *columns, **sizes)
    hasty(monkeypatch, 10, 4, 1, 4)
    monkeypatch.setattr(calibrating, "FIT_EVENTS", 60_000)
    drawn = synthesize(calibrate(log), **sizes, num_events=len(log))
    found = Likeness(log).distance(Likeness(drawn))
    limits = {
        "popularity": 0.03, "gini": 0.01, "length": 0.02, "taste": 0.2, "cosine": 0.03,
        "log_lift": 0.12, "spectrum": 0.3, "clock": 0.04, "drift": 0.15, "repeat_share": 0.0,
        "weight": 0.02, "weight_by_item": 0.03, "weight_by_user": 0.04,
    }  # fmt: skip
    assert {name: value for name, value in found.items() if value > limits[name]} == {}


class TestTheFit:
    def test_it_finds_what_was_planted(self, monkeypatch):
        hasty(monkeypatch, 10, 3, 1, 4)
        monkeypatch.setattr(calibrating, "MOST", 4.0)
        plain = {"lean": 0.0, "drift": 0.5, "width": 0.3, "circle_ratio": 0.8}
        sharp = {"lean": 2.5, "drift": 2.5, "width": 0.01, "circle_ratio": 0.2}
        found = []
        for planted in (plain, sharp):
            of = replace(Calibration.default(), **planted)
            found.append(calibrate(synthesize(of, num_users=300, num_items=200, num_events=9_000)))
        for name, between in {"lean": 1.4, "drift": 1.0}.items():
            assert getattr(found[0], name) < between < getattr(found[1], name), name
        assert found[0].width > 4 * found[1].width
        assert found[1].circle_ratio < 0.45  # interests as wide as the other's hide the circles

    def test_the_same_seed_finds_the_same(self, monkeypatch, source):
        hasty(monkeypatch, 2, 1, 1, 2)
        few = source.select(source.user_row < 40)
        first = calibrate(few, source="few", seed=3)
        assert Calibration.fit(few, source="few", seed=3) == first
        assert first.source == "few"
        assert calibrate(few, seed=4).width != first.width

    def test_a_large_log_is_fitted_on_some_users_and_told_of(self, monkeypatch, source):
        hasty(monkeypatch, 3, 2, 1, 2)
        monkeypatch.setattr(calibrating, "FIT_EVENTS", 2_000)
        sizes, told = set(), []
        inner = calibrating.synthesize

        def spy(guess, **given):
            sizes.add((given["num_users"], given["num_events"]))
            return inner(guess, **given)

        monkeypatch.setattr(calibrating, "synthesize", spy)
        calibrate(source, progress=lambda *words: told.append(words))
        step = -(-len(source) // 2_000)
        some = source.user_row % step == 0
        assert sizes == {(len(np.unique(source.user_row[some])), int(some.sum()))}
        assert told[0] == ("calibrate", 1, 3 * 2 * 2 + 3 + 3)
        assert told[-1] == ("calibrate", 18, 18)

    def test_a_log_without_times_has_no_drift(self, monkeypatch, source):
        hasty(monkeypatch, 2, 1, 1, 2)
        some = source.select(source.user_row < 60)
        found = calibrate(replace(some, time_s=None))
        assert (found.clock_s, found.drift) == (None, 0.0)
        assert found.start == found.elapsed == tuple(EVEN.round(5))

    @pytest.mark.parametrize(
        ("users", "items", "words"),
        [
            ([0] * 12, range(12), "12 events, 1 users and 12 items cannot calibrate a generator"),
            (range(12), [0] * 12, "12 events, 12 users and 1 items cannot calibrate a generator"),
            (range(9), range(9), "9 events, 9 users and 9 items .* expected 10 events of 2 users"),
        ],
    )
    def test_too_little(self, users, items, words):
        log = Interactions.sort(np.array(users), np.array(items), num_users=12, num_items=12)
        with pytest.raises(DataError, match=words):
            calibrate(log)


class TestWhatIsReadOff:
    def test_times(self):
        """User 0 stays from 0 to 50 of 100, user 1 from 20 to 100 with an event at 40."""
        users, items, times = [0, 0, 1, 1, 1], [0, 1, 0, 1, 2], [1000, 1050, 1020, 1040, 1100]
        log = Interactions.sort(
            np.array(users), np.array(items), None, np.array(times), num_users=2, num_items=3
        )
        found = read_off(log, "toy")
        assert found.clock_s == (1000, 1100)
        middle = len(EVEN) // 2
        assert (found.start[0], found.start[middle], found.start[-1]) == (0.0, 0.1, 0.2)
        assert (found.span[0], found.span[middle], found.span[-1]) == (0.5, 0.75, 1.0)
        # at 0 and 1 of the first's stay, at 0, 1/4 and 1 of the second's
        assert found.position == tuple(np.quantile([0, 1, 0, 0.25, 1], EVEN).round(5))
        share = [(np.array([0, 0.5, 0.2, 0.4, 1]) <= at).mean() for at in EVEN]
        assert found.elapsed == pytest.approx(share)

    def test_counts_and_weights(self):
        users, items = [0, 0, 0, 1], [0, 0, 1, 1]
        log = Interactions.sort(
            np.array(users), np.array(items), np.array([1.0, 2, 2, 5]), num_users=4, num_items=9
        )
        found = read_off(log, "toy")
        assert found.source == "toy"
        assert found.repeat_share == 0.25
        assert (found.length[0], found.length[-1]) == (1.5, 0.5)  # of a mean of 2
        assert set(found.popularity) == {1.0}
        assert (found.weight[0], found.weight[32], found.weight[-1]) == (1.0, 2.0, 5.0)
        assert found.clock_s is None


class TestCalibration:
    def test_plain_json_and_back(self):
        import json

        of = Calibration.default()
        assert Calibration.from_json(json.loads(json.dumps(of.to_json()))) == of
        assert of.source == "MovieLens 100K"

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"mood": 1}, r"not the numbers of a calibration .*mood.*: fit it again"),
            ({"width": ...}, r"\[64, 64, 65, 65, 65, 65, 65\]|fit it again"),
            (
                {"length": [1.0]},
                r"have \[64, 1, 65, 65, 65, 65, 65\] points: expected 64 for popul",
            ),
            ({"clock_s": ..., "source": ...}, "missing 2 required positional arguments"),
        ],
    )
    def test_other_numbers_are_refused(self, change, words):
        values = {**Calibration.default().to_json(), **change}
        values = {name: value for name, value in values.items() if value is not ...}
        if list(change) == ["width"]:  # what is fitted has a first guess
            assert Calibration.from_json(values).width == 0.05
            return
        with pytest.raises(DataError, match=words):
            Calibration.from_json(values)

    def test_a_falling_curve_is_over_the_mean(self):
        counts = np.arange(1, 10_001)
        expected = (10_000.5 - 10_000 * PLACES) / counts.mean()
        np.testing.assert_allclose(falling(counts)[:-1], expected[:-1], atol=2e-4)

    @pytest.mark.parametrize("n", [1, 7, 64, 5000])
    def test_a_curve_is_spread_over_any_number(self, n):
        counts = np.random.default_rng(0).pareto(1.2, 3000).astype(int) + 1
        values = spread(falling(counts), n)
        assert values.mean() == pytest.approx(1)
        assert (np.diff(values) <= 0).all()
        assert values.min() > 0
        if n == 5000:
            again = np.abs(np.log2(np.divide(falling(values * 1000), falling(counts))))
            assert again.mean() < 0.05
