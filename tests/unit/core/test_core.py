import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.core import (
    CSR,
    DataError,
    Dataset,
    Interactions,
    OutputError,
    Queries,
    QueryError,
    SpecError,
    Text,
    Vocabulary,
    best,
    check_memory,
    flatten,
    memory_bytes,
    new_file,
    new_folder,
    num_threads,
    rng,
    tie_key,
    unflatten,
)


def log() -> Interactions:
    return Interactions.sort(
        np.array([1, 0, 1, 0]),
        np.array([2, 1, 0, 1]),
        np.array([1.0, 2.0, 3.0, 4.0]),
        np.array([30, 20, 10, 5]),
        num_users=3,
        num_items=4,
        extra={"basket": np.array([1, 2, 3, 4])},
    )


def dataset() -> Dataset:
    events = log()
    early = events.time_s < 25
    late = events.select(~early)
    empty = late.select(np.zeros(len(late), bool))
    return Dataset(
        Vocabulary.of(["u", "v", "w"]),
        Vocabulary.of([1, 2, 3, 2**70]),
        events.select(early),
        late,
        empty,
        {"title": Text.of(["a", "é", "", "雨"]), "price": np.arange(4.0)},
        {},
        {"source": "test"},
    )


class TestCSR:
    def test_take_keeps_order_and_empties_unknown_rows(self):
        csr = CSR.from_rows([[2, 0], [], [1]], 3, [[5.0, 6.0], [], [7.0]])
        taken = csr.take(np.array([2, -1, 0]))
        assert taken.indices.tolist() == [1, 2, 0]
        assert taken.lengths.tolist() == [1, 0, 2]
        assert taken.weights().tolist() == [7.0, 5.0, 6.0]

    @given(st.lists(st.lists(st.integers(0, 6), unique=True, max_size=7), max_size=8))
    def test_transpose_twice_is_the_same_matrix_with_sorted_rows(self, rows):
        csr = CSR.from_rows(rows, 7)
        back = csr.transpose().transpose()
        assert [back.row(r).tolist() for r in range(len(rows))] == [sorted(row) for row in rows]


class TestText:
    @given(st.lists(st.text()))
    def test_strings_come_back(self, strings):
        text = Text.of(strings)
        assert list(text) == strings
        assert [text[i] for i in range(len(text))] == strings

    def test_columns_survive_flattening(self):
        columns = unflatten(flatten({"title": Text.of(["a", "b"]), "price": np.arange(2)}))
        assert list(columns["title"]) == ["a", "b"]
        assert columns["price"].tolist() == [0, 1]


class TestVocabulary:
    @given(st.lists(st.text(), unique=True))
    def test_rows_and_ids_are_inverse(self, ids):
        vocabulary = Vocabulary.of(ids)
        assert vocabulary.rows(ids).tolist() == list(range(len(ids)))
        assert vocabulary.names(range(len(ids))) == ids

    def test_unknown_and_huge_ids(self):
        vocabulary = Vocabulary.of([2**63, "x"])
        assert vocabulary.row(2**63) == 0
        assert vocabulary.row("y") == -1

    def test_equal_hashes_are_told_apart_by_the_text(self, monkeypatch):
        monkeypatch.setattr(
            "martlet.core.vocabulary._hash", lambda names: np.zeros(len(names), np.uint64)
        )
        vocabulary = Vocabulary.of(["a", "b", "c"])
        assert vocabulary.rows(["c", "a", "z"]).tolist() == [2, 0, -1]

    def test_an_id_twice_is_refused(self):
        with pytest.raises(DataError, match="'a' occurs twice"):
            Vocabulary.of(["a", "b", "a"])

    def test_ids_that_are_no_text_are_refused(self):
        with pytest.raises(DataError, match=r"'a\\udcff' is no UTF-8 text: mend or drop it"):
            Vocabulary.of(["a", "a\udcff"])
        with pytest.raises(QueryError, match=r"the id 'a\\udcff' is no UTF-8 text"):
            Vocabulary.of(["a"]).rows(["a", "a\udcff"])

    def test_the_hash_tells_orders_apart(self):
        assert Vocabulary.of(["a", "b"]).hash != Vocabulary.of(["b", "a"]).hash
        assert Vocabulary.of(["ab", "c"]).hash != Vocabulary.of(["a", "bc"]).hash


class TestInteractions:
    def test_sorted_by_user_then_time(self):
        events = log()
        assert events.user_row.tolist() == [0, 0, 1, 1]
        assert events.time_s.tolist() == [5, 20, 10, 30]
        assert events.extra["basket"].tolist() == [4, 2, 3, 1]

    def test_matrix_sums_repeated_pairs(self):
        matrix = log().matrix
        assert matrix.lengths.tolist() == [1, 2, 0]
        assert matrix.row(1).tolist() == [0, 2]
        assert matrix.weights().tolist() == [6.0, 3.0, 1.0]

    def test_columns_of_other_lengths_are_refused(self):
        with pytest.raises(DataError, match="weight has 1 values, user_row has 2"):
            Interactions.sort(
                np.zeros(2, int), np.zeros(2, int), np.ones(1), num_users=1, num_items=1
            )

    def test_rows_outside_the_vocabulary_are_refused(self):
        with pytest.raises(DataError, match="item_row spans 0 to 5: expected 0 to 1"):
            Interactions.sort(np.zeros(2, int), np.array([0, 5]), num_users=1, num_items=2)

    def test_union_is_sorted_and_needs_the_same_columns(self):
        data = dataset()
        assert data.train.union(data.valid).hash == log().hash
        with pytest.raises(DataError, match="cannot join"):
            log().union(
                Interactions.sort(np.zeros(1, int), np.zeros(1, int), num_users=1, num_items=1)
            )


class TestDataset:
    def test_saved_and_loaded(self, tmp_path):
        data = dataset()
        data.save(tmp_path / "d")
        back = Dataset.load(tmp_path / "d")
        for part in ("train", "valid", "test"):
            assert back.part(part).hash == data.part(part).hash
        assert list(back.catalogue["title"]) == ["a", "é", "", "雨"]
        assert back.items.row(2**70) == 3
        assert back.about == {"source": "test"}
        assert isinstance(back.train.item_row, np.memmap)

    def test_before_and_merging(self):
        data = dataset()
        assert len(data.before("valid")) == 3
        assert len(data.before("test")) == 4
        merged = data.with_valid_in_train()
        assert (len(merged.train), len(merged.valid)) == (4, 0)

    def test_unknown_part(self):
        with pytest.raises(DataError, match="no part is called 'dev'"):
            dataset().part("dev")

    def test_what_is_no_dataset_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="not a readable dataset"):
            Dataset.load(tmp_path)

    def test_what_is_no_place_is_refused(self):
        with pytest.raises(DataError, match="None is no path: expected the folder of a dataset"):
            Dataset.load(None)
        with pytest.raises(OutputError, match="'None' is no path"):
            dataset().save(None)

    def test_another_format_is_refused(self, tmp_path):
        dataset().save(tmp_path / "d")
        head = tmp_path / "d" / "dataset.json"
        head.write_text(head.read_text().replace('"format": 1', '"format": 99'))
        with pytest.raises(DataError, match="dataset format 99"):
            Dataset.load(tmp_path / "d")


class TestQueries:
    def test_hidden_joins_history_and_exclusions(self):
        history = CSR.from_rows([[3, 1, 3], []], 5)
        exclude = CSR.from_rows([[0], [4]], 5)
        hidden = Queries.of(history, exclude=exclude).hidden()
        assert [hidden.row(r).tolist() for r in range(2)] == [[0, 1, 3], [4]]
        kept = Queries.of(history, exclude=exclude, seen="keep").hidden()
        assert [kept.row(r).tolist() for r in range(2)] == [[0], [4]]
        assert Queries.of(history, seen="keep").hidden().nnz == 0

    def test_slices_agree_with_the_whole(self):
        history = CSR.from_rows([[0], [1, 2], [3]], 5)
        part = Queries.of(history, np.array([7, 8, 9]), time_s=np.arange(4)).slice(1, 3)
        assert part.user_row.tolist() == [8, 9]
        assert part.history.indices.tolist() == [1, 2, 3]
        assert part.time_s.tolist() == [1, 2, 3]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seen": "maybe"}, "seen is 'maybe'"),
            ({"user_row": np.zeros(3, int)}, "3 user rows for 1 histories"),
            ({"time_s": np.zeros(5, int)}, "5 times for 1 events"),
            ({"exclude": CSR.empty(1, 9)}, "exclude is 1 x 9: expected 1 x 2"),
            ({"candidates": CSR.from_rows([[5]], 2)}, "candidates has item rows 5 to 5"),
            ({"allow": np.ones(3, bool)}, r"allow is bool\(3,\): expected bool\(2,\)"),
            ({"allow": np.ones(2, int)}, r"allow is int64\(2,\): expected bool\(2,\)"),
        ],
    )
    def test_parts_that_disagree_are_refused(self, change, message):
        with pytest.raises(QueryError, match=message):
            Queries.of(CSR.from_rows([[0]], 2), **change)


class TestRanking:
    def test_best_pads_and_drops(self):
        score = np.array([[1.0, np.nan, 3.0, -np.inf]], np.float32)
        ranking = best(score, np.array([[4, 5, 6, 7]], np.int32), 3)
        assert ranking.item_row.tolist() == [[6, 4, -1]]
        assert ranking.score.tolist() == [[3.0, 1.0, -np.inf]]
        assert (len(ranking), ranking.k) == (1, 3)

    def test_ties_fall_by_a_bijective_key(self):
        keys = tie_key(np.arange(100_000))
        assert len(np.unique(keys)) == 100_000
        ranking = best(np.ones((1, 50), np.float32), np.arange(50, dtype=np.int32)[None], 50)
        assert ranking.item_row[0].tolist() == np.argsort(tie_key(np.arange(50))).tolist()


class TestFiles:
    def test_a_folder_appears_whole_or_not_at_all(self, tmp_path):
        with pytest.raises(RuntimeError, match="stop"), new_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("stop")
        assert list(tmp_path.iterdir()) == []
        for text in ("one", "two"):
            with new_folder(tmp_path / "out") as folder:
                (folder / "file").write_text(text)
        assert (tmp_path / "out" / "file").read_text() == "two"
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_everybody_may_read_what_is_written(self, tmp_path):
        with new_folder(tmp_path / "out") as folder:
            (folder / "sub").mkdir(mode=0o700)
            (folder / "sub" / "file").touch(mode=0o600)
        modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
        assert modes == {"out": 0o755, "sub": 0o755, "file": 0o644}

    def test_only_an_empty_folder_or_one_of_its_kind_is_replaced(self, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        for _ in range(2):
            with new_folder(out, proof=("a", "b")) as folder:
                (folder / "a").touch()
                (folder / "b").touch()
        (out / "b").unlink()
        with (
            pytest.raises(OutputError, match="out holds files but not a and b, so it is none"),
            new_folder(out, proof=("a", "b")),
        ):
            pass
        assert [path.name for path in out.iterdir()] == ["a"]
        with pytest.raises(OutputError, match="exists and is no folder"), new_folder(out / "a"):
            pass

    def test_the_folder_one_is_in_is_not_taken_away(self, tmp_path, monkeypatch):
        (tmp_path / "out" / "in").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "out" / "in")
        for target in (".", "..", tmp_path / "out"):
            with (
                pytest.raises(OutputError, match="holds the folder that you are in"),
                new_folder(target),
            ):
                pass
        (tmp_path / "out" / "in").rmdir()
        with new_folder(tmp_path / "out"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_link_to_a_folder_stays_one(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        with new_folder(tmp_path / "link") as folder:
            (folder / "file").touch()
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "file").exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]

    @pytest.mark.parametrize("failing", [1, 2])
    def test_what_was_there_comes_back_when_a_rename_fails(self, tmp_path, monkeypatch, failing):
        with new_folder(tmp_path / "out") as folder:
            (folder / "old").touch()
        replace, calls = os.replace, []

        def broken(*names):
            calls.append(names)
            if len(calls) == failing:
                raise OSError(errno.EBUSY, "Device or resource busy")
            replace(*names)

        monkeypatch.setattr(os, "replace", broken)
        with (
            pytest.raises(OutputError, match="out: Device or resource busy"),
            new_folder(tmp_path / "out") as folder,
        ):
            (folder / "new").touch()
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]

    def test_leftovers_of_dead_processes_are_swept(self, tmp_path):
        program = """
import os, sys
from martlet.core import new_file, new_folder
with new_folder(sys.argv[1]) as folder, new_file(sys.argv[2]) as file:
    (folder / "half").touch()
    file.touch()
    os.kill(os.getpid(), 9)
"""
        places = tmp_path / "out", tmp_path / "out.csv"
        for _ in range(2):
            subprocess.run([sys.executable, "-c", program, *places], check=False)
        assert len(list(tmp_path.iterdir())) == 4
        living = f".out.martlet-{os.getppid()}-abc"
        others = [living, ".out.20240101.gz", ".out.martlet-notes", ".outer.martlet-9-abc"]
        for name in others:
            (tmp_path / name).touch()
        with new_folder(places[0]), new_file(places[1]) as file:
            file.touch()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [*others, "out", "out.csv"]
        )

    @pytest.mark.parametrize("write", [new_folder, new_file])
    @pytest.mark.parametrize(
        ("name", "words"), [("x" * 256, "name too long"), ("a\0b", r"'.*a\\x00b' is no path")]
    )
    def test_a_name_that_no_disk_takes_is_stated(self, tmp_path, write, name, words):
        with pytest.raises(OutputError, match=words), write(tmp_path / name) as path:
            path.write_text("")

    def test_a_dataset_replaces_a_dataset_alone(self, tmp_path):
        dataset().save(tmp_path / "d")
        dataset().save(tmp_path / "d")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years")
        with pytest.raises(OutputError, match=r"mine holds files but not dataset.json"):
            dataset().save(tmp_path / "mine")
        assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"

    def test_a_file_appears_whole_or_not_at_all(self, tmp_path):
        with pytest.raises(OutputError, match="No space left"), new_file(tmp_path / "f") as path:
            path.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
        assert list(tmp_path.iterdir()) == []
        with new_file(tmp_path / "f") as path:
            path.write_text("whole")
        assert (tmp_path / "f").read_text() == "whole"

    def test_a_folder_in_the_place_of_a_file(self, tmp_path):
        with pytest.raises(OutputError, match="is a folder"), new_file(tmp_path):
            pass


class TestThreadsAndSeeds:
    def test_threads_are_what_was_asked_for(self, monkeypatch):
        monkeypatch.setenv("MARTLET_THREADS", "3")
        assert num_threads() == 3
        monkeypatch.delenv("MARTLET_THREADS")
        assert num_threads() >= 1

    @pytest.mark.parametrize("value", ["0", "two", "-1"])
    def test_threads_that_make_no_sense(self, monkeypatch, value):
        monkeypatch.setenv("MARTLET_THREADS", value)
        with pytest.raises(SpecError, match=f"MARTLET_THREADS is '{value}'"):
            num_threads()

    def test_memory_is_the_machines_or_the_containers(self, tmp_path, monkeypatch):
        assert 1 << 26 < memory_bytes() < 1 << 50
        (tmp_path / "v1").write_text("1000000\n")
        (tmp_path / "v2").write_text("max\n")
        places = [str(tmp_path / name) for name in ("v2", "v1", "nowhere")]
        monkeypatch.setattr("martlet.core.memory._LIMITS", places)
        assert memory_bytes() == 1_000_000
        check_memory("a sum", 1_000_000, "give less")
        with pytest.raises(
            SpecError, match=r"a sum needs at least 2 MB of memory, and there are 1 MB: give less"
        ):
            check_memory("a sum", 2_000_000, "give less")
        monkeypatch.setattr("martlet.core.memory._LIMITS", ())
        monkeypatch.delattr(os, "sysconf")
        assert memory_bytes() is None
        check_memory("a sum", 1e30, "give less")

    @pytest.mark.parametrize("seed", [-1, 1.0, True, "1", None])
    def test_seeds_are_whole_numbers_from_0(self, seed):
        with pytest.raises(SpecError, match=f"seed is {seed!r}: expected a whole number from 0"):
            rng(seed, "x")
        assert rng(np.int32(3), "x").random() == rng(3, "x").random()
        assert rng(2**80, "x").random() != rng(2**81, "x").random()

    def test_streams_differ_by_seed_and_name(self):
        draws = {rng(s, *n).random() for s in (0, 1) for n in (("a",), ("b",), ("a", 1))}
        assert len(draws) == 6
        assert rng(5, "x", 2).random() == rng(5, "x", 2).random()
