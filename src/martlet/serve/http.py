"""The HTTP API as one ASGI callable: routes, decoding, errors; no framework."""

from __future__ import annotations

import asyncio
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from martlet.core import QueryError
from martlet.serve.counters import OTHER, Counters
from martlet.serve.engine import MAX_N, Ask, Engine, Recommend
from martlet.serve.page import PAGE
from martlet.serve.question import question, rows_of, told

MAX_BODY_BYTES = 1 << 20
BODY_S = 10.0
"""How long a client may take to send a body."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON, _HTML, _PLAIN = (
    b"application/json",
    b"text/html; charset=utf-8",
    b"text/plain; version=0.0.4",
)
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    ),
    (b"cache-control", b"no-store"),
]
_CLOSE = (b"connection", b"close")
_TOO_LONG = f"the body is over {MAX_BODY_BYTES} bytes"
_BAD_PERCENT = re.compile(rb"%(?![0-9a-fA-F]{2}).{0,2}", re.DOTALL)


class Reply(NamedTuple):
    """Status, body, media type and further headers."""

    status: int
    body: bytes
    kind: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Refused(Exception):
    """A request that gets no answer: status and reason."""

    def __init__(self, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


Handler = Callable[["App", bytes, bytes, Receive], Awaitable[Reply]]


class App:
    """The ASGI application. It answers health at once and everything else when ``open`` was called.

    ``recommend`` is the seam: put a cache or a batcher around it.
    """

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.engine: Engine | None = None
        self.recommend: Recommend | None = None

    def open(self, engine: Engine, recommend: Recommend | None = None) -> None:
        """Begin to answer from ``engine``, through ``recommend`` where one is given."""
        self.engine, self.recommend = engine, recommend or engine.recommend

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; a failure of ours becomes a 500 without details."""
        begin = time.perf_counter_ns()
        route, handler, methods, tail = _route(scope["raw_path"])
        try:
            if handler is None:
                raise Refused(404, "no such path: see / for those there are")
            if scope["method"] not in methods:
                allow = b", ".join(m.encode() for m in methods)
                raise Refused(405, f"expected {' or '.join(methods)}", (b"allow", allow))
            if declared_bytes(scope["headers"]) > MAX_BODY_BYTES:
                raise Refused(413, _TOO_LONG, _CLOSE)
            reply = await handler(self, tail, scope["query_string"], receive)
        except Refused as refused:
            reply = _error(refused.status, refused.reason, refused.headers)
        except QueryError as error:
            reply = _error(400, str(error))
        except _Gone:
            return
        except Exception:
            traceback.print_exc(file=sys.stderr)
            reply = _error(500, "the server failed: its log has the reason")
        self.counters.count(route, reply.status, time.perf_counter_ns() - begin)
        headers = [
            (b"content-type", reply.kind),
            (b"content-length", str(len(reply.body)).encode()),
            *reply.headers,
            *_SECURITY,
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _engine(self) -> Engine:
        if self.engine is None:
            raise Refused(503, "the server is starting", (b"retry-after", b"1"))
        return self.engine

    async def _answer(self, ask: Ask) -> Reply:
        self._engine()
        assert self.recommend is not None
        answer = await self.recommend(ask)
        if answer.fallback:
            self.counters.count_fallback()
        return Reply(200, _encode(answer))

    async def user(self, tail: bytes, query: bytes, receive: Receive) -> Reply:
        """``GET /api/recommend/{user_id}``."""
        options = _options(query, ("n", "seen"))
        seen: Any = options.get("seen", "hide")
        if seen != "hide" and seen != "keep":
            raise Refused(400, f"seen is {told(seen)}: expected 'hide' or 'keep'")
        return await self._answer(Ask(user_id=_id(tail), n=_n(options), seen=seen))

    async def ask(self, tail: bytes, query: bytes, receive: Receive) -> Reply:
        """``POST /api/recommend``."""
        _options(query, ())
        return await self._answer(question(await _body(receive)))

    async def similar(self, tail: bytes, query: bytes, receive: Receive) -> Reply:
        """``GET /api/similar/{item_id}``."""
        n = _n(_options(query, ("n",)))
        item = _id(tail)
        similar = self._engine().similar(item, n)
        if similar is None:
            raise Refused(404, f"no item is called {told(item)}")
        return Reply(200, _encode(similar))

    async def predict(self, tail: bytes, query: bytes, receive: Receive) -> Reply:
        """``POST /api/predict``."""
        _options(query, ())
        rows = rows_of(await _body(receive)).rows
        return Reply(200, _encode(self._engine().predict(rows)))

    async def live(self, tail: bytes, query: bytes, receive: Receive) -> Reply:
        """``GET /api/health/live``: the process runs."""
        return Reply(200, b'{"live":true}')

    async def ready(self, tail: bytes, query: bytes, receive: Receive) -> Reply:
        """``GET /api/health/ready``: the bundle is open and its kernels are warm."""
        return Reply(200, _encode({"ready": True, "bundle": self._engine().bundle_id}))

    async def metrics(self, tail: bytes, query: bytes, receive: Receive) -> Reply:
        """``GET /metrics``."""
        name = self.engine.bundle_id if self.engine else ""
        return Reply(200, self.counters.text(name).encode(), _PLAIN)

    async def index(self, tail: bytes, query: bytes, receive: Receive) -> Reply:
        """``GET /``."""
        return Reply(200, PAGE, _HTML)


class _Gone(Exception):
    """The client hung up."""


_GET, _POST = ("GET", "HEAD"), ("POST",)
_EXACT: dict[bytes, tuple[int, Handler, tuple[str, ...]]] = {
    b"/": (0, App.index, _GET),
    b"/api/recommend": (2, App.ask, _POST),
    b"/api/health/live": (4, App.live, _GET),
    b"/api/health/ready": (5, App.ready, _GET),
    b"/metrics": (6, App.metrics, _GET),
    b"/api/predict": (7, App.predict, _POST),
}
_PREFIX: dict[bytes, tuple[int, Handler]] = {
    b"/api/recommend": (1, App.user),
    b"/api/similar": (3, App.similar),
}


def _route(path: bytes) -> tuple[int, Handler | None, tuple[str, ...], bytes]:
    """Return route number, handler, methods and the still encoded id; ids hold no bare slash."""
    exact = _EXACT.get(path)
    if exact is not None:
        return (*exact, b"")
    head, _, tail = path.rpartition(b"/")
    prefix = _PREFIX.get(head)
    if prefix is not None and tail:
        return (*prefix, _GET, tail)
    return OTHER, None, (), b""


def _id(tail: bytes) -> str:
    bad = _BAD_PERCENT.search(tail)
    if bad:
        raise Refused(
            400,
            f"the id in the path has {told(bad[0].decode(errors='replace'))}: expected two "
            "hexadecimal digits after a %, which itself is %25",
        )
    try:
        return unquote_to_bytes(tail).decode()
    except UnicodeDecodeError as error:
        raise Refused(400, f"the id in the path is not UTF-8: {error.reason}") from error


def _options(query: bytes, known: tuple[str, ...]) -> dict[str, str]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=16,
        )
    except ValueError as error:
        raise Refused(400, "the query string is malformed: expected name=value") from error
    options = dict(pairs)
    for name in options:
        if name not in known:
            expected = f"expected {' or '.join(known)}" if known else "expected none"
            raise Refused(400, f"unknown parameter {told(name)}: {expected}")
    if len(options) < len(pairs):
        raise Refused(400, "a parameter is given twice")
    return options


def _n(options: dict[str, str]) -> int:
    text = options.get("n", "10")
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    if not 1 <= number <= MAX_N:
        raise Refused(400, f"n is {told(text)}: expected a whole number from 1 to {MAX_N}")
    return number


def declared_bytes(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the bytes that a head says its body has; 0 where it does not say."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MAX_BODY_BYTES:
                    raise Refused(413, _TOO_LONG)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError as error:
        raise Refused(408, f"the body took over {BODY_S:g} s", _CLOSE) from error


def _error(status: int, reason: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    return Reply(status, _encode({"error": reason}), headers=headers)


_encode = msgspec.json.Encoder().encode
