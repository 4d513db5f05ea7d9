from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from martlet.core import DataError, SpecError
from martlet.data import RandomSplit, prepare, read
from martlet.data.numbering import Texts, numbering_of
from martlet.data.reading import read_table
from martlet.data.times import Times

ALL_TRAIN = RandomSplit(0.0001, 0.0001)
MOMENT = 1_600_000_000


def seconds(values, unit="auto", **options):
    return Times(unit).seconds(pl.Series(values, **options)).to_list()


class TestTimes:
    @pytest.mark.parametrize(
        ("unit", "parts"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)]
    )
    def test_units_are_told_by_size_or_given(self, unit, parts):
        late = MOMENT * parts + parts - 1  # still the same second, to the last nanosecond
        for how in ("auto", unit):
            assert seconds([late, None], how) == [MOMENT, None]
            assert seconds([f" {late} ", str(late), "soon"], how) == [MOMENT, MOMENT, None]
        assert seconds([-1 * parts], unit) == [-1]

    def test_a_given_unit_overrides_the_size(self):
        assert seconds([5_000], "ms") == [5]
        assert seconds([1_600_000_000_000], "s") == [1_600_000_000_000]
        assert seconds(["1600000000.75", "1.6e9"]) == [MOMENT, MOMENT]
        assert seconds([1.6e9 + 0.75, float("nan"), float("inf")]) == [MOMENT, None, None]

    @pytest.mark.parametrize(
        ("text", "shift"),
        [
            ("2020-09-13T12:26:40Z", 0),
            ("2020-09-13T12:26:40.123Z", 0),
            ("2020-09-13T12:26:40", 0),
            ("2020-09-13 12:26:40.999", 0),
            ("2020-09-13T14:26:40+02:00", 0),
            (" 2020-09-13T12:26 ", -40),
            ("2020-09-13", -44_800),
            ("2020-09-13 12:26:40+00:00", 0),
            ("2020-09-13 12:26:40Z", 0),
            ("2020-09-13 12:26:40 UTC", 0),
            ("2020-09-13T12:26:40 UTC", 0),
            ("2020-09-13 14:26:40+02", 0),
            ("2020-09-13T14:26:40.5+0200", 0),
            ("2020-09-13 14:26:40.123456 +0200", 0),
            ("2020-09-13 06:56:40-05:30", 0),
            ("2020-09-13T14:26+02:00", -40),
            ("2020-09-13 12:26Z", -40),
        ],
    )
    def test_iso(self, text, shift):
        for how in ("auto", "iso"):
            assert seconds([text, "soon"], how) == [MOMENT + shift, None]
        assert seconds([text, str(MOMENT)]) == [MOMENT + shift, MOMENT]

    @pytest.mark.parametrize("how", ["auto", "iso"])
    def test_days_without_dashes(self, how):
        assert seconds(["20200913", " 19700102 ", None, "soon"], how) == [
            MOMENT - 44_800, 86_400, None, None,
        ]  # fmt: skip
        assert seconds([20200913, 19700102], how) == [MOMENT - 44_800, 86_400]
        assert seconds(["20200913", "2020-09-13"], how) == [MOMENT - 44_800] * 2

    @pytest.mark.parametrize(
        "other", ["20201301", "20200932", "19691231", "21010101", "5", "1600000000"]
    )
    def test_they_are_seconds_where_many_are_no_days(self, other):
        assert seconds(["20200913", other]) == [20200913, int(other)]
        assert seconds([20200913, int(other)]) == [20200913, int(other)]
        assert seconds(["20200913"], "s") == [20200913]
        assert seconds(["20200913", other], "iso") == [None, None]

    def test_one_that_is_no_day_is_no_time(self):
        assert seconds(["20200913"] * 9 + ["20201301"])[8:] == [MOMENT - 44_800, None]

    def test_what_is_told_from_the_first_batch_stays(self):
        days, numbers = Times("auto"), Times("auto")
        assert days.seconds(pl.Series([None, "soon"], dtype=pl.String)).to_list() == [None, None]
        assert days.seconds(pl.Series(["20200913"])).to_list() == [MOMENT - 44_800]
        assert days.seconds(pl.Series(["5", "20200231"])).to_list() == [None, None]
        assert numbers.seconds(pl.Series(["5"])).to_list() == [5]
        assert numbers.seconds(pl.Series(["20200913"])).to_list() == [20200913]

    def test_what_is_iso_alone_refuses_numbers(self):
        assert seconds([str(MOMENT)], "iso") == [None]
        assert seconds([MOMENT], "iso") == [None]

    def test_typed_columns(self):
        moment = datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC)
        assert seconds([moment]) == [MOMENT]
        assert seconds([moment.replace(tzinfo=None)], "ms") == [MOMENT]
        assert seconds([date(1970, 1, 2)]) == [86_400]

    def test_an_unknown_unit(self):
        with pytest.raises(SpecError, match="the time unit 'h' is unknown: expected one of auto"):
            read(pl.DataFrame({"user": [1], "item": [1]}), time_unit="h")

    def test_a_unit_is_read_with_the_log(self):
        log = read({"user": [1, 1], "item": [1, 2], "time": [5_000, 6_000]}, time_unit="ms")
        assert prepare(log, split=ALL_TRAIN).train.time_s.tolist() == [5, 6]


class TestEventWeights:
    LOG = pl.DataFrame(
        {"user": list("aaaa"), "item": list("wxyz"), "event": ["view", " Cart", "BUY", "wink"]}
    )

    def weights(self, **options):
        dataset = prepare(read(self.LOG, **options), split=ALL_TRAIN)
        return dict(
            zip(
                dataset.items.names(dataset.train.item_row),
                dataset.train.weight.tolist(),
                strict=True,
            )
        )

    def test_those_of_a_shop_by_default(self):
        assert self.weights() == {"w": 1, "x": 3, "y": 5}

    def test_those_given_take_their_place(self):
        assert self.weights(event_weights={"Wink": 0.5, "buy": 2}) == {"y": 2, "z": 0.5}

    def test_those_given_are_all_there_are(self):
        dataset = prepare(read(self.LOG, event_weights={"buy": 10}), split=ALL_TRAIN)
        assert dataset.train.weight.tolist() == [10]
        assert dataset.about["cleaning"][0]["rule"] == "unknown event"

    @pytest.mark.parametrize(
        ("given", "columns", "weights"),
        [
            ({}, {"event"}, [1, 3, 5]),
            ({"event_col": "event"}, {"event"}, [1, 3, 5]),
            ({"weight_col": "quantity"}, {"weight"}, [2, 4, 6, 8]),
            ({"weight_col": "quantity", "event_col": "event"}, {"event", "weight"}, [2, 12, 30]),
        ],
    )
    def test_a_weight_beside_an_event(self, given, columns, weights):
        log = read(self.LOG.with_columns(quantity=pl.Series([2, 4, 6, 8])), **given)
        assert set(log.columns) - {"user", "item"} == columns
        dataset = prepare(log, split=ALL_TRAIN)
        assert sorted(dataset.train.weight.tolist()) == weights
        assert dataset.about["columns"] == dict(log.columns)

    def test_a_product_that_is_no_weight(self):
        log = self.LOG.with_columns(weight=pl.Series([1.0, 3e38, 1.0, 2.0]))
        dataset = prepare(read(log, weight_col="weight", event_col="event"), split=ALL_TRAIN)
        counts = {r["rule"]: r["rows_in"] - r["rows_out"] for r in dataset.about["cleaning"]}
        assert (counts["bad weight"], counts["unknown event"]) == (1, 1)

    @pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
    def test_a_weight_that_is_none(self, weight):
        with pytest.raises(SpecError, match="the weight of the event 'buy' is"):
            read(self.LOG, event_weights={"buy": weight})


class TestNumbering:
    def test_blanks_do_not_count_and_codes_go_on(self):
        numbering = Texts()
        assert numbering.codes(pl.Series([" a", "b", "a", None, " "])).tolist()[3:] == [-1, -1]
        codes = [numbering.codes(pl.Series([text])) for text in ("a", " a", "a  ", "b", "c")]
        ids, rows = numbering.rows(codes)
        assert ids.to_list() == ["a", "b", "c"]
        assert np.concatenate(rows).tolist() == [0, 0, 0, 1, 2]

    @pytest.mark.parametrize("step", [1, 10**9, -(10**15), "text"])
    def test_many_ids_in_small_pieces(self, step):
        values = pl.Series(np.random.default_rng(0).permutation(5000))
        values = values.cast(pl.String) if step == "text" else values * step
        numbering = numbering_of([values.dtype])
        twice = pl.concat([values, values])
        pieces = [twice[at : at + 777] for at in range(0, 10_000, 777)]
        read = [numbering.read(piece)[0] for piece in pieces]
        ids, rows = numbering.rows([np.concatenate(read[:4]), np.concatenate(read[4:])])
        assert ids.to_list() == values.sort().cast(pl.String).to_list()
        assert ids.gather(np.concatenate(rows)).to_list() == twice.cast(pl.String).to_list()


def test_a_rating_that_weighs_is_held_once():
    train = prepare({"user": [1, 1], "item": [1, 2], "rating": [3.0, 4.5]}, split=ALL_TRAIN).train
    assert np.shares_memory(train.weight, train.extra["rating"])
    train = prepare({"user": [1, 1], "item": [1, 2], "rating": [0.0, 4.5]}, split=ALL_TRAIN).train
    assert train.weight.tolist() == [np.float32(1e-6), 4.5]
    assert train.extra["rating"].tolist() == [0, 4.5]


def test_what_is_carried_along_is_a_number_or_a_code():
    log = {"user": [1] * 4, "item": [1, 2, 3, 4], "order_id": ["o2", "o1", None, "o2"],
           "price": [1, None, 3, 4], "new": [True, False, True, None]}  # fmt: skip
    dataset = prepare(read(log, context_cols=["price", "new"]), split=ALL_TRAIN)
    extra = dataset.train.extra
    np.testing.assert_array_equal(extra["price"], [1, np.nan, 3, 4])
    assert list(dataset.labels["basket"]) == ["o1", "o2"]
    assert extra["basket"].tolist() == [1, 0, -1, 1]
    assert list(dataset.labels["new"]) == ["false", "true"]
    assert extra["new"].tolist() == [1, 0, 1, -1]
    assert "price" not in dataset.labels
    assert dataset.about["columns"]["price"] == "price"


class TestFormats:
    def test_what_cannot_be_told_is_named(self, tmp_path):
        path = tmp_path / "log.inter"
        path.write_text("user_id:token\titem_id\na\tx\n")
        with pytest.raises(DataError, match="the heading 'item_id': an atomic file has name:type"):
            read(str(path))
        with pytest.raises(DataError, match="format 'xml' is unknown: expected one of csv, jsonl"):
            read(str(path), format="xml")

    def test_atomic_headings_are_known_under_any_name(self, tmp_path):
        path = tmp_path / "log.txt"
        path.write_text("user_id:token\titem_id:token\ttimestamp:float\na\tx\t5.0\n")
        assert read(str(path)).format == "atomic"

    def test_blanks_part_columns_where_nothing_else_does(self, tmp_path):
        path = tmp_path / "log.txt"
        path.write_text("user item\na x\nb y\n")
        assert len(prepare(str(path), split=ALL_TRAIN).train) == 2

    def test_a_separator_that_is_given(self, tmp_path):
        path = tmp_path / "log.txt"
        path.write_text("user#item\na,b#x\nc,d#y\n")
        assert set(prepare(read(str(path), sep="#"), split=ALL_TRAIN).users.ids) == {"a,b", "c,d"}

    def test_many_files_are_one_log(self, tmp_path):
        for name in "ab":
            (tmp_path / f"{name}.csv").write_text(f"user,item\n{name},x\n")
        assert set(prepare(str(tmp_path), split=ALL_TRAIN).users.ids) == {"a", "b"}
        (tmp_path / "c.csv").write_text("")
        with pytest.raises(DataError, match=r"c\.csv is empty"):
            read(str(tmp_path))


class TestSideTables:
    def test_its_ids_are_found_and_are_text(self):
        table, _ = read_table({"movie id": [7.0, None], "title": ["a", "b"]})
        assert table["id"].to_list() == ["7", None]
        assert read_table({"item": [" x "]}, id_col="item")[0]["id"].to_list() == ["x"]
        with pytest.raises(DataError, match="no user id column that can be told: it has title"):
            read_table({"title": ["a"]}, kind="user")
