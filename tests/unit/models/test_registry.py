"""Specs by name, and what they are fitted into."""

import json
import re
import sys
from dataclasses import asdict, fields

import numpy as np
import pytest

from martlet.core import DataError, Dataset, Interactions, SpecError, Vocabulary
from martlet.measure.quality import evaluate
from martlet.models.ease import EASE
from martlet.models.fit import fit
from martlet.models.item_knn import ItemKNN
from martlet.models.popularity import Popularity
from martlet.models.registry import name_of, names, spec, spec_class


def dataset():
    size = {"num_users": 3, "num_items": 3}
    train = Interactions.sort(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 0]), **size)
    later = Interactions.sort(np.array([2, 0]), np.array([1, 2]), **size)
    nothing = later.select(np.zeros(2, bool))
    return Dataset(Vocabulary.of("abc"), Vocabulary.of("xyz"), train, later, nothing)


def test_every_name_gives_a_spec_that_knows_its_name():
    assert {"popularity", "item-knn", "ease", "gfcf", "ials"} <= set(names())
    assert [name_of(spec(name)) for name in names()] == names()


def test_text_becomes_the_type_of_the_field():
    assert spec("item-knn", neighbours="50", shrink="3", weighting="none", weighted="True") == (
        ItemKNN(50, 3.0, "none", 1.0, True)
    )
    assert spec("ease", reg=5, neighbours="none") == EASE(reg=5.0)
    assert spec("ease", neighbours="40") == EASE(neighbours=40)
    assert isinstance(spec("ease", reg=5).reg, float)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("eaze", {}, "no model is called 'eaze': expected one of .*popularity"),
        ("ease", {"lam": 3}, "ease has no parameter 'lam': expected reg, neighbours, keep"),
        ("ease", {"keep": "many"}, "keep of ease is 'many': expected a whole number"),
        ("ease", {"keep": 2.5}, "keep of ease is 2.5: expected a whole number"),
        ("ease", {"neighbours": "x"}, "neighbours of ease is 'x': expected a whole number or none"),
        ("ease", {"reg": True}, "reg of ease is True: expected a number"),
        ("item-knn", {"weighting": "idf"}, "is 'idf': expected none or tf-idf or bm25"),
        ("item-knn", {"weighted": "1"}, "weighted of item-knn is 1: expected true or false"),
    ],
)
def test_what_is_unknown_or_of_another_type_is_refused(name, params, message):
    with pytest.raises(SpecError, match=message):
        spec(name, **params)


def test_other_packages_add_specs_but_never_over_ours(monkeypatch):
    from importlib.metadata import EntryPoint, EntryPoints

    from martlet.models import registry

    ours = "martlet.models.popularity:Popularity"
    points = EntryPoints(
        [
            EntryPoint("theirs", ours, "martlet.specs"),
            EntryPoint("ease", "elsewhere:EASE", "martlet.specs"),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    registry._known.cache_clear()
    try:
        assert spec("theirs") == Popularity()
        assert isinstance(spec("ease"), EASE)
    finally:
        registry._known.cache_clear()


def test_a_train_part_without_events_is_refused():
    data = dataset()
    empty = Dataset(data.users, data.items, data.test, data.valid, data.test)
    with pytest.raises(DataError, match="the train part holds no events"):
        fit(Popularity(), empty)


def test_what_was_merged_into_train_cannot_be_measured_on():
    data = dataset()
    bundle = fit(Popularity(), data.with_valid_in_train())
    assert data.valid.hash in bundle.lineage[0]["trained_on"]
    with pytest.raises(DataError, match="was trained on"):
        evaluate(bundle, data, part="valid")
    assert evaluate(fit(Popularity(), data), data, part="valid").num_users == 2


@pytest.mark.parametrize("name", ["init", "teacher", "executor", "run"])
@pytest.mark.parametrize("model", ["popularity", "item-knn", "ease", "gfcf", "ials"])
def test_what_a_model_cannot_use_is_refused(model, name):
    with pytest.raises(SpecError, match=f"{model} takes no {name}: leave it out, or fit"):
        fit(spec(model), dataset(), **{name: object()})


@pytest.mark.parametrize("value", [np.inf, 1e31])
@pytest.mark.parametrize(
    ("model", "name"),
    [("ials", "reg"), ("ials", "unobserved_weight"), ("ease", "reg"), ("item-knn", "shrink")],
)
def test_numbers_beyond_float32_are_refused(model, name, value):
    with pytest.raises(SpecError, match=re.escape(f"{name} is {value}: expected a nu")):
        fit(spec(model, **{name: value}), dataset())


@pytest.mark.parametrize(
    ("model", "params", "words"),
    [
        ("ials", {"reg": 1e3}, r"as good as zero, or beyond float32 \(.*; expected smaller ones"),
        ("ials", {"reg": 1e30}, "as good as zero, or beyond float32"),
        ("ials", {"reg": 1e-30}, "as good as zero, or beyond float32"),
        ("ials", {"unobserved_weight": 1e12}, "as good as zero, or beyond float32"),
        ("ease", {"reg": 1e30}, "the weights came out zero in float32; expected a smaller reg"),
    ],
)
def test_a_model_of_zeros_is_refused(model, params, words):
    with pytest.raises(SpecError, match=words):
        fit(spec(model, **params), dataset())


def test_a_model_whose_library_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "martlet.models.sasrec", raising=False)
    monkeypatch.delitem(sys.modules, "martlet.train.next_item", raising=False)
    with pytest.raises(SpecError, match=r"pip install 'martlet\[deep\]'"):
        spec("sasrec")


FIELDS = [(name, field) for name in names() for field in fields(spec_class(name)) if field.init]


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=lambda one: getattr(one, "name", one))
def test_a_hyper_parameter_of_another_type_is_refused_at_once(name, field):
    def given(value):
        return spec_class(name)(**{field.name: value})

    for wrong in ({}, object(), b"text", 1j, *([] if isinstance(field.default, str) else ["x"])):
        with pytest.raises(SpecError, match=f"^{field.name} is .*: expected "):
            given(wrong)
    assert type(getattr(given(field.default), field.name)) is type(field.default)


@pytest.mark.parametrize("name", names())
def test_numbers_of_numpy_become_plain_ones(name):
    cls = spec_class(name)
    kinds = {int: np.int64, float: np.float64}
    plain = {f.name: f.default for f in fields(cls) if type(f.default) in kinds}
    one = cls(**{key: kinds[type(value)](value) for key, value in plain.items()})
    assert {key: type(getattr(one, key)) for key in plain} == {k: type(v) for k, v in plain.items()}
    assert one == cls()
    json.dumps(asdict(one))


def test_a_whole_number_stands_for_any_and_a_word_for_none():
    assert type(spec_class("sasrec")(rate=1).rate) is float
    with pytest.raises(SpecError, match="optimizer is 'foo': expected one of adam, adamw, sgd"):
        spec_class("sasrec")(optimizer="foo")
    with pytest.raises(SpecError, match=r"rate is 1000.*: expected a number"):
        spec_class("sasrec")(rate=10**400)
    with pytest.raises(SpecError, match="neighbours is True: expected a whole number or none"):
        spec_class("ease")(neighbours=True)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True, 2**63, None])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(SpecError, match=re.escape(f"seed is {seed!r}: expected a whole number")):
        fit(Popularity(), dataset(), seed=seed)


@pytest.mark.parametrize("name", ["matrix-factorization", "sasrec", "bpr"])
def test_what_finds_no_room_in_memory_is_told(name):
    with pytest.raises(SpecError, match=f"{name} found no room in memory .*: lower dim"):
        fit(spec(name, dim=2**44), dataset())


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_weights_beyond_float32_are_told():
    size = {"num_users": 1, "num_items": 2}
    items, weights = np.array([0, 0, 1, 1]), np.full(4, 3e38, np.float32)
    train = Interactions.sort(np.zeros(4, int), items, weights, **size)
    nothing = train.select(np.zeros(4, bool))
    data = Dataset(Vocabulary.of("a"), Vocabulary.of("xy"), train, nothing, nothing)
    with pytest.raises(SpecError, match=r"popularity was fitted, but its .* are beyond"):
        fit(Popularity(weighted=True), data)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"spec": "ease"}, SpecError, "the spec is 'ease': expected hyper-parameters, such as"),
        ({"spec": EASE}, SpecError, "the spec is <class .*EASE'>: expected hyper-parameters"),
        ({"dataset": None}, DataError, "the dataset is None: expected what prepare or load"),
        (
            {"spec": spec("sasrec"), "teacher": EASE()},
            SpecError,
            r"EASE\(.* is no bundle: expected what fit or load",
        ),
        ({"spec": spec("sasrec"), "init": "bundle"}, SpecError, "'bundle' is no bundle"),
    ],
)
def test_what_is_something_else_altogether(given, error, words):
    with pytest.raises(error, match=words):
        fit(**({"spec": EASE(), "dataset": dataset()} | given))
