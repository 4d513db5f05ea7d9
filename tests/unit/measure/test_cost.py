import getpass
import json
import os
import platform
from dataclasses import replace

import numpy as np
import pytest

from martlet.core import CSR, MartletError
from martlet.measure import fresh
from martlet.measure.cost import cost, sample_users, throughput
from martlet.measure.machine import machine, threads, versions
from martlet.measure.measure import measure
from support.bundles import NUM_ITEMS, NUM_USERS, bundle


@pytest.fixture(scope="module")
def small():
    return bundle()


def test_every_cost_of_the_issue_is_there(small):
    receipt = measure(small, k=5)
    assert set(receipt.cost) >= {
        "p50_ms", "p95_ms", "p99_ms", "throughput_qps", "bundle_mb", "scoring_mb", "peak_mb",
        "cold_start_s",
    }  # fmt: skip
    assert all(value > 0 for value in receipt.cost.values())
    assert receipt.cost["p50_ms"] <= receipt.cost["p95_ms"] <= receipt.cost["p99_ms"]
    assert receipt.cost["scoring_mb"] == small.scoring_bytes / 1e6
    assert receipt.cost["bundle_mb"] == small.bundle_bytes / 1e6
    assert (receipt.quality, receipt.num_users, receipt.part) == ({}, 0, None)
    assert (receipt.bundle_id, receipt.name) == (small.id, "toy")


def test_the_quality_alone_and_the_time_of_a_fit(small):
    receipt = measure(small, cost=False, train_s=2.5)
    assert receipt.cost == {"train_s": 2.5}


def test_users_are_drawn_among_those_with_a_history(small):
    drawn = sample_users(small, 300, seed=0)
    assert set(drawn) == {f"u{i}" for i in range(NUM_USERS - 1)}
    assert drawn == sample_users(small, 300, seed=0) != sample_users(small, 300, seed=1)


def test_a_bundle_without_histories_is_measured_by_its_fallback(small):
    empty = replace(small, histories=CSR.empty(NUM_USERS, NUM_ITEMS), history_time_s=None)
    assert sample_users(empty, 2, seed=0) == ["", ""]
    assert throughput(empty, batch=4) > 0
    found = cost(empty, num_queries=10, cold_runs=0)
    assert (found["num_queries"], "peak_mb" in found) == (10, False)


def test_a_fresh_process_tells_its_parts(small, tmp_path):
    small.save(tmp_path / "b")
    found = fresh.start(tmp_path / "b", 3)
    parts = [found[name] for name in ("interpreter_s", "open_s", "answer_s")]
    assert sum(parts) == pytest.approx(found["cold_start_s"])
    assert all(part > 0 for part in parts)
    assert 0 < found["peak_mb"] < found["rss_mb"]


def test_a_fresh_process_does_not_count_the_memory_of_its_parent(small, tmp_path):
    small.save(tmp_path / "b")
    ballast = np.ones(50_000_000)  # 400 MB that the child begins as a copy of
    found = fresh.start(tmp_path / "b", 3)
    assert found["rss_mb"] < 400 <= ballast.nbytes / 1e6 < fresh.peak_bytes() / 1e6


def test_a_fresh_process_that_fails_is_told(tmp_path):
    with pytest.raises(MartletError, match=r"a fresh process could not answer from .*BundleError"):
        fresh.start(tmp_path)


def test_the_machine_is_told_without_names_or_paths():
    found = json.dumps([machine(), threads(), versions()])
    for private in (platform.node(), os.path.expanduser("~") + "/", f'"{getpass.getuser()}"'):
        assert private not in found
    assert machine()["cores"] >= 1
    assert threads()["martlet"] >= 1
    assert {"python", "martlet", "numpy", "numba"} <= versions().keys()
