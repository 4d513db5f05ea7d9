"""Martlet's ``prepare`` and ``save``, as its user would call them."""

from pathlib import Path

from _answer import answer

from martlet.data import TimeSplit, prepare, read
from martlet.data.clean import Duplicates, KCore, ValidTime


def start(log, out, least):
    rules = [ValidTime(), Duplicates("last"), KCore(int(least), int(least))]

    def run():
        dataset = prepare(read(log), clean=rules, split=TimeSplit(0.1, 0.1))
        dataset.save(Path(out))
        return {"counts": dataset.about["counts"]}

    return run


if __name__ == "__main__":
    answer(start)
