"""``/metrics`` against the text format 0.0.4 of Prometheus, line by line."""

import contextlib
import math
import re

import numpy as np
import pytest

from martlet.serve.counters import BOUNDS_S, ROUTES, STATUSES, Counters

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
META = re.compile(rf"# (HELP|TYPE) ({NAME}) (.+)")
SUFFIX = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def parsed(text):
    """Return {family: (type, {(sample, labels): value})}; whatever breaks the format fails."""
    assert text.endswith("\n")
    families, seen, current = {}, set(), None
    for line in text[:-1].split("\n"):
        if line.startswith("#"):
            what, name, words = META.fullmatch(line).groups()
            if what == "HELP":
                assert name not in seen, f"{name} comes in two pieces"
                seen.add(name)
                current = name
            else:
                assert name == current
                assert words in SUFFIX
                assert name not in families
                families[name] = (words, {})
            continue
        found = SAMPLE.fullmatch(line)
        assert found, line
        labels = dict(re.findall(LABEL, found[2] or ""))
        kind, samples = families[current]
        assert found[1] in [current + suffix for suffix in SUFFIX[kind]], line
        key = found[1], tuple(sorted(labels.items()))
        assert key not in samples, f"{line} stands twice"
        samples[key] = float(found[SAMPLE.groups])
        assert 0 <= samples[key] < math.inf
    return families


def check(text):
    """Check every family's own rules and return all samples."""
    families = parsed(text)
    for name, (kind, samples) in families.items():
        if kind == "counter":
            assert name.endswith("_total")
        if kind == "histogram":
            _check_histogram(name, samples)
    return {key: value for _, samples in families.values() for key, value in samples.items()}


def _check_histogram(name, samples):
    buckets = {}
    for (sample, labels), value in samples.items():
        if sample == f"{name}_bucket":
            own = dict(labels)
            bound = float(own.pop("le"))
            buckets.setdefault(tuple(own.items()), []).append((bound, value))
    counted = {labels for sample, labels in samples if sample == f"{name}_count"}
    assert set(buckets) == counted == {key for one, key in samples if one == f"{name}_sum"}
    for labels, pairs in buckets.items():
        bounds, counts = zip(*pairs, strict=True)
        assert bounds == (*BOUNDS_S, math.inf)
        assert list(counts) == sorted(counts)
        assert counts[-1] == samples[f"{name}_count", labels]


def test_the_text_is_what_prometheus_reads_before_and_after_requests(server, bundle):
    status, headers, text = server.ask("GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4")
    check(text)
    for path in ("/api/recommend/u0", "/api/recommend/none?n=2", "/api/recommend/u0?n=0", "/%22"):
        server.get(path)
    samples = check(server.get("/metrics")[1])
    assert samples["martlet_bundle_info", (("id", bundle.id),)] == 1
    assert samples["martlet_requests_total", (("route", "other"), ("status", "404"))] >= 1


@pytest.mark.parametrize(
    ("status", "pieces"),
    [
        ("431", [b"GET / HTTP/1.1\r\nbig: " + b"a" * 70_000 + b"\r\n\r\n"]),
        ("431", [b"GET / HTTP/1.1\r\nbig: " + b"a" * 40_000, b"a" * 40_000, b"a" * 40_000]),
        ("400", [b"\x16\x03\x01\x02\x00\x01\x00\x01"]),
    ],
)
def test_requests_that_are_refused_before_they_are_read_are_counted(server, status, pieces):
    key = "martlet_requests_total", (("route", "other"), ("status", status))
    before = check(server.get("/metrics")[1]).get(key, 0)
    with contextlib.suppress(ConnectionError):  # it hangs up while we still send
        assert server.raw(*pieces, pause=0.02).startswith(b"HTTP/1.1 " + status.encode())
    assert check(server.get("/metrics")[1])[key] == before + 1


def test_counts_of_all_workers_are_added():
    counters = Counters.shared(3)
    for worker in range(3):
        mine = Counters(counters.cells, worker)
        for route in range(len(ROUTES)):
            for status in STATUSES:
                mine.count(route, status, 10 ** (3 + worker))
        mine.count_fallback()
    samples = check(counters.text("x"))
    requests = [value for (name, _), value in samples.items() if name == "martlet_requests_total"]
    assert requests == [3] * len(ROUTES) * len(STATUSES)
    assert samples["martlet_fallbacks_total", ()] == samples["martlet_workers", ()] == 3
    fast = samples["martlet_request_seconds_bucket", (("le", "0.0005"), ("route", "/"))]
    assert fast == 3 * len(STATUSES)  # of 1, 10 and 100 microseconds
    total = samples["martlet_request_seconds_sum", (("route", "/"),)]
    assert np.isclose(total, len(STATUSES) * (1e-6 + 1e-5 + 1e-4))
