import threading

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
