import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import martlet as mt
from martlet.core import (
    BundleError,
    DataError,
    Dataset,
    Examples,
    Interactions,
    SpecError,
    Tabular,
    Text,
    Vocabulary,
    rng,
)
from martlet.features import Bag, Category, Cross, Numeric
from martlet.metrics.labels import label_quality
from martlet.models.fields import DLRM, DCNv2, DeepFM, WideDeep
from martlet.models.registry import spec as spec_of
from martlet.train.embeddings import tables_of
from martlet.train.field_batches import Events, Rows
from martlet.train.field_model import FieldNetwork, _Task
from martlet.train.run import Run
from support.rows import labelled

FAMILIES = (WideDeep, DeepFM, DCNv2, DLRM)
FAST = {"table_rate": 0.1, "rate": 0.005}
SMALL = FAST | {"dim": 4, "hidden": 16, "batch": 64, "epochs": 6}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks so small are slowed down by a second thread, most where the cores are shared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def rows():
    return labelled((500, 200, 200))


def chequered(size=600, values=6):
    """The label is whether two codes are both even or both odd: neither tells anything alone."""
    random = rng(0, "chequered")
    parts = []
    for count in (size, 200, 200):
        one, two = random.integers(0, values, (2, count))
        tags = ["|".join(f"t{tag}" for tag in random.integers(0, 3, many))
                for many in random.integers(0, 3, count)]  # fmt: skip
        columns = {"one": one, "two": two, "tags": Text.of(tags), "size": random.normal(size=count)}
        parts.append(Examples(columns, ((one + two) % 2 == 0).astype(np.float32)))
    return Tabular(*parts)


PLAN = (Category("one"), Category("two"), Bag("tags"), Numeric("size"))


def auc(scorer, examples):
    return label_quality(examples.label, scorer.predict(examples.columns), ["auc"])["auc"].mean


class TestRows:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_it_learns_from_pairs_what_no_column_tells(self, family):
        data = chequered()
        spec = family(**SMALL | {"epochs": 25, "patience": 0}, columns=PLAN)
        assert auc(spec.fit(data, seed=0), data.test) > 0.95

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("columns", [PLAN, PLAN[:2], (PLAN[2], PLAN[3])])
    def test_the_scorer_answers_as_the_network(self, family, columns):
        data = chequered(200)
        spec = family(**SMALL | {"epochs": 1}, columns=columns, norm="batch", dropout=0.1)
        source = spec._source(data, 0)
        network = FieldNetwork(spec, source.layout, 0)
        network(source.take(np.arange(64), 0)).sum().backward()
        for table in (network.vectors, network.wide):
            if table is not None:
                table.step()
        network.eval()
        expected = torch.cat([network(batch) for batch in source.validation()])
        found = network.export(spec, source).predict(data.valid.columns)
        np.testing.assert_allclose(found, torch.sigmoid(expected).detach(), rtol=1e-4, atol=1e-6)

    def test_columns_are_guessed_unless_named(self, rows):
        spec = DeepFM(**SMALL)
        scorer = spec.fit(rows, seed=0)
        assert auc(scorer, rows.test) > 0.8
        alone = DeepFM(**SMALL, columns=(Category("city"),)).fit(rows, seed=0)
        assert 0.5 < auc(alone, rows.test) < auc(scorer, rows.test)
        assert alone.layout.sides["row"].features.uses == ("city",)

    def test_specs_of_columns_become_plain_and_are_read_back(self):
        spec = WideDeep(columns=(Category("city"), Cross(("city", "hour"))))
        plain = json.loads(json.dumps(spec.columns))
        assert plain[0] == {"kind": "category", "name": "city", "min_count": 1, "missing": []}
        assert spec_of("wide-deep", columns=plain) == spec
        with pytest.raises(SpecError, match="'colour' is no kind of column"):
            WideDeep(columns=({"kind": "colour"},))

    def test_crossed_columns_have_weights_alone(self):
        data = chequered()
        plan = (*PLAN, Cross(("one", "two")))
        narrow = {"dim": 1, "hidden": 1, "layers": 1}  # too little for the pairs to go through
        scorer = WideDeep(**SMALL | narrow, columns=plan).fit(data, seed=0)
        crossed = scorer.layout.num_rows - scorer.layout.num_vector_rows
        assert crossed == 37
        assert scorer.vectors.shape == (scorer.layout.num_vector_rows, 1)
        weights = scorer.wide.dense()[-36:, 0]
        assert np.abs(weights).min() > 0
        assert auc(scorer, data.test) > 0.99
        assert auc(WideDeep(**SMALL | narrow, columns=PLAN).fit(data, seed=0), data.test) < 0.9

    @pytest.mark.parametrize("family", [DCNv2, DLRM])
    def test_a_model_without_weights_refuses_crossed_columns(self, family):
        plan = (Category("one"), Cross(("one", "two")))
        with pytest.raises(SpecError, match=f"{family.__name__} has no weights for crossed"):
            family(columns=plan).fit(chequered(), seed=0)

    def test_numbers_alone_are_refused(self):
        with pytest.raises(SpecError, match="all columns are numbers, and no field has a vector"):
            DeepFM(columns=(Numeric("size"),)).fit(chequered(100))

    def test_what_weighs_nothing_teaches_nothing(self, rows):
        train = rows.train
        spoilt = np.arange(len(train)) % 3 == 0
        weight = np.where(spoilt, 0, 1).astype(np.float32)
        label = np.where(spoilt, 1 - train.label, train.label).astype(np.float32)
        scorers = [
            DeepFM(**SMALL).fit(replace(rows, train=replace(train, weight=weight, label=one)))
            for one in (train.label, label)
        ]
        answers = [scorer.predict(rows.test.columns) for scorer in scorers]
        np.testing.assert_array_equal(*answers)

    @pytest.mark.parametrize("given", [{"drop_share": 0.25}, {"clip_loss": 1.5}, {"relax": 1.0}])
    def test_wrong_labels_are_doubted(self, given):
        data = chequered(1200)
        wrong = rng(0, "wrong").random(1200) < 0.25
        label = np.where(wrong, 1 - data.train.label, data.train.label).astype(np.float32)
        noisy = replace(data, train=replace(data.train, label=label))
        spec = DeepFM(**SMALL | {"epochs": 12, "patience": 0}, columns=PLAN[:2])
        plain, doubting = (one.fit(noisy, seed=0) for one in (spec, replace(spec, **given)))

        def log_loss(scorer):
            told = scorer.predict(data.test.columns)
            return label_quality(data.test.label, told, ["log_loss"])["log_loss"].mean

        assert log_loss(doubting) < log_loss(plain) - 0.05

    def test_the_squared_loss_learns_numbers(self):
        random = rng(0, "numbers")
        city, size = random.integers(0, 4, 900), random.normal(size=900)
        target = (10 * city + 3 * size).astype(np.float32)
        whole = Examples({"city": city, "size": size}, target)
        data = Tabular(*(whole.take(at) for at in np.split(np.arange(900), [600, 750])))
        plan = (Category("city"), Numeric("size"))
        spec = DLRM(**SMALL | {"epochs": 40, "rate": 0.02}, loss="squared", columns=plan)
        found = spec.fit(data, seed=0).predict(data.test.columns)
        assert np.mean((found - data.test.label) ** 2) < 0.1 * data.test.label.var()

    @pytest.mark.parametrize("storage", ["fp16", "bf16", "int8"])
    def test_tables_in_fewer_bits_learn_as_well(self, rows, storage):
        scorer = DeepFM(**SMALL, storage=storage).fit(rows, seed=0)
        assert scorer.vectors.storage == ("fp32" if storage == "bf16" else storage)
        assert auc(scorer, rows.test) > auc(DeepFM(**SMALL).fit(rows, seed=0), rows.test) - 0.02

    @pytest.mark.parametrize(("sharing", "most"), [("quotient", 0.28), ("mixed", 0.2)])
    def test_rows_that_share_take_fewer_bytes_and_learn(self, sharing, most, tmp_path):
        data = chequered(values=100)
        given = SMALL | {"dim": 16, "epochs": 25, "patience": 0}
        plain, shared = (
            mt.fit(DeepFM(**given, columns=PLAN[:2], sharing=one), data, seed=0)
            for one in ("none", sharing)
        )
        assert shared.scorer.vectors.shape == plain.scorer.vectors.shape
        own = sum(one.nbytes for one in shared.scorer.vectors.tables().values())
        up = sum(one.nbytes for n, one in shared.scorer.vectors.tables().items() if n[:2] == "up")
        assert own - up < most * plain.scorer.vectors.nbytes
        assert auc(shared.scorer, data.train) > 0.8
        shared.save(tmp_path / "b")
        again = mt.load(tmp_path / "b").scorer
        answers = [one.predict(data.test.columns) for one in (shared.scorer, again)]
        np.testing.assert_array_equal(*answers)

    @pytest.mark.parametrize("sharing", ["quotient", "mixed"])
    @pytest.mark.parametrize("family", [WideDeep, DLRM])
    def test_the_scorer_of_shared_rows_answers_as_the_network(self, family, sharing):
        data = chequered(200)
        spec = family(**SMALL | {"epochs": 1}, columns=PLAN, sharing=sharing, storage="int8")
        source = spec._source(data, 0)
        network = FieldNetwork(spec, source.layout, 0)
        network(source.take(np.arange(64), 0)).sum().backward()
        for table in tables_of(network).values():
            table.step()
        network.eval()
        expected = torch.cat([network(batch) for batch in source.validation()])
        scorer = network.export(spec, source)
        found = scorer.predict(data.valid.columns)
        np.testing.assert_allclose(found, torch.sigmoid(expected).detach(), rtol=1e-4, atol=1e-6)
        few = scorer.predict(data.valid.take(np.array([7, 3])).columns)
        np.testing.assert_array_equal(few, found[[7, 3]])
        parts = (
            ("quotient", "remainder") if sharing == "quotient" else ("block0", "block1", "block2")
        )
        assert set(scorer.lookups) - {"wide"} == {f"vectors.{part}" for part in parts}
        moved = FieldNetwork(spec, source.layout, 0)
        names = [name for name in tables_of(moved) if name != "wide"]
        before, after = (dict(net.state_dict()) for net in (moved, network))
        assert any(not torch.equal(before[f"{n}.values"], after[f"{n}.values"]) for n in names)

    @pytest.mark.parametrize("watched", ["auc", "log-loss"])
    def test_training_ends_when_what_is_watched_falls(self, rows, watched, tmp_path):
        spec = WideDeep(**SMALL | {"epochs": 40, "rate": 0.05}, patience=1, watched=watched)
        spec.fit(rows, seed=0, run=Run(tmp_path))
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["ended"] == "early"
        assert report["figure"] == ("auc" if watched == "auc" else "-log-loss")

    def test_without_a_validation_part_the_last_epoch_is_kept(self, rows, tmp_path):
        nothing = rows.valid.take(np.zeros(0, np.int64))
        same = rows.valid.take(np.flatnonzero(rows.valid.label == 1))
        for valid in (nothing, same):
            DeepFM(**SMALL | {"epochs": 2}).fit(replace(rows, valid=valid), run=Run(tmp_path))
            epochs = json.loads((tmp_path / "report.json").read_text())["epochs"]
            assert [epoch["figure"] for epoch in epochs] == [None, None]

    @pytest.mark.parametrize("dies_at", [3, 9])
    def test_stopped_and_resumed_it_ends_with_the_same_digits(self, rows, dies_at, tmp_path):
        spec = DCNv2(**SMALL | {"epochs": 3}, dropout=0.2, norm="batch")
        whole = spec.fit(rows, seed=1)

        def die(step, done, total):
            if done == dies_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            spec.fit(rows, seed=1, run=Run(tmp_path, every_steps=1, progress=die))
        again = spec.fit(rows, seed=1, run=Run(tmp_path, resume=True))
        for name, table in whole.tables().items():
            np.testing.assert_array_equal(table.dense(), again.tables()[name].dense())

    def test_no_rows_and_a_loss_without_bounds_are_told(self, rows):
        nothing = rows.train.take(np.zeros(0, np.int64))
        with pytest.raises(DataError, match="the train part holds no row"):
            DeepFM().fit(replace(rows, train=nothing))
        broken = replace(rows.train, label=np.full(len(rows.train), np.nan, np.float32))
        with pytest.raises(mt.MartletError, match=r"rows \d+, \d+, \d+ \.\.\. of the train part"):
            DeepFM(**SMALL).fit(replace(rows, train=broken))

    def test_rows_beyond_the_memory_lie_in_files(self, monkeypatch):
        spec = WideDeep(**SMALL, columns=(*PLAN, Cross(("one", "two"))))
        within = Rows(spec, chequered(), 0)
        monkeypatch.setattr("martlet.train.field_batches._IN_MEMORY_BYTES", 0)
        monkeypatch.setattr("martlet.train.field_batches._ENCODED_ROWS", 70)
        beyond = Rows(spec, chequered(), 0)
        assert isinstance(beyond._parts["train"].rows, np.memmap)
        for batch in beyond.batches(0):
            one, two = (source.take(batch, 0) for source in (within, beyond))
            np.testing.assert_array_equal(one.rows, two.rows)
            np.testing.assert_array_equal(one.wide_rows, two.wide_rows)
            torch.testing.assert_close(one.parts[0].numbers, two.parts[0].numbers)
            torch.testing.assert_close(one.parts[0].bags, two.parts[0].bags)

    def test_a_bundle_of_rows_is_saved_and_loaded(self, rows, tmp_path):
        bundle = mt.fit(WideDeep(**SMALL | {"epochs": 1}), rows, seed=0)
        bundle.save(tmp_path / "b")
        again = mt.load(tmp_path / "b").scorer
        answers = [one.predict(rows.test.columns) for one in (bundle.scorer, again)]
        np.testing.assert_array_equal(*answers)


def streets(users=60, items=24, length=8, seed=0):
    """Each user lives in a street and buys what is made there; items carry the street's name."""
    random = rng(seed, "streets")
    home = random.integers(0, 3, users)
    user = np.repeat(np.arange(users), length)
    item = np.concatenate([3 * random.permutation(items // 3)[:length] + h for h in home])
    names = [("Elm", "Oak", "Ash")[one] for one in range(3)]
    last = np.tile(np.arange(length), users) == length - 1
    size = {"num_users": users, "num_items": items}
    time_s = np.tile(np.arange(length), users) * 60

    def part(keep):
        return Interactions.sort(user[keep], item[keep], time_s=time_s[keep], **size)

    return Dataset(
        *(Vocabulary.of(f"{c}{i}" for i in range(n)) for c, n in (("u", users), ("i", items))),
        part(~last),
        part(last),
        part(np.zeros(len(user), bool)),
        catalogue={"street": Text.of(names[i % 3] for i in range(items)),
                   "price": np.arange(items) / 7},
        user_table={"home": Text.of(names[h] for h in home), "age": random.normal(size=users)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def town():
    return streets()


@pytest.fixture(scope="module")
def bundle(town):
    return mt.fit(TestEvents.spec, town, seed=0)


class TestEvents:
    spec = DeepFM(**SMALL | {"epochs": 12, "patience": 0}, max_length=3)

    def test_what_is_ranked_first_comes_from_the_users_street(self, bundle, town):
        rows = bundle.scorer.topk(bundle.queries(town.users.names(range(60)), seen="keep"), 3)
        home = town.train.item_row[town.train.histories.indptr[:-1]] % 3
        assert (rows.item_row % 3 == home[:, None]).mean() > 0.95

    def test_a_users_column_stands_in_for_a_history(self, bundle):
        assert bundle.scorer.context == ("home", "age")
        nobody = bundle.queries(histories=[[]] * 3)
        assert not bundle.scorer.knows(nobody).any()
        told = replace(nobody, context={"home": np.array(["Elm", "Oak", ""])})
        assert bundle.scorer.knows(told).tolist() == [True, True, False]
        first = bundle.scorer.topk(told, 4).item_row % 3
        assert (first[0] == 0).all()
        assert (first[1] == 1).all()

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_scorer_answers_as_the_network(self, family, town):
        spec = family(**SMALL, max_length=3)
        source = spec._source(town, 0)
        network = FieldNetwork(spec, source.layout, 0)
        network(source.take(np.arange(20), 0)).sum().backward()
        network.vectors.step()
        network.eval()
        (batch,) = source.validation()
        found = network(batch).detach().numpy().reshape(-1, 5)
        scorer = network.export(spec, source)
        bundle = mt.fit(DeepFM(**SMALL | {"epochs": 1}), town, seed=0)
        queries = bundle.queries(town.users.names(town.valid.user_row))
        drawn = source._drawn.draw((len(found), 4), -1)
        items = np.column_stack([town.valid.item_row, drawn]).astype(np.int32)
        np.testing.assert_allclose(scorer.score(queries, items), found, rtol=1e-4, atol=1e-5)

    def test_a_history_holds_what_was_before_and_nothing_else(self, town):
        source = Events(self.spec, town, 0)
        events = np.array([0, 2, 5, 7])  # the first user's, and the first of the second
        batch = source.take(events, 0)
        user = batch.parts[1]
        sizes = torch.bincount(user.bags[0][0], minlength=4).tolist()
        assert sizes == [0, 2, 3, 0]
        first = source.layout.sides["user"].first + 1
        rows = batch.rows[-5:] - first
        np.testing.assert_array_equal(rows, town.train.item_row[[0, 1, 2, 3, 4]])

    def test_events_of_one_moment_know_nothing_of_each_other(self, town):
        train = replace(town.train, time_s=town.train.time_s // 180)
        batch = Events(self.spec, replace(town, train=train), 0).take(np.arange(7), 0)
        sizes = torch.bincount(batch.parts[1].bags[0][0], minlength=7).tolist()
        assert sizes == [0, 0, 0, 3, 3, 3, 3]

    def test_what_the_user_met_is_no_bad_example(self, town):
        spec = replace(self.spec, negatives=50)
        source = Events(spec, town, 0)
        events = np.arange(30)
        batch = source.take(events, 4)
        item = batch.rows[: 30 * 51 * 2].reshape(-1, 2)[:, 0].reshape(30, 51) - 1
        label, weight = (one.numpy().reshape(30, 51) for one in (batch.label, batch.weight))
        np.testing.assert_array_equal(item[:, 0], town.train.item_row[events])
        np.testing.assert_array_equal(label, np.arange(51) == np.zeros((30, 1)))
        for row, user in enumerate(town.train.user_row[events]):
            met = np.isin(item[row, 1:], town.train.histories.row(user))
            np.testing.assert_array_equal(weight[row, 1:], ~met)
        again = source.take(events, 4)
        np.testing.assert_array_equal(batch.rows, again.rows)
        assert (source.take(events, 5).rows != batch.rows).any()

    def test_an_event_counts_by_its_weight_where_asked(self, town):
        weight = 1 + np.arange(len(town.train)) % 4
        heavy = replace(town, train=replace(town.train, weight=weight.astype(np.float32)))
        events = np.array([0, 1, 2, 3, 9])
        sources = [Events(replace(self.spec, weighted=one), heavy, 0) for one in (False, True)]
        plain, weighted = (one.take(events, 4).weight.numpy().reshape(5, -1) for one in sources)
        np.testing.assert_array_equal(weighted, plain * weight[events][:, None])
        assert set(plain.ravel().tolist()) == {0.0, 1.0}

    def test_items_that_were_drawn_are_not_doubted(self, town):
        spec = replace(self.spec, clip_loss=1e-6)
        source = spec._source(town, 0)
        task = _Task(spec, FieldNetwork(spec, source.layout, 0), source)
        label = torch.tensor([1.0, 0, 0, 1.0, 0])
        assert task._trust(torch.ones(5), label, 0.0).tolist() == [0, 1, 1, 0, 1]
        assert task.take(source.batches(0)[1], 1).done == 1 / (12 * len(source.batches(0)))

    def test_a_large_validation_part_is_thinned(self, town, monkeypatch):
        monkeypatch.setattr("martlet.train.field_batches._VALID_EVENTS", 20)
        source = Events(self.spec, town, 0)
        assert sum(len(batch.label) for batch in source.validation()) == 20 * 5

    def test_no_events_and_a_loss_without_bounds_are_told(self, town):
        nothing = town.train.select(np.zeros(len(town.train), bool))
        with pytest.raises(DataError, match="the train part holds no event"):
            self.spec.fit(replace(town, train=nothing))
        with pytest.raises(mt.MartletError, match=r"events of users u\d+, u\d+, u\d+ \.\.\."):
            replace(self.spec, rate=1e30, norm="none").fit(town)


@pytest.fixture(scope="module")
def crossed(town):
    return mt.fit(TestPairs.spec, town, seed=0)


class TestPairs:
    """Crosses of a user's column and an item's."""

    plan = (Category("street"), Category("home"), Cross(("home", "street"), min_count=1))
    spec = WideDeep(
        **SMALL | {"dim": 1, "hidden": 1, "layers": 1, "epochs": 12, "patience": 0},
        columns=plan,
        max_length=1,
    )

    def test_a_pair_has_a_weight_of_its_own(self, crossed):
        scorer, layout = crossed.scorer, crossed.scorer.layout
        assert scorer.context == ("home",)
        assert layout.pairs.of_item == ("street",)
        assert layout.pairs.num_rows == 1 + 3  # those that were met
        assert scorer.wide.shape[0] == layout.first_pair + 4
        told = crossed.queries(histories=[[]] * 3, context={"home": ["Elm", "Oak", ""]})
        score = scorer.score(told, np.tile(np.arange(24, dtype=np.int32), (3, 1)))
        weights = scorer.wide.dense()[layout.first_pair :, 0]
        assert weights[1:].min() > weights[0] + 0.1  # that of all pairs that were never met
        street = np.arange(24) % 3
        for user in (0, 1):
            assert score[user, street == user].min() > score[user, street != user].max()

    def test_the_scorer_answers_as_the_network_and_is_saved(self, crossed, town, tmp_path):
        source = self.spec._source(town, 0)
        network = self.spec.restore(crossed).eval()
        (batch,) = source.validation()
        found = network(batch).detach().numpy().reshape(-1, 5)
        queries = crossed.queries(town.users.names(town.valid.user_row))
        drawn = source._drawn.draw((len(found), 4), -1)
        items = np.column_stack([town.valid.item_row, drawn]).astype(np.int32)
        score = crossed.scorer.score(queries, items)
        np.testing.assert_allclose(score, found, rtol=1e-4, atol=1e-5)
        crossed.save(tmp_path / "b")
        again = mt.load(tmp_path / "b")
        np.testing.assert_array_equal(again.scorer.score(queries, items), score)
        still = replace(self.spec, rate=1e-12, table_rate=1e-12, epochs=1)
        warm = still.fit(town, seed=4, init=again).score(queries, items)
        np.testing.assert_allclose(warm, score, rtol=1e-3, atol=1e-4)

    def test_a_model_without_weights_refuses_it(self, town):
        with pytest.raises(SpecError, match="DLRM has no weights for crossed columns"):
            DLRM(**SMALL, columns=self.plan).fit(town)

    def test_keys_of_other_items_are_refused(self, crossed):
        pairs = crossed.scorer.layout.pairs
        with pytest.raises(BundleError, match=r"keys of the items are uint64\(24, 2\), expected"):
            pairs.check(23)


class TestCosts:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_operations_are_those_that_torch_counts(self, family):
        spec = family(dim=4, hidden=16)
        for columns in (PLAN, PLAN[:2]):
            layout = replace(spec, columns=columns)._source(chequered(100), 0).layout
            network = spec.interaction(layout.num_vectors, layout.num_numbers)
            shapes = [(7, layout.num_vectors, 4), (7, layout.num_numbers)]
            given = [torch.zeros(shape) for shape in shapes if shape[-1]]
            with FlopCounterMode(display=False) as counter:
                network(*given)
            assert counter.get_total_flops() == 7 * spec.example_flops(layout)

    def test_all_epochs_count_three_times_what_goes_forward(self):
        data = chequered(100)
        spec = DeepFM(dim=4, hidden=16, epochs=3, columns=PLAN)
        layout = spec._source(data, 0).layout
        assert spec.flops(data) == 3 * 3 * 100 * spec.example_flops(layout)

    @pytest.mark.parametrize("sharing", ["none", "quotient", "mixed"])
    def test_bytes_are_those_of_the_tables(self, town, sharing):
        for family in FAMILIES:
            spec = family(**SMALL | {"epochs": 1}, columns=(), sharing=sharing)
            tables = spec.fit(town, seed=0).tables().values()
            assert spec.bytes(town.num_items) == sum(table.nbytes for table in tables)


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({"dropout": 1.0}, "dropout is 1.0: expected 0 or more, and below 1"),
            ({"norm": "group"}, "norm is 'group': expected one of none, batch, layer"),
            ({"loss": "hinge"}, "loss is 'hinge': expected .*logistic"),
            ({"sharing": "half"}, "sharing is 'half': expected one of none, quotient, mixed"),
            ({"watched": "ndcg"}, "watched is 'ndcg': expected .*auc"),
            ({"batch": 0}, "batch is 0"),
        ],
    )
    def test_what_makes_no_sense(self, given, why):
        with pytest.raises(SpecError, match=why):
            DeepFM(**given)

    def test_what_makes_no_sense_for_products(self):
        with pytest.raises(SpecError, match="rank is -1: expected 0 or more"):
            DCNv2(rank=-1)
        with pytest.raises(
            SpecError, match="structure is 'tower': expected one of parallel, stacked"
        ):
            DCNv2(structure="tower")
        with pytest.raises(SpecError, match="crosses is 0"):
            DCNv2(crosses=0)


@pytest.mark.parametrize("given", [{"structure": "stacked"}, {"rank": 3}, {"norm": "layer"}])
def test_other_shapes_of_dcn_learn_too(rows, given):
    scorer = DCNv2(**SMALL, **given).fit(rows, seed=0)
    assert auc(scorer, rows.test) > 0.8


def test_the_products_of_dcn_are_its_formula():
    spec = DCNv2(dim=2, hidden=4, crosses=2)
    network = spec.interaction(2, 1)
    vectors, numbers = torch.randn(3, 2, 2), torch.randn(3, 1)
    x0 = torch.cat([vectors.flatten(1), numbers], 1)
    x = x0
    for layer in network.crosses:
        x = x0 * (x @ layer.weight.T + layer.bias) + x
    expected = network.out(torch.cat([x, network.deep(x0)], 1))[:, 0]
    torch.testing.assert_close(network(vectors, numbers), expected)


def test_the_products_of_a_factorization_machine_are_those_of_all_pairs():
    spec = DeepFM(dim=3, hidden=4)
    network = spec.interaction(4, 0)
    vectors = torch.randn(5, 4, 3)
    pairs = sum((vectors[:, i] * vectors[:, j]).sum(1) for i in range(4) for j in range(i))
    expected = pairs + network.out(network.deep(vectors.flatten(1)))[:, 0]
    torch.testing.assert_close(network(vectors), expected)
