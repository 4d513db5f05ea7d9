"""Models of fields that start from another's parameters, or learn from its answers."""

from dataclasses import replace

import numpy as np
import pytest

import martlet as mt
from martlet.core import QueryError, SpecError, Tabular, Vocabulary
from martlet.features import Bag, Bucket, Category, Cross, Hashed, Numeric
from martlet.models.fields import DCNv2, DeepFM, WideDeep
from martlet.models.watch_time import WatchTime
from support.rows import labelled, predicting
from unit.models.test_fields import FAST, SMALL, auc, chequered, streets

PLAN = (
    Category("one"), Hashed("two", buckets=7), Bucket("size", edges=(0.0,)), Bag("tags"),
    Numeric("size"), Cross(("one", "two"), min_count=1),
)  # fmt: skip
SPEC = WideDeep(**SMALL | {"epochs": 2, "patience": 0}, columns=PLAN)
STILL = {"rate": 1e-12, "table_rate": 1e-12}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def bundle():
    return mt.fit(SPEC, chequered(200), seed=0)


def turned(data):
    """The same rows, each value of "one" written as another: 5 for 0, 4 for 1 ..., and a new 9."""
    parts = []
    for name in ("train", "valid", "test"):
        part = data.part(name)
        one = part.columns["one"]
        columns = part.columns | {"one": np.where(np.arange(len(one)) % 9 == 0, 9, 5 - one)}
        parts.append(replace(part, columns=columns))
    return Tabular(*parts)


class TestStart:
    def test_each_value_of_a_field_takes_its_row(self, bundle):
        other = turned(chequered(200))
        still = replace(SPEC, **STILL, epochs=1)
        scorer = still.fit(other, seed=3, init=bundle)
        fresh = still.fit(other, seed=3)
        before, after = (
            one.layout.sides["row"].features.columns[0].values for one in (bundle.scorer, scorer)
        )
        for name in ("vectors", "wide"):
            ours, theirs, own = (
                getattr(one, name).dense() for one in (scorer, bundle.scorer, fresh)
            )
            for row, value in enumerate(after.tolist(), 1):
                if value == 9:
                    np.testing.assert_allclose(ours[row], own[row], atol=1e-6)
                else:
                    at = before.tolist().index(value) + 1
                    np.testing.assert_allclose(ours[row], theirs[at], atol=1e-6)
        parameters = scorer.parameters["deep.0.weight"], bundle.scorer.parameters["deep.0.weight"]
        np.testing.assert_allclose(*(one.dense() for one in parameters), atol=1e-6)

    def test_on_the_same_rows_it_answers_as_before(self, bundle):
        data = chequered(200)
        scorer = replace(SPEC, **STILL, epochs=1).fit(data, seed=5, init=bundle)
        answers = [one.predict(data.test.columns) for one in (bundle.scorer, scorer)]
        np.testing.assert_allclose(*answers, rtol=1e-4)

    @pytest.mark.parametrize("storage", ["fp16", "int8"])
    def test_tables_in_fewer_bits_start_too(self, bundle, storage):
        data = turned(chequered(200))
        given = STILL | {"epochs": 1, "table_optimizer": "sgd"}
        wanted = replace(SPEC, **given).fit(data, seed=5, init=bundle).predict(data.test.columns)
        scorer = replace(SPEC, **given, storage=storage).fit(data, seed=5, init=bundle)
        np.testing.assert_allclose(scorer.predict(data.test.columns), wanted, atol=0.02)

    @pytest.mark.parametrize("sharing", ["quotient", "mixed"])
    def test_shared_rows_start_where_they_are_the_same(self, sharing):
        data = chequered(200)
        spec = replace(SPEC, sharing=sharing)
        first = mt.fit(spec, data, seed=0)
        again = replace(spec, **STILL, epochs=1).fit(data, seed=1, init=first)
        answers = [one.predict(data.test.columns) for one in (first.scorer, again)]
        np.testing.assert_allclose(*answers, rtol=1e-4)
        with pytest.raises(SpecError, match="rows that share numbers start from the same rows"):
            spec.fit(turned(data), seed=1, init=first)

    def test_items_of_another_catalogue_are_known_by_id(self):
        town = streets()
        spec = DeepFM(**SMALL | {"epochs": 3, "patience": 0}, max_length=3)
        first = mt.fit(spec, town, seed=0)
        names = town.items.names(range(24))
        other = replace(town, items=Vocabulary.of([*names[1::-1], "new", *names[3:]]))
        scorer = replace(spec, **STILL, epochs=1).fit(other, seed=1, init=first)
        theirs, ours = first.scorer.vectors.dense(), scorer.vectors.dense()
        for side in ("item", "user"):
            at = scorer.layout.sides[side].first + 1
            np.testing.assert_allclose(ours[at : at + 2], theirs[[at + 1, at]], atol=1e-6)
            np.testing.assert_allclose(ours[at + 3 : at + 24], theirs[at + 3 : at + 24], atol=1e-6)
            assert np.abs(ours[at + 2] - theirs[at + 2]).max() > 1e-3

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            (replace(SPEC, columns=PLAN[:1]), r"it reads 'two' where 'none' is here"),
            (replace(SPEC, columns=PLAN[1::-1] + PLAN[2:]), "it reads 'one' where 'two' is here"),
            (
                replace(SPEC, columns=(Hashed("one", buckets=5), *PLAN[1:])),
                "field 'one' is a Category there and a Hashed here",
            ),
            (
                replace(SPEC, columns=(PLAN[0], Hashed("two", buckets=9), *PLAN[2:])),
                "field 'two' has 8 rows: 10 here",
            ),
            (replace(SPEC, dim=5), "dimension|rows of 5"),
            (DCNv2(**SMALL, columns=PLAN[:5]), "one alone has a weight for each value"),
            (DeepFM(**SMALL | {"hidden": 8}, columns=PLAN), "deep"),
        ],
    )
    def test_another_shape_is_refused(self, bundle, spec, why):
        with pytest.raises(SpecError, match=why):
            spec.fit(chequered(200), seed=0, init=bundle)

    def test_a_bundle_without_fields_or_of_events_is_refused(self, bundle):
        with pytest.raises(SpecError, match="it has no fields"):
            SPEC.fit(chequered(200), init=predicting())
        with pytest.raises(SpecError, match="it has the sides row: item, user here"):
            WideDeep(**SMALL).fit(streets(), init=bundle)


class TestFreezing:
    @pytest.mark.parametrize(
        ("patterns", "same"),
        [
            ("vectors", {"vectors"}),
            ("interaction.*", {"network"}),
            ("wide, vectors", {"wide", "vectors"}),
        ],
    )
    def test_what_is_frozen_does_not_move(self, bundle, patterns, same):
        data = chequered(200)
        after = replace(SPEC, freeze=patterns).fit(data, seed=1, init=bundle).tables()
        before = bundle.scorer.tables()
        kept = {n for n in after if np.array_equal(after[n].dense(), before[n].dense())}
        assert kept == {n for n in after if n.split(".")[0] in same}

    def test_nothing_left_and_unknown_names_are_told(self):
        with pytest.raises(SpecError, match="leaves nothing to train"):
            replace(SPEC, freeze="*").fit(chequered(100))
        with pytest.raises(SpecError, match="freeze has 'items', and no parameter is called so"):
            replace(SPEC, freeze="items").fit(chequered(100))


class TestTeacher:
    def test_a_student_comes_nearer_to_what_the_teacher_tells(self):
        data = labelled((400, 100, 400))
        teacher = predicting(labelled((3000, 100, 100)))
        given = FAST | {"dim": 4, "hidden": 16, "batch": 64, "epochs": 12, "patience": 0}
        alone, learnt = (
            DeepFM(**given, distil_weight=0.9).fit(data, seed=0, teacher=one)
            for one in (None, teacher)
        )
        wanted = teacher.predict(data.test.columns)
        far = [np.abs(one.predict(data.test.columns) - wanted).mean() for one in (alone, learnt)]
        assert far[1] < 0.8 * far[0]
        assert auc(learnt, data.test) > auc(alone, data.test) - 0.01

    def test_a_weight_of_0_learns_nothing_of_it(self):
        data = labelled((300, 100, 100))
        spec = DeepFM(**SMALL | {"epochs": 1}, distil_weight=0.0)
        scorers = [spec.fit(data, seed=0, teacher=one) for one in (None, predicting(data))]
        answers = [one.predict(data.test.columns) for one in scorers]
        np.testing.assert_array_equal(*answers)

    def test_teachers_of_something_else_are_refused(self):
        data, town = labelled((300, 100, 100)), streets()
        teacher = predicting(data)
        with pytest.raises(SpecError, match="teaches no events of users and items"):
            DeepFM().fit(town, teacher=teacher)
        weighted = replace(data, train=replace(data.train, weight=np.ones(300, np.float32)))
        with pytest.raises(SpecError, match="it teaches no odds"):
            WatchTime().fit(weighted, teacher=teacher)
        with pytest.raises(SpecError, match="the teacher tells chances, and numbers are to be"):
            DeepFM(loss="squared").fit(data, teacher=teacher)
        with pytest.raises(QueryError, match="ranks items for users, and predicts no label"):
            DeepFM().fit(data, teacher=mt.fit(DeepFM(**SMALL | {"epochs": 1}), town, seed=0))
        with pytest.raises(SpecError, match=r"distil_weight is 2.0: expected a share, 0 to 1"):
            DeepFM(distil_weight=2.0)
