"""What a request's head may take, over raw sockets."""

import json
import socket
import time

import pytest

from support.servers import Server

LINE, HOST = b"GET /api/recommend/u0?n=1 HTTP/1.1\r\n", b"host: x\r\n"
POST = b"POST /api/recommend HTTP/1.1\r\n" + HOST
LIMIT = 1 << 16
ROOM = LIMIT - len(b"/api/recommend/u0?n=1" + b"host" + b"x" + b"big")  # for the value of "big"


def said(server, *pieces):
    """All that the server says to the pieces, or what it said before it hung up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:
        whole = b""
        try:
            for piece in pieces:
                wire.sendall(piece)
                time.sleep(0.02)
            while part := wire.recv(1 << 16):
                whole += part
        except ConnectionError:
            pass
        return whole


def with_field(size):
    return LINE + HOST + b"connection: close\r\nbig: " + b"a" * size + b"\r\n\r\n"


def in_two(head):
    return head[: len(head) // 2], head[len(head) // 2 :]


@pytest.mark.parametrize("cut", [lambda head: (head,), in_two])
@pytest.mark.parametrize("size", [ROOM + 1, 100_000, 200_000, 250_000])
def test_a_head_over_64_kib_is_refused_in_one_piece_or_two(server, cut, size):
    answer = said(server, *cut(with_field(size)))
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    head, _, reason = answer.partition(b"\r\n\r\n")
    assert json.loads(reason) == {"error": "the head of the request is over 65536 bytes"}
    assert b"content-length: %d\r\n" % len(reason) in head


@pytest.mark.parametrize("cut", [lambda head: (head,), in_two])
def test_a_head_of_64_kib_is_answered(server, cut):
    fits = with_field(ROOM - len(b"connection" + b"close"))
    assert said(server, *cut(fits)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "head",
    [
        LINE + HOST + b"".join(b"h%d: %s\r\n" % (i, b"a" * 1000) for i in range(70)),
        LINE + HOST + b"a: b\r\n" * 40_000,
        b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\n" + HOST,
        b"GET /?" + b"a=b&" * 20_000 + b" HTTP/1.1\r\n" + HOST,
    ],
)
def test_many_fields_and_a_long_target_count_too(server, head):
    answer = said(server, head + b"\r\n" + LINE + HOST + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.count(b"HTTP/1.1 ") == 1, "what follows a refused head is not answered"


def test_a_body_before_a_head_does_not_count_as_one(server):
    body = json.dumps({"user_id": "u0", "n": 1, "exclude": ["a" * 1000] * 200}).encode()
    head = b"POST /api/recommend HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    answer = said(server, head + body + LINE + HOST, b"connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("more", [b"", b"expect: 100-continue\r\n", b"connection: close\r\n"])
@pytest.mark.parametrize("body", [b"", b"{}", b"a" * 100_000])
def test_a_body_declared_too_large_is_refused_before_it_comes(server, more, body):
    head = POST + b"content-length: %d\r\n" % ((1 << 20) + 1) + more + b"\r\n"
    # Not 408: nobody waits for it. And what follows is no request.
    answer = said(server, head + body, LINE + HOST + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    head, _, reason = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.split(b"\r\n")
    assert json.loads(reason) == {"error": "the body is over 1048576 bytes"}


def test_what_was_asked_before_a_body_too_large_is_answered(server):
    head = POST + b"content-length: 9999999\r\n\r\n"
    answer = said(server, LINE + HOST + b"\r\n" + head + b"a" * 200_000, b"a" * 200_000)
    found = [line.split()[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1")]
    assert found[0] == b"200"
    assert b"HTTP/1.1 413 " in answer


def test_a_path_that_takes_no_body_refuses_a_large_one_too(server):
    answer = said(server, b"GET / HTTP/1.1\r\n" + HOST + b"content-length: 9999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.fixture(scope="module")
def hasty(folder):
    """A server that waits half a second for a head."""
    before = "from martlet.serve import wire; wire.HEAD_S = 0.5"
    with Server(folder, before=before) as running:
        yield running
    assert (running.process.returncode, running.errors) == (0, "")


@pytest.mark.parametrize(
    ("first", "then", "answers"),
    [
        (b"", b"", []),
        (LINE + HOST, b"", []),
        (b"\r\n", b"\r\n", []),
        (LINE + HOST + b"\r\n", b"GE", [b"200"]),
        # Neither of these begins a head, yet both end uvicorn's own wait for one.
        (LINE + HOST + b"\r\n", b"\r\n", [b"200"]),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n123", b"456789", [b"405"]),
    ],
)
def test_a_client_that_sends_no_whole_head_is_left(hasty, first, then, answers):
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=20) as wire:
        wire.sendall(first)
        whole = wire.recv(1 << 16) if answers else b""
        wire.sendall(then)
        while part := wire.recv(1 << 16):  # a time-out here is a server that waits for ever
            whole += part
    assert [
        line.split()[1] for line in whole.split(b"\r\n") if line.startswith(b"HTTP/")
    ] == answers


def test_a_slow_answer_is_no_slow_head(hasty):
    body = b'{"user_id": "u0", "n": 1}'
    head = b"POST /api/recommend HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=20) as wire:
        wire.sendall(head + body[:5])
        time.sleep(1)
        wire.sendall(body[5:])
        assert wire.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
