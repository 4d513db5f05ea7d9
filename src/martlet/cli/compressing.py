"""A compression told: what it costs beside what it saves, and whether it is saved."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from martlet.cli.output import number, print_json, print_table, progress

if TYPE_CHECKING:
    from martlet.core import Dataset, Tabular
    from martlet.frontier.sweep import Sweep
    from martlet.measure.receipt import Receipt
    from martlet.measure.verdict import Gate
    from martlet.scorers.bundle import Bundle

_COSTS = {
    "scoring_mb": "tables, MB",
    "bundle_mb": "bundle, MB",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "throughput_qps": "in batches, 1/s",
    "peak_mb": "peak memory, MB",
    "compress_s": "compressing, s",
}


def save_if_it_passes(
    before: Bundle,
    after: Bundle,
    data: Dataset | Tabular,
    max_loss: Mapping[str, float],
    *,
    bundle: Path,
    out: Path,
    ledger: Path | None,
    part: str,
    accept_unresolved: bool,
    took_s: float,
    seed: int,
    json_: bool,
) -> bool:
    """Measure both, tell, write the receipts, and save ``after`` where the gate lets it through.

    Each receipt goes beside its own bundle, or both to ``ledger``; what is not saved has no folder,
    so without a ledger its receipt is only told. Returns whether ``after`` was saved.
    """
    from martlet.measure import ledger as receipts
    from martlet.measure.gate import gate

    with progress(quiet=json_) as note:
        found = gate(
            before, after, data, max_loss, part=part, compress_s=took_s, seed=seed, progress=note
        )
    saved = found.outcome == "passes" or (accept_unresolved and found.outcome == "unresolved")
    receipts.append(ledger or bundle / "receipts.jsonl", found.before)
    if saved:
        after.save(out)
    if saved or ledger is not None:
        receipts.append(ledger or out / "receipts.jsonl", found.after)
    if json_:
        print_json({"bundle": str(out) if saved else None, "id": after.id} | found.to_json())
    else:
        _print_gate(found)
        print(f"saved {out}\n" if saved else "", end="")
    if not saved:
        print(f"martlet: {out} is not saved: {_reason(found)}", file=sys.stderr)
    return saved


def _reason(found: Gate) -> str:
    """Return what kept it out, and what a person can do."""
    worst = [verdict for verdict in found.verdicts if verdict.outcome == found.outcome]
    told = "; ".join(map(str, worst))
    if found.outcome == "unresolved":
        return f"{told}. Measure on more users, allow more, or give --accept-unresolved"
    return f"{told}. Allow more, or compress less"


def sweep_and_report(
    bundle: Path,
    data: Path,
    out: Path,
    max_loss: Mapping[str, float],
    *,
    grid: Sequence[str],
    part: str,
    seed: int,
    json_: bool,
) -> None:
    """Walk a grid of transforms, write receipts and report into ``out``, and tell the outcome.

    Args:
        bundle: folder of what is compressed.
        data: folder to measure on.
        out: a folder; what an earlier sweep of the same left there is not measured again.
        max_loss: the first of them is what the pictures show; ndcg@10=1% (auc of labelled rows)
            where there is none.
        grid: these transforms and their pairs in the given order; none takes the whole grid.
        part: "valid".
        seed: drives everything that is random.
        json_: one JSON document in place of tables.
    """
    from martlet.cli.options import load_data
    from martlet.compress.grid import GRID
    from martlet.frontier.report import write_report
    from martlet.frontier.sweep import sweep
    from martlet.scorers.bundle import Bundle as Stored

    if part != "valid":
        raise typer.BadParameter("--sweep chooses, so it sees the validation part alone")
    before, dataset = Stored.load(bundle), load_data(data)
    stages = [(step,) for step in grid] or GRID
    with progress(quiet=json_) as note:
        found = sweep(before, dataset, out, max_loss, grid=stages, seed=seed, progress=note)
    chosen = found.chosen
    steps = "".join(f" --with {step}" for step in found.steps(chosen))
    limits = "".join(f" --max-loss {name}={share:g}" for name, share in found.max_loss.items())
    saving = f"martlet compress {bundle}{steps} --data {data}{limits} --out {out / 'bundle'}"
    commands = [*([saving] if steps else []), f"martlet report {out}"]
    page = write_report(out, found.receipts, found.story(str(bundle), commands))
    if json_:
        best = zip(found.receipts, found.best(), strict=True)
        print_json(
            {
                "chosen": chosen.name,
                "best": [receipt.name for receipt, kept in best if kept],
                "candidates": [found.row(receipt) for receipt in found.receipts],
                "skipped": list(found.skipped),
                "report": str(page),
            }
        )
        return
    _print_sweep(found, str(bundle))
    print(f"\nReport: {page}\nGo on:")
    for command in commands:
        print(f"  {command}")


def _print_sweep(found: Sweep, title: str) -> None:
    costs = {name: _COSTS[name] for name in ("scoring_mb", "p50_ms", "p99_ms", "throughput_qps")}
    rows = []
    best = dict(zip(map(id, found.receipts), found.best(), strict=True))
    for receipt in sorted(found.receipts, key=lambda one: one.cost["scoring_mb"] or 0.0):
        told = found.row(receipt)
        cells = [receipt.cost.get(name) for name in costs]
        label = " + ".join(found.steps(receipt)) or "as it was"
        mark = "*" if best[id(receipt)] else ""
        rows.append([mark, label, told["quality"], told["lost_at_most"], told["outcome"], *cells])
    header = ["", "transforms", found.quality, "lost at most", "", *costs.values()]
    print_table(f"{title}: validation part; * is beaten by nothing", header, rows)
    print("".join(f"Left out: {reason}\n" for reason in found.skipped), end="")
    print(f"Chosen: {found.choice.why}.")


def _print_gate(found: Gate) -> None:
    rows = []
    for one in found.verdicts:
        ends = [_ends(receipt, one.metric) for receipt in (found.before, found.after)]
        loss = "lost {:.2f}% [{:.2f}, {:.2f}]".format(*(100 * end for end in one.loss))
        rows.append([one.metric, f"{one.before:.4f}{ends[0]}", f"{one.after:.4f}{ends[1]}", loss])
    for name, words in _COSTS.items():
        old, new = found.before.cost.get(name), found.after.cost.get(name)
        if new is not None:
            rows.append([words, _cost(old), _cost(new), _change(old, new)])
    whose = f"{found.verdicts[0].num:,} {found.verdicts[0].unit}"
    title = f"{found.after.name}: part {found.before.part}, {whose}, 95% intervals"
    print_table(title, ["", "before", "after", ""], rows)
    print(found)


def _ends(receipt: Receipt, metric: str) -> str:
    low, high = (receipt.quality.get(f"{metric}_{end}") for end in ("low", "high"))
    return "" if low is None or high is None else f" [{low:.4f}, {high:.4f}]"


def _cost(value: float | None) -> str:
    return "" if value is None else number(value)


def _change(old: float | None, new: float) -> str:
    """Return how many times smaller or larger a cost became."""
    if not old or not new:
        return ""
    return f"{old / new:.2f} times less" if old >= new else f"{new / old:.2f} times more"
