from dataclasses import replace

import numpy as np
import pytest

import martlet as mt
from martlet.core import DataError, Dataset, Interactions, Queries, SpecError, Text, Vocabulary
from martlet.models.content import Content
from martlet.scorers.alike import shared_words

TOPICS, ITEMS, USERS, COLD = 6, 120, 60, 30


def library(seed=0):
    """Each user loves one topic; the last ``COLD`` items have no event in train."""
    random = np.random.default_rng(seed)
    topic, taste = np.arange(ITEMS) % TOPICS, np.arange(USERS) % TOPICS
    titles = [f"Item{i} about topic{topic[i]} and word{random.integers(40)}" for i in range(ITEMS)]
    liked = topic[None] == np.where(random.random((USERS, ITEMS)) < 0.8, taste[:, None], -1)
    user, item = np.nonzero(liked)
    cold = item >= ITEMS - COLD
    size = {"num_users": USERS, "num_items": ITEMS}
    train, test = (Interactions.sort(user[at], item[at], **size) for at in (~cold, cold))
    ids = (Vocabulary.of(f"{c}{i}" for i in range(n)) for c, n in (("u", USERS), ("i", ITEMS)))
    catalogue = {"title": Text.of(titles), "price": np.ones(ITEMS)}
    return Dataset(*ids, train, train.select(user[~cold] < 0), test, catalogue)


@pytest.fixture(scope="module")
def data():
    return library()


@pytest.fixture(scope="module")
def bundle(data):
    return mt.fit(Content(dim=16), data)


def test_items_that_nobody_met_are_ranked_by_their_words(bundle, data):
    """What is left out of train, among itself: what a model of events can only guess at."""
    cold = np.broadcast_to(np.arange(ITEMS - COLD, ITEMS, dtype=np.int32), (USERS, COLD))
    queries = Queries.of(data.train.histories, np.arange(USERS))
    met = np.zeros((USERS, ITEMS), bool)
    met[data.test.user_row, data.test.item_row] = True

    def auc(one):
        score, hit = one.scorer.score(queries, cold), met[:, ITEMS - COLD :]
        pairs = [
            np.sign(s[h][:, None] - s[~h]).mean() / 2 + 0.5 for s, h in zip(score, hit, strict=True)
        ]
        return np.mean(pairs)

    assert auc(bundle) > 0.95
    assert auc(mt.fit(mt.EASE(), data)) == 0.5


def test_an_item_alone_decides_its_vector(bundle, data):
    """The same words, the same place, whether or not there are events."""
    titles = list(data.catalogue["title"])
    titles[ITEMS - 1] = titles[1]
    twins = replace(data, catalogue={"title": Text.of(titles)})
    vectors = mt.fit(Content(dim=16), twins).scorer.items.dense()
    np.testing.assert_allclose(vectors[1], vectors[-1], atol=1e-5)


def test_without_a_cut_the_score_is_the_mean_cosine_of_tf_idf(data):
    scorer = mt.fit(Content(dim=200), data).scorer
    texts = [set(title.lower().split()) for title in data.catalogue["title"]]
    df = {word: sum(word in text for text in texts) for word in set().union(*texts)}
    kept = sorted(word for word in df if 2 <= df[word] <= ITEMS / 2)
    plain = np.array([[(w in t) * (1 + np.log(ITEMS / df[w])) for w in kept] for t in texts])
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    queries = Queries.of(data.train.histories.take(np.arange(3)))
    rows = np.broadcast_to(np.arange(ITEMS, dtype=np.int32), (3, ITEMS))
    expected = [plain[queries.history.row(b)].mean(0) @ plain.T for b in range(3)]
    np.testing.assert_allclose(scorer.score(queries, rows), expected, atol=1e-4)


def test_columns_count_alike_however_long_they_are(data):
    long = Text.of(f"{' '.join(f'noise{(i * k) % 50}' for k in range(30))}" for i in range(ITEMS))
    both = replace(data, catalogue={**data.catalogue, "text": long})
    chosen = mt.fit(Content(dim=16, columns="title"), both)
    alone = mt.fit(Content(dim=16), data)
    assert np.array_equal(chosen.scorer.items.dense(), alone.scorer.items.dense())
    assert mt.fit(Content(dim=16), both).scorer.columns == ("title", "text")


def test_an_explanation_tells_what_is_alike(bundle, data, tmp_path):
    bundle.save(tmp_path / "b")
    loaded = mt.load(tmp_path / "b")
    topic = int(data.train.item_row[0]) % TOPICS
    new = ITEMS - TOPICS + topic
    reasons = loaded.explain("u0", f"i{new}")
    assert reasons[0].words.endswith(f"alike in about, topic{topic}")
    assert reasons == bundle.explain("u0", f"i{new}")
    small = mt.compress(loaded, ["quantize:fp16"])
    assert small.scorer.columns == ("title",)


def test_what_two_texts_share():
    catalogue = {
        "a": Text.of(["The Old Man, the SEA", "man of the old sea; 雨燕"]),
        "n": np.ones(2),
    }
    assert shared_words(catalogue, ["a", "n", "gone"], 0, 1) == []
    catalogue["b"] = Text.of(["雨燕 swift nest martlet wren hawk", "nest wren 雨燕 swift martlet"])
    assert shared_words(catalogue, ["a", "b"], 0, 1) == ["雨燕", "swift", "nest", "martlet"]


def test_an_item_without_words_scores_nothing(data):
    titles = ["" if i == 7 else title for i, title in enumerate(data.catalogue["title"])]
    bare = mt.fit(Content(dim=8), replace(data, catalogue={"title": Text.of(titles)}))
    assert not bare.scorer.items.dense()[7].any()
    assert np.isfinite(bare.scorer.items.dense()).all()


@pytest.mark.parametrize(
    ("catalogue", "settings", "words"),
    [
        ({}, {}, "the catalogue has no text to know an item by"),
        ({"price": np.ones(ITEMS)}, {}, "the catalogue has no text to know an item by"),
        (
            {"title": Text.of(["x"] * ITEMS)},
            {"columns": "plot"},
            "no text column 'plot': it has title",
        ),
        ({"title": Text.of(["x"] * ITEMS)}, {}, "no word of title stands in 2 items"),
    ],
)
def test_a_catalogue_without_words_is_refused(data, catalogue, settings, words):
    with pytest.raises(DataError, match=words):
        mt.fit(Content(**settings), replace(data, catalogue=catalogue))


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"min_items": 0}, {"max_share": 0.0}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(SpecError, match=next(iter(wrong))):
        Content(**wrong)
