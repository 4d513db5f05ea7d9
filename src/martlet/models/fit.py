"""From a spec and a dataset to a bundle that can be measured, compressed and served."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.core import DataError, Dataset, Executor, Spec, SpecError
from martlet.models.registry import name_of

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle
    from martlet.train.run import Run

_LARGEST = 1e30  # beyond, float32 soon holds no product of it
_RECORDED = ("martlet", "numpy", "numba", "scipy")


def fit(
    spec: Spec,
    dataset: Dataset,
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
        dataset: histories, popularity and catalogue come from it too.
        seed: drives every random draw.
        init: a bundle to start from.
        teacher: a bundle to distil from.
        executor: where the work runs; None is this machine.
        run: where a training by gradient is kept, resumed and watched.

    Returns:
        A bundle whose first line of lineage says what was fitted on what.

    Raises:
        DataError: train holds no events.
        SpecError: a hyper-parameter is not finite or beyond 1e30, or the model takes no ``init``,
            ``teacher``, ``executor`` or ``run``.
    """
    from martlet.scorers.bundle import Bundle
    from martlet.scorers.registry import context_of

    train = dataset.train
    if not len(train):
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
                f"{name_of(spec)} takes no {name}: it is fitted at once, from the train part alone"
            )
    scorer: Any = spec.fit(dataset, seed=seed, **given)
    line = {
        "spec": name_of(spec),
        "params": params,
        "seed": seed,
        "trained_on": [train.hash, *dataset.about.get("merged", [])],
        "users": dataset.users.hash,
        "items": dataset.items.hash,
        "data": dict(dataset.about),
        "init": None if init is None else init.id,
        "teacher": None if teacher is None else teacher.id,
        "versions": versions(),
    }
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


def accepts(spec: Spec) -> tuple[str, ...]:
    """Return what the spec's ``fit`` takes beside the dataset and the seed."""
    return tuple(getattr(spec, "accepts", ()))


def versions() -> dict[str, str]:
    """Return the versions of what a fit is computed with."""
    found = {name: importlib.metadata.version(name) for name in _RECORDED}
    return {"python": platform.python_version()} | found
