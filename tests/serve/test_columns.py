"""Users' columns over HTTP: known ones, others given with the question, and none at all."""

import pytest

import martlet as mt
from martlet.models.watch_time import WatchTime
from support.servers import Server
from support.shelves import GUILDS, SHELVES, USERS, shelves

TOWERS = {"dim": 8, "hidden": 16, "batch": 128, "rate": 0.02, "epochs": 12, "negatives": 24}
SECONDS = {"dim": 4, "hidden": 16, "layers": 1, "batch": 128, "rate": 0.01, "epochs": 8}
NEW = f"u{USERS - 1}"  # who did nothing, and whose guild is known


@pytest.fixture(scope="module")
def bundles():
    """Two towers, and a pair of them with a ranker; both read the guild of a user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        data = shelves()
        towers = mt.fit(mt.TwoTower(**TOWERS), data, seed=0)
        ranker = mt.fit(WatchTime(**SECONDS, table_rate=0.05), data, seed=0)
        yield {"towers": towers, "cascade": mt.cascade(towers, ranker, depth=3)}


@pytest.fixture(scope="module", params=["towers", "cascade"])
def served(request, bundles, tmp_path_factory):
    bundle = bundles[request.param]
    folder = tmp_path_factory.mktemp("columns") / "bundle"
    bundle.save(folder)
    with Server(folder) as server:
        yield server, bundle
    assert (server.process.returncode, server.errors) == (0, "")


def ids(answer):
    return [item["item_id"] for item in answer["items"]]


def test_a_known_user_brings_the_columns(served):
    server, bundle = served
    for user in ("u0", "u5", NEW):
        status, answer = server.get(f"/api/recommend/{user}?n=5")
        assert status == 200
        assert ids(answer) == bundle.recommend([user], 5)[0].item_ids
        assert answer["fallback"] is False
    shelf = (USERS - 1) % SHELVES
    assert {int(item[1:]) % SHELVES for item in ids(answer)} == {shelf}


def test_a_question_overrides_what_is_known_of_a_user(served):
    server, bundle = served
    ask = {"user_id": NEW, "n": 5, "context": {"guild": GUILDS[1]}}
    status, answer = server.post(ask)
    assert status == 200
    assert ids(answer) == bundle.recommend([NEW], 5, context={"guild": [GUILDS[1]]})[0].item_ids
    assert ids(answer) != ids(server.get(f"/api/recommend/{NEW}?n=5")[1])


def test_who_is_new_is_answered_by_columns_alone(served):
    server, bundle = served
    for shelf, guild in enumerate(GUILDS):
        context = {"guild": guild, "height": 170.5, "shoe": "brown"}
        status, answer = server.post({"history": [], "n": 3, "context": context})
        assert (status, answer["fallback"]) == (200, False)
        asked = {name: [value] for name, value in context.items()}
        assert ids(answer) == bundle.recommend(histories=[[]], k=3, context=asked)[0].item_ids
        assert int(ids(answer)[0][1:]) % SHELVES == shelf
    assert server.post({"history": [], "n": 3})[1]["fallback"] is True
    assert server.post({"history": [], "context": {"shoe": "brown"}})[1]["fallback"] is True


@pytest.mark.parametrize("guild", [7, 7.5, True, "", "no such guild", "雨"])
def test_any_value_of_a_column_has_an_answer(served, guild):
    server, _ = served
    status, answer = server.post({"user_id": "u3", "context": {"guild": guild, "height": "tall"}})
    assert status == 200
    assert len(answer["items"]) == 10
