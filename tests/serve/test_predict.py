"""``POST /api/predict``, from a server of a real model of labelled rows."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.models.fit import fit
from martlet.models.registry import spec
from martlet.scorers.bundle import Bundle
from support.rows import labelled
from support.servers import Server

ROUTE = "/api/predict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("predict") / "bundle"
    model = spec("deepfm", dim=2, hidden=4, layers=1, epochs=3, batch=100, rate=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        fit(model, labelled()).save(place)
    return place


@pytest.fixture(scope="module")
def bundle(folder):
    return Bundle.load(folder)


@pytest.fixture(scope="module")
def server(folder):
    with Server(folder) as running:
        yield running
    assert (running.process.returncode, running.errors) == (0, "")


def test_rows_get_what_the_bundle_predicts(server, bundle):
    rows = [
        {"age": 70, "city": "Oslo", "id": "not a column"},
        {"age": "20", "city": "Łódź"},
        {"age": None, "city": None},
        {"city": "never met"},
        {"age": 33.5},
        {"age": True, "city": 7},
        {"age": "", "city": ["Oslo", 7, 1.5]},
    ]
    status, answer = server.post({"rows": rows}, ROUTE)
    assert status == 200
    columns = {
        "age": np.array([70, 20, np.nan, np.nan, 33.5, 1, np.nan]),
        "city": ["Oslo", "Łódź", "", "never met", "", "7", "Oslo|7|1.5"],
    }
    np.testing.assert_allclose(answer["predictions"], bundle.predict(columns), rtol=1e-6)
    alone = [server.post({"rows": [row]}, ROUTE)[1]["predictions"][0] for row in rows]
    assert alone == answer["predictions"]


def test_whole_numbers_are_the_texts_of_their_digits():
    from martlet.serve.engine import _column

    values = [7, 7.0, 2**60, 1e300, True, False, None, [1.0, "a"]]
    text = _column([{"x": value} for value in values], "x", "text")
    assert list(text) == ["7", "7", str(2**60), "1e+300", "true", "false", "", "1|a"]


def test_a_thousand_rows_and_no_more(server):
    status, answer = server.post({"rows": [{"age": 1}] * 1000}, ROUTE)
    assert (status, len(answer["predictions"])) == (200, 1000)
    status, answer = server.post({"rows": [{"age": 1}] * 1001}, ROUTE)
    assert status == 400
    assert "length <= 1000" in answer["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body does not hold rows: "),
        (b"[]", "the body does not hold rows: Expected `object`, got `array`"),
        (b'{"rows": [[]]}', "Expected `object`, got `array`"),
        (b'{"rows": [{"age": {"a": 1}}]}', "the body does not hold rows: "),
        (b'{"rows": [{"age": 1}], "n": 3}', "unknown field `n`"),
        (b'{"rows": [{"age": 1, "age": 2}]}', "does not hold rows: 'age' is given twice"),
        (b'{"rows": [{"city": "\\ud800"}]}', "half a surrogate pair"),
        ({"rows": [{"age": 1}, {"Age": 1}]}, "row 2 has none of the model's columns: expected "
         "some of age, city"),
        ({"rows": [{"age": 1}, {"age": "old"}]}, "row 2 has 'old' for 'age': expected a number"),
        ({"rows": [{"age": "1_0"}]}, "row 1 has '1_0' for 'age'"),
        ({"rows": [{"age": [1]}]}, "row 1 has [1] for 'age'"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_refused(server, body, words):
    status, answer = server.post(body, ROUTE)
    assert status == 400
    assert words in answer["error"]


cells = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
rows = st.dictionaries(st.sampled_from(["age", "city", "more"]), cells)
bodies = st.fixed_dictionaries({"rows": st.lists(rows, max_size=4) | cells})


@settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(bodies)
def test_any_rows_are_answered_or_refused(server, body):
    status, answer = server.post(body, ROUTE)
    assert status in (200, 400), answer
    if status == 200:
        assert len(answer["predictions"]) == len(body["rows"])
        assert all(0 <= one <= 1 for one in answer["predictions"])
    else:
        assert set(answer) == {"error"}


def test_a_number_too_large_is_no_number(server):
    status, _ = server.post(b'{"rows": [{"age": 1' + b"0" * 400 + b"}]}", ROUTE)
    assert status == 400


def test_it_ranks_nothing_and_counts_what_it_did(server, bundle):
    for status, answer in (
        server.get("/api/recommend/u0"),
        server.post({"history": ["i1"]}),
    ):
        assert status == 400
        assert "has no users or items to rank: ask it to predict" in answer["error"]
    assert server.get("/api/similar/i1")[0] == 404
    assert server.get("/api/health/ready")[1] == {"ready": True, "bundle": bundle.id}
    assert server.ask("GET", ROUTE)[0] == 405
    assert server.post({"rows": [{"age": 1}]}, f"{ROUTE}?n=1")[0] == 400
    assert 'route="/api/predict",status="200"' in server.get("/metrics")[1]
