import math
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch

import martlet as mt
from martlet.core import CSR, OutputError, Queries, SpecError, Vocabulary
from martlet.models.ease import EASE
from martlet.models.gru4rec import GRU4Rec
from martlet.models.ials import IALS
from martlet.models.item_knn import ItemKNN
from martlet.models.popularity import Popularity
from martlet.models.sasrec import SASRec
from martlet.scorers.factors import Factors
from martlet.scorers.projections import LinearFold
from martlet.scorers.table import Table
from martlet.train import losses, teacher
from martlet.train.teacher import ask, disagreement_among, encode_together, shift, unlike
from support.sequences import ring

Usage = namedtuple("Usage", "total used free")
SMALL = {"dim": 16, "max_length": 6, "tokens": 200, "dropout": 0.1, "rate": 0.01}


@pytest.fixture(scope="module")
def data():
    return ring(users=200)


@pytest.fixture(scope="module")
def sasrec(data):
    return mt.fit(SASRec(**SMALL, epochs=25), data, seed=0)


@pytest.fixture(scope="module")
def knn(data):
    return mt.fit(ItemKNN(neighbours=10), data)


def ndcg(bundle, data):
    return mt.evaluate(bundle, data, part="test").figures["ndcg@10"]


def every_event(data):
    """Return the events that another one follows, and the history up to each."""
    csr = data.train.histories
    return {
        int(csr.indptr[user]) + at: csr.row(user)[: at + 1]
        for user in range(csr.num_rows)
        for at in range(len(csr.row(user)) - 1)
    }


def renamed(bundle, order, extra=()):
    """Return a bundle of vectors with its items in another order, and items of its own."""
    names = bundle.items.names(range(len(bundle.items)))
    rows = [names.index(name) for name in order]
    vectors = bundle.scorer.tables()["items"].dense()[rows]
    more = np.full((len(extra), vectors.shape[1]), 100.0, np.float32)
    items = Table.of(np.concatenate([vectors, more]))
    vocabulary = Vocabulary.of([*order, *extra])
    scorer = Factors(items, LinearFold())
    histories = CSR.empty(len(bundle.users), len(vocabulary))
    popularity = np.ones(len(vocabulary), np.float32)
    return replace(bundle, scorer=scorer, items=vocabulary, histories=histories,
                   popularity=popularity, history_time_s=None, catalogue={})  # fmt: skip


class TestAnswers:
    @pytest.mark.parametrize("which", ["sasrec", "knn"])
    def test_they_are_what_the_teacher_says_of_each_history(
        self, which, data, request, monkeypatch
    ):
        monkeypatch.setattr(teacher, "_CHUNK", 97)
        bundle = request.getfixturevalue(which)
        answers = ask(bundle, data, kind="scores", k=5, folder=None)
        expected = every_event(data)
        assert answers.events.tolist() == sorted(expected)
        rows = [expected[event] for event in sorted(expected)]
        ranking = bundle.scorer.topk(Queries.of(CSR.from_rows(rows, data.num_items)), 5)
        np.testing.assert_array_equal(answers.kept["row"], ranking.item_row)
        named = ranking.item_row >= 0
        factor = answers.kept["score"][named] / ranking.score[named]
        np.testing.assert_allclose(factor, factor[0], rtol=1e-4)

    def test_vectors_are_those_of_the_encoder(self, sasrec, data):
        answers = ask(sasrec, data, kind="features", k=5, folder=None)
        expected = every_event(data)
        some = np.array(sorted(expected)[3:40:7])
        found = answers.lesson("features", some, 1.0)["vector"]
        queries = Queries.of(CSR.from_rows([expected[e] for e in some], data.num_items))
        np.testing.assert_allclose(found, sasrec.scorer.encode(queries), rtol=1e-4, atol=1e-5)
        assert answers.dim == 16

    def test_a_softmax_over_the_temperature(self, sasrec, data):
        answers = ask(sasrec, data, kind="scores", k=5, folder=None)
        events = answers.events[[0, 7, 70]]
        one, two = (answers.lesson("scores", events, t) for t in (1.0, 2.0))
        np.testing.assert_allclose(one["share"].sum(1), 1, rtol=1e-5)
        squared = two["share"] ** 2
        np.testing.assert_allclose(squared / squared.sum(1, keepdims=True), one["share"], 1e-4)
        assert (np.diff(one["share"]) <= 0).all()

    def test_ranks_count_alike_whatever_the_scores(self, knn, data):
        answers = ask(knn, data, kind="ranks", k=4, folder=None)
        full = answers.events[(answers.kept["row"] >= 0).all(1)][:3]
        share = answers.lesson("ranks", full, 2.0)["share"]
        expected = np.exp(-np.arange(4) / 2)
        np.testing.assert_allclose(share, [expected / expected.sum()] * 3, rtol=1e-5)

    def test_where_it_names_fewer_the_rest_counts_nothing(self, data):
        bundle = mt.fit(ItemKNN(neighbours=1), data)
        answers = ask(bundle, data, kind="scores", k=18, folder=None)
        few = (answers.kept["row"] >= 0).sum(1)
        assert few.min() < 18
        lesson = answers.lesson("scores", answers.events, 1.0)
        np.testing.assert_array_equal((lesson["share"] > 0).sum(1) <= few, True)
        assert set(np.round(lesson["share"].sum(1), 4)) <= {0.0, 1.0}

    def test_another_order_and_other_items_of_the_catalogue(self, data):
        ials = mt.fit(IALS(dim=8), data)
        plain = replace(ials, scorer=Factors(ials.scorer.items, LinearFold()))
        names = data.items.names(range(data.num_items))
        other = renamed(ials, names[::-1], extra=["someone else's"])
        found, expected = (
            ask(one, data, kind="ranks", k=6, folder=None).kept["row"] for one in (other, plain)
        )
        assert (found == expected).mean() > 0.99  # equals may change places
        fewer = ask(renamed(ials, names[3:]), data, kind="ranks", k=6, folder=None).kept["row"]
        assert not np.isin(fewer, [0, 1, 2]).any()
        # A history of items that it does not know tells it nothing.
        silent = [event for event, row in every_event(data).items() if max(row) < 3]
        assert silent
        assert (fewer[np.searchsorted(sorted(every_event(data)), silent)] == -1).all()

    def test_a_teacher_of_another_catalogue(self, knn, data):
        items = Vocabulary.of([f"x{n}" for n in range(data.num_items)])
        with pytest.raises(SpecError, match="knows none of the dataset's items by id"):
            ask(replace(knn, items=items), data, kind="ranks", k=3, folder=None)

    def test_a_teacher_without_vectors(self, knn, data):
        with pytest.raises(SpecError, match="of kind item_item has no vectors: distil by scores"):
            ask(knn, data, kind="features", k=3, folder=None)

    def test_kept_in_the_run_they_are_read_again(self, knn, data, tmp_path, monkeypatch):
        told = []
        first = ask(
            knn, data, kind="scores", k=3, folder=tmp_path, progress=lambda *a: told.append(a)
        )
        assert told[-1] == ("ask the teacher", len(first.events), len(first.events))
        before = first.kept.tobytes()
        monkeypatch.setattr(teacher._Asked, "best", None)
        again = ask(knn, data, kind="scores", k=3, folder=tmp_path)
        assert again.kept.tobytes() == before

    def test_no_room_on_the_disk(self, knn, data, tmp_path, monkeypatch):
        monkeypatch.setattr(teacher.shutil, "disk_usage", lambda _: Usage(0, 0, 10))
        with pytest.raises(OutputError, match="has room for 0: lower distil_top"):
            ask(knn, data, kind="scores", k=3, folder=tmp_path)

    def test_the_scale_makes_the_scores_as_sure_as_they_may_be(self, sasrec, data):
        asked = teacher._Asked(sasrec, data)
        loud = replace(sasrec.scorer, items=Table.of(1000 * sasrec.scorer.items.dense()),
                       inputs=sasrec.scorer.items)  # fmt: skip
        other = teacher._Asked(replace(sasrec, scorer=loud), data)
        assert other.scale(20) == pytest.approx(asked.scale(20) / 1000, rel=0.1)
        assert 0.2 < asked.scale(20) < 2  # a softmax was its loss
        without = replace(data, valid=data.valid.select(np.zeros(len(data.valid), bool)))
        assert teacher._Asked(sasrec, without).scale(20) > 0

    def test_a_teacher_is_told_times_and_the_columns_of_users_that_it_reads(
        self, knn, data, monkeypatch
    ):
        monkeypatch.setattr(teacher, "context_of", lambda scorer: ("wing_cm",))
        wings = {"wing_cm": np.arange(data.num_users) / 2, "tail_cm": np.ones(data.num_users)}
        asked = teacher._Asked(knn, replace(data, user_table=wings))
        queries = asked.up_to(np.array([7, 8, 25]))  # seven events a user
        assert {n: c.tolist() for n, c in queries.context.items()} == {"wing_cm": [0.5, 0.5, 1.5]}
        expected = [data.train.time_s[at] for at in (7, 7, 8, 21, 22, 23, 24, 25)]
        assert queries.time_s.tolist() == expected

    def test_histories_of_like_length_run_together(self, sasrec, data):
        some = data.train.histories.take(np.array([3, 0, -1, 9, 5]))
        found = encode_together(sasrec.scorer, some)
        expected = sasrec.scorer.encode(Queries.of(some))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert not found[2].any()


class TestLosses:
    vectors = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    items = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 1, 2, 3, 4, 5])
    row = torch.tensor([[1, 2], [1, 3], [8, 0], [0, 1], [7, 2], [0, 0]])
    share = torch.tensor([[0.5, 0.5], [0.9, 0.1], [1, 0], [0.3, 0.7], [0.5, 0.5], [0, 0]]).double()

    def test_the_shift_makes_a_target_of_the_shares(self):
        logits = self.vectors @ self.items.T
        wanted = torch.zeros(6, 9, dtype=torch.float64).scatter_add_(1, self.row, self.share)
        wanted[5, 5] = 1  # the teacher is silent
        expected = -(wanted * logits.log_softmax(1)).sum(1).mean()
        plain = losses.softmax(self.vectors, self.items, self.target)
        found = plain + shift(self.vectors, self.items, self.target, self.row, self.share)
        torch.testing.assert_close(found, expected)

    def test_among_its_items(self):
        logits = (self.vectors @ self.items.T).gather(1, self.row)
        rows = -(self.share * logits.log_softmax(1)).sum(1)
        found = disagreement_among(self.vectors, self.items, self.row, self.share)
        torch.testing.assert_close(found, rows.mean())

    def test_the_angle_between_vectors(self):
        lifted = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        vector = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
        assert unlike(lifted, vector).item() == pytest.approx(0.5)


class TestStudents:
    @pytest.mark.parametrize(
        ("distil", "temperature"), [("scores", 1.0), ("scores", 2.0), ("ranks", 3.0)]
    )
    @pytest.mark.parametrize("loss", ["softmax", "sampled"])
    def test_a_student_of_another_family_learns_from_the_teacher_alone(
        self, distil, temperature, loss, sasrec, data
    ):
        spec = GRU4Rec(**SMALL | {"dim": 8}, hidden=16, epochs=10, loss=loss, negatives=8,
                       distil=distil, distil_top=20, distil_weight=1.0,
                       temperature=temperature)  # fmt: skip
        taught = mt.fit(spec, data, seed=1, teacher=sasrec)
        assert ndcg(taught, data) > ndcg(mt.fit(Popularity(), data), data) + 0.1
        assert taught.lineage[0]["teacher"] == sasrec.id

    def test_by_features_its_vectors_are_a_linear_map_from_the_teachers(self, sasrec, data):
        spec = GRU4Rec(**SMALL, hidden=16, epochs=8, distil="features", distil_weight=0.9)
        queries = Queries.of(data.train.histories)
        goal = sasrec.scorer.encode(queries)
        left = []
        for given in (None, sasrec):
            taught = mt.fit(spec, data, seed=1, teacher=given)
            ours = taught.scorer.encode(queries)
            ours = np.concatenate([ours, np.ones((len(ours), 1), np.float32)], 1)
            found = ours @ np.linalg.lstsq(ours, goal)[0]
            left.append(unlike(torch.tensor(found), torch.tensor(goal)).item())
            assert set(taught.scorer.tables()) == {
                "items", *(f"network.{name}" for name in spec.encoder().state_dict())
            }  # fmt: skip
        assert left[1] < 0.7 * left[0]

    def test_by_the_teacher_alone_a_student_answers_as_another_family(self, data):
        ease = mt.fit(EASE(), data)
        spec = SASRec(**SMALL, epochs=15, distil_weight=1.0, distil_top=10)
        taught = mt.fit(spec, data, seed=0, teacher=ease)
        users = np.arange(50)
        queries = Queries.of(data.train.histories.take(users))
        ours, theirs, other = (
            one.scorer.topk(queries, 3).item_row
            for one in (taught, ease, mt.fit(Popularity(), data))
        )
        met = [np.mean([len(set(a) & set(b)) for a, b in zip(one, theirs, strict=True)]) / 3
               for one in (ours, other)]  # fmt: skip
        assert met[0] > met[1] + 0.2

    @pytest.mark.parametrize("distil", ["scores", "features"])
    def test_stopped_and_resumed_it_ends_with_the_same_digits(
        self, distil, sasrec, data, tmp_path, monkeypatch
    ):
        spec = SASRec(**SMALL, epochs=3, distil=distil, distil_top=5)
        whole = spec.fit(data, seed=2, teacher=sasrec)

        class Enough(Exception):
            pass

        def stop(step, done, total):
            if step.startswith("train: epoch") and done == total // 2:
                raise Enough

        run = mt.Run(tmp_path, every_steps=1, progress=stop)
        with pytest.raises(Enough):
            spec.fit(data, seed=2, teacher=sasrec, run=run)
        monkeypatch.setattr(teacher._Asked, "best", None)  # nothing is asked again
        monkeypatch.setattr(teacher._Asked, "encode", None)
        run = replace(run, resume=True, progress=None)
        again = spec.fit(data, seed=2, teacher=sasrec, run=run)
        for name, table in whole.tables().items():
            np.testing.assert_array_equal(table.dense(), again.tables()[name].dense())

    def test_a_run_of_another_teacher_is_not_gone_on_with(self, sasrec, knn, data, tmp_path):
        spec = SASRec(**SMALL, epochs=1, distil_top=5)
        spec.fit(data, seed=0, teacher=sasrec, run=mt.Run(tmp_path))
        with pytest.raises(mt.core.DataError, match="run of other settings, data or seed"):
            spec.fit(data, seed=0, teacher=knn, run=mt.Run(tmp_path, resume=True))

    def test_a_masked_model_takes_no_teacher_but_may_be_one(self, sasrec, data):
        masked = SASRec(**SMALL, epochs=1, masked=0.3)
        with pytest.raises(SpecError, match="set masked=0"):
            masked.fit(data, seed=0, teacher=sasrec)
        teaching = mt.fit(masked, data, seed=0)
        answers = ask(teaching, data, kind="features", k=3, folder=None)
        assert math.isfinite(float(answers.kept["vector"].sum()))
