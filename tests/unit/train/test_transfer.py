from dataclasses import replace

import numpy as np
import pytest
from torch import nn

import martlet as mt
from martlet.core import SpecError, Text, Vocabulary
from martlet.models.sasrec import SASRec
from martlet.train import transfer
from martlet.train.transfer import columns_to_vectors, freeze, item_vectors
from support.sequences import ring

SMALL = {"dim": 16, "max_length": 6, "tokens": 200, "dropout": 0.1, "rate": 0.01}


def titles(rows, of=5):
    """Words of which two tell an item from all others."""
    return Text.of([f"a small bird, tail{row // of} wing{row % of}" for row in rows])


@pytest.fixture(scope="module")
def data():
    made = ring(users=200)
    rows = [int(name) for name in made.items.names(range(made.num_items))]
    return replace(made, catalogue={"title": titles(rows)})


@pytest.fixture(scope="module")
def bundle(data):
    return mt.fit(SASRec(**SMALL, epochs=20), data, seed=0)


class TestFromColumns:
    def made(self, noise=0.0, n=300, d=6):
        stream = np.random.default_rng(0)
        words = stream.standard_normal((20 + 15, d))
        rows = np.arange(n)
        vectors = words[rows // 15] + words[20 + rows % 15] + 2.0
        vectors += noise * stream.standard_normal(vectors.shape)
        return {"title": titles(rows, 15)}, rows, vectors.astype(np.float32)

    def test_what_words_add_up_to_is_found(self):
        columns, rows, vectors = self.made()
        learnt = np.delete(rows, np.s_[::7])
        found = columns_to_vectors(columns, learnt, vectors[learnt], columns)
        apart = np.linalg.norm(found[::7] - vectors[::7], axis=1)
        assert apart.mean() < 0.1 * np.linalg.norm(vectors - vectors.mean(0), axis=1).mean()

    def test_the_weight_of_the_squares_grows_with_the_noise(self, monkeypatch):
        used = []
        real = transfer._ridge
        monkeypatch.setattr(
            transfer, "_ridge", lambda x, y, reg: used.append(reg) or real(x, y, reg)
        )
        for noise in (0.0, 20.0):
            columns, rows, vectors = self.made(noise)
            columns_to_vectors(columns, rows, vectors, columns)
        assert used[5] < used[-1]

    def test_numbers_count_too(self):
        size = np.random.default_rng(0).standard_normal(500)
        vectors = np.stack([size, -2 * size], 1).astype(np.float32)
        rows = np.arange(400)
        found = columns_to_vectors({"size": size}, rows, vectors[rows], {"size": size})
        np.testing.assert_allclose(found[400:], vectors[400:], atol=0.1)

    def test_columns_that_tell_nothing(self):
        columns, rows, vectors = self.made()
        same = {"title": Text.of(["bird"] * len(rows))}
        assert columns_to_vectors(same, rows, vectors, columns) is None

    def test_the_equations_are_solved(self):
        import scipy.sparse as sp

        x = sp.random(40, 25, 0.3, "csr", rng=np.random.default_rng(1))
        y = np.random.default_rng(2).standard_normal((40, 3))
        dense = x.toarray()
        expected = np.linalg.solve(dense.T @ dense + 0.5 * np.eye(25), dense.T @ y)
        np.testing.assert_allclose(transfer._ridge(x, y, 0.5), expected, atol=1e-4)


class TestItemVectors:
    def test_by_id_they_are_taken_over(self, bundle, data):
        names = data.items.names(range(data.num_items))
        other = replace(data, items=Vocabulary.of([*names[::-1]]), catalogue={})
        found, known = item_vectors(bundle, other)
        assert known.all()
        np.testing.assert_array_equal(found, bundle.scorer.items.dense()[::-1])

    def test_without_a_common_column_the_others_have_none(self, bundle, data):
        names = data.items.names(range(data.num_items))
        other = replace(
            data, items=Vocabulary.of([*names[:5], *"abc"]), catalogue={"size": np.ones(8)}
        )
        found, known = item_vectors(bundle, other)
        assert known.tolist() == [True] * 5 + [False] * 3
        np.testing.assert_array_equal(found[:5], bundle.scorer.items.dense()[:5])

    def test_from_columns_the_others_come_near_to_their_own(self, bundle, data):
        names = data.items.names(range(data.num_items))
        strange = Vocabulary.of([*names[:14], *(f"new{n}" for n in range(6))])
        # The bundle knows items of the same titles, by other ids.
        found, known = item_vectors(bundle, replace(data, items=strange))
        own = bundle.scorer.items.dense()
        assert known.all()
        np.testing.assert_array_equal(found[:14], own[:14])
        middle = np.linalg.norm(own[14:] - own.mean(0), axis=1).mean()
        assert np.linalg.norm(found[14:] - own[14:], axis=1).mean() < 0.9 * middle

    def test_another_catalogue_of_alike_items_is_learnt_sooner(self, bundle, data):
        strange = Vocabulary.of([f"new{n}" for n in range(data.num_items)])
        other = replace(data, items=strange)
        spec = SASRec(**SMALL, epochs=1)
        cold, warm = (mt.fit(spec, other, seed=1, init=init) for init in (None, bundle))
        figures = [mt.evaluate(b, other, part="test").figures["ndcg@10"] for b in (cold, warm)]
        assert figures[1] > figures[0] + 0.05


class TestFreezing:
    def test_frozen_parameters_do_not_move(self, bundle, data):
        before = bundle.scorer.tables()
        for patterns in ("items", "encoder.*", "encoder.blocks.0.*, items"):
            spec = SASRec(**SMALL, epochs=1, patience=0, freeze=patterns)
            after = spec.fit(data, seed=1, init=bundle).tables()
            same = {name for name, table in after.items()
                    if np.array_equal(table.dense(), before[name].dense())}  # fmt: skip
            expected = {
                "items": {"items"},
                "encoder.*": before.keys() - {"items"},
                "encoder.blocks.0.*, items": {"items"}
                | {name for name in before if name.startswith("network.blocks.0.")},
            }[patterns]
            assert same == expected

    def test_what_is_frozen_is_no_parameter_of_the_optimizer(self):
        network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        freeze(network, "0.*")
        assert [n for n, p in network.named_parameters() if p.requires_grad] == [
            "1.weight",
            "1.bias",
        ]
        freeze(network, "")
        assert network[1].weight.requires_grad

    @pytest.mark.parametrize(
        ("patterns", "message"),
        [
            (
                "encoder.tail",
                "freeze has 'encoder.tail', and no parameter is called so: there are items",
            ),
            ("*", "leaves nothing to train"),
        ],
    )
    def test_patterns_that_make_no_sense(self, patterns, message, data):
        with pytest.raises(SpecError, match=message):
            SASRec(**SMALL, freeze=patterns).fit(data, seed=0)
