"""A real server as a process of its own, and a plain client for it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace

from martlet.core import Vocabulary
from support.bundles import NUM_ITEMS, NUM_USERS, bundle

USERS = ["u0", "a/b", "雨 燕", "🐦", "50%", "?q=1&n=2", "..", "nobody"]
ITEMS = [f"i{i}" for i in range(NUM_ITEMS - 3)] + ["x/y", "ключ", "🦉"]
SERVE = (
    "import sys; from martlet.serve.server import serve; "
    "serve(sys.argv[1], port=int(sys.argv[2]), workers=int(sys.argv[3]))"
)


def awkward():
    """The small bundle with ids that a path cannot hold bare; the last user did nothing."""
    assert len(USERS) == NUM_USERS
    return replace(bundle(), users=Vocabulary.of(USERS), items=Vocabulary.of(ITEMS))


class Server:
    """``martlet serve`` on a free port; lines of its output are read as they come.

    ``before`` is a line of Python that the server's process runs first.
    """

    def __init__(self, folder, workers=1, port=0, before="pass"):
        program = f"{before}; {SERVE}"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, str(folder), str(port), str(workers)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"MARTLET_THREADS": "2"},
        )
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)\n", line)
        if found is None:
            self.stop()
            raise AssertionError(f"{line!r}: {self.errors}")
        self.port = int(found[1])

    def wait(self):
        """Return the line that says the server answers."""
        line = self.process.stdout.readline()
        assert line.startswith("ready after "), line + self.process.stderr.read()
        return line

    def stop(self, number=signal.SIGTERM):
        """Stop the server and return its exit code; ``output`` and ``errors`` hold its words."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.output, self.errors = self.process.communicate(timeout=30)
        return self.process.returncode

    def ask(self, method, path, body=None, headers=None):
        """Return status, headers and the decoded body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            told = dict((name.lower(), value) for name, value in answer.getheaders())
            return answer.status, told, _decoded(told, answer.read())
        finally:
            connection.close()

    def get(self, path):
        """Return status and body of a GET."""
        status, _, body = self.ask("GET", path)
        return status, body

    def post(self, body, path="/api/recommend"):
        """Return status and body of a POST; what is not bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, _, answer = self.ask("POST", path, raw)
        return status, answer

    def raw(self, *pieces, pause=0.0):
        """Return all that the server says to ``pieces`` sent one after another, to the end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as wire:
            for piece in pieces:
                wire.sendall(piece)
                threading.Event().wait(pause)
            said = b""
            while part := wire.recv(1 << 16):
                said += part
            return said

    def __enter__(self):
        self.wait()
        return self

    def __exit__(self, *_):
        self.stop()


def _decoded(headers, body):
    if headers.get("content-type") == "application/json" and body:
        return json.loads(body)
    return body.decode()
