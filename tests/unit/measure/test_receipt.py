import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from martlet.core import DataError, OutputError
from martlet.measure.ledger import append, read
from martlet.measure.receipt import FORMAT, Receipt
from support.receipts import receipt

ONE = replace(
    receipt("ials", 0.4, 9, 50), transforms=({"transform": "quantize:int8"}, {"transform": "ivf"})
)


def test_json_and_back_is_the_same_receipt():
    document = json.loads(json.dumps(ONE.to_json(), allow_nan=False))
    assert list(document)[:3] == ["quality", "num_users", "cost"]
    assert Receipt.from_json(document) == ONE


def test_what_json_cannot_say_is_null():
    odd = replace(ONE, quality={"ndcg@10": math.nan}, cost={"p99_ms": math.inf, "peak_mb": None})
    document = json.loads(json.dumps(odd.to_json(), allow_nan=False))
    assert document["quality"] == {"ndcg@10": None}
    assert document["cost"] == {"p99_ms": None, "peak_mb": None}


def test_it_speaks_to_people():
    assert ONE.name == "ials + quantize:int8 + ivf"
    assert str(ONE).splitlines() == [
        "ials + quantize:int8 + ivf (10 users of part valid)",
        "ndcg@10 0.4",
        "p50_ms 4.5  p99_ms 9  scoring_mb 50  train_s 1",
    ]
    assert str(replace(ONE, quality={}, part=None)).startswith("ials + quantize:int8 + ivf\np50_ms")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 9}, f"receipt format 9: this version reads {FORMAT}"),
        ({"more": 1}, r"lacks \[\] and has the unknown fields \['more'\]"),
        ({"quality": 3}, "quality of a receipt is 3: expected an object"),
        ({"cost": {"p99_ms": "fast"}}, "cost 'p99_ms' is 'fast': expected a number or null"),
    ],
)
def test_a_document_that_is_no_receipt_is_refused(change, reason):
    with pytest.raises(DataError, match=reason):
        Receipt.from_json(ONE.to_json() | change)


def test_a_list_is_no_receipt():
    with pytest.raises(DataError, match="a receipt is a JSON object: got list"):
        Receipt.from_json([1])


def test_the_ledger_grows_and_never_changes(tmp_path):
    path = tmp_path / "new" / "receipts.jsonl"
    append(path, ONE)
    first = path.read_bytes()
    append(path, replace(ONE, seed=1))
    assert path.read_bytes().startswith(first)
    assert read(path) == [ONE, replace(ONE, seed=1)]


def test_a_line_that_a_crash_cut_short_is_named_and_the_next_is_whole(tmp_path):
    path = tmp_path / "receipts.jsonl"
    append(path, ONE)
    with path.open("a") as file:
        file.write('{"quality": {"nd')
    append(path, replace(ONE, seed=2))
    with pytest.raises(DataError, match=r"receipts.jsonl, line 2: .* wrote; move the line"):
        read(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "", lines[2], ""]))
    assert read(path) == [ONE, replace(ONE, seed=2)]


def test_a_ledger_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"could not read the ledger .*none: No such file"):
        read(tmp_path / "none")


def test_a_ledger_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"could not add a receipt to .*nothing was added"):
        append(tmp_path, ONE)


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "receipts.jsonl"
    append(path, ONE)
    whole, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:10]))
    with pytest.raises(OutputError, match="No space left on device; nothing was added"):
        append(path, ONE)
    assert path.read_bytes() == whole


def test_writers_take_turns(tmp_path):
    # The lock belongs to the open file, so threads meet it as processes do.
    path = tmp_path / "receipts.jsonl"
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(append, path, replace(ONE, seed=i % 4)) for i in range(80)]
    assert not any(one.exception() for one in done)
    assert sorted(one.seed for one in read(path)) == sorted([0, 1, 2, 3] * 20)
