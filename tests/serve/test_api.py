"""Every route and every refusal, over HTTP from a server in a process of its own."""

import json
import math
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from msgspec.structs import fields

from martlet.serve.engine import Ask
from support.servers import ITEMS, USERS

HTTP_MD = Path(__file__).parents[2] / "docs" / "http.md"


def path(user, query=""):
    return f"/api/recommend/{quote(user, safe='')}{query}"


@pytest.mark.parametrize("user", USERS)
def test_users_get_what_the_bundle_answers(server, bundle, user):
    status, answer = server.get(path(user, "?n=5"))
    expected = bundle.recommend([user], k=5)[0]
    assert status == 200
    assert answer["user_id"] == user
    assert [item["item_id"] for item in answer["items"]] == expected.item_ids
    assert [item["score"] for item in answer["items"]] == pytest.approx(expected.scores)
    assert answer["fallback"] is expected.fallback is (user == "nobody")
    for item in answer["items"]:
        title = bundle.title(bundle.items.row(item["item_id"]))
        assert item.get("title", item["item_id"]) == title


@pytest.mark.parametrize("user", ["", "never seen", "'; drop table", "\x00", "a" * 5000])
def test_unknown_users_get_popularity_marked_as_such(server, user):
    status, answer = server.post({"user_id": user, "n": 3})
    assert status == 200
    assert answer["fallback"] is True
    assert [item["score"] for item in answer["items"]] == [4.0, 3.0, 3.0]


def test_n_beyond_the_catalogue_gives_all_there_is(server):
    status, answer = server.get(path("nobody", "?n=1000"))
    assert status == 200
    assert sorted(item["item_id"] for item in answer["items"]) == sorted(ITEMS)


def test_seen_may_be_kept(server, bundle):
    history = set(bundle.items.names(bundle.histories.row(0)))
    hidden = {item["item_id"] for item in server.get(path("u0", "?n=1000"))[1]["items"]}
    kept = {item["item_id"] for item in server.get(path("u0", "?n=1000&seen=keep"))[1]["items"]}
    assert hidden == set(ITEMS) - history
    assert kept == set(ITEMS)


def test_a_history_stands_in_for_a_user(server, bundle):
    history = ["🦉", "i1", "not there"]
    status, answer = server.post({"history": history, "n": 4, "exclude": ["i2", "nor this"]})
    expected = bundle.recommend(histories=[history], k=4, exclude=["i2"])[0]
    assert status == 200
    assert (answer["user_id"], answer["num_ignored"]) == (None, 1)
    assert [item["item_id"] for item in answer["items"]] == expected.item_ids
    assert not {"i2", *history} & set(expected.item_ids)


def test_candidates_context_and_numbers_as_ids(server):
    ask = {"user_id": 7, "candidates": ["i3", 4, "i5"], "context": {"hour": 9, "shop": "a"}}
    status, answer = server.post(ask)
    assert status == 200
    assert answer["user_id"] == "7"
    assert {item["item_id"] for item in answer["items"]} <= {"i3", "i5"}


@pytest.mark.parametrize("item", ["i3", "x/y", "ключ", "🦉"])
def test_similar_items(server, bundle, item):
    status, answer = server.get(f"/api/similar/{quote(item, safe='')}?n=3")
    assert status == 200
    assert answer["item_id"] == item
    found = [(one["item_id"], pytest.approx(one["score"])) for one in answer["items"]]
    assert found == bundle.similar(item, 3)


def test_health_page_and_security_headers(server, bundle):
    assert server.get("/api/health/live") == (200, {"live": True})
    assert server.get("/api/health/ready") == (200, {"ready": True, "bundle": bundle.id})
    status, headers, page = server.ask("GET", "/")
    assert status == 200
    assert "/api/recommend/{user_id}" in page
    assert headers["content-type"] == "text/html; charset=utf-8"
    for answer in (headers, server.ask("GET", "/api/similar/none")[1]):
        assert answer["x-content-type-options"] == "nosniff"
        assert answer["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in answer


def test_head_is_get_without_a_body(server):
    status, headers, body = server.ask("HEAD", path("u0"))
    assert (status, body) == (200, "")
    assert int(headers["content-length"]) > 2


REFUSED = [
    (path("u0", "?n=abc"), 400, "n is 'abc': expected a whole number from 1 to 1000"),
    (path("u0", "?n="), 400, "n is '': expected"),
    (path("u0", "?n=0"), 400, "n is '0': expected"),
    (path("u0", "?n=1001"), 400, "n is '1001': expected"),
    (path("u0", "?n=-1"), 400, "n is '-1': expected"),
    (path("u0", "?n=1e1"), 400, "n is '1e1': expected"),
    (path("u0", "?n=%D9%A3"), 400, "expected a whole number"),
    (path("u0", "?n=" + "9" * 5000), 400, "expected a whole number"),
    (path("u0", "?n=1&n=2"), 400, "a parameter is given twice"),
    (path("u0", "?k=1"), 400, "unknown parameter 'k': expected n or seen"),
    (path("u0", "?seen=maybe"), 400, "seen is 'maybe': expected 'hide' or 'keep'"),
    (path("u0", "?n"), 400, "the query string is malformed: expected name=value"),
    (path("u0", "?n=%FF"), 400, "the query string is malformed"),
    (path("u0", "?" + "&".join(f"a{i}=1" for i in range(50))), 400, "malformed"),
    ("/api/recommend/%FF%FE", 400, "the id in the path is not UTF-8"),
    ("/api/recommend/%zz", 400, "the id in the path has '%zz': expected two hexadecimal digits"),
    ("/api/recommend/%", 400, "the id in the path has '%': expected"),
    ("/api/recommend/a%4", 400, "the id in the path has '%4': expected"),
    ("/api/recommend/50%25%+1", 400, "the id in the path has '%+1': expected"),
    ("/api/similar/x%2Fy%", 400, "expected two hexadecimal digits after a %, which itself is %25"),
    ("/api/similar/i3?seen=keep", 400, "unknown parameter 'seen': expected n"),
    ("/api/similar/none", 404, "no item is called 'none'"),
    ("/api/similar/%3Cscript%3E", 404, "no item is called '<script>'"),
    ("/api/similar/" + "a" * 3000, 404, "no item is called 'aaa"),
    ("/api/recommend/", 404, "no such path: see /"),
    ("/api/recommend/a/b", 404, "no such path: see /"),
    ("/etc/passwd", 404, "no such path: see /"),
]


@pytest.mark.parametrize(("path", "status", "reason"), REFUSED)
def test_refusals_say_why(server, path, status, reason):
    found, headers, answer = server.ask("GET", path)
    assert found == status
    assert reason in answer["error"]
    assert len(answer["error"]) < 400
    assert headers["content-type"] == "application/json"


DEEP = b"[" * 2000 + b"]" * 2000
BAD_BODIES = [
    (b"", "the body is not a question"),
    (b"{", "the body is not a question"),
    (b"null", "Expected `object`, got `null`"),
    (b"\xff\xfe", "invalid character (byte 0)"),
    (b"\xef\xbb\xbf{}", "invalid character (byte 0)"),
    (b'{"user_id": "\xff"}', "'utf-8' codec can't decode byte 0xff"),
    (b'{"history": ["\xc3\x28"]}', "'utf-8' codec can't decode byte 0xc3"),
    (b'{"user_id": "u0", "\xff": 1}', "'utf-8' codec can't decode byte 0xff"),
    (b'{"user_id": "\\ud800"}', "\\ud800 (byte 13) is half a surrogate pair: expected both halves"),
    (b'{"user_id": "\\uD83D and much more"}', "\\uD83D (byte 13) is half a surrogate pair"),
    (
        b'{"history": ["\\\\ud83d", "\\ud83d\\ude00\\udE00"]}',
        "\\udE00 (byte 37) is half a surrogate",
    ),
    (b'{"user_id": "\\ud800\\u0041"}', "\\ud800 (byte 13) is half a surrogate pair"),
    (b'{"user_id": "\\\\ud800', "Input data was truncated"),
    (b'{"user_id": "\\ud83d\\ude00', "Input data was truncated"),
    (b'{"user_id": "u0", "user_id": "u1"}', "the body is not a question: 'user_id' is given twice"),
    (b'{"user_id": "u0", "n": 1, "\\u006e": 1}', "'n' is given twice"),
    (b'{"user_id": "u0", "context": {"hour": 1, "a": 2, "hour": 1}}', "'hour' is given twice"),
    (b'{"user_id": "u0", "context": {}, "context": {"a": 2}}', "'context' is given twice"),
    (b'{"user_id": "u0", "context": {"%b": 1, "%b": 2}}' % (b"k" * 5000, b"k" * 5000), "kk..."),
    (b'{"user_id": "u0",}', "trailing comma in object"),
    (b'{"user_id": "u0"} {}', "trailing characters"),
    (b"[]", "Expected `object`, got `array`"),
    (b"[" * 100_000, "the body is not a question"),
    ({}, "expected either user_id or history"),
    ({"user_id": "u0", "history": []}, "expected either user_id or history"),
    ({"user_id": "u0", "k": 3}, "unknown field `k`"),
    ({"user_id": ["u0"]}, "`$.user_id`"),
    ({"user_id": True}, "`$.user_id`"),
    ({"user_id": 1.5}, "`$.user_id`"),
    ({"user_id": None}, "expected either user_id or history"),
    (b'{"user_id": NaN}', "JSON is malformed: invalid character"),
    (b'{"user_id": ' + b"9" * 5000 + b"}", "Integer value out of range - at `$.user_id`"),
    ({"user_id": "u0", "n": "10"}, "Expected `int`, got `str` - at `$.n`"),
    ({"user_id": "u0", "n": 0}, "Expected `int` >= 1 - at `$.n`"),
    ({"user_id": "u0", "n": 1001}, "Expected `int` <= 1000 - at `$.n`"),
    ({"user_id": "u0", "n": 10**30}, "Expected `int` <= 1000 - at `$.n`"),
    ({"user_id": "u0", "n": -(10**30)}, "Expected `int` >= 1 - at `$.n`"),
    ({"user_id": "u0", "n": 10.5}, "Expected `int`, got `float` - at `$.n`"),
    ({"user_id": "u0", "n": None}, "Expected `int`, got `null` - at `$.n`"),
    ({"user_id": "u0", "n": math.nan}, "JSON is malformed: invalid character"),
    ({"user_id": "u0", "n": math.inf}, "JSON is malformed: invalid character"),
    (b'{"user_id": "u0", "n": 1e400}', "Number out of range - at `$.n`"),
    ({"history": "i1"}, "`$.history`"),
    ({"history": [None]}, "`$.history[0]`"),
    ({"history": [1.5]}, "Expected `int | str`, got `float` - at `$.history[0]`"),
    ({"history": ["i1"] * 10_001}, "`array` of length <= 10000 - at `$.history`"),
    (b'{"history": ' + DEEP + b"}", "Expected `int | str`, got `array` - at `$.history[0]`"),
    ({"user_id": "u0", "exclude": {"i1": 1}}, "`$.exclude`"),
    ({"user_id": "u0", "exclude": ["i1", True]}, "`$.exclude[1]`"),
    ({"user_id": "u0", "exclude": ["i1"] * 10_001}, "of length <= 10000 - at `$.exclude`"),
    ({"user_id": "u0", "candidates": "i1"}, "Expected `array | null`, got `str`"),
    ({"user_id": "u0", "candidates": [{}]}, "`$.candidates[0]`"),
    ({"user_id": "u0", "candidates": ["i1"] * 10_001}, "of length <= 10000 - at `$.candidates`"),
    ({"user_id": "u0", "seen": True}, "Expected `str`, got `bool` - at `$.seen`"),
    ({"user_id": "u0", "seen": "maybe"}, "Invalid enum value 'maybe' - at `$.seen`"),
    (
        {"user_id": "u0", "context": [["hour", 1]]},
        "Expected `object`, got `array` - at `$.context`",
    ),
    ({"user_id": "u0", "context": {"hour": [1]}}, "`$.context[...]`"),
    ({"user_id": "u0", "context": {"hour": None}}, "`$.context[...]`"),
    ({"user_id": "u0", "context": {"hour": math.nan}}, "JSON is malformed: invalid character"),
    (b'{"user_id": "u0", "context": {"hour": ' + DEEP + b"}}", "`$.context[...]`"),
    (b'{"user_id": "u0", "more": ' + DEEP + b"}", "unknown field `more`"),
    ({"user_id": "u0", "k" * 5000: 1}, "unknown field `kkk"),
]


@pytest.mark.parametrize(("body", "reason"), BAD_BODIES)
def test_bad_bodies_are_refused_with_a_reason(server, body, reason):
    status, answer = server.post(body)
    assert (status, reason in answer["error"]) == (400, True), answer
    assert len(answer["error"]) < 400


def test_every_field_is_wrong_in_turn():
    blamed = {name for _, reason in BAD_BODIES for name in re.findall(r"`\$\.(\w+)", reason)}
    assert blamed >= {field.name for field in fields(Ask)}


def test_a_name_may_stand_in_two_objects_and_in_a_value(server):
    ask = {"user_id": "u0", "context": {"user_id": "n", "n": '"n":'}, "n": 1, "exclude": ["n", "n"]}
    status, answer = server.post(ask)
    assert (status, len(answer["items"])) == (200, 1)


@pytest.mark.parametrize("user", [-(2**63) - 1, 2**64, 10**18])
def test_a_whole_number_of_any_size_is_an_id(server, user):
    status, answer = server.post({"user_id": user, "n": 1})
    assert (status, answer["user_id"], answer["fallback"]) == (200, str(user), True)


def test_a_parameter_of_a_post_is_refused(server):
    status, answer = server.post({"user_id": "u0"}, "/api/recommend?n=3")
    assert (status, answer["error"]) == (400, "unknown parameter 'n': expected none")


@pytest.mark.parametrize("size", [1_048_577, 20_000_000])
def test_a_client_that_sends_all_of_a_body_too_large_reads_why_it_is_refused(server, size):
    status, headers, answer = server.ask("POST", "/api/recommend", b" " * size)
    assert (status, headers["connection"]) == (413, "close")
    assert answer["error"] == "the body is over 1048576 bytes"


def test_a_body_of_the_limit_is_read(server):
    assert server.post(b'{"user_id": "u0"}'.ljust(1 << 20))[0] == 200


def test_a_body_of_no_declared_length_is_refused_where_it_gets_too_large(server):
    pieces = [b" " * 300_000] * 4  # sent in chunks, as http.client does with what has no length
    status, _, answer = server.ask("POST", "/api/recommend", iter(pieces))
    assert (status, answer["error"]) == (413, "the body is over 1048576 bytes")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/api/recommend/u0", "GET, HEAD"),
        ("GET", "/api/recommend", "POST"),
        ("DELETE", "/", "GET, HEAD"),
        ("PUT", "/api/similar/i3", "GET, HEAD"),
        ("OPTIONS", "/metrics", "GET, HEAD"),
    ],
)
def test_other_methods_are_told_which_are_allowed(server, method, path, allow):
    status, headers, _ = server.ask(method, path)
    assert (status, headers["allow"]) == (405, allow)


def test_metrics_count_by_route_status_and_time(server, bundle):
    def count(name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", server.get("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    route = 'route="/api/recommend/{user_id}"'
    good, bad = (f'martlet_requests_total{{{route},status="{s}"}}' for s in (200, 400))
    slowest = f'martlet_request_seconds_bucket{{{route},le="+Inf"}}'
    names = (good, bad, "martlet_fallbacks_total", slowest)
    before = [count(name) for name in names]
    for query in ("", "?n=x", "?n=3"):
        server.get(path("nobody", query))
    assert [count(name) for name in names] == [before[0] + 2, before[1] + 1, before[2] + 2,
                                               before[3] + 3]  # fmt: skip
    assert count(f'martlet_bundle_info{{id="{bundle.id}"}}') == 1
    assert count(f"martlet_request_seconds_sum{{{route}}}") > 0


def test_the_documented_api_is_the_one_that_answers(server):
    text = HTTP_MD.read_text()
    examples = re.findall(r"```http\n(GET|POST) (\S+)\n(.*?)(\d{3}) (.*?)\n```", text, re.DOTALL)
    assert len(examples) >= 6
    for method, target, body, status, answer in examples:
        found, _, got = server.ask(method, target, body.strip().encode() or None)
        assert found == int(status), target
        assert _shape(got) == _shape(json.loads(answer)), target
    for route in ("/api/recommend/{user_id}", "/api/recommend", "/api/similar/{item_id}",
                  "/api/predict", "/api/health/live", "/api/health/ready", "/metrics"):  # fmt: skip
        assert f"`{route}`" in text


def _shape(value):
    """The answer with numbers and names left out: keys, lengths, errors word by word."""
    if isinstance(value, dict):
        return {key: one if key == "error" else _shape(one) for key, one in value.items()}
    return [_shape(one) for one in value] if isinstance(value, list) else type(value)
