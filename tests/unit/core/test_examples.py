import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.core import DataError, Dataset, Examples, OutputError, Tabular, Text
from martlet.core import columns as columnar

AWKWARD = "../a/b.blob"
PARTS = ("train", "valid", "test")


def examples(n=4, **more):
    columns = {"city": Text.of(f"c{i}" for i in range(n)), "age": np.arange(n, dtype=np.float64)}
    return Examples(columns, np.ones(n, np.float32), time_s=np.arange(n), **more)


def tabular(n=6):
    parts = []
    for size in (n, 3, 0):
        columns = {AWKWARD: Text.of(f"ü{i}" for i in range(size)), "age": np.arange(size) / 2}
        label = (np.arange(size) % 2).astype(np.float32)
        weight = np.full(size, 2, np.float32)
        parts.append(Examples(columns, label, weight, np.arange(size)))
    return Tabular(*parts, {"source": ["here"]})


def test_rows_are_taken_from_every_column():
    some = examples(weight=np.arange(4, dtype=np.float32)).take(np.array([2, 0]))
    assert list(some.columns["city"]) == ["c2", "c0"]
    assert some.columns["age"].tolist() == [2, 0]
    assert some.time_s.tolist() == [2, 0]
    assert some.weight.tolist() == [2, 0]
    assert len(some) == 2


def test_a_slice_is_what_taking_its_rows_gives():
    whole = examples(9)
    assert whole.slice(2, 7).hash == whole.take(np.arange(2, 7)).hash
    assert len(whole.slice(9, 9)) == 0


@given(
    words=st.lists(st.text(max_size=4), max_size=12),
    picks=st.lists(st.integers(0, 10**6), max_size=20),
    block=st.integers(1, 5),
)
def test_text_is_taken_as_a_list_would_be(words, picks, block):
    rows = np.array([pick % len(words) for pick in picks] if words else [], np.int64)
    before, columnar._BLOCK = columnar._BLOCK, block
    try:
        taken = Text.of(words).take(rows)
    finally:
        columnar._BLOCK = before
    assert list(taken) == [words[row] for row in rows]
    assert taken.is_sound()
    if words:
        assert list(Text.of(words).take(np.array([-1]))) == words[-1:]


def test_the_hash_is_of_what_is_in_it():
    assert examples().hash == examples().hash
    assert examples().hash != examples(5).hash
    assert examples().hash != examples().take(np.array([1, 0, 2, 3])).hash


def test_columns_are_as_long_as_the_labels():
    with pytest.raises(DataError, match="'age' has 2 values for 3 labels"):
        Examples({"age": np.zeros(2)}, np.zeros(3, np.float32))


def test_a_union_has_the_rows_of_both():
    both = examples(2).union(examples(3))
    assert list(both.columns["city"]) == ["c0", "c1", "c0", "c1", "c2"]
    assert both.time_s.tolist() == [0, 1, 0, 1, 2]
    with pytest.raises(DataError, match="the weight stands in one of two tables"):
        examples(2).union(examples(2, weight=np.ones(2, np.float32)))
    other = Examples({"city": np.zeros(2), "age": np.zeros(2)}, np.ones(2), None, np.arange(2))
    with pytest.raises(DataError, match="text in one of two tables and numbers in the other"):
        examples(2).union(other)


def test_the_validation_part_can_train_too():
    before = tabular()
    after = before.with_valid_in_train()
    assert (len(after.train), len(after.valid)) == (9, 0)
    assert after.about["merged"] == [before.train.hash, before.valid.hash]
    with pytest.raises(DataError, match="no part is called 'tests'"):
        after.part("tests")


def test_what_is_saved_is_loaded_and_mapped(tmp_path):
    before = tabular()
    before.save(tmp_path / "t")
    after = Tabular.load(tmp_path / "t")
    for name in PARTS:
        assert after.part(name).hash == before.part(name).hash
    assert after.kinds == {AWKWARD: "text", "age": "number"}
    assert after.about == {"source": ["here"]}
    assert isinstance(after.train.columns["age"], np.memmap)
    assert {path.parent for path in tmp_path.rglob("*.npy")} == {tmp_path / "t"}
    after.save(tmp_path / "t")
    assert Tabular.load(tmp_path / "t").train.hash == before.train.hash


def test_nothing_else_is_replaced_and_nothing_half_written(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match=r"but not examples\.json and train\.label\.npy"):
        tabular().save(tmp_path / "mine")
    whole = tabular()
    uneven = Tabular(whole.train, examples(), whole.test)
    with pytest.raises(DataError, match="part 'valid' has the columns"):
        uneven.save(tmp_path / "t")
    wrong = Examples({"a": np.zeros((2, 2))}, np.zeros(2, np.float32))
    with pytest.raises(DataError, match="column 'a' is float64"):
        Tabular(wrong, wrong, wrong).save(tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_dataset_and_a_labelled_table_are_told_apart(tmp_path):
    tabular().save(tmp_path / "t")
    with pytest.raises(DataError, match="holds labelled rows, not events"):
        Dataset.load(tmp_path / "t")
    with pytest.raises(DataError, match="d is not a readable labelled table"):
        Tabular.load(tmp_path / "d")
    with pytest.raises(DataError, match="7 is no path"):
        Tabular.load(7)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "t"
    tabular().save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "t")


def rewrite(folder, file, change):
    """Change an array and the hash of its file: somebody who knows how."""
    from martlet.core import sha256

    path = folder / f"{file}.npy"
    np.save(path, change(np.load(path)))
    head = json.loads((folder / "examples.json").read_text())
    head["files"][path.name] = sha256(path)
    (folder / "examples.json").write_text(json.dumps(head))


def head(folder, **changes):
    path = folder / "examples.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES = [
    (lambda f: np.save(f / "train.label.npy", np.ones(6, "f4")), "train.label.npy: its bytes are"),
    (lambda f: (f / "valid.weight.npy").unlink(), "valid.weight.npy: it is missing"),
    (lambda f: np.save(f / "train.7.npy", np.ones(6)), "train.7.npy: no file that was written"),
    (lambda f: (f / "train.1.npy").write_bytes(b"junk"), "train.1.npy: "),
    (
        lambda f: rewrite(f, "train.label", lambda a: a.astype(np.float64)),
        r"train.label: float64\(6,\), expected a column of float32",
    ),
    (lambda f: rewrite(f, "train.label", lambda a: a / 0), "train.label: labels that are no fin"),
    (lambda f: rewrite(f, "train.1", lambda a: a[1:]), r"train.1: float64\(5,\), .* 6 of them"),
    (lambda f: rewrite(f, "train.weight", lambda a: -a), "train.weight: weights that are neg"),
    (lambda f: rewrite(f, "valid.0.blob", lambda a: a[1:]), "valid.0: offsets or bytes"),
    (lambda f: rewrite(f, "valid.0.offsets", lambda a: a + 1), "valid.0: offsets or bytes"),
    (lambda f: rewrite(f, "train.time_s", lambda a: a * 1.0), "train.time_s: float64"),
    (lambda f: head(f, columns=[{"name": "a"}]), "columns has .*'a'.*, expected a name, once"),
    (lambda f: head(f, columns=7), "columns has 7, expected a name"),
    (lambda f: head(f, files=[]), r"files is \[\], expected a hash of each"),
    (lambda f: head(f, about=1), "about is 1, expected an account"),
    (lambda f: (f / "examples.json").write_text('{"format": 1}'), "about is None"),
    (lambda f: head(f, columns=[{"name": "x", "kind": "text"}] * 2), "columns has .*once"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_damaged_file_is_named(folder, damage, words):
    damage(folder)
    with pytest.raises(DataError, match=f"t is not a readable labelled table .*{words}"):
        Tabular.load(folder)


def test_weights_stand_in_every_part_or_in_none(folder):
    stored = json.loads((folder / "examples.json").read_text())
    (folder / "valid.weight.npy").unlink()
    del stored["files"]["valid.weight.npy"]
    (folder / "examples.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match=r"valid.weight: it is missing, and train has one"):
        Tabular.load(folder)


def test_another_format_is_told(folder):
    head(folder, format=9)
    with pytest.raises(DataError, match="has labelled table format 9, this version reads 1"):
        Tabular.load(folder)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_bytes_give_the_table_or_a_stated_error(saved, folder, data):
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = path.read_bytes()
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)))] or whole)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = Tabular.load(folder)
        assert found.train.label.tolist() == tabular().train.label.tolist()
    except DataError:
        pass
    finally:
        path.write_bytes(whole)
