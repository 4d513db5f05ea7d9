import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import quote

import numpy as np
import pytest

from martlet.core import CSR, Text, Vocabulary
from martlet.scorers.bundle import Bundle
from martlet.scorers.factors import Factors
from martlet.scorers.projections import LinearFold
from martlet.scorers.table import Table

USERS = ["u1", "a/b ?&=", "雨🐦", "empty"]
ITEMS = [f"i{number}" for number in range(29)] + ["x/y"]


def bundle() -> Bundle:
    rng = np.random.default_rng(0)
    return Bundle(
        Factors(Table.of(rng.normal(size=(30, 4))), LinearFold()),
        Vocabulary.of(USERS),
        Vocabulary.of(ITEMS),
        CSR.from_rows([[0, 1, 2], [3], [4, 5], []], 30),
        np.arange(30, 0, -1).astype(np.float32),
        catalogue={"title": Text.of(f"Title {row}" for row in range(30))},
    )


class Server:
    def __init__(self, folder, workers=1):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "martlet", "serve", folder, "--port", "0",
             "--workers", str(workers)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.port = 0
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
            if line.startswith("ready"):
                return
        raise AssertionError("the server ended before it was ready")

    def ask(self, path, body=None, method=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = json.dumps(body) if isinstance(body, dict) else body
            connection.request(method or ("GET" if body is None else "POST"), path, data)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text[:1] in b"{[" and text else text
        finally:
            connection.close()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "bundle"
    bundle().save(path)
    return str(path)


@pytest.fixture(scope="module")
def server(folder):
    started = Server(folder)
    yield started
    assert started.stop() == 0


@pytest.mark.parametrize("user", USERS[:3])
def test_a_known_user_gets_what_the_bundle_says(server, user):
    status, answer = server.ask(f"/api/recommend/{quote(user, safe='')}?n=4")
    assert status == 200
    expected = bundle().recommend([user], 4)[0]
    assert answer["user_id"] == user
    assert [item["item_id"] for item in answer["items"]] == expected.item_ids
    assert answer["items"][0]["title"].startswith("Title ")
    assert not answer["fallback"]


@pytest.mark.parametrize("user", ["nobody", "empty"])
def test_of_whom_nothing_is_known_gets_popularity(server, user):
    _, answer = server.ask(f"/api/recommend/{user}?n=2")
    assert answer["fallback"]
    assert [item["item_id"] for item in answer["items"]] == ["i0", "i1"]


def test_a_history_in_place_of_a_user(server):
    body = {"history": ["i3", "unknown"], "n": 40, "exclude": ["i9"], "seen": "keep"}
    _, answer = server.ask("/api/recommend", body)
    shown = [item["item_id"] for item in answer["items"]]
    assert len(shown) == 29
    assert "i9" not in shown
    assert "i3" in shown


def test_similar(server):
    _, answer = server.ask("/api/similar/x%2Fy?n=3")
    assert answer["item_id"] == "x/y"
    assert len(answer["items"]) == 3
    assert server.ask("/api/similar/nothing")[0] == 404


def test_health_and_metrics(server):
    assert server.ask("/api/health/live")[0] == 200
    assert server.ask("/api/health/ready")[0] == 200
    status, text = server.ask("/metrics")
    assert status == 200
    assert b"martlet_requests_total" in text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/recommend/u1?n=0", None),
        ("/api/recommend/u1?n=many", None),
        ("/api/recommend/u1?n=1001", None),
        ("/api/recommend/u1?seen=maybe", None),
        ("/api/recommend/u1?colour=red", None),
        ("/api/recommend", b"{"),
        ("/api/recommend", b"\xff\xfe"),
        ("/api/recommend", {"user_id": "u1", "nn": 3}),
        ("/api/recommend", {"user_id": ["u1"]}),
        ("/api/recommend", {"n": 3}),
        ("/api/recommend", {"user_id": "u1", "n": -1}),
    ],
)
def test_bad_input_is_refused_with_a_reason(server, path, body):
    status, answer = server.ask(path, body)
    assert status == 400
    assert len(answer["error"]) > 10
    assert "Traceback" not in answer["error"]


def test_other_refusals(server):
    assert server.ask("/api/nothing")[0] == 404
    assert server.ask("/api/recommend/u1", method="DELETE")[0] == 405
    assert server.ask("/api/recommend", b"[" * 2_000_000)[0] == 413


def test_random_requests_never_break_it(server):
    rng = np.random.default_rng(0)
    for _ in range(150):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as wire:
            junk = rng.integers(0, 256, rng.integers(1, 200)).astype(np.uint8).tobytes()
            head = rng.choice([b"", b"GET /api/recommend/", b"POST /api/recommend HTTP/1.1\r\n"])
            wire.sendall(head + junk + b"\r\n\r\n")
            wire.shutdown(socket.SHUT_WR)
            answer = wire.recv(64)
            assert not re.match(rb"HTTP/1.1 5", answer)
    assert server.ask("/api/recommend/u1")[0] == 200


def test_two_workers_answer_and_one_that_is_killed_comes_back(folder):
    server = Server(folder, workers=2)
    children = subprocess.run(
        ["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(children) >= 2
    os.kill(int(children[-1]), signal.SIGKILL)
    deadline = time.monotonic() + 20
    answered = 0
    while answered < 20 and time.monotonic() < deadline:
        try:
            answered += server.ask("/api/recommend/u1")[0] == 200
        except OSError:
            time.sleep(0.1)
    assert answered == 20
    assert server.stop(signal.SIGINT) == 0


def test_a_port_that_is_taken(server, folder):
    done = subprocess.run(
        [sys.executable, "-m", "martlet", "serve", folder, "--port", str(server.port)],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert str(server.port) in done.stderr


def test_a_damaged_bundle_is_not_served(folder, tmp_path):
    bundle().save(tmp_path / "b")
    path = tmp_path / "b" / "tables.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "martlet", "serve", str(tmp_path / "b"), "--port", "0"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "tables.safetensors" in done.stderr
