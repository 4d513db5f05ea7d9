"""From a spec and a dataset, or labelled rows, to a bundle to measure, compress and serve."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.core import CSR, DataError, Dataset, Executor, Spec, SpecError, Tabular, Vocabulary
from martlet.models.registry import name_of

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle
    from martlet.train.run import Run

_LARGEST = 1e30  # beyond, float32 soon holds no product of it
_PIECE = 1 << 22  # numbers that are looked at together
_RECORDED = ("martlet", "numpy", "numba", "scipy")


def fit(
    spec: Spec,
    dataset: Dataset | Tabular,
    *,
    seed: int = 0,
    init: Bundle | None = None,
    teacher: Bundle | None = None,
    executor: Executor | None = None,
    run: Run | None = None,
) -> Bundle:
    """Return the bundle of ``spec`` fitted on ``dataset.train``; nothing else of it is learnt from.

    Args:
        spec: hyper-parameters of one model.
        dataset: histories, popularity and catalogue come from it too. Of labelled rows there are
            none: their bundle answers ``predict``, and ranks nothing.
        seed: drives every random draw.
        init: a bundle to start from.
        teacher: a bundle to distil from.
        executor: where the work runs; None is this machine.
        run: where a training by gradient is kept, resumed and watched.

    Returns:
        A bundle whose first line of lineage says what was fitted on what.

    Raises:
        DataError: train holds no events.
        SpecError: a hyper-parameter is not finite or beyond 1e30, the seed is no whole number, or
            the model takes no ``init``, ``teacher``, ``executor`` or ``run``, or no labelled rows;
            the memory does not suffice, or what came out is beyond its numbers.
    """
    from martlet.scorers.bundle import Bundle
    from martlet.scorers.registry import context_of

    _check_kinds(spec, dataset)
    if isinstance(dataset, Tabular) and not getattr(spec, "takes_rows", False):
        raise SpecError(
            f"{name_of(spec)} learns from events of users and items, and cannot learn from "
            "labelled rows: take a model of fields, such as deepfm, or prepare the log without "
            "--label"
        )
    if not len(dataset.train):
        raise DataError(
            "the train part holds no events: expected at least one; "
            "use a gentler cleaning, or a smaller share for validation and test"
        )
    params = asdict(spec)  # type: ignore[call-overload]
    for name, value in params.items():
        if isinstance(value, float) and not abs(value) <= _LARGEST:
            raise SpecError(f"{name} is {value}: expected a number of at most {_LARGEST:g}")
    given = {"init": init, "teacher": teacher, "executor": executor, "run": run}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in accepts(spec):
            raise SpecError(
                f"{name_of(spec)} takes no {name}: leave it out, or fit a model that does, as "
                "sasrec"
            )
    for one in (init, teacher):
        if one is not None and not isinstance(one, Bundle):
            raise SpecError(f"{one!r:.80} is no bundle: expected what fit or load returns")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise SpecError(f"seed is {seed!r}: expected a whole number, from 0 to 2^63 - 1")
    seed = int(seed)
    with _memory_told(name_of(spec)):
        scorer: Any = spec.fit(dataset, seed=seed, **given)
    _check_finite(name_of(spec), scorer)
    line = {
        "spec": name_of(spec),
        "params": params,
        "seed": seed,
        "trained_on": [dataset.train.hash, *dataset.about.get("merged", [])],
        **_about(dataset),
        "data": dict(dataset.about),
        "init": None if init is None else init.id,
        "teacher": None if teacher is None else teacher.id,
        "versions": versions(),
    }
    if isinstance(dataset, Tabular):
        nobody, nothing = Vocabulary.of([]), CSR.empty(0, 0)
        return Bundle(scorer, nobody, nobody, nothing, np.empty(0, np.float32), lineage=(line,))
    train = dataset.train
    return Bundle(
        scorer=scorer,
        users=dataset.users,
        items=dataset.items,
        histories=train.histories,
        popularity=train.item_count.astype(np.float32),
        history_time_s=train.time_s,
        catalogue=dataset.catalogue,
        lineage=(line,),
        user_table={
            name: dataset.user_table[name]
            for name in context_of(scorer)
            if name in dataset.user_table
        },
    )


def _check_kinds(spec: Any, dataset: Any) -> None:
    """Refuse what is something else altogether.

    Raises:
        SpecError: no spec.
        DataError: no dataset.
    """
    if isinstance(spec, type) or not is_dataclass(spec):
        raise SpecError(f"the spec is {spec!r}: expected hyper-parameters, such as IALS(dim=64)")
    if not isinstance(dataset, Dataset | Tabular):
        raise DataError(f"the dataset is {dataset!r:.80}: expected what prepare or load returns")


@contextmanager
def _memory_told(name: str) -> Iterator[None]:
    """Say what to do where an array found no room; torch's refusal is no MemoryError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if not isinstance(error, MemoryError) and "memory" not in reason:
            raise
        raise SpecError(
            f"{name} found no room in memory ({reason}): lower dim and whatever else makes it "
            "large, or take a machine with more"
        ) from error


def _check_finite(name: str, scorer: Any) -> None:
    """Refuse a scorer with numbers that are none; a table larger than the memory is read in parts.

    Raises:
        SpecError: names the table.
    """
    for key, table in scorer.tables().items():
        for array in table.arrays.values():
            if array.dtype.kind != "f":
                continue
            flat = array.reshape(-1)
            for start in range(0, len(flat), _PIECE):
                if not np.isfinite(flat[start : start + _PIECE]).all():
                    raise SpecError(
                        f"{name} was fitted, but its {key} are beyond what their numbers hold: "
                        "expected smaller weights of the events, or a lower rate"
                    )


def _about(dataset: Dataset | Tabular) -> dict[str, Any]:
    """Return what a lineage says of the rows and columns that the scorer reads."""
    if isinstance(dataset, Tabular):
        return {"columns": dataset.kinds}
    return {"users": dataset.users.hash, "items": dataset.items.hash}


def accepts(spec: Spec) -> tuple[str, ...]:
    """Return what the spec's ``fit`` takes beside the dataset and the seed."""
    return tuple(getattr(spec, "accepts", ()))


def versions() -> dict[str, str]:
    """Return the versions of what a fit is computed with."""
    found = {name: importlib.metadata.version(name) for name in _RECORDED}
    return {"python": platform.python_version()} | found
