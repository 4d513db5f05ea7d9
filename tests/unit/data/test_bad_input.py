"""What a log can do wrong: a clear error or a counted row, exit code 1, nothing half-written."""

import contextlib
import gzip
import os
import subprocess
from importlib import import_module

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import DataError, Dataset, MartletError, OutputError
from martlet.data import RandomSplit, prepare, read
from support.command import document, run

HEADER = "user_id,item_id,rating,timestamp\n"
GOOD = "".join(f"u{n % 7},i{n % 11},{n % 5 + 1},{1000 + n}\n" for n in range(70))
ALL_TRAIN = RandomSplit(0.0001, 0.0001)
STRANGE = [
    'a,"b"', "new\nline", "tab\there", "🐦", "007", str(2**63), str(2**80), "-1", "null", "NaN",
    "None",
]  # fmt: skip


def parquet(path, **columns):
    pl.DataFrame(columns).write_parquet(path)
    return path.read_bytes()


def columns(*values):
    """Return a small table of these users, three times, each with items and a time."""
    users = [value for value in values for _ in range(3)]
    return {"user_id": users, "item_id": range(len(users)), "timestamp": range(len(users))}


WHOLE = {"user_id": range(9999), "item_id": range(9999), "timestamp": range(9999)}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("log.csv", b"", "is empty"),
        ("log.csv", b"  \n \n", "is empty"),
        ("log.csv", HEADER.encode(), "holds no event"),
        ("log.csv", bytes(range(256)) * 9, "is a binary file"),
        ("log.csv", b"PAR1" + b"\0" * 40, "is a binary file"),
        ("log.csv", (HEADER + GOOD).encode("utf-16"), "is a binary file"),
        ("log.csv", b"user_id,item_id,user_id\na,x,b\n", "two columns called 'user_id'"),
        ("log.csv", b"user_id;item_id,rating\n1;2,3\n4;5,6\n", "no user column that can be told"),
        ("log.csv", b"justoneword\nanother\n", "no separator"),
        ("log.csv", HEADER.encode() + b",,,\n,,,\n", "no good row among 2 (missing id 2; first"),
        ("log.csv", b"user,item,weight\na,x,nan\na,y,inf\n", "no good row among 2 (bad weight 2"),
        ("log.csv", (HEADER + "a,x,1,-5\na,y,1,-6\n").encode(), "no event is left after cleaning"),
        ("log.csv", (HEADER + "a,x,1,1\n" * 50).encode(), "nothing to train on of 1 events"),
        ("log.csv", b"x" * (9 << 20), "first line of over"),
        ("log.csv.gz", gzip.compress((HEADER + GOOD * 200).encode())[:-50], "cannot be read"),
        ("log.csv", b"\x28\xb5\x2f\xfd" + b"junk" * 20, "cannot be read"),
        ("log.jsonl", b'{"user_id":\n{"item_id":\n', "has no JSON object in its first lines"),
        ("log.jsonl", b'{"user":null,"item":2}\n{"u\n', "(missing id 1, broken line 1; first: row"),
        ("log.parquet", b"", "cannot be read"),
        ("log.parquet", (HEADER + GOOD).encode(), "cannot be read"),
    ],
)
def test_the_command_says_what_is_wrong_and_leaves_nothing(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    done = run("prepare", tmp_path / name, "--out", tmp_path / "made" / "dataset", code=1)
    assert message in done.stderr
    assert name.split(".")[0] in done.stderr or "no event" in message or "split" in done.stderr
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-300],
        lambda data: data[: len(data) // 2],
        lambda data: data[:4] + bytes(byte ^ 0x5A for byte in data[4:200]) + data[200:],
    ],
    ids=["end", "half", "first page"],
)
def test_a_damaged_parquet_file(tmp_path, damage):
    path = tmp_path / "log.parquet"
    path.write_bytes(damage(parquet(path, **WHOLE)))
    done = run("prepare", path, "--out", tmp_path / "dataset", code=1)
    assert f"{path} cannot be read" in done.stderr
    assert os.listdir(tmp_path) == ["log.parquet"]


def test_k_larger_than_the_catalogue(tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + GOOD)
    words = ("prepare", tmp_path / "log.csv", "--out", tmp_path / "dataset", "--min-item", 99)
    assert "KCore(users=1, items=99) left 0 of 70" in run(*words, code=1).stderr
    assert os.listdir(tmp_path) == ["log.csv"]


@pytest.mark.parametrize(
    ("rows", "reason", "count"),
    [
        ("b;y;2;6\nc\tz\t3\t7\n", "missing id", 2),
        (f"{'u' * 10_000_000},x,1,5\n", "overlong id", 1),
        ("a,x,nan,1\na,y,inf,2\na,z,-inf,2\na,z,five,2\na,z,1e300,2\n", "unparsable rating", 5),
        ("a,x,1,soon\na,y,1,\na,z,1,inf\n", "unparsable time", 3),
        ("José,x,1,5\nJosè,x,1,5\n", "id that is not UTF-8", 2),
    ],
)
def test_bad_rows_among_good_ones_are_counted(tmp_path, rows, reason, count):
    path = tmp_path / "log.csv"
    path.write_bytes((HEADER + GOOD).encode() + rows.encode("latin1"))
    about = document("prepare", path, "--out", tmp_path / "dataset")
    first = about["cleaning"][0]
    assert (first["rule"], first["rows_in"] - first["rows_out"]) == (reason, count)
    assert len(first["examples"][0]) < 500
    assert len(Dataset.load(tmp_path / "dataset").users) == 7


@pytest.mark.parametrize("weight", ["nan", "inf", "-inf", "0", "-2", "", "1e-60", "1e300"])
def test_a_weight_that_is_none(tmp_path, weight):
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,weight\na,x,2\nb,y,{weight}\n")
    dataset = prepare(str(path), split=ALL_TRAIN)
    assert dataset.train.weight.tolist() == [2.0]
    assert dataset.about["cleaning"][0]["rule"] == "bad weight"


def test_reasons_are_told_in_the_order_of_their_rows_and_written(tmp_path):
    text = "a,x,nan,1\na,y,inf,2\na,z,5,3\nb,,1,4\nb,x,five,soon\nb,z,2,soon\nb\n"
    out, path = tmp_path / "rejects.parquet", tmp_path / "log.csv"
    path.write_text(HEADER + text)
    dataset = prepare(str(path), split=ALL_TRAIN, rejects=out)
    assert len(dataset.train) == 1
    reports = [(r["rule"], r["rows_in"], r["rows_out"]) for r in dataset.about["cleaning"][:3]]
    assert reports == [
        ("unparsable rating", 7, 4),
        ("missing id", 4, 2),
        ("unparsable time", 2, 1),
    ]
    assert dataset.about["cleaning"][1]["examples"] == [
        "row 4: user_id='b', item_id=None, rating='1', time='4'",
        "row 7: user_id='b', item_id=None, rating=None, time=None",
    ]
    written = pl.read_parquet(out)
    assert written["row"].to_list() == ["1", "2", "4", "5", "6", "7"]
    assert written["rating"].to_list() == ["nan", "inf", "1", "five", "2", None]
    with pytest.raises(DataError, match=r"row 1: unparsable rating in user_id='a', .*'nan'"):
        prepare(str(path), split=ALL_TRAIN, strict=True)


def test_batches_are_as_one(tmp_path, monkeypatch):
    text = "".join(f" u{n % 5} ,i{n % 7},{'x' if n % 4 == 1 else n % 3},{n}\n" for n in range(50))
    path = tmp_path / "log.csv"
    path.write_text(HEADER + text)

    def all_of(name):
        dataset = prepare(str(path), split=ALL_TRAIN, rejects=tmp_path / name)
        rejects = pl.read_parquet(tmp_path / name)
        return dataset.about["cleaning"], dataset.train.hash, list(dataset.users.ids), rejects

    one = all_of("one")
    monkeypatch.setattr(import_module("martlet.data.parse"), "_BATCH", 3)
    many = all_of("many")
    assert many[:3] == one[:3]
    assert many[3].equals(one[3])


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_strange_ids_come_back_as_they_were(tmp_path, ending):
    path = tmp_path / f"log.{ending}"
    frame = pl.DataFrame({"user_id": STRANGE, "item_id": STRANGE[::-1]})
    {
        "csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson,
    }[ending](path)  # fmt: skip
    dataset = prepare(str(path), split=ALL_TRAIN)
    assert set(dataset.users.ids) == set(dataset.items.ids) == set(STRANGE)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pl.UInt64, [2**63, 2**64 - 1, 0, 7]),
        (pl.Int64, [-(2**63), 2**63 - 1, 0, -7]),
        (pl.Int128, [2**64, 2**100, 0, -7]),
        (pl.Float64, [7.0, 2.0**40, -1.0, 0.0]),
        (pl.Int8, [-128, 127, 0, 7]),
    ],
)
def test_numbers_as_ids(kind, values):
    frame = pl.DataFrame(columns(*values, None), schema_overrides={"user_id": kind})
    dataset = prepare(frame, split=ALL_TRAIN)
    assert sorted(map(int, dataset.users.ids)) == sorted(values)
    assert dataset.about["cleaning"][0]["rule"] == "missing id"


def test_floats_as_ids_are_numbers_with_gaps():
    dataset = prepare(pl.DataFrame(columns(1.0, 2.5, float("nan"))), split=ALL_TRAIN)
    assert set(dataset.users.ids) == {"1", "2.5"}


@pytest.mark.parametrize("line", ["u,i{n}", "u{n},i"])
def test_one_user_or_one_item(tmp_path, line):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "".join(f"{line.format(n=n)},1,{n}\n" for n in range(30)))
    counts = document("prepare", path, "--out", tmp_path / "dataset")["counts"]
    assert sorted((counts["num_users"], counts["num_items"])) == [1, 30]


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read(str(tmp_path / "nope.csv"))
    with pytest.raises(DataError, match="holds no file that can be read"):
        read(str(tmp_path))
    with pytest.raises(DataError, match="cannot be read as a log"):
        read(object())


def test_an_output_that_cannot_be_written(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + GOOD)
    for words in (
        ["--out", path / "a"],
        ["--out", tmp_path / "a", "--rejects", path / "r.parquet"],
    ):
        done = run("prepare", path, *words, code=1)
        assert f"could not write {path / words[-1].name}" in done.stderr
        assert os.listdir(tmp_path) == ["log.csv"]


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_full(small_disk):
    n = 50_000
    frame = pl.DataFrame({"user_id": np.arange(n), "item_id": np.arange(n) % 97})
    dataset = prepare(frame, split=ALL_TRAIN)
    with pytest.raises(OutputError, match="could not write"):
        dataset.save(small_disk / "dataset")
    assert os.listdir(small_disk) == []


def test_a_disk_that_is_full_of_rejects(small_disk):
    stream = np.random.default_rng(0)
    frame = pl.DataFrame({"user_id": stream.integers(2**60, size=50_000), "item_id": 1})
    frame = frame.with_columns(rating=pl.when(pl.int_range(50_000) == 7).then(1.0))
    with pytest.raises(OutputError, match=r"could not write .*rejects\.parquet"):
        prepare(frame, split=ALL_TRAIN, rejects=small_disk / "rejects.parquet")
    assert os.listdir(small_disk) == []


LINES = st.lists(
    st.sampled_from(
        ["a,x,1,5", 'a,"x', '"a","x",1,5', "a::x::1::5", "a\tx\t1\t5", "user:token\titem:token",
         '{"user": 1, "item": "x"}', '{"user": ', "[", "]", "", '"', "1 2 3", "\x01", "\r"]
    ) | st.text(max_size=20),
    max_size=9,
).map("\n".join)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["log.csv", "log.tsv", "log.jsonl", "log.json", "log.dat", "log.inter", "log.txt",
             "log.parquet"],
)  # fmt: skip
@given(
    data=st.binary(max_size=300)
    | LINES.map(str.encode)
    | LINES.map(lambda t: (HEADER + t).encode())
)
@settings(deadline=None, max_examples=60)
def test_any_bytes_give_a_dataset_or_a_stated_error(tmp_path_factory, name, data):
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(data)
    with contextlib.suppress(MartletError):
        assert isinstance(prepare(str(path), split=ALL_TRAIN), Dataset)
    with contextlib.suppress(MartletError):
        prepare({"user": ["a"], "item": ["x"]}, items=str(path), split=ALL_TRAIN)
