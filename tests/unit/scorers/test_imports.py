import numpy as np
import pytest

from martlet.core import BundleError, DataError, Text, rng
from martlet.scorers.bundle import Bundle
from martlet.scorers.imports import from_onnx, from_vectors
from martlet.scorers.network import Network
from martlet.scorers.ranker import Ranker
from martlet.scorers.runtime import Runtime
from martlet.scorers.table import Table
from support.bundles import bundle
from support.networks import mean_encoder, pair_ranker

N, D, USERS = 12, 3, 5
ITEMS = rng(0, "imports", "items").normal(size=(N, D))
PEOPLE = rng(0, "imports", "users").normal(size=(USERS, D))
IDS = [f"film {i}" for i in range(N)]
SEEN = [[IDS[b], IDS[b + 1]] for b in range(USERS)]


@pytest.fixture
def encoder(tmp_path):
    path = tmp_path / "encoder.onnx"
    path.write_bytes(mean_encoder(np.eye(D, dtype=np.float32)))
    return path


def test_vectors_are_served_as_they_score(tmp_path):
    made = from_vectors(ITEMS, IDS, PEOPLE, histories=SEEN, catalogue={"title": IDS})
    (answer,) = made.recommend(["2"], k=N)
    score = PEOPLE[2] @ ITEMS.T
    want = [i for i in np.argsort(-score) if IDS[i] not in SEEN[2]]
    assert answer.item_ids == [IDS[i] for i in want]
    assert answer.scores == pytest.approx(score[want].tolist(), abs=1e-5)
    made.save(tmp_path / "b")
    assert Bundle.load(tmp_path / "b").recommend(["2"], k=N) == [answer]
    assert made.lineage[0]["spec"] == "from_vectors"
    assert made.popularity.tolist() == [1, 2, 2, 2, 2, 1, 0, 0, 0, 0, 0, 0]
    assert isinstance(made.catalogue["title"], Text)


def test_users_without_vectors_are_the_mean_of_what_they_saw():
    made = from_vectors(ITEMS, user_ids=["ann"], histories=[["0", "4"]])
    (answer,) = made.recommend(["ann"], k=1)
    score = ITEMS[[0, 4]].mean(0) @ ITEMS.T
    score[[0, 4]] = -np.inf
    assert answer.item_ids == [str(score.argmax())]
    assert made.recommend(histories=[["0", "4"]], k=1)[0].scores == answer.scores


def test_items_alone_are_enough():
    made = from_vectors(ITEMS, popularity=np.arange(N))
    assert made.recommend(["who"], k=2)[0].item_ids == ["11", "10"]
    assert len(made.similar("3", 4)) == 4


def test_numbers_of_the_catalogue_stay_numbers():
    made = from_vectors(ITEMS, catalogue={"price": np.ones(N), "name": np.array(IDS)})
    assert made.catalogue["price"].dtype == np.float64
    assert made.catalogue["name"][3] == "film 3"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"item_vectors": [[1, 2], [3]]}, "item_vectors is no array of real numbers"),
        ({"item_vectors": [["a"]]}, "item_vectors is no array of real numbers: it holds <U1"),
        ({"item_vectors": ITEMS * 1j}, "item_vectors is no array of real .* it holds complex128"),
        ({"item_vectors": np.full((N, D), 1j, object)}, "item_vectors is no array of real numbers"),
        ({"item_vectors": np.full((N, D), "2020", "M8[D]")}, "item_vectors .* holds datetime64"),
        (
            {"item_vectors": np.full((N, D), 1e300)},
            "item_vectors holds a number that is not finite",
        ),
        ({"item_vectors": None}, r"item_vectors is of shape \(\): expected \(rows, columns\)"),
        ({"user_vectors": PEOPLE * 1j}, "user_vectors is no array of real numbers"),
        ({"item_ids": "abcdefghijkl"}, "item_ids is 'abcdefghijkl': expected a list"),
        ({"item_ids": 12}, "item_ids is 12: expected a list"),
        ({"item_ids": [*IDS[:-1], "\udcff"]}, r"'\\udcff' is no UTF-8 text"),
        ({"histories": "ab"}, "histories is 'ab': expected a list"),
        ({"histories": ["ab"]}, "a history is 'ab': expected a list"),
        ({"histories": [None]}, "a history is None: expected a list"),
        (
            {"item_vectors": np.ones(4)},
            r"item_vectors is of shape \(4,\): expected \(rows, columns\)",
        ),
        ({"item_vectors": np.ones((0, 4))}, r"item_vectors is of shape \(0, 4\)"),
        ({"item_vectors": [[1, 2], [np.nan, 1]]}, r"not finite in row 1 \(1 such rows\)"),
        ({"item_ids": ["a"]}, "item_ids has 1 ids for 12 rows"),
        ({"item_ids": ["a"] * N}, "the id 'a' occurs twice"),
        ({"user_vectors": np.ones((2, 9))}, "user_vectors have 9 columns, item_vectors 3"),
        ({"user_vectors": PEOPLE, "user_ids": ["a"]}, "user_ids has 1 ids for 5 rows"),
        ({"user_vectors": PEOPLE, "histories": [["0"]]}, "1 histories for 5 users"),
        ({"histories": [["0"], ["0", "99"]]}, "history of user '1' holds an item that item_ids"),
        ({"popularity": [1, 2]}, r"popularity is \(2,\): expected \(12,\) finite numbers"),
        ({"popularity": [np.nan] * N}, "expected .* finite numbers"),
        ({"popularity": [1j] * N}, "popularity is no array of real numbers"),
        ({"catalogue": ["a"] * N}, r"catalogue is \['a', .*: expected columns by name"),
        ({"catalogue": {"title": ["a"]}}, "catalogue column 'title' has 1 values for 12 items"),
        ({"catalogue": {"title": "a" * N}}, "catalogue column 'title' is 'aaaaaaaaaaaa': expected"),
        ({"catalogue": {"title": ["\ud800"] * N}}, r"'\\ud800' is no UTF-8 text"),
        ({"catalogue": {"price": 3.5}}, "catalogue column 'price' is 3.5: expected a list"),
        (
            {"catalogue": {"price": np.float64(3.5)}},
            "catalogue column 'price' is .*: expected a li",
        ),
        (
            {"catalogue": {"price": np.ones((N, 2))}},
            r"'price' is float64\(12, 2\): expected one real",
        ),
        ({"catalogue": {"price": np.ones(N) * 1j}}, r"'price' is complex128\(12,\): expected one"),
        ({"catalogue": {"day": np.full(N, "2020", "M8[D]")}}, r"'day' is datetime64\[D\]\(12,\)"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(DataError, match=words):
        from_vectors(**{"item_vectors": ITEMS} | changes)


def test_an_encoder_is_served_as_it_scores(encoder, tmp_path):
    made = from_onnx(encoder, ITEMS, IDS, histories=SEEN, max_length=1)
    (answer,) = made.recommend(["1"], k=3)
    score = ITEMS[2] @ ITEMS.T
    want = [i for i in np.argsort(-score) if IDS[i] not in SEEN[1]][:3]
    assert answer.item_ids == [IDS[i] for i in want]
    made.save(tmp_path / "b")
    assert Bundle.load(tmp_path / "b").recommend(["1"], k=3) == [answer]
    assert made.similar(IDS[3], 2) == from_vectors(ITEMS, IDS).similar(IDS[3], 2)


def test_an_encoder_may_see_other_vectors_than_it_is_matched_with(tmp_path):
    path = tmp_path / "encoder.onnx"
    path.write_bytes(mean_encoder(np.ones((2, D), np.float32)))
    inputs = rng(0, "inputs").normal(size=(N, 2))
    made = from_onnx(path, ITEMS, input_vectors=inputs)
    assert made.scorer.encode(made.queries(histories=[["3"]]))[0] == pytest.approx(
        inputs[3].sum() * np.ones(D), abs=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": None}, "the encoder None is no path: expected an ONNX file"),
        ({"encoder": "a\0b"}, "the encoder 'a.x00b' is no path"),
        ({"histories": "ab"}, "histories is 'ab': expected a list"),
        ({"max_length": 1.5}, "max_length is 1.5: expected at least 1 event"),
        ({"encoder": "nowhere.onnx"}, "cannot read the encoder nowhere.onnx: No such file"),
        ({"input_vectors": np.ones((3, D))}, "input_vectors have 3 rows, item_vectors 12"),
        ({"input_vectors": np.ones((N, 9))}, "does not fit: the network failed on x"),
        ({"max_length": 0}, "max_length is 0: expected at least 1 event"),
        (
            {"item_vectors": np.ones((N, 2)), "input_vectors": ITEMS},
            r"gives \(2, 3\) for 2 histories",
        ),
        ({"input_vectors": np.full((N, D), 3e38)}, "gives numbers that are not finite"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(encoder, changes, words):
    with pytest.raises(DataError, match=words):
        from_onnx(**{"encoder": encoder, "item_vectors": ITEMS} | changes)


def test_a_file_that_is_no_network_is_refused(encoder):
    encoder.write_bytes(b"not a network")
    with pytest.raises(DataError, match=r"does not fit: ONNX Runtime .* cannot open the network"):
        from_onnx(encoder, ITEMS)


def test_a_network_of_other_inputs_is_refused(encoder):
    encoder.write_bytes(pair_ranker(np.ones((4, 2), np.float32), np.ones((2, 1), np.float32)))
    with pytest.raises(
        DataError, match="takes item of rank 2, user of rank 2: expected lengths of"
    ):
        from_onnx(encoder, ITEMS)


def test_a_network_of_no_inputs_is_said_so():
    with pytest.raises(BundleError, match="expected nothing"):
        Runtime(mean_encoder(np.ones((2, 2), np.float32)), {}).run()


def test_stored_networks_need_vectors_of_one_catalogue(tmp_path):
    items, few = Table.of(ITEMS), Table.of(ITEMS[:4])
    (tmp_path / "encoder.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="table inputs has 4 rows, items 12"):
        Network.from_parts({}, {"items": items, "inputs": few}, tmp_path)
    with pytest.raises(BundleError, match="table history has 4 rows, items 12"):
        Ranker.from_parts({}, {"items": items, "history": few}, tmp_path)


def test_a_bundle_made_elsewhere_is_a_bundle_like_any_other():
    assert type(from_vectors(ITEMS)) is type(bundle())
