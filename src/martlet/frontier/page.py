"""The report as one HTML page that loads nothing: the choice, the pictures, every candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from martlet.frontier import plots
from martlet.frontier.budget import figures_of
from martlet.frontier.frontier import Frontier, corrected, labels
from martlet.frontier.story import Story
from martlet.measure.receipt import Receipt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CSS = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #5c5c5c; --paper: #fff; --line: #d9d9d9;
  --tint: #f3f5f7; --mark: #0072b2; --warn: #b58900; font: 16px/1.5 system-ui, sans-serif }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --soft: #a3a3a3; --paper: #16181a;
  --line: #3a3d40; --tint: #212427; --mark: #56b4e9 } }
* { box-sizing: border-box }
body { color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { line-height: 1.2; margin: 0 0 .3rem }
h2 { margin: 2.6rem 0 .6rem; border-bottom: 1px solid var(--line) }
p { max-width: 46rem } .soft, figcaption, caption { color: var(--soft); font-size: .875rem }
.note, .choice { border-left: .3rem solid var(--mark); background: var(--tint); padding: .8rem 1rem;
  margin: 1.2rem 0 } .note { border-color: var(--warn) }
.choice h2 { margin: 0 0 .3rem; border: 0; font-size: 1.25rem } .choice p { margin: .8rem 0 0 }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.2rem, 1fr)); gap: .8rem;
  margin: .8rem 0 0 }
.tiles dt { color: var(--soft); font-size: .8rem; line-height: 1.25 }
.tiles dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums }
.tiles small { display: block; font-size: .75rem; color: var(--soft) }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 1.6rem 2rem; align-items: start }
figure { margin: 0; min-width: 0; max-width: 32rem } svg { width: 100%; height: auto }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
caption { text-align: left; padding-bottom: .4rem }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right }
th:first-child, td:first-child { text-align: left }
thead th { vertical-align: bottom; font-weight: 600; line-height: 1.25 }
thead small { display: block; font-weight: 400; color: var(--soft) }
th button { all: unset; cursor: pointer } th button:focus-visible { outline: 2px solid var(--mark) }
th[aria-sort] button::after { content: " \\25be" } th[aria-sort=ascending] button::after {
  content: " \\25b4" }
tr.chosen > * { background: var(--tint); font-weight: 600 }
.wide { overflow-x: auto } .wide td { white-space: nowrap }
.wide th, .wide td { padding: .3rem .4rem }
.wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: var(--paper) }
.wide tr.chosen td:first-child { background: var(--tint) }
.facts td { text-align: left; overflow-wrap: anywhere } .facts th { vertical-align: top }
pre { background: var(--tint); padding: .7rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere }
@media (max-width: 40rem) { .wide td:first-child, .wide th:first-child { white-space: normal;
  min-width: 7.5rem } body { margin-top: 1rem } }
@media print { body { max-width: none } .wide { overflow: visible } table { font-size: .6rem } }
"""
_SORT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0];
  const at = [...head.parentNode.children].indexOf(head);
  const key = row => row.cells[at].dataset.value ?? row.cells[at].textContent;
  const words = [...body.rows].some(row => key(row) !== "" && isNaN(key(row)));
  const up = head.ariaSort ? head.ariaSort !== "ascending" : head.dataset.up !== undefined;
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.ariaSort = up ? "ascending" : "descending";
  const order = (a, b) => words ? key(a).localeCompare(key(b)) : key(a) - key(b);
  const bare = row => key(row) === "";
  body.append(...[...body.rows].sort((a, b) =>
    bare(a) || bare(b) ? bare(a) - bare(b) : (up ? 1 : -1) * order(a, b)));
};
"""
# Cost to its heading and its unit; a click on one sorts the least first, but for throughput.
_COSTS = {
    "train_s": ("training", "s"),
    "p50_ms": ("median latency", "ms"),
    "p99_ms": ("99% latency", "ms"),
    "throughput_qps": ("in batches", "users / s"),
    "scoring_mb": ("tables", "MB"),
    "bundle_mb": ("on disk", "MB"),
    "peak_mb": ("peak memory", "MB"),
    "cold_start_s": ("cold start", "s"),
}
_MARKS = {
    False: "Each mark is a recommender: its shape tells the model, and several marks of one shape "
    "are its storages.",
    True: "Each mark is the same recommender, compressed: its shape tells the kind of transform.",
}
_MANY = 24  # recommenders that a picture has a line each for


def page(receipts: Sequence[Receipt], story: Story) -> str:
    """Return the page. Every word of the story and of the receipts is escaped."""
    notes = "".join(f'<p class="note" role="note">{escape(note)}</p>' for note in story.notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Martlet: {escape(story.title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>
<body><main><h1>{escape(story.title)}</h1>
<p class="soft">{_about(receipts, story)}</p>
{notes}{_choice(receipts, story)}
<h2>Quality against cost</h2>
<p>{_MARKS[story.sweep]} Filled marks on the line are the frontier: nothing else here is both
better and cheaper. Hollow ones are beaten on both. Up and to the left is better.</p>
<div class="pictures">{_pictures(receipts, story)}</div>
{_certainty(receipts, story)}
<h2>Every candidate</h2>{_table(receipts, story)}{_skipped(story)}
{_data(story)}
<h2>How it was measured</h2>{_method(story.choice.receipt)}
{_commands(story)}</main><script>{_SORT}</script></body></html>
"""


def _about(receipts: Sequence[Receipt], story: Story) -> str:
    first, size = story.choice.receipt, len(receipts)
    rows = first.quality.get("num_rows")
    asked = f"{rows:,.0f} rows" if rows else f"{first.num_users:,} users"
    if story.sweep:
        return (
            f"One bundle under {size - 1} transforms and pairs of them, each measured on {asked} "
            f"of the validation part. At most {100 * story.allowed:.3g}% of {story.quality} may be "
            "lost."
        )
    return (
        f"{size} recommender{'s' * (size > 1)}, fitted on the training part and measured on "
        f"{asked} of the validation part. Budget: {escape(str(story.budget))}."
    )


def number(value: float) -> str:
    """Return a figure as people read it: three digits that count, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _choice(receipts: Sequence[Receipt], story: Story) -> str:
    chosen = story.choice.receipt
    figures = figures_of(chosen)
    tiles = []
    if story.final is not None:
        users = f"{story.final.num_users:,} users of the test part"
        quality = story.final.quality[story.quality] or 0.0
        tiles.append(
            (f"{story.quality}, test", f"{quality:.4f}", f"{_bounds(story, story.final)}; {users}")
        )
    quality = chosen.quality[story.quality] or 0.0
    tiles.append((f"{story.quality}, validation", f"{quality:.4f}", _bounds(story, chosen)))
    tiles += [
        (name, f"{number(figures[cost])} {unit}", "")
        for cost, (name, unit) in _COSTS.items()
        if cost in figures and cost != "throughput_qps"
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
        f"{f'<small>{escape(more)}</small>' if more else ''}</dd></div>"
        for name, value, more in tiles
    )
    label = labels(receipts)[next(i for i, r in enumerate(receipts) if r is chosen)]
    head = "Chosen" if story.choice.fits else "Nothing keeps the budget; the nearest"
    return (
        f'<section class="choice"><h2>{head}: {escape(label)}</h2>'
        f"<p><b>Why this one.</b> {escape(story.choice.why)}.</p>{_final(story)}"
        f'<dl class="tiles">{cells}</dl></section>'
    )


def _final(story: Story) -> str:
    if story.final is None:
        return ""
    figures = ", ".join(
        f"{name} {value:.4f}" for name, value in story.final.quality.items() if value is not None
    )
    return (
        '<p class="soft">Then it was fitted again with the validation part, and measured once on '
        f"the test part ({story.final.num_users:,} users): {escape(figures)}.</p>"
    )


def _pictures(receipts: Sequence[Receipt], story: Story) -> str:
    frontier = Frontier.of(receipts, story.quality)
    chosen = story.choice.receipt
    told = "the red ring is the choice"
    shown = [
        (
            plots.frontier_figure(frontier, [cost], chosen),
            f"{story.quality} against {plots.LABELS[cost]}; {told}.",
        )
        for cost in frontier.costs
    ]
    words = "Latency of single queries, one after another, warm: median, 95th and 99th percentile."
    shown.append((plots.latency_figure(_shown(receipts, story)), words))
    return _figures("cost", shown)


def _certainty(receipts: Sequence[Receipt], story: Story) -> str:
    if not story.intervals and not story.losses:
        return ""
    drawn = _shown(receipts, story)
    bars = plots.quality_figure(drawn, story.quality, story.intervals)
    shown = [(bars, f"{story.quality} of the validation users, with 95% bootstrap intervals.")]
    if story.losses and story.best:
        lost = plots.loss_figure(drawn, story.quality, story.losses, story.best, story.allowed)
        compared = len(story.losses) - (not story.sweep)  # the best itself is among those of models
        against = "the bundle as it was" if story.sweep else "the best"
        words = (
            f"Lost against {against}, user by user, with 95% intervals of the paired difference, "
            f"{corrected(max(compared, 1))}: what an interval left of the dashed line "
            f"stands for may replace {against}."
        )
        shown.append((lost, words))
    return f"""<h2>How sure is that</h2>
<p>Users differ much more than recommenders do, so the intervals of the figures themselves are wide
and overlap. What decides is the difference that two recommenders make to the same users.</p>
<div class="pictures">{_figures("sure", shown)}</div>"""


def _shown(receipts: Sequence[Receipt], story: Story) -> Sequence[Receipt]:
    """Return the receipts, of very many those that nothing beats: a line each has to be read."""
    if len(receipts) <= _MANY:
        return receipts
    best = Frontier(receipts, story.quality, ("p50_ms", "scoring_mb")).best()
    kept = zip(receipts, best, strict=True)
    return [receipt for receipt, one in kept if one or receipt is story.choice.receipt]


def _data(story: Story) -> str:
    if not story.facts and not story.curves:
        return ""
    facts = {name: f"{v:,}" if isinstance(v, int) else str(v) for name, v in story.facts.items()}
    curves = ""
    if story.curves:
        words = "How the activity of items and of users falls in the training part, log axes."
        picture = _figures("data", [(plots.curves_figure(story.curves), words)])
        curves = f'<div class="pictures">{picture}</div>'
    return f"<h2>The data</h2>{_facts(facts)}{curves}"


def _figures(name: str, shown: Iterable[tuple[Figure, str]]) -> str:
    found = []
    for at, (figure, caption) in enumerate(shown):
        label = escape(caption, quote=True)
        picture = plots.svg(figure, f"{name}{at}")
        picture = picture.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        found.append(f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>")
    return "".join(found)


def _table(receipts: Sequence[Receipt], story: Story) -> str:
    others = [
        name
        for name in receipts[0].quality
        if name != story.quality and not name.endswith(("_low", "_high"))
    ]
    costs = [name for name in _COSTS if any(name in figures_of(r) for r in receipts)]
    heads = [_head("recommender", "", up=True)]
    heads.append(_head(story.quality, "", sort=True))
    if story.losses:
        heads.append(_head("lost at most", "%", up=True))
    heads += [_head(*_COSTS[name], up=name != "throughput_qps") for name in costs]
    heads += [_head(name, "") for name in others]
    rows = []
    named = zip(labels(receipts), receipts, strict=True)
    for label, receipt in sorted(named, key=lambda one: -(one[1].quality[story.quality] or 0.0)):
        figures = figures_of(receipt)
        cells = [f"<td>{escape(label)}{_mark(receipt, story)}</td>"]
        cells.append(_cell(figures.get(story.quality), "{:.4f}"))
        if story.losses:
            cells.append(_cell(_lost(receipt, story), "{:.2f}"))
        cells += [_cell(figures.get(name)) for name in costs]
        cells += [_cell(figures.get(name), "{:.4f}") for name in others]
        chosen = ' class="chosen"' if receipt is story.choice.receipt else ""
        rows.append(f"<tr{chosen}>{''.join(cells)}</tr>")
    caption = "A click on a heading sorts by it. 1 MB is 10<sup>6</sup> bytes."
    return (
        f'<div class="wide"><table><caption>{caption}</caption><thead><tr>{"".join(heads)}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _head(name: str, unit: str, *, up: bool = False, sort: bool = False) -> str:
    attributes = f"{' data-up' if up else ''}{' aria-sort=descending' if sort else ''}"
    small = f"<small>{escape(unit)}</small>" if unit else ""
    return f'<th scope="col"{attributes}><button type="button">{escape(name)}</button>{small}</th>'


def _cell(value: float | None, words: str = "") -> str:
    if value is None:
        return '<td data-value="">-</td>'
    return f'<td data-value="{value:.6g}">{words.format(value) if words else number(value)}</td>'


def _mark(receipt: Receipt, story: Story) -> str:
    return " (chosen)" if receipt is story.choice.receipt else ""


def _bounds(story: Story, receipt: Receipt) -> str:
    if receipt.bundle_id not in story.intervals:
        return ""
    low, high = story.intervals[receipt.bundle_id]
    return f"{low:.3f} to {high:.3f}, 95%"


def _lost(receipt: Receipt, story: Story) -> float | None:
    """Return the bound of what is lost, in % of the best."""
    if receipt.bundle_id not in story.losses or not story.best:
        return None
    return 100 * max(story.losses[receipt.bundle_id][1], 0.0) / story.best


def _skipped(story: Story) -> str:
    if not story.skipped:
        return ""
    rows = "".join(f"<li>{escape(reason)}</li>" for reason in story.skipped)
    summary = f"<summary>Left out: {len(story.skipped)}</summary>"
    return f'<details class="soft">{summary}<ul>{rows}</ul></details>'


def _commands(story: Story) -> str:
    if not story.commands:
        return ""
    return f"<h2>Go on</h2><pre>{escape(chr(10).join(story.commands))}</pre>"


def _method(receipt: Receipt) -> str:
    lines = {
        "machine": _words(receipt.machine),
        "threads": _words(receipt.threads),
        "versions": _words(receipt.versions),
        "seed": str(receipt.seed),
        "length of the lists": str(receipt.k),
        "when": receipt.created,
    }
    return _facts(lines)


def _facts(lines: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in lines.items()
    )
    return f'<table class="facts">{rows}</table>'


def _words(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
