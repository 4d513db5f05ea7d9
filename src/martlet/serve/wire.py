"""uvicorn's HTTP/1.1 protocol with a bound on what a request's head may take, in bytes and time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from martlet.serve.counters import OTHER
from martlet.serve.http import MAX_BODY_BYTES, App, declared_bytes

MAX_HEAD_BYTES = 1 << 16
"""Of the target, and the names and values of the fields."""
HEAD_S = 10.0
"""How long a client may take to send a head, or the first byte on a new connection."""

_REASON = b'{"error":"the head of the request is over %d bytes"}' % MAX_HEAD_BYTES
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_REASON), _REASON)
)


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose head grows past ``MAX_HEAD_BYTES`` or lasts past ``HEAD_S``.

    Where the body is refused unread, it is read on for a while and dropped: a connection closed
    with bytes unread is reset, and the client would lose the answer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._began = False  # in the bytes that are being read
        self._dropping = False  # all bytes that still come
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is whole by then costs neither a count of bytes nor a timer."""
        if self._dropping:
            return
        self._began = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            # How much of the bytes in which it began is the head's own is not known here.
            self._head_bytes = 0 if self._began else self._head_bytes + len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse()
                return
        elif not self.cycle.response_complete:
            return
        # Bytes after an answer ended the wait for the next head, begun or not: wait for it here.
        if self._head_timer is None:
            self._wait()

    def on_message_begin(self) -> None:
        """Note the begin of a head."""
        self._in_head = self._began = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note the end of a head, and pass it on unless it is too large."""
        self._in_head = False
        self._stop_waiting()
        # Counted here too, for a large head may come in one piece.
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._refuse()
            raise ValueError("the head is too large")  # ends the parser's work on these bytes
        super().on_headers_complete()
        if declared_bytes(self.headers) > MAX_BODY_BYTES:
            self.cycle.transport = _Lingering(self)  # type: ignore[assignment]

    def linger(self) -> None:
        """End what we say, and drop what the client says until uvicorn's wait for more is over."""
        self._dropping = True
        if not self.transport.is_closing():
            self.transport.write_eof()

    def send_400_response(self, msg: str) -> None:
        """Turn away what is not HTTP, unless it was turned away as too large."""
        if not self.transport.is_closing():
            self._count(400)
            super().send_400_response(msg)

    def _refuse(self) -> None:
        self._count(431)
        self.transport.write(_TOO_LARGE)
        self.transport.close()

    def _count(self, status: int) -> None:
        """Count a request that never reaches the application; it was refused in no time."""
        app = self.config.app  # as it was given: what uvicorn calls is wrapped
        assert isinstance(app, App)
        app.counters.count(OTHER, status, 0)

    def _wait(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


@dataclass(frozen=True, eq=False)
class _Lingering:
    """The transport of an answer after which the connection ends, though the body still comes."""

    protocol: BoundedProtocol

    def write(self, data: bytes) -> None:
        self.protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self.protocol.transport.is_closing()

    def close(self) -> None:
        self.protocol.linger()
