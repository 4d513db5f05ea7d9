"""How much sooner than implicit 0.7.3 does iALS reach the same classic objective?

Hu, Koren and Volinsky's objective, the same data, weights, penalties and dimension, two threads for
both. Time runs from the fit's call, start and transposition included, to the end of the first sweep
whose loss is within 1% of the converged one (the least that any run reached, ours continued four
times as long), and to the best validation NDCG@10 that either reaches on its way, or within 1% of
it. Both are told by the same code, from the factors, off the clock. implicit runs with its default
of 3 conjugate-gradient steps and with 2, in float32, with one BLAS thread, as it advises; the
faster of the two counts. Weights and penalties are near the best validation NDCG@10 at d = 64.

The first round walks the curves, the others repeat ours and the faster of theirs, in turn, as far
as the 1% mark. A raw line a data set and dimension also says what share is reached of the
arithmetic of a matrix product and of the memory's bandwidth.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _common import THREADS, Peer, data, options, peer_python, record, say, scratch, summary
from martlet.core import CSR, rng
from martlet.kernels.ials import Objective, loss
from martlet.kernels.parallel import spread
from martlet.kernels.topk import topk_dot
from martlet.models.ials import sweeps

GOAL, WITHIN, K = 2.5, 0.01, 10
OURS = "martlet"
JUDGES = 1500  # users whose validation NDCG is taken
STEPS = 2  # of ours, the default of the model


@dataclass(frozen=True)
class Case:
    """A data set with its objective: an observed pair weighs 1 + weight, any other 1."""

    name: str
    weight: float
    reg: float
    sweeps: int  # of the peer's curve; ours takes as many
    dims: tuple[int, ...] = (64, 128, 256)


CASES = (
    Case("gowalla", 10.0, 10.0, 18),
    Case("ml-1m", 0.5, 30.0, 30),
    Case("synthetic", 2.0, 100.0, 12),
)
TINY = Case("synthetic", 1.0, 3.0, 10, (8,))


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=3, add=("only",))
    python = None if chosen.tiny else peer_python("implicit")
    if not chosen.tiny and python is None:
        say("implicit is not installed in .venv-peers (see benchmarks/peers): ours alone")
    compile_s = warm_up()
    limits = machine_limits(0.2 if chosen.tiny else 1.0)
    for case in (TINY,) if chosen.tiny else CASES:
        if chosen.only and case.name not in chosen.only.split(","):
            continue
        train, valid = split(case, chosen)
        with scratch() as folder:
            for part, array in (
                ("indptr", train.indptr),
                ("indices", train.indices),
                ("shape", [train.num_rows, train.num_cols]),
            ):
                np.save(folder / f"{case.name}.{part}.npy", array)
            peer = Peer(python, "fit_implicit.py", folder, THREADS) if python else None
            for dim in case.dims:
                bench = Bench(case, dim, train, valid, folder, peer, chosen.seed)
                line = bench.run(chosen.rounds) | {"compile_s": compile_s, "limits": limits}
                line |= shares(line, train, limits)
                record("ials_vs_implicit", line, chosen)
                tell(line)
            if peer:
                peer.__exit__(None, None, None)


class Bench:
    """One data set at one dimension: curves, then rounds."""

    def __init__(
        self,
        case: Case,
        dim: int,
        train: CSR,
        valid: CSR,
        folder: Path,
        peer: Peer | None,
        seed: int,
    ) -> None:
        self.case, self.dim, self.seed = case, dim, seed
        self.train, self.valid = train, valid
        self.folder, self.peer = folder, peer
        weights = np.full(train.nnz, case.weight, np.float32)
        self.matrix = CSR(train.indptr, train.indices, weights, train.num_cols)
        self.objective = Objective(1.0, case.reg, 0.0, 1.0)
        found = rng(seed, "ials", "judges").permutation(np.flatnonzero(valid.lengths))
        self.judges = np.sort(found[:JUDGES])

    def run(self, rounds: int) -> dict[str, Any]:
        """Return the raw line: curves, seconds of each round, and what follows from them."""
        count, limit = self.case.sweeps, int(THREADS)
        curves = {OURS: self.ours(count, judge=True)}
        steps = {f"implicit, {n} steps": n for n in (3, 2)} if self.peer else {}
        curves |= {name: self.theirs(n, count) for name, n in steps.items()}
        ends = [value for curve in curves.values() for value in curve["loss"]]
        converged = min([*ends, self.ours(4 * count, judge=False)["loss"][-1]])
        target = converged * (1 + WITHIN)
        sweeps_to = {name: first(curve["loss"], target) for name, curve in curves.items()}
        seconds = {name: [at(curve, sweeps_to[name])] for name, curve in curves.items()}
        cpu = {name: [at(curve, sweeps_to[name], 1)] for name, curve in curves.items()}
        names = list(curves)
        # Of implicit's variants, the one that was ahead goes on.
        ahead = min(
            steps, key=lambda name: at(curves[name], sweeps_to[name]) or np.inf, default=OURS
        )
        for turn in range(1, rounds):
            for name in ([OURS, ahead] if turn % 2 else [ahead, OURS]) if steps else [OURS]:
                far = sweeps_to[name] or count
                marks = self.time(far) if name == OURS else self.ask(steps[name], far, False)
                seconds[name].append(marks[far - 1][0] if sweeps_to[name] else None)
                cpu[name].append(marks[far - 1][1] if sweeps_to[name] else None)
        line: dict[str, Any] = {
            "data": self.case.name,
            "num_users": self.train.num_rows,
            "num_items": self.train.num_cols,
            "nnz": self.train.nnz,
            "dim": self.dim,
            "weight": self.case.weight,
            "reg": self.case.reg,
            "threads": limit,
            "converged": converged,
            "within": WITHIN,
            "sweeps_to_within": sweeps_to,
            "seconds_to_within": seconds,
            "cpu_s_to_within": cpu,
            "curves": curves,
        }
        theirs = list(steps)
        if theirs:
            best = {name: max(curve["ndcg"]) for name, curve in curves.items()}
            marks = {
                "best_of_either": max(best.values()),
                "best_of_implicit": max(best[name] for name in theirs),
                "within_1%_of_best": (1 - WITHIN) * max(best.values()),
            }
            line["best_ndcg"] = best
            line["seconds_to_ndcg"] = {
                mark: {name: reach(curves[name], value) for name in names}
                for mark, value in marks.items()
            }
            line["speedup_to_within"] = speedup(seconds, theirs)
            line["speedup_cpu_to_within"] = speedup(cpu, theirs)
            line["speedup_to_ndcg"] = {
                mark: speedup({name: [one] for name, one in found.items()}, theirs)
                for mark, found in line["seconds_to_ndcg"].items()
            }
        return line

    def ours(self, count: int, *, judge: bool) -> dict[str, Any]:
        """Return marks, losses and NDCG of every sweep of ours."""
        curve: dict[str, Any] = {"marks": [], "loss": [], "ndcg": []}
        paused = np.zeros(2)
        begin = clocks()
        for users, items in self.fit(count):
            now = clocks()
            curve["marks"].append((now - begin - paused).tolist())
            curve["loss"].append(self.loss(users, items))
            if judge:
                curve["ndcg"].append(self.ndcg(users, items))
            paused += clocks() - now
        return curve

    def time(self, count: int) -> list[list[float]]:
        """Return wall and CPU seconds at the end of each sweep of ours."""
        begin = clocks()
        return [(clocks() - begin).tolist() for _ in self.fit(count)]

    def fit(self, count: int) -> Any:
        """Yield the factors after each sweep, from the start that the model takes."""
        start = rng(self.seed, "ials").random((self.train.num_cols, self.dim), np.float32)
        start *= np.float32(0.01)
        return sweeps(self.matrix, start, self.objective, count, steps=STEPS, threads=int(THREADS))

    def theirs(self, steps: int, count: int) -> dict[str, Any]:
        """Return marks, losses and NDCG of every sweep of implicit, told by the same code."""
        curve: dict[str, Any] = {"marks": self.ask(steps, count, True), "loss": [], "ndcg": []}
        for sweep in range(count):
            paths = [self.folder / f"{side}.{sweep}.npy" for side in ("user", "item")]
            factors = [np.load(path) for path in paths]
            curve["loss"].append(self.loss(*factors))
            curve["ndcg"].append(self.ndcg(*factors))
            for path in paths:
                path.unlink()
        return curve

    def ask(self, steps: int, count: int, keep: bool) -> list[list[float]]:
        """Return wall and CPU seconds at the end of each sweep of implicit."""
        assert self.peer is not None
        return self.peer.ask(
            matrix=self.case.name,
            dim=self.dim,
            weight=self.case.weight,
            reg=self.case.reg,
            steps=steps,
            sweeps=count,
            seed=self.seed,
            keep=keep,
        )["marks"]

    def loss(self, users: np.ndarray, items: np.ndarray) -> float:
        """Return the objective, whoever's factors these are."""
        return loss(self.matrix, users, items, self.objective, int(THREADS))

    def ndcg(self, users: np.ndarray, items: np.ndarray) -> float:
        """Return the mean NDCG@10 of the judges on validation, train hidden."""
        transposed = np.ascontiguousarray(items.T)
        hidden = self.train.take(self.judges)
        rows, _ = topk_dot(users[self.judges], transposed, K, hidden, threads=int(THREADS))
        gain = 1 / np.log2(np.arange(2, K + 2))
        each = [
            (gain * np.isin(row, self.valid.row(user))).sum()
            / gain[: min(K, self.valid.lengths[user])].sum()
            for row, user in zip(rows, self.judges.tolist(), strict=True)
        ]
        return float(np.mean(each))


def clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def first(losses: list[float], target: float) -> int | None:
    """Return after how many sweeps the loss is at the target, None where it never is."""
    return next((sweep for sweep, value in enumerate(losses, 1) if value <= target), None)


def at(curve: dict[str, Any], sweep: int | None, clock: int = 0) -> float | None:
    return None if sweep is None else curve["marks"][sweep - 1][clock]


def reach(curve: dict[str, Any], ndcg: float) -> float | None:
    """Return the seconds until the NDCG is there, None where it never is."""
    return at(curve, first([-value for value in curve["ndcg"]], -ndcg))


def speedup(seconds: dict[str, list[float | None]], theirs: list[str]) -> float | None:
    """Return the fastest peer's median over ours, None where one of the two never arrives."""
    middle = {
        name: summary([one for one in values if one is not None])["median"]
        for name, values in seconds.items()
        if values[0] is not None
    }
    peers = [middle[name] for name in theirs if name in middle]
    return min(peers) / middle[OURS] if peers and OURS in middle else None


def split(case: Case, chosen: Any) -> tuple[CSR, CSR]:
    """Return train and a random tenth for validation, rows and columns by falling frequency."""
    if case is TINY:
        user, item, shape = synthetic(chosen.seed, 400, 300, 8_000)
    elif case.name == "synthetic":
        user, item, shape = synthetic(chosen.seed, 50_000, 10_000, 4_000_000)
    else:
        import polars as pl

        file = {"gowalla": "train.parquet", "ml-1m": "ratings.parquet"}[case.name]
        names = ["user", "item"] if case.name == "gowalla" else ["user_id", "item_id"]
        log = pl.read_parquet(data(chosen.data, case.name, file), columns=names)
        (_, user), (_, item) = (
            np.unique(log[name].to_numpy(), return_inverse=True) for name in names
        )
        shape = int(user.max()) + 1, int(item.max()) + 1
    held = rng(chosen.seed, "ials", "valid").random(len(user)) < 0.1
    ranks = [
        np.argsort(np.argsort(-np.bincount(rows[~held], minlength=size), kind="stable"))
        for rows, size in zip((user, item), shape, strict=True)
    ]
    user, item = ranks[0][user], ranks[1][item]
    order = np.lexsort((item, user))
    parts = [order[~held[order]], order[held[order]]]
    train, valid = (CSR.from_pairs(user[part], item[part], None, shape) for part in parts)
    return train, valid


def synthetic(
    seed: int, num_users: int, num_items: int, num_events: int
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return a seeded log that is calibrated on MovieLens 100K; each pair once."""
    from martlet.data.synthetic import synthesize

    log = synthesize(
        num_users=num_users, num_items=num_items, num_events=num_events, seed=seed
    ).matrix
    return log.row_numbers(), log.indices, (num_users, num_items)


def warm_up() -> float:
    """Return the seconds until every kernel is compiled, or read from its cache."""
    begin = time.perf_counter()
    matrix = CSR.from_rows([[0, 1], [1]], 3, [[1.0, 1.0], [1.0]])
    objective = Objective(1.0, 1.0, 0.0, 1.0)
    for users, items in sweeps(matrix, np.ones((3, 2), np.float32), objective, 1):
        loss(matrix, users, items, objective)
    topk_dot(users, np.ascontiguousarray(items.T), 1, matrix)
    return time.perf_counter() - begin


def machine_limits(seconds: float) -> dict[str, float]:
    """Return what the machine does at best, with the same threads: products, and reading."""
    from threadpoolctl import threadpool_limits

    threads = int(THREADS)
    square = np.ones((threads, 1024, 1024), np.float32)
    product = np.empty_like(square)
    memory = np.ones(32 << 20, np.float32)
    found = {"gflops": 0.0, "read_gbps": 0.0}
    works = {
        "gflops": (
            lambda a, b: [np.matmul(square[i], square[i], out=product[i]) for i in range(a, b)],
            threads,
            2 * threads * 1024**3 / 1e9,
        ),
        "read_gbps": (lambda a, b: memory[a:b].sum(), len(memory), memory.nbytes / 1e9),
    }
    with threadpool_limits(1, "blas"):
        for name, (work, size, amount) in works.items():
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                begin = time.perf_counter()
                spread(work, size, threads)
                found[name] = max(found[name], amount / (time.perf_counter() - begin))
    return found


def shares(line: dict[str, Any], train: CSR, limits: dict[str, float]) -> dict[str, Any]:
    """Return operations and gathered bytes a second of our sweeps, and over the limits.

    Gathered bytes come from the cache where they can: their share may be above 1.
    """
    marks = line["curves"][OURS]["marks"]
    sweep_s = float(np.median(np.diff([wall for wall, _ in marks])))
    dim, rows = line["dim"], train.num_rows + train.num_cols
    flop = 8 * train.nnz * dim * (STEPS + 1) + 10 * rows * dim**2
    gathered = 2 * (STEPS + 1) * train.nnz * dim * 4
    gflops, gbps = flop / sweep_s / 1e9, gathered / sweep_s / 1e9
    return {
        "sweep_s": sweep_s,
        "gflops": gflops,
        "gathered_gbps": gbps,
        "share_of_gflops": gflops / limits["gflops"],
        "share_of_read": gbps / limits["read_gbps"],
    }


def tell(line: dict[str, Any]) -> None:
    ours = summary([one for one in line["seconds_to_within"][OURS] if one is not None] or [0.0])
    say(
        f"{line['data']} d={line['dim']}: {ours['median']:.2f} s to within {WITHIN:.0%}, sweeps "
        f"{line['sweeps_to_within']}; {line['gflops']:.0f} GFLOP/s, "
        f"{line['share_of_gflops']:.0%} of a matrix product"
    )
    if "speedup_to_ndcg" in line:
        say(
            f"  sooner than implicit {times(line['speedup_to_within'])} "
            f"({times(line['speedup_cpu_to_within'])} in CPU time; goal {GOAL}); to an NDCG@10 of"
        )
        for mark, found in line["seconds_to_ndcg"].items():
            theirs = min((one for name, one in found.items() if name != OURS and one), default=None)
            say(f"    {mark}: ours {reached(found[OURS])}, implicit {reached(theirs)}")


def times(ratio: float | None) -> str:
    return "(one of the two never)" if ratio is None else f"{ratio:.1f} x"


def reached(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.2f} s"


if __name__ == "__main__":
    main()
