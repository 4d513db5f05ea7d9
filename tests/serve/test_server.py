"""The server as a process: ports, workers, signals, and clients that misbehave."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from martlet.core import MartletError, SpecError
from martlet.scorers.popular import Popular
from martlet.scorers.table import Table
from martlet.serve.server import listen, serve
from support.bundles import bundle as bundle_of
from support.bundles import draw
from support.servers import SERVE, Server

GET = b"GET /api/recommend/u0?n=1 HTTP/1.1\r\nhost: x\r\n"


def bodies(said):
    """The JSON bodies in what a server said on one connection."""
    return re.findall(rb'\{"user_id".*?"fallback":(?:true|false)\}', said)


def workers_of(server):
    """Process ids of the parent's children."""
    process = server.process.pid
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def until(true):
    """Wait until ``true()`` holds."""
    for _ in range(500):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it never came to hold")


def gone(process):
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return True


def test_pipelined_requests_are_answered_in_order(server):
    said = server.raw(
        GET + b"\r\n" + GET.replace(b"u0", b"nobody") + b"\r\n" + GET + b"connection: close\r\n\r\n"
    )
    assert [b'"fallback":true' in body for body in bodies(said)] == [False, True, False]


def test_a_slow_client_does_not_hold_up_the_others(server):
    body = b'{"user_id": "u0", "n": 1}'
    head = b"POST /api/recommend HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
        slow.sendall(head % len(body) + b"\r\n" + body[:7])
        assert server.get("/api/recommend/u0")[0] == 200
        slow.sendall(body[7:])
        assert b"200 OK" in slow.recv(1 << 16)
    pieces = [GET[i : i + 9] for i in range(0, len(GET), 9)]
    assert len(bodies(server.raw(*pieces, b"connection: close\r\n\r\n", pause=0.005))) == 1


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"HTTP/1.1 400 Bad Request"),
        (b"GET / HTTP/9.9\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (GET + b"big: " + b"a" * 2_000_000, b"HTTP/1.1 431 "),
    ],
)
def test_what_is_not_http_is_turned_away(server, sent, said):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:
        try:
            wire.sendall(sent)
            assert wire.recv(1 << 16).startswith(said)
        except (ConnectionResetError, BrokenPipeError):
            assert b" 431 " in said  # the server hung up while we were still sending
    assert server.get("/api/health/live")[0] == 200


def test_a_client_that_hangs_up_in_the_middle_is_forgotten(server):
    head = b"POST /api/recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"
    for sent in (head, GET, b""):
        with socket.create_connection(("127.0.0.1", server.port)) as wire:
            wire.sendall(sent)
    assert server.get("/api/recommend/u0")[0] == 200


def test_early_connections_are_told_that_the_server_is_starting(folder):
    server = Server(folder)
    assert server.get("/api/health/live")[0] == 200
    status, headers, answer = server.ask("GET", "/api/health/ready")
    # A machine in a hurry may be ready by then.
    assert (status, answer.get("error")) in [(503, "the server is starting"), (200, None)]
    assert status == 200 or headers["retry-after"] == "1"
    server.wait()
    assert server.get("/api/health/ready")[0] == 200
    assert server.stop(signal.SIGINT) == 0
    assert server.output.endswith("stopped\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_lets_requests_under_way_finish(folder, workers):
    server = Server(folder, workers)
    server.wait()
    body = b'{"user_id": "u0", "n": 1}'
    idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    idle.request("GET", "/api/health/live")
    idle.getresponse().read()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:
        wire.sendall(b"POST /api/recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 25\r\n")
        wire.sendall(b"\r\n" + body[:5])
        server.get("/api/health/live")
        time.sleep(0.1)  # until the worker that took the wire has read the head
        server.process.send_signal(signal.SIGTERM)
        until(lambda: refuses(server.port))
        wire.sendall(body[5:])
        said = b""
        while part := wire.recv(1 << 16):
            said += part
    idle.close()
    assert len(bodies(said)) == 1
    assert server.stop() == 0
    assert server.errors == ""


def refuses(port):
    """Whether nobody listens there any more."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False


def test_two_workers_answer_and_one_that_is_killed_is_replaced(folder):
    with Server(folder, workers=2) as server:
        first = workers_of(server)
        assert len(first) == 2
        assert "martlet_workers 2" in server.get("/metrics")[1]
        counted = [0]

        def ask():
            for _ in range(50):
                assert server.get("/api/recommend/u0")[0] == 200
                counted.append(1)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        route = 'route="/api/recommend/{user_id}",status="200"'
        assert sum(counted) == 200
        assert f"martlet_requests_total{{{route}}} 200" in server.get("/metrics")[1]

        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(set(workers_of(server)) - {first[0]}) == 2)
        # Whichever worker is asked, the counts of the one that died are still there.
        assert f"martlet_requests_total{{{route}}} 200" in server.get("/metrics")[1]
        os.kill(first[1], signal.SIGKILL)
        until(lambda: len(set(workers_of(server)) - set(first)) == 2)
        until(lambda: server.get("/api/health/ready")[0] == 200)
        assert server.get("/api/recommend/u0")[0] == 200
    assert server.process.returncode == 0


def test_workers_end_with_a_parent_that_is_killed_and_the_port_is_free_again(folder):
    server = Server(folder, workers=2)
    server.wait()
    children = workers_of(server)
    server.stop(signal.SIGKILL)
    until(lambda: all(map(gone, children)))
    with Server(folder, port=server.port) as again:
        assert again.get("/api/recommend/u0")[0] == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_bundle_is_refused_by_name(folder, tmp_path, workers):
    target = tmp_path / "bundle"
    shutil.copytree(folder, target)
    file = target / "tables.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SERVE, target, "0", str(workers)],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "BundleError" in done.stderr
    assert "tables.safetensors is damaged" in done.stderr
    assert "listening" not in done.stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_popularity_is_served_though_it_knows_of_no_likeness(tmp_path, workers):
    bundle_of(Popular(Table.of(draw("popular", 30, 1)))).save(tmp_path / "b")
    with Server(tmp_path / "b", workers) as server:
        status, answer = server.get("/api/recommend/u0?n=3")
        assert (status, len(answer["items"]), answer["fallback"]) == (200, 3, False)
        status, answer = server.get("/api/similar/i1")
        assert status == 400
        assert answer["error"].startswith("popularity knows of no item that is like another: ask ")
        assert server.get("/api/similar/not-there")[0] == 404
    assert (server.process.returncode, server.errors) == (0, "")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("library", ["uvloop", "httptools", "uvicorn", "msgspec"])
def test_a_library_that_is_missing_is_a_stated_failure(folder, library, workers):
    hide = f"import sys; sys.modules[{library!r}] = None; sys.argv[1:1] = ['serve']; "
    done = subprocess.run(
        [
            sys.executable, "-W", "error", "-c", hide + "from martlet.cli import main; main()",
            folder, "--port", "0", "--workers", str(workers), "--json",
        ],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("martlet: a library that serving needs cannot be imported (")
    assert library in done.stderr
    assert "martlet doctor" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "cannot be imported" in json.loads(done.stdout)["error"]


def test_an_import_of_our_own_that_fails_is_no_missing_library(folder):
    hide = "import sys; sys.modules['martlet.serve.wire'] = None; "
    done = subprocess.run(
        [sys.executable, "-c", hide + SERVE, folder, "0", "1"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
    assert "martlet doctor" not in done.stderr


def test_a_port_in_use_is_told(folder):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            MartletError, match=rf"cannot listen on 127.0.0.1, port {port}: .*in use"
        ):
            serve(folder, port=port)


def test_impossible_ports_hosts_and_workers_are_told(folder):
    with pytest.raises(SpecError, match="port is 65536: expected 0"):
        listen("127.0.0.1", 65536)
    with pytest.raises(MartletError, match=r"cannot listen on host\.invalid, port 0"):
        listen("host.invalid", 0)
    with pytest.raises(SpecError, match="workers is 0: expected 1 to 256"):
        serve(folder, workers=0)
