"""Does a student that answers four times cheaper keep 97% of its teacher's quality on Beauty?

A SASRec teaches a smaller SASRec; with ``--teacher hstu`` it is an HSTU that teaches it. The
student is trained alone and taught, over 5 seeds, with the same epochs, rate and dropout; the last
event of a user is the test, the whole catalogue is ranked. Intervals are paired: over users (of the
mean over seeds) and over seeds. An answer is one user's ten best items from the history, timed in
turn for both; its operations are counted beside.

What is fitted is kept in ``.venv-peers/distillation``, so a run that was stopped goes on, and the
students that learn alone serve both teachers. ``--seeds N`` takes the first N seeds; ``--variant``
one of the students.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

import martlet as mt
from _common import ROOT, interleave, options, record, say, scratch, summary
from martlet.core import Dataset, Queries
from martlet.metrics import bootstrap
from martlet.models.hstu import HSTU
from martlet.models.sasrec import SASRec
from martlet.scorers.bundle import Bundle
from martlet.train.next_item import NextItem
from next_item_speed import beauty, tiny

SHARED = {"max_length": 50, "tokens": 1024, "schedule": "cosine"}
# A patience that no run exhausts keeps the best epoch by validation.
# A patience that no run exhausts keeps the best epoch by validation.
TEACHERS: Mapping[str, tuple[type[NextItem], Mapping[str, Any]]] = {
    "sasrec": (SASRec, {"dim": 192, "blocks": 3, "dropout": 0.3, "rate": 0.002, "epochs": 18}),
    "hstu": (HSTU, {"dim": 192, "blocks": 5, "dropout": 0.3, "rate": 0.002, "epochs": 18}),
}
STUDENT = {"dim": 32, "blocks": 1, "dropout": 0.2, "rate": 0.003, "epochs": 20}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "alone": {},
    "features": {"distil": "features", "distil_weight": 0.7},
    "scores": {"distil": "scores", "distil_weight": 0.5, "distil_top": 50},
    "ranks": {"distil": "ranks", "distil_weight": 0.5, "distil_top": 50, "temperature": 10.0},
}
MAIN = ("alone", "features")
SEEDS = 5
ASKED = 200  # users whose answers are timed

F64 = NDArray[np.float64]


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=7, add=("seeds", "variant", "teacher"))
    seeds = 2 if chosen.tiny else int(chosen.seeds or SEEDS)
    variants = [chosen.variant] if chosen.variant else MAIN
    with scratch() as folder:
        kept = folder if chosen.tiny else ROOT / ".venv-peers" / "distillation"
        dataset = tiny(chosen.seed) if chosen.tiny else beauty(chosen.data)
        family = chosen.teacher or "sasrec"
        teacher = fitted(family, *TEACHERS[family], 0, kept, dataset, None, chosen)
        values: dict[str, list[F64]] = {}
        for seed in range(seeds):
            for name in variants:
                params = STUDENT | VARIANTS[name]
                role, given = ("alone", None) if name == "alone" else (f"{family} {name}", teacher)
                student = fitted(role, SASRec, params, seed, kept, dataset, given, chosen)
                values.setdefault(name, []).append(ndcg(student, dataset))
        compare(family, values, teacher, student, dataset, chosen)


def fitted(
    role: str,
    kind: type[NextItem],
    params: Mapping[str, Any],
    seed: int,
    kept: Path,
    dataset: Dataset,
    teacher: Bundle | None,
    chosen: Namespace,
) -> Bundle:
    """Return a bundle that is kept already, or fit it and record what that took."""
    params = SHARED | {"patience": params["epochs"], **params}
    if chosen.tiny:
        params |= {"tokens": 256, "epochs": 2, "dim": params["dim"] // 8, "max_length": 10}
    place = kept / f"{role.replace(' ', '-')}-{seed}"
    if (place / "manifest.json").exists():
        return mt.load(place)
    say(f"{role}, seed {seed}")
    work = place.with_suffix(".run")
    run = mt.Run(work, resume=True, every_s=60, progress=tell)
    # The teacher answers every seed alike: the first one's file serves the others.
    answers = kept / "answers"
    for folder in (answers, work):
        folder.mkdir(parents=True, exist_ok=True)
    held = [path for path in answers.iterdir() if not (work / path.name).exists()]
    for path in held:
        (work / path.name).hardlink_to(path)
    begin, cpu = time.perf_counter(), time.process_time()
    bundle = mt.fit(kind(**params), dataset, seed=seed, teacher=teacher, run=run)
    spent = {"fit_s": time.perf_counter() - begin, "fit_cpu_s": time.process_time() - cpu}
    figures = {part: mt.evaluate(bundle, dataset, part=part).figures for part in ("valid", "test")}
    say(f"{role}, seed {seed}: {spent['fit_s']:.0f} s, {figures['test']}")
    about = {
        "role": role,
        "model": kind.__name__,
        "params": params,
        "of_seed": seed,
        "answers_kept": bool(held),  # asking the teacher is not in the seconds
        **spent,
        **figures,
    }
    record("distillation", about, chosen)
    bundle.save(place)
    for path in work.iterdir():  # large, and needed no more but for those answers
        if path.name.startswith("teacher-") and not (answers / path.name).exists():
            path.rename(answers / path.name)
        else:
            path.unlink()
    return bundle


def compare(
    family: str,
    values: Mapping[str, Sequence[F64]],
    teacher: Bundle,
    student: Bundle,
    dataset: Dataset,
    chosen: Namespace,
) -> None:
    """Record the shares of the teacher's quality, the paired intervals, and the cost of answers."""
    goal = ndcg(teacher, dataset)
    about: dict[str, Any] = {
        "role": "compared",
        "teacher": family,
        "seeds": len(next(iter(values.values()))),
        "teacher_ndcg@10": float(goal.mean()),
        "share_of_teacher": {
            name: float(np.mean([one.mean() for one in all_seeds]) / goal.mean())
            for name, all_seeds in values.items()
        },
        "cost": cost(teacher, student, dataset, chosen),
    }
    for name in values.keys() - {"alone"} if "alone" in values else ():
        apart = np.mean(values[name], 0) - np.mean(values["alone"], 0)
        by_seed = [a.mean() - b.mean() for a, b in zip(values[name], values["alone"], strict=True)]
        users, over_seeds = bootstrap(apart), interval(by_seed)
        say(f"{name} - alone: over users {users}, over seeds {over_seeds}")
        about[f"{name} - alone"] = {"users": users, "seeds": over_seeds, "by_seed": by_seed}
    say(f"share of the teacher's NDCG@10: {about['share_of_teacher']}")
    record("distillation", about, chosen)


def cost(teacher: Bundle, student: Bundle, dataset: Dataset, chosen: Namespace) -> dict[str, Any]:
    """Return microseconds and operations of an answer of both, and their ratios."""
    histories = dataset.before("test").histories
    users = np.linspace(0, histories.num_rows - 1, ASKED).astype(np.int64)
    queries = [Queries.of(histories.take(users[at : at + 1])) for at in range(len(users))]
    both = {"teacher": teacher.scorer, "student": student.scorer}

    def answers(scorer: Any) -> float:
        begin = time.perf_counter()
        for one in queries:
            scorer.topk(one, 10)
        return (time.perf_counter() - begin) / len(queries) * 1e6

    variants = {name: lambda scorer=scorer: answers(scorer) for name, scorer in both.items()}
    interleave(variants, 1)
    spent = interleave(variants, chosen.rounds)
    length = float(np.minimum(histories.lengths[users], 50).mean())
    flops = {name: operations(scorer, length) for name, scorer in both.items()}
    median = {name: summary(times)["median"] for name, times in spent.items()}
    ratio = {name: one["teacher"] / one["student"] for name, one in
             (("latency", median), ("flops", flops))}  # fmt: skip
    say(f"an answer: {median} us, {ratio}")
    return {"microseconds": spent, "flops": flops, "times_cheaper": ratio}


def operations(scorer: Any, length: float) -> float:
    """Return 2 a matrix's number and event, and 2 d an item; the attention's own are left out."""
    tables = scorer.tables()
    inner = sum(
        int(np.prod(table.shape))
        for name, table in tables.items()
        if name.startswith("network.") and table.shape[1] > 1 and not name.endswith("place")
    )
    return 2 * inner * length + 2 * float(np.prod(tables["items"].shape))


def ndcg(bundle: Bundle, dataset: Dataset) -> F64:
    """Return NDCG@10 of each user of the test part."""
    return mt.evaluate(bundle, dataset, per_user=True).users["ndcg@10"]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean with Student's 95% interval."""
    mean, count = float(np.mean(values)), len(values)
    reach = (
        student_t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5 if count > 1 else 0
    )
    return mean, float(mean - reach), float(mean + reach)


def tell(step: str, done: int, total: int) -> None:
    if done % 500 == 0:
        say(f"  {step} ({done} of {total})")


if __name__ == "__main__":
    main()
