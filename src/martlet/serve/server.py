"""One command, one port: a process that answers, or a parent that keeps several answering."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from martlet.core import MartletError, SpecError, num_threads
from martlet.serve.counters import Counters

if TYPE_CHECKING:
    from martlet.serve.engine import Engine

BACKLOG = 2048
MAX_WORKERS = 256
DRAIN_S = 10
"""How long requests that are under way may take once the server was told to stop."""

Say = Callable[[str], None]


@contextmanager
def _libraries() -> Iterator[None]:
    """Turn the import of a library that fails into a stated failure."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("martlet"):
            raise
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise MartletError(
            f"a library that serving needs cannot be imported ({reason}): "
            "'martlet doctor' says which, and how to get it"
        ) from error


@_libraries()
def serve(
    bundle_path: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    *,
    say: Say | None = None,
) -> None:
    """Serve a saved bundle over HTTP until SIGTERM or SIGINT; then finish what is under way.

    Every byte of the bundle is verified once, before the first answer; workers then share its
    memory-mapped files. The cores are shared out among the workers.

    Args:
        bundle_path: a folder that ``Bundle.save`` wrote.
        host: address to listen on.
        port: port to listen on; 0 takes any free one.
        workers: processes that answer.
        say: told a line when the bundle is verified behind the open port, and when all workers
            answer; standard output else.

    Raises:
        SpecError: ``workers`` or ``port`` makes no sense.
        MartletError: the port cannot be had, or a library is missing.
        BundleError: the bundle is missing or damaged.
    """
    begin = time.monotonic()
    say = say or _say
    if not 1 <= workers <= MAX_WORKERS:
        raise SpecError(f"workers is {workers}: expected 1 to {MAX_WORKERS}")
    listener = listen(host, port)
    with listener:
        counters = Counters.shared(workers)

        def opened() -> None:
            shown = f"[{host}]" if ":" in host else host
            say(f"listening on http://{shown}:{listener.getsockname()[1]}")

        def ready(bundle_id: str) -> None:
            taken = time.monotonic() - begin
            count = f"{workers} worker{'s' * (workers > 1)}"
            say(f"ready after {taken:.2f} s: bundle {bundle_id[:12]}, {count}")

        if workers == 1:
            answer(listener, bundle_path, counters, alone=True, opened=opened, ready=ready)
        else:
            # Whatever is missing is missed here, once, and not by each worker.
            import uvloop  # noqa: F401

            from martlet.scorers.bundle import Bundle
            from martlet.serve import http, wire  # noqa: F401
            from martlet.serve.workers import keep

            bundle_id = Bundle.load(bundle_path).id
            opened()
            share = str(max(1, num_threads() // workers))

            def work(number: int, started: Callable[[], None]) -> None:
                os.environ.update(MARTLET_THREADS=share, OMP_NUM_THREADS=share)
                mine = Counters(counters.cells, number)
                answer(
                    listener, bundle_path, mine,
                    alone=False, opened=lambda: None, ready=lambda _: started(),
                )  # fmt: skip

            keep(
                work,
                workers,
                ready=lambda: ready(bundle_id),
                # Else connections would go on to queue up with nobody there to take them.
                stopping=listener.close,
                drain_s=DRAIN_S,
            )
    say("stopped")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; connections wait in it until a worker takes them.

    Raises:
        SpecError: a port outside 0 to 65535.
        MartletError: the address cannot be had, with the reason.
    """
    if not 0 <= port <= 65535:
        raise SpecError(f"port is {port}: expected 0 (any free one) to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise MartletError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; "
            "choose another --host or --port, or --port 0 for any free one"
        ) from error


@_libraries()
def answer(
    listener: socket.socket,
    bundle_path: str | Path,
    counters: Counters,
    *,
    alone: bool,
    opened: Callable[[], object],
    ready: Callable[[str], object],
) -> None:
    """Answer connections of ``listener`` in this process until it is told to stop.

    ``opened`` is called when the bundle is open, and ``ready`` with its id when its kernels are
    warm. A process that is ``alone`` verifies the bundle and answers at once: "starting", until
    then. One of several takes no connection before: those that are ready take them all.
    """
    import uvicorn

    from martlet.serve.http import App
    from martlet.serve.wire import BoundedProtocol

    # A line for each malformed request would let anybody fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    app = App(counters)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn takes these over while it serves; once drained it raises the signal again for whoever
    # was there before. For us that is the end of a good run, not of the process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)

    async def open_bundle() -> None:
        try:
            engine = await asyncio.to_thread(_open_engine, bundle_path, alone)
            opened()
            await asyncio.to_thread(_warm, engine)
        except BaseException:
            stop()
            raise
        app.open(engine)
        ready(engine.bundle_id)

    async def run() -> None:
        opening = asyncio.create_task(open_bundle())
        if not alone:
            await opening
        await server.serve(sockets=[listener])
        await opening

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())


def _open_engine(bundle_path: str | Path, verify: bool) -> Engine:
    from martlet.scorers.bundle import Bundle
    from martlet.serve.engine import Engine

    return Engine(Bundle.load(bundle_path, verify=verify))


def _warm(engine: Engine) -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(num_threads())
    asyncio.run(engine.warm())


def _say(line: str) -> None:
    print(line, flush=True)
