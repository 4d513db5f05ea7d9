import gzip

import polars as pl
import pytest

from martlet.core import DataError, SpecError
from martlet.data import GivenSplit, LastOut, RandomSplit, TimeSplit, parse_split, prepare, read
from martlet.data import clean as cleaning
from martlet.data.reading import read_sql

HEADER = "user_id,item_id,rating,timestamp\n"


def write(path, text, **kwargs):
    path.write_text(text, **kwargs)
    return str(path)


def rows(dataset, part="train"):
    events = dataset.part(part)
    users, items = dataset.users.names(events.user_row), dataset.items.names(events.item_row)
    return sorted(zip(users, items, events.weight.tolist(), strict=True))


ALL_TRAIN = RandomSplit(0.0001, 0.0001)
PLAIN = [("a", "x", 5.0), ("b", "y", 3.0)]


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("log.csv", HEADER + "a,x,5,10\nb,y,3,20\n"),
            ("log.tsv", HEADER.replace(",", "\t") + "a\tx\t5\t10\nb\ty\t3\t20\n"),
            ("log.txt", HEADER.replace(",", ";") + "a;x;5;10\nb;y;3;20\n"),
            ("ratings.dat", "a::x::5::10\nb::y::3::20\n"),
            ("log.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
                          "a\tx\t5.0\t10.0\nb\ty\t3.0\t20.0\n"),
            ("log.jsonl", '{"user_id":"a","item_id":"x","rating":5,"timestamp":10}\n'
                          '{"user_id":"b","item_id":"y","rating":3,"timestamp":20}\n'),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("packed", [False, True])
    def test_text(self, tmp_path, name, text, packed):
        path = tmp_path / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        assert rows(prepare(str(path), split=ALL_TRAIN)) == PLAIN

    def test_parquet_folders_globs_lists_and_tables(self, tmp_path):
        frames = [
            pl.DataFrame({"user_id": [u], "item_id": [i], "rating": [r], "timestamp": [t]})
            for (u, i, r), t in zip(PLAIN, (10, 20), strict=True)
        ]
        for number, frame in enumerate(frames):
            frame.write_parquet(tmp_path / f"{number}.parquet")
        paths = [str(tmp_path / f"{n}.parquet") for n in range(2)]
        whole = pl.concat(frames)
        for source in (str(tmp_path), str(tmp_path / "*.parquet"), paths, whole, whole.to_arrow()):
            assert rows(prepare(source, split=ALL_TRAIN)) == PLAIN

    def test_a_sequence_a_line_keeps_its_order(self, tmp_path):
        path = write(tmp_path / "s.txt", "u1 c a b\nu2 a\nu3 b c d e\n")
        dataset = prepare(path, split=LastOut())
        assert rows(dataset, "test") == [("u1", "b", 1.0), ("u3", "e", 1.0)]

    def test_a_query(self):
        import sqlite3

        base = sqlite3.connect(":memory:")
        base.execute("create table log (user_id text, item_id text)")
        base.executemany("insert into log values (?, ?)", [("a", "x"), ("b", "y")])
        log = read_sql("select * from log", base)
        assert [row[:2] for row in rows(prepare(log, split=ALL_TRAIN))] == [("a", "x"), ("b", "y")]
        base.close()

    def test_columns_are_named_or_found(self, tmp_path):
        path = write(tmp_path / "l.csv", "who,what\na,x\n")
        with pytest.raises(DataError, match="no user column that can be told: it has who, what"):
            read(path)
        assert read(path, user_col="who", item_col="what").columns["user"] == "who"
        with pytest.raises(DataError, match="no column 'whom'"):
            read(path, user_col="whom")
        with pytest.raises(DataError, match="no column 'device'"):
            read(path, user_col="who", item_col="what", context_cols=["device"])

    @pytest.mark.parametrize(
        "stamp", ["1600000000", "1600000000000", "2020-09-13T12:26:40Z", "2020-09-13 12:26:40"]
    )
    def test_times(self, tmp_path, stamp):
        path = write(tmp_path / "l.csv", HEADER + f"a,x,1,{stamp}\n")
        assert prepare(path, split=ALL_TRAIN).train.time_s.tolist() == [1_600_000_000]

    def test_event_types_weigh(self, tmp_path):
        path = write(tmp_path / "l.csv", "user,item,event\na,x,view\na,y,buy\na,z,wink\n")
        dataset = prepare(path, split=ALL_TRAIN)
        assert rows(dataset) == [("a", "x", 1.0), ("a", "y", 5.0)]
        assert dataset.about["cleaning"][0]["rule"] == "unknown event"

    def test_side_tables_are_joined(self, tmp_path):
        log = write(tmp_path / "l.csv", HEADER + "a,1,5,10\nb,2,3,20\n")
        items = write(tmp_path / "movies.dat", "1::One (1999)::A|B\n7::Seven::C\n")
        dataset = prepare(log, items=items, split=ALL_TRAIN)
        assert dataset.catalogue["title"][dataset.items.row("1")] == "One (1999)"
        joined = dataset.about["items joined"]
        assert (joined["matched"], joined["rows without an event"]) == (1, 1)


class TestSplits:
    def test_time(self, tmp_path):
        text = HEADER + "".join(f"u{n % 3},i{n},1,{n}\n" for n in range(100))
        dataset = prepare(write(tmp_path / "l.csv", text), split=TimeSplit(0.2, 0.1))
        assert [len(dataset.part(p)) for p in ("train", "valid", "test")] == [70, 20, 10]
        assert dataset.about["leakage"]["train ends before valid"]

    def test_random_is_seeded_and_leaves_everybody_something(self, tmp_path):
        text = HEADER + "".join(f"u{n % 9},i{n},1,{n}\n" for n in range(90))
        path = write(tmp_path / "l.csv", text)
        one, same, other = (prepare(path, split=RandomSplit(0.2, 0.4), seed=s) for s in (1, 1, 2))
        assert one.test.hash == same.test.hash != other.test.hash
        assert (one.train.histories.lengths >= 1).all()

    def test_given(self, tmp_path):
        train = write(tmp_path / "train.csv", HEADER + "a,x,1,1\na,y,1,2\n")
        test = write(tmp_path / "test.csv", HEADER + "a,z,1,3\n")
        dataset = prepare(train, split=GivenSplit(test, valid=0.0))
        assert rows(dataset, "test") == [("a", "z", 1.0)]
        assert len(dataset.train) == 2

    def test_a_given_log_is_cleaned_too_where_a_rule_looks_at_one_event(self, tmp_path):
        train = write(
            tmp_path / "train.csv", HEADER + "a,x,5,10\na,y,5,15\nb,y,5,20\nb,x,5,30\nb,v,5,35\n"
        )
        test = write(
            tmp_path / "test.csv",
            HEADER + "a,y,2,40\na,y,5,41\n,x,5,42\nb,z,5,43\nb,w,many,44\n",
        )
        rejects = tmp_path / "rejects.parquet"
        dataset = prepare(
            train,
            split=GivenSplit(test, 0.0),
            clean=(cleaning.MinRating(4), cleaning.KCore(2, 2)),
            rejects=rejects,
        )
        assert rows(dataset, "test") == [("a", "y", 1.0), ("b", "z", 1.0)]
        told = {
            rule["rule"]: (rule["rows_in"], rule["rows_out"]) for rule in dataset.about["cleaning"]
        }
        assert told["test log: MinRating(threshold=4)"] == (3, 2)
        assert not any(name.startswith("test log: KCore") for name in told)
        aside = pl.read_parquet(rejects)
        assert sorted(aside["reason"]) == [
            "below k-core", "low rating", "missing id", "unparsable rating",
        ]  # fmt: skip
        low = aside.filter(pl.col("reason") == "low rating")
        assert low.select("user_id", "item_id", "rating", "time").row(0) == ("a", "y", "2.0", "40")

    def test_no_times_no_time_split(self, tmp_path):
        path = write(tmp_path / "l.csv", "user,item\na,x\nb,y\n")
        with pytest.raises(DataError, match="has no time column, so it cannot be split by time"):
            prepare(path)

    @pytest.mark.parametrize("text", ["time:2", "weekly", "random:a", "last-out:0,0", "time:1,2,3"])
    def test_splits_that_make_no_sense(self, text):
        with pytest.raises(SpecError, match="expected"):
            parse_split(text)


class TestCleaning:
    def clean(self, tmp_path, text, *rules, **kwargs):
        path = write(tmp_path / "l.csv", HEADER + text)
        return prepare(path, clean=rules, split=ALL_TRAIN, **kwargs)

    def test_duplicates(self, tmp_path):
        text = "a,x,1,1\na,x,2,2\na,y,4,3\n"
        last = self.clean(tmp_path, text, cleaning.Duplicates("last"))
        both = self.clean(tmp_path, text, cleaning.Duplicates("sum"))
        kept = self.clean(tmp_path, text, cleaning.Duplicates("all"))
        assert rows(last) == [("a", "x", 2.0), ("a", "y", 4.0)]
        assert rows(both) == [("a", "x", 3.0), ("a", "y", 4.0)]
        assert len(kept.train) == 3

    def test_k_core_goes_round_until_it_holds(self, tmp_path):
        # Without c, item z has one event left, and then b has one.
        text = "a,x,1,1\na,y,1,2\nb,x,1,3\nb,z,1,4\nc,z,1,5\nd,x,1,6\nd,y,1,7\n"
        dataset = self.clean(tmp_path, text, cleaning.KCore(2, 2))
        assert set(dataset.users.ids) == {"a", "d"}
        assert set(dataset.items.ids) == {"x", "y"}

    def test_bots_ratings_and_age(self, tmp_path):
        text = "".join(f"bot,i{n},5,1\n" for n in range(9)) + "a,i1,5,1\na,i2,2,86401\n"
        assert set(self.clean(tmp_path, text, cleaning.MaxUserEvents(5)).users.ids) == {"a"}
        liked = self.clean(tmp_path, text, cleaning.MinRating(4))
        assert set(liked.train.weight.tolist()) == {1.0}
        aged = self.clean(tmp_path, "a,x,4,1\na,y,4,86401\n", cleaning.RecencyDecay(1))
        assert rows(aged) == [("a", "x", 2.0), ("a", "y", 4.0)]

    def test_impossible_times_are_put_aside_with_their_reason(self, tmp_path):
        text = "a,x,1,-5\na,y,1,5\na,z,1,99999999999\n"
        out = tmp_path / "rejects.parquet"
        dataset = self.clean(tmp_path, text, cleaning.ValidTime(), rejects=out)
        assert rows(dataset) == [("a", "y", 1.0)]
        assert pl.read_parquet(out)["reason"].to_list() == ["impossible time"] * 2

    def test_the_texts_of_a_row_put_aside_are_told(self, tmp_path):
        log = pl.DataFrame({"user": [1, 2, 2], "item": [7, 8, 9], "rating": [1, 5, 5],
                            "place": ["home", None, "home"]})  # fmt: skip
        rejects = tmp_path / "rejects.parquet"
        prepare(read(log, context_cols=["place"]), split=ALL_TRAIN, rejects=rejects,
                clean=(cleaning.MaxUserEvents(1),))  # fmt: skip
        aside = pl.read_parquet(rejects).sort("item_id")
        assert aside["place"].to_list() == [None, "home"]
        assert aside["reason"].to_list() == ["too active user"] * 2

    def test_nothing_left(self, tmp_path):
        with pytest.raises(DataError, match="no event is left after cleaning"):
            self.clean(tmp_path, "a,x,1,1\n", cleaning.KCore(5, 5))

    def test_settings_that_make_no_sense(self):
        with pytest.raises(SpecError, match="half_life_days is 0"):
            cleaning.RecencyDecay(0)
        with pytest.raises(SpecError, match="duplicates is 'first'"):
            cleaning.Duplicates("first")
