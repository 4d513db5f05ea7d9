"""Whatever is done to a dataset's folder, loading it names the file or gives a sound dataset."""

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.core import DataError, Dataset, Interactions, Text, Vocabulary, rng
from martlet.core import stored as storing

USERS, ITEMS, EVENTS = 9, 7, 60


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    random = rng(0, "stored")
    parts = [
        Interactions.sort(
            random.integers(0, USERS, size),
            random.integers(0, ITEMS, size),
            None,
            random.integers(0, 50, size),
            num_users=USERS,
            num_items=ITEMS,
            extra={"place": random.integers(-1, 2, size).astype(np.int32)},
        )
        for size in (EVENTS, 12, 0)
    ]
    users, items = (Vocabulary.of(f"{c}ö{i}" for i in range(n)) for c, n in (("u", 9), ("i", 7)))
    catalogue = {"title": Text.of("abcdefü"), "price": np.arange(7.0)}
    labels = {"place": Text.of(["home", "shop"])}
    folder = tmp_path_factory.mktemp("stored") / "d"
    Dataset(users, items, *parts, catalogue, {}, {"source": "test"}, labels).save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "d")


def column(file, change):
    """Change one array of the folder."""

    def damage(folder):
        path = folder / f"{file}.npy"
        np.save(path, change(np.load(path)))

    return damage


def put(file, at, value):
    def change(array):
        array[at] = value
        return array

    return column(file, change)


def head(**changes):
    def damage(folder):
        path = folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def written(file, content):
    return lambda folder: (folder / file).write_bytes(content)


def archive(folder):
    np.savez(folder / "x.npz", np.ones(3))
    os.replace(folder / "x.npz", folder / "train.weight.npy")


def pipe(folder):
    (folder / "train.weight.npy").unlink()
    os.mkfifo(folder / "train.weight.npy")


DAMAGES = [
    (put("train.user_row", -1, USERS), r"train.user_row: rows .* to 9, not within 0 to 8"),
    (put("train.user_row", 0, -1), r"train.user_row: rows -1 to"),
    (put("train.item_row", 4, 1 << 30), r"train.item_row: rows 0 to 1073741824, not within 0 to 6"),
    (put("valid.item_row", 4, -5), r"valid.item_row: rows -5 to"),
    (column("train.user_row", lambda a: a[::-1].copy()), "train.user_row: users that do not rise"),
    (column("train.time_s", lambda a: a[::-1].copy()), "train.time_s: times that do not rise"),
    (column("train.weight", lambda a: a[:-1]), r"train.weight: float32\(59,\), expected .* 60 of"),
    (
        column("train.item_row", lambda a: a[None]),
        r"train.item_row: int32\(1, 60\), expected a col",
    ),
    (column("train.user_row", lambda a: a.astype(float)), r"train.user_row: float64.* of int32"),
    (column("train.user_row", lambda a: a.astype(">i4")), r"train.user_row: >i4"),
    (column("train.extra.place", lambda a: a[1:]), r"train.extra.place: int32\(59,\), expected"),
    (column("train.extra.place", lambda a: a + 1j), r"train.extra.place: complex128.* of numbers"),
    (put("train.extra.place", 3, 2), r"train.extra.place: no codes of its 2 labels"),
    (column("train.extra.place", lambda a: a * 1.5), r"train.extra.place: no codes of its 2 lab"),
    (put("train.weight", 7, np.nan), "train.weight: weights that are negative or no finite"),
    (put("valid.weight", 7, np.inf), "valid.weight: weights that are negative or no finite"),
    (put("train.weight", 7, -1), "train.weight: weights that are negative or no finite"),
    (put("users.sorted_row", 0, 99), "users.sorted_row: not each row of 0 to 8 once"),
    (put("users.sorted_row", 0, 3), "users.sorted_row: not each row of 0 to 8 once"),
    (column("items.sorted_row", lambda a: a[::-1].copy()), "items.sorted_hash: not the hashes"),
    (put("items.sorted_hash", 0, 2**64 - 1), "items.sorted_hash: hashes that do not rise"),
    (put("users.ids.offsets", 2, 99), "users.ids: offsets or bytes that are not those of a text"),
    (put("users.ids.offsets", 1, 2), "users.ids: offsets or bytes"),
    (put("items.ids.blob", 0, 255), "items.ids: offsets or bytes"),
    (put("catalogue.title.offsets", 3, 0), "catalogue.title: offsets or bytes"),
    (column("catalogue.title.offsets", lambda a: a[:3]), r"catalogue.title.offsets: int64\(3,\)"),
    (column("catalogue.price", lambda a: a[:3]), r"catalogue.price: float64\(3,\), .* 7 of them"),
    (column("labels.place.offsets", lambda a: a[:0]), "labels.place: offsets or bytes"),
    (lambda f: np.save(f / "labels.place2.npy", np.ones(2)), "labels.place2: numbers, expected te"),
    (lambda f: (f / "labels.place.offsets.npy").unlink(), "labels.place.offsets: it is missing"),
    (lambda f: (f / "train.weight.npy").unlink(), "train.weight: it is missing"),
    (lambda f: (f / "users.sorted_hash.npy").unlink(), "users.sorted_hash: it is missing"),
    (written("train.weight.npy", b""), r"train.weight.npy: .*(No data|EOF|empty|magic)"),
    (written("train.weight.npy", b"junk"), r"train.weight.npy: "),
    (
        lambda f: (f / "train.weight.npy").unlink() or (f / "train.weight.npy").mkdir(),
        ".*not a file",
    ),
    (pipe, "train.weight.npy: not a file"),
    (archive, "train.weight.npy: an archive, not an array"),
    (written("dataset.json", b'{"format": 1}'), "dataset.json: users is None, expected how many"),
    (written("dataset.json", b"{}"), "dataset.json: it does not say its format"),
    (written("dataset.json", b"[1]"), "dataset.json: it does not say its format"),
    (written("dataset.json", b"\xff"), "dataset.json: 'utf-8' codec"),
    (written("dataset.json", b"[" * 100_000), "dataset.json: maximum recursion"),
    (lambda f: (f / "dataset.json").unlink(), "dataset.json: .*No such file"),
    (head(about="x"), "dataset.json: about is 'x', expected an account"),
    (head(users=10), r"users.ids.offsets: int64\(10,\), expected .* 11 of them"),
    (head(items=True), "dataset.json: items is True, expected how many"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_damaged_file_is_named(folder, damage, words):
    damage(folder)
    with pytest.raises(DataError, match=rf"d is not a readable dataset \({words}"):
        Dataset.load(folder)


def test_order_is_checked_across_blocks(folder, monkeypatch):
    monkeypatch.setattr(storing, "_BLOCK", 7)
    first = np.arange(EVENTS) < 7
    column("train.user_row", lambda a: a * 0)(folder)
    column("train.time_s", lambda a: np.where(first, 1, 2))(folder)
    assert len(Dataset.load(folder).train) == EVENTS
    column("train.time_s", lambda a: np.where(first, 2, 1))(folder)
    with pytest.raises(DataError, match=r"train\.time_s: times that do not rise"):
        Dataset.load(folder)
    column("train.user_row", lambda a: first.astype(np.int32))(folder)
    with pytest.raises(DataError, match=r"train\.user_row: users that do not rise"):
        Dataset.load(folder)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_bytes_give_a_sound_dataset_or_a_stated_error(folder, data):
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = path.read_bytes()
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)))] or whole)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = Dataset.load(folder)
        assert found.before("test").matrix.num_cols == ITEMS
        assert len(set(found.users.names(range(USERS)))) == USERS
        assert len(list(found.catalogue.get("title", ""))) in (0, ITEMS)
        for name, texts in found.labels.items():
            assert found.train.extra.get(name, np.array([0])).max() < len(texts)
    except DataError:
        pass
    finally:
        path.write_bytes(whole)
