import json
import subprocess
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from safetensors import SafetensorError

from martlet import load
from martlet.core import CSR, BundleError, DataError, OutputError, QueryError, Text, Vocabulary
from martlet.scorers.bundle import Bundle, Recommendation
from martlet.scorers.factors import Factors
from martlet.scorers.index import IVF
from martlet.scorers.popular import Popular
from martlet.scorers.projections import LinearFold, Lookup
from martlet.scorers.saved import write_bundle
from martlet.scorers.storage import read_tensors, write_manifest, write_tensors
from martlet.scorers.table import Table
from support.bundles import DIM, NUM_ITEMS, NUM_USERS, bundle, cascade, draw, items


def test_known_users_bring_their_history():
    toy = bundle()
    queries = toy.queries(["u2", "nobody", "u1"])
    assert queries.user_row.tolist() == [2, -1, 1]
    assert queries.history.lengths.tolist() == [5, 0, 5]
    assert np.array_equal(queries.history.row(0), toy.histories.row(2))
    assert queries.time_s.tolist() == [*range(10, 15), *range(5, 10)]
    assert queries.history.values[0] == toy.histories.values[10]


def test_one_user_is_asked_as_many_are():
    toy = bundle()
    one, many = toy.queries(["u2"]), toy.queries(["u2", "u1"]).slice(0, 1)
    assert np.array_equal(one.history.indices, many.history.indices)
    assert np.array_equal(one.time_s, many.time_s)
    assert toy.recommend(["u2"]) == toy.recommend(["u2", "u1", "nobody"])[:1]


def test_histories_of_ids_stand_for_unknown_users():
    toy = bundle()
    queries = toy.queries(histories=[["i3", "i99", "i1"], []])
    assert queries.user_row.tolist() == [-1, -1]
    assert queries.history.row(0).tolist() == [3, 1]
    answers = toy.recommend(histories=[["i3", "i99", "i1"], []], k=4)
    assert [(a.user_id, a.num_ignored, a.fallback) for a in answers] == [
        (None, 1, False),
        (None, 0, True),
    ]


def test_integers_are_the_text_of_their_digits():
    toy = replace(bundle(), users=Vocabulary.of(range(NUM_USERS)))
    assert toy.recommend([3]) == toy.recommend(["3"])
    assert toy.recommend([3])[0].user_id == "3"


def test_either_users_or_histories():
    for wrong in ({}, {"user_ids": ["u1"], "histories": [["i1"]]}):
        with pytest.raises(QueryError, match="either user ids or histories of item ids"):
            bundle().recommend(**wrong)


def test_short_lists_end_early():
    (answer,) = bundle().recommend(["u1"], k=NUM_ITEMS + 5)
    assert len(answer.item_ids) == len(answer.scores) == NUM_ITEMS - 5
    assert answer.scores == sorted(answer.scores, reverse=True)
    (nothing,) = bundle().recommend(["u1"], allow=np.zeros(NUM_ITEMS, bool))
    assert nothing.item_ids == nothing.scores == []


def test_a_k_without_bounds_costs_no_memory():
    toy = bundle()
    most = 10**30
    assert toy.recommend(["u1"], most) == toy.recommend(["u1"], NUM_ITEMS)
    padded = toy.topk(toy.queries(["u1", "nobody"]), NUM_ITEMS + 2)[0].item_row
    assert padded.shape == (2, NUM_ITEMS + 2)
    assert toy.similar("i3", most) == toy.similar("i3", NUM_ITEMS)
    assert len(toy.similar("i3", most)) == NUM_ITEMS - 1
    assert next(toy.recommend_all(most)) == toy.recommend([f"u{i}" for i in range(8)], NUM_ITEMS)


@pytest.mark.parametrize("k", [1.5, 3.0, "3", float("nan"), True, None, 0, -1])
def test_a_k_that_is_no_length_is_refused(k):
    toy = bundle()
    for ask in (
        lambda: toy.recommend(["u1"], k),
        lambda: toy.recommend([], k),
        lambda: toy.similar("i1", k),
        lambda: toy.topk(toy.queries(["u1"]), k),
        lambda: next(toy.recommend_all(k)),
    ):
        with pytest.raises(QueryError, match=rf"k is {k!r}: expected a whole number of at least 1"):
            ask()
    assert len(toy.recommend(["u1"], np.int64(3))[0].item_ids) == 3


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"user_ids": "u1"}, "user_ids is 'u1': expected a list"),
        ({"user_ids": b"u1"}, "user_ids is b'u1': expected a list"),
        ({"user_ids": 3}, "user_ids is 3: expected a list"),
        ({"user_ids": np.array(3)}, r"user_ids is array\(3\): expected a list"),
        ({"histories": "i1"}, "histories is 'i1': expected a list"),
        ({"histories": ["i1"]}, "a history is 'i1': expected a list"),
        ({"histories": [None]}, "a history is None: expected a list"),
        ({"user_ids": ["u1"], "candidates": "i1"}, "candidates is 'i1': expected a list"),
        ({"user_ids": ["u1"], "exclude": "i1"}, "exclude is 'i1': expected a list"),
        ({"user_ids": ["u1"], "exclude": 1}, "exclude is 1: expected a list"),
        ({"user_ids": ["u1"], "allow": [1] * NUM_ITEMS}, r"allow is int64\(30,\): expected bool"),
        ({"user_ids": ["\udcff"]}, r"the id '\\udcff' is no UTF-8 text"),
        ({"histories": [["\udcff"]]}, r"the id '\\udcff' is no UTF-8 text"),
    ],
)
def test_what_is_no_list_of_ids_is_refused(question, words):
    for ask in (bundle().recommend, bundle().queries):
        with pytest.raises(QueryError, match=words):
            ask(**question)


def test_ids_may_come_in_any_kind_of_list():
    toy = bundle()
    want = toy.recommend(["u1", "u2"])
    assert toy.recommend(f"u{i}" for i in (1, 2)) == want
    assert toy.recommend(np.array(["u1", "u2"])) == want
    one = toy.recommend(histories=[["i3", "i1"]])
    assert toy.recommend(histories=iter([iter(["i3", "i1"])])) == one
    assert toy.recommend(["u1"], allow=[True] * NUM_ITEMS) == want[:1]


def test_what_is_no_place_is_refused():
    with pytest.raises(BundleError, match="None is no path: expected the folder of a bundle"):
        load(None)
    with pytest.raises(OutputError, match="'None' is no path"):
        bundle().save(None)


def test_a_batch_of_nobody_is_refused():
    with pytest.raises(QueryError, match="batch is 0: expected at least 1 user"):
        next(bundle().recommend_all(batch=0))


def test_a_column_that_would_not_be_read_back_is_not_written(tmp_path):
    wide = replace(bundle(), catalogue={"price": np.ones((NUM_ITEMS, 2))})
    with pytest.raises(DataError, match=r"column 'price' is float64\(30, 2\): expected one real"):
        wide.save(tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_excluded_and_other_items_are_not_shown():
    toy = bundle()
    first = toy.recommend(["u1"])[0].item_ids
    assert toy.recommend(["u1"], exclude=[first[0]])[0].item_ids[:9] == first[1:]
    some = toy.recommend(["u1"], candidates=[first[3], first[1], "i99"])[0]
    assert some.item_ids == [first[1], first[3]]
    kept = toy.recommend(["u1"], k=NUM_ITEMS, seen="keep")[0]
    assert len(kept.item_ids) == NUM_ITEMS


def test_the_fallback_hides_what_is_excluded_too():
    toy = bundle()
    first = toy.recommend(["nobody"])[0]
    assert first.fallback
    assert (
        toy.recommend(["nobody"], exclude=first.item_ids[:1])[0].item_ids[:9] == first.item_ids[1:]
    )


def test_a_known_user_without_a_history_gets_popularity():
    assert bundle().recommend(["u7"])[0].fallback
    vectors = Lookup(Table.of(np.ones((NUM_USERS, 4))))
    assert not bundle(Factors(items(), vectors)).recommend(["u7"])[0].fallback


def test_every_user_is_answered_in_batches():
    toy = bundle()
    batches = list(toy.recommend_all(3, batch=3))
    assert [len(batch) for batch in batches] == [3, 3, 2]
    assert [one for batch in batches for one in batch] == toy.recommend(
        [f"u{i}" for i in range(NUM_USERS)], 3
    )


def test_similar_items_are_near_in_angle():
    toy = bundle()
    found = toy.similar("i3", 4)
    vectors = toy.scorer.items.dense()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit[3]
    cosine[3] = -1
    want = np.argsort(-cosine)[:4]
    assert [name for name, _ in found] == [f"i{row}" for row in want]
    assert [score for _, score in found] == pytest.approx(cosine[want].tolist(), abs=1e-6)
    assert len(toy.similar("i3", 99)) == NUM_ITEMS - 1


def test_similar_needs_a_known_item_and_some_likeness():
    with pytest.raises(
        QueryError, match="the item 'i99' is unknown: expected one of the bundle's 30"
    ):
        bundle().similar("i99")
    with pytest.raises(QueryError, match="popularity knows of no item that is like another"):
        bundle(Popular(Table.of(np.ones(NUM_ITEMS)))).similar("i1")


def test_reasons_are_told_by_title():
    toy = bundle()
    reasons = toy.explain("u1", "i0")
    titles = [toy.title(row) for row in toy.histories.row(1)]
    assert sorted(r.words.split("'")[1] for r in reasons) == sorted(titles)
    assert toy.title(0) == "i0"
    assert replace(toy, catalogue={}).title(4) == "i4"
    (why,) = toy.explain("nobody", "i0")
    assert why.words == "popular with everyone (nothing is known of this user)"


def test_a_bundle_comes_back_whole(tmp_path):
    toy = bundle(cascade())
    before = toy.id
    toy.save(tmp_path / "b")
    back = Bundle.load(tmp_path / "b")
    assert back.id == toy.id == before
    assert back.lineage == ({"spec": "toy", "params": {"sizes": [1, 2]}},)
    assert list(back.users.ids) == list(toy.users.ids)
    assert list(back.catalogue["title"]) == list(toy.catalogue["title"])
    assert np.array_equal(back.catalogue["price"], toy.catalogue["price"])
    assert np.array_equal(back.history_time_s, toy.history_time_s)
    assert np.array_equal(back.popularity, toy.popularity)
    assert back.scoring_bytes == toy.scoring_bytes
    files = [p for p in (tmp_path / "b").rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert back.bundle_bytes == sum(path.stat().st_size for path in files)
    assert (tmp_path / "b" / "rank" / "encoder.onnx").exists()


def test_anything_else_is_another_id():
    toy = bundle()
    others = [
        replace(toy, popularity=toy.popularity + 1),
        replace(toy, lineage=({"spec": "other"},)),
        replace(toy, history_time_s=None),
        replace(toy, catalogue={}),
        toy.then(toy.scorer, {"transform": "none"}),
        bundle(Factors(items(), LinearFold(power=0.5))),
    ]
    assert len({toy.id, *(other.id for other in others)}) == 7
    assert others[4].lineage == (*toy.lineage, {"transform": "none"})


def test_an_older_bundle_is_replaced_whole(tmp_path):
    bundle(cascade()).save(tmp_path / "b")
    bundle().save(tmp_path / "b")
    assert Bundle.load(tmp_path / "b").id == bundle().id
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_file_is_not_overwritten(tmp_path):
    (tmp_path / "b").write_text("mine")
    with pytest.raises(OutputError, match="b exists"):
        bundle().save(tmp_path / "b")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KB, for which root's rights are needed."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_stated_and_left_as_it_was(small_disk, monkeypatch):
    bundle().save(small_disk / "b")
    large = replace(bundle(), popularity=np.zeros(NUM_ITEMS << 12, np.float32))
    with pytest.raises(OutputError, match=r"could not write .*b: .*No space left"):
        large.save(small_disk / "b")
    assert [path.name for path in small_disk.iterdir()] == ["b"]
    assert Bundle.load(small_disk / "b").id == bundle().id
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(OutputError, match=r"could not write temporary files: .*No space left"):
        assert large.id
    assert [path.name for path in small_disk.iterdir()] == ["b"]


def test_a_disk_too_full_for_an_index_is_stated(small_disk):
    table = Table.of(draw("many items", 4096, DIM))
    (small_disk / "rest").write_bytes(bytes(32 << 10))
    with pytest.raises(OSError, match="No space left"):
        IVF.build(table, nlist=1).save(small_disk)


def test_what_the_file_format_refuses_is_stated_on_any_disk(tmp_path, monkeypatch):
    def refuse(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", refuse)
    with pytest.raises(OutputError, match=r"could not write .*b: tables\.safetensors: I/O error"):
        bundle().save(tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match=r"but not manifest.json and tables.safetensors"):
        bundle().save(tmp_path / "site")
    assert (tmp_path / "site" / "manifest.json").read_text() == "{}"


def test_a_bundle_of_nobody_and_nothing_seen(tmp_path):
    toy = bundle()
    empty = replace(
        toy,
        users=Vocabulary.of([]),
        histories=CSR.empty(0, NUM_ITEMS),
        history_time_s=None,
        catalogue={},
        lineage=(),
    )
    empty.save(tmp_path / "b")
    back = Bundle.load(tmp_path / "b")
    assert back.recommend(["u1"]) == empty.recommend(["u1"])
    assert back.recommend(["u1"])[0].fallback
    assert list(back.recommend_all()) == []


def test_a_recommendation_is_plain():
    (answer,) = bundle().recommend(["u1"], 2)
    assert isinstance(answer, Recommendation)
    assert json.loads(json.dumps(answer))[0] == "u1"


def rewrite(folder, name, change):
    """Save a bundle whose file ``name`` lies in an honest hash: only its content is wrong."""
    toy = bundle()
    folder.mkdir()
    write_bundle(folder, toy)
    path = folder / f"{name}.safetensors"
    arrays = {key: np.array(array) for key, array in read_tensors(path).items()}
    change(arrays)
    write_tensors(path, arrays)
    about = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {key: about[key] for key in ("scorer", "tables", "lineage")})


def put(key, at, value):
    return lambda arrays: arrays[key].__setitem__(at, value)


def become(key, array):
    return lambda arrays: arrays.__setitem__(key, array)


def drop(key):
    return lambda arrays: arrays.pop(key)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("histories", put("indices", 3, NUM_ITEMS), "histories.safetensors has columns .* to 30"),
        ("histories", put("indices", 3, -1), "histories.safetensors has columns -1"),
        ("histories", put("indptr", 2, 99), "histories.safetensors has offsets"),
        ("histories", become("indptr", np.zeros(3, np.int64)), "history offsets are int64"),
        ("histories", become("values", np.ones(3, np.float32)), "history weights are float32"),
        ("histories", become("time_s", np.ones(35, np.int32)), "history times are int32"),
        ("histories", become("indices", np.ones(35, np.int64)), "history items are int64"),
        ("histories", drop("indices"), "do not agree .*indices"),
        ("users", put("sorted_row", 0, 99), "users.safetensors has rows out of range"),
        ("users", become("sorted_hash", np.zeros(2, np.uint64)), "users.safetensors has a lookup"),
        ("users", put("ids.offsets", 1, 99), "the text of users has offsets or bytes"),
        ("users", put("ids.blob", 0, 0xFF), "the text of users has offsets or bytes"),
        ("items", drop("popularity"), "do not agree .*popularity"),
        ("items", become("popularity", np.ones(3, np.float32)), "popularity are float32"),
        ("catalogue", put("title.offsets", 3, 0), "the text of catalogue column 'title'"),
        ("catalogue", become("price", np.ones(3)), "catalogue column 'price' are float64"),
        ("catalogue", drop("title.offsets"), "do not agree .*title.offsets"),
        ("tables", become("items/values", np.ones((2, 2))), "table items stored as fp32 30 x 4"),
        ("tables", become("items/more", np.ones(2)), "table items stored as fp32 30 x 4"),
        ("tables", become("other/values", np.ones(2)), "holds the array 'other/values'"),
    ],
)
def test_honest_hashes_over_dishonest_arrays_are_refused(tmp_path, name, change, words):
    rewrite(tmp_path / "b", name, change)
    with pytest.raises(BundleError, match=words):
        Bundle.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scorer": {"kind": "magic", "config": {}}}, "the scorer is of kind 'magic'"),
        ({"scorer": {"kind": "factors", "config": {}}}, "do not agree"),
        ({"scorer": 3}, "do not agree"),
        ({"tables": {}}, "do not agree|holds the array"),
        ({"tables": {"items": ["fp32", 30]}}, "do not agree"),
        ({"tables": {"items": ["fp32", "30", 4]}}, "do not agree|stored as"),
        ({"scorer": {"kind": "popular", "config": {}}}, "do not agree"),
        (
            {"scorer": {"kind": "factors", "config": {"projection": {"kind": "x"}, "index": None}}},
            "the projection is of kind 'x'",
        ),
        (
            {
                "scorer": {
                    "kind": "factors",
                    "config": {"projection": {"kind": "linear", "power": "x"}, "index": None},
                }
            },
            "do not agree",
        ),
        ({"lineage": 3}, "do not agree"),
    ],
)
def test_honest_hashes_over_a_dishonest_manifest_are_refused(tmp_path, changes, words):
    bundle().save(tmp_path / "b")
    about = json.loads((tmp_path / "b" / "manifest.json").read_text())
    kept = {key: about[key] for key in ("scorer", "tables", "lineage")}
    write_manifest(tmp_path / "b", kept | changes)
    with pytest.raises(BundleError, match=words):
        Bundle.load(tmp_path / "b")


def test_a_scorer_of_another_catalogue_is_refused(tmp_path):
    replace(bundle(Popular(Table.of(np.ones(3))))).save(tmp_path / "b")
    with pytest.raises(BundleError, match="the scorer ranks 3 items, the vocabulary has 30"):
        Bundle.load(tmp_path / "b")


def test_text_that_splits_a_letter_is_unreadable():
    whole = Text.of(["ö", "ab"])
    assert whole.is_sound()
    assert not Text(whole.blob, np.array([0, 1, 4])).is_sound()
    assert not Text(whole.blob[:-1], whole.offsets).is_sound()
    assert not Text(whole.blob.astype(np.int8), whole.offsets).is_sound()
