from dataclasses import replace

import numpy as np
import pytest

from martlet.compress.compress import compress
from martlet.compress.depth import Loss, least
from martlet.compress.index import Index
from martlet.core import Dataset, Interactions, SpecError, Vocabulary, rng
from martlet.scorers.imports import from_vectors

N, D, USERS, CLUSTERS = 3000, 16, 400, 60


def clustered():
    random = rng(1, "index", "clusters")
    centres = random.normal(size=(CLUSTERS, D))
    spread = 0.5 * random.normal(size=(N, D))
    return (centres[np.arange(N) % CLUSTERS] + spread).astype(np.float32)


@pytest.fixture(scope="module")
def bundle():
    histories = [[user % N, (user + CLUSTERS) % N] for user in range(USERS)]
    return from_vectors(clustered(), histories=histories)


def events(rows, items):
    return Interactions.sort(
        np.asarray(rows, np.int32), np.asarray(items, np.int32), num_users=USERS, num_items=N
    )


@pytest.fixture(scope="module")
def dataset(bundle):
    """Users who next take one of the ten items that an exact search would show."""
    rows = np.arange(USERS)
    train = events(bundle.histories.row_numbers(), bundle.histories.indices)
    shown = bundle.scorer.topk(bundle.queries([str(row) for row in rows]), 10).item_row
    place = rng(2, "index", "places").integers(0, 10, USERS)
    valid = events(rows, shown[rows, place])
    return Dataset(
        bundle.users, bundle.items, train, valid, train.select(np.zeros(len(train), bool))
    )


def line(bundle, index, dataset=None):
    return compress(bundle, [index], dataset, seed=0).lineage[-1]


@pytest.mark.parametrize("kind", ["ivf", "ivf-pq", "hnsw"])
def test_the_least_depth_within_the_loss_is_searched(bundle, dataset, kind):
    told = line(bundle, Index(kind, loss=0.1), dataset)
    assert told["tuned"] == "by loss"
    assert told["lost"] <= told["lost_at_most"] <= 0.1
    assert told["num_valid_users"] == USERS
    depth = "ef" if kind == "hnsw" else "nprobe"
    assert told[depth] <= line(bundle, Index(kind))[depth]


def test_one_cluster_less_would_lose_more(bundle, dataset):
    told = line(bundle, Index("ivf", loss=0.1), dataset)
    assert told["nprobe"] > 1
    fewer = Index("ivf", nprobe=told["nprobe"] - 1, loss=0.1, recall=0.01)
    found = line(bundle, fewer, dataset)
    assert found["nprobe"] == told["nprobe"] - 1
    assert found["lost_at_most"] > 0.1


def test_a_mean_within_the_limit_with_a_bound_beyond_it_stays_at_the_depth_of_recall(
    bundle, dataset, monkeypatch
):
    monkeypatch.setattr(Loss, "at", lambda self, index: (0.001, 0.2))
    told = line(bundle, Index("ivf", loss=0.01), dataset)
    assert told["tuned"] == "by recall: too few users to resolve the loss"
    assert told["nprobe"] == line(bundle, Index("ivf"), dataset)["nprobe"]
    assert (told["lost"], told["lost_at_most"]) == (0.001, 0.2)


def test_a_mean_beyond_the_limit_goes_deeper_than_recall_asks_for(bundle, dataset):
    shallow = line(bundle, Index("ivf", recall=0.3), dataset)
    told = line(bundle, Index("ivf", recall=0.3, loss=0.05), dataset)
    assert told["tuned"] == "by loss"
    assert told["nprobe"] > shallow["nprobe"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b, d: (b, None), "by recall: there is no dataset"),
        (lambda b, d: (b, replace(d, valid=d.test)), "no validation user has an item to find"),
        (
            lambda b, d: (replace(b, lineage=({"trained_on": [d.valid.hash]},)), d),
            "the validation part was trained on",
        ),
    ],
)
def test_where_no_loss_can_be_measured_recall_decides_and_says_so(bundle, dataset, change, words):
    changed, part = change(bundle, dataset)
    told = line(changed, Index("ivf", loss=0.1), part)
    assert words in told["tuned"]
    assert told["recall@10"] >= 0.99


def test_a_dataset_of_other_rows_is_asked_by_id(bundle, dataset):
    turn = np.arange(N)[::-1]
    items = Vocabulary.of(bundle.items.names(turn))
    turned = [
        events(part.user_row, N - 1 - part.item_row) if len(part) else part
        for part in (dataset.train, dataset.valid)
    ]
    other = Dataset(dataset.users, items, *turned, dataset.test)
    assert line(bundle, Index("ivf", loss=0.1), other) == line(
        bundle, Index("ivf", loss=0.1), dataset
    )


def test_the_least_that_is_enough_is_found():
    for goal in range(1, 40):
        asked = []
        assert (
            least(1, 39, lambda at, goal=goal, asked=asked: asked.append(at) or at >= goal) == goal
        )
        assert len(asked) <= 12
    assert least(5, 39, lambda at: at >= 3) == 5
    assert least(1, 9, lambda at: False) == 9


def test_a_recall_out_of_a_walks_reach_is_stated(bundle):
    with pytest.raises(
        SpecError, match=r"index:hnsw,.* best with ef 1: expected 1.0; give a larger"
    ):
        compress(bundle, [Index("hnsw", ef=1, links=2, recall=1.0)])


def test_filters_find_as_much_as_without(bundle):
    small = compress(bundle, [Index("ivf", recall=0.95)])
    users = [str(user) for user in range(200)]
    for share in (0.5, 0.2, 0.02):
        allow = rng(0, "index", "allow").random(N) < share
        queries = bundle.queries(users, allow=allow)
        exact, found = bundle.scorer.topk(queries, 10), small.scorer.topk(queries, 10)
        hit = (exact.item_row[:, :, None] == found.item_row[:, None, :]).any(2).mean()
        assert hit >= 0.9
        assert (found.item_row >= 0).all()
        assert allow[found.item_row].all()
