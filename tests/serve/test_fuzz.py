"""Whatever a client sends, the server answers below 500 and goes on."""

import json
import socket
from urllib.parse import quote_from_bytes

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.servers import ITEMS, USERS

calm = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ids = st.one_of(st.sampled_from(USERS + ITEMS), st.text(max_size=8), st.integers())
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ids),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
asks = st.fixed_dictionaries(
    {},
    optional={
        "user_id": ids | values,
        "history": st.lists(ids, max_size=6) | values,
        "n": st.integers(-1, 1001) | values,
        "exclude": st.lists(ids, max_size=6) | values,
        "candidates": st.lists(ids, max_size=6) | values,
        "seen": st.sampled_from(["hide", "keep"]) | values,
        "context": st.dictionaries(st.text(max_size=4), values, max_size=3) | values,
        "more": values,
    },
)


@calm
@given(asks)
def test_any_json_is_answered_or_refused(server, ask):
    status, answer = server.post(ask)
    assert status in (200, 400), answer
    if status == 200:
        _check(answer, ask)
    else:
        assert set(answer) == {"error"}


@calm
@given(ids, st.integers(1, 40), st.lists(ids, max_size=6), st.sampled_from(["hide", "keep"]))
def test_good_questions_get_an_answer(server, user, n, exclude, seen):
    ask = {"user_id": user, "n": n, "exclude": exclude, "seen": seen}
    status, answer = server.post(ask)
    assert status == 200, answer
    _check(answer, ask)


def _check(answer, ask):
    names = [item["item_id"] for item in answer["items"]]
    assert len(set(names)) == len(names) <= ask.get("n", 10)
    assert set(names) <= set(ITEMS) - set(map(str, ask.get("exclude", [])))
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


@calm
@given(st.binary(max_size=200))
def test_any_body_is_answered_or_refused(server, body):
    assert server.post(body)[0] in (200, 400)


@calm
@given(
    st.sampled_from(["/api/recommend/", "/api/similar/", "/", "/api/", "/metrics", ""]),
    st.binary(max_size=20).map(quote_from_bytes),
    st.binary(max_size=20).map(lambda raw: quote_from_bytes(raw, safe="=&/?")),
)
def test_any_path_is_answered_or_refused(server, head, tail, query):
    status, _, answer = server.ask("GET", f"{head or '/'}{tail}?{query}")
    assert status in (200, 400, 404, 405), answer


@calm
@given(st.lists(st.binary(max_size=40) | st.sampled_from([
    b"GET / HTTP/1.1\r\n", b"POST /api/recommend HTTP/1.1\r\n", b"\r\n", b"host: x\r\n",
    b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n",
    b"expect: 100-continue\r\n", b"connection: upgrade\r\nupgrade: websocket\r\n", b"{}",
]), max_size=12))  # fmt: skip
def test_any_bytes_on_the_wire_leave_the_server_well(server, pieces):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:
        try:
            wire.sendall(b"".join(pieces))
            wire.shutdown(socket.SHUT_WR)
            said = b""
            while part := wire.recv(1 << 16):
                said += part
        except OSError:
            return
    for line in said.split(b"\r\n"):
        assert not line.startswith(b"HTTP/1.1 5"), said


def test_the_server_still_answers_after_all_that(server):
    status, answer = server.post(json.dumps({"user_id": "u0"}).encode())
    assert (status, len(answer["items"])) == (200, 10)
