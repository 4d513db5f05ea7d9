import os
import threading
import time

import pytest

from martlet.kernels.parallel import in_order, spread


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_answers_come_in_the_order_of_their_tasks(threads):
    assert list(in_order(lambda task: task * task, range(20), threads)) == [
        n * n for n in range(20)
    ]


def test_tasks_run_side_by_side_and_may_spread_their_own_work():
    both = threading.Barrier(2, timeout=10)
    done = []

    def task(number):
        both.wait()
        spread(lambda start, stop: done.append((number, start, stop)), 8, 2)
        return number

    assert list(in_order(task, [0, 1], 2)) == [0, 1]
    for number in (0, 1):
        assert sorted(piece[1:] for piece in done if piece[0] == number) == [
            (at, at + 1) for at in range(8)
        ]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_is_passed_on(threads):
    def task(number):
        return 1 // (3 - number)

    with pytest.raises(ZeroDivisionError):
        list(in_order(task, range(9), threads))
    with pytest.raises(ZeroDivisionError):
        spread(lambda start, stop: 1 // start, 9, threads)


def test_the_caller_is_one_of_the_threads_and_a_call_within_a_call_ends():
    seen = set()

    def inner(start, stop):
        seen.add(threading.get_ident())
        time.sleep(0.001)

    def outer(start, stop):
        spread(inner, 16, 2)

    spread(outer, 4, 2)
    assert threading.get_ident() in seen
    assert 1 <= len(seen) <= 2


def test_a_failure_of_the_caller_waits_for_the_others():
    caller, running, left = threading.get_ident(), threading.Event(), []

    def call(start, stop):
        if threading.get_ident() == caller:
            running.wait(10)
            raise ValueError("here")
        running.set()
        time.sleep(0.05)
        left.append(start)

    with pytest.raises(ValueError, match="here"):
        spread(call, 2, 2)
    assert len(left) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs a choice of processors")
def test_only_the_helpers_are_kept_off_a_processor():
    before = os.sched_getaffinity(0)
    allowed = {}

    def call(start, stop):
        allowed[threading.get_ident()] = os.sched_getaffinity(0)
        time.sleep(0.01)

    for _ in range(3):
        spread(call, 8, 2)
    assert os.sched_getaffinity(0) == before == allowed.pop(threading.get_ident())
    assert all(some and some <= before for some in allowed.values())
    if len(before) > 1:
        assert all(len(some) == len(before) - 1 for some in allowed.values())
