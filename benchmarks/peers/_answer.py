"""The other end of ``_common.Peer``: prepares once, then answers JSON lines, under any Python."""

import json
import os
import sys
import time


def answer(prepare):
    """Call ``run = prepare(*arguments)`` once, then ``run(**request)`` for each line of stdin.

    Each answer is what ``run`` returned, with its wall and CPU seconds and the peak memory so far.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    begin = time.perf_counter()
    run = prepare(*sys.argv[1:])
    _send(channel, {"prepare_s": time.perf_counter() - begin, "peak_mb": _peak_mb()})
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        found = run(**json.loads(line))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        _send(channel, {**found, "seconds": wall, "cpu_s": cpu, "peak_mb": _peak_mb()})


def _send(channel, values):
    channel.write(json.dumps(values) + "\n")
    channel.flush()


def _peak_mb():
    # ru_maxrss would count the parent's peak too, for a child begins as its copy.
    with open("/proc/self/status") as file:
        status = file.read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
