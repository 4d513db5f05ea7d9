"""Units, heads or layers of a network left out for good, and what is left trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from martlet.compress.transform import before_index
from martlet.core import Dataset, Progress, SpecError, Tabular
from martlet.scorers.bundle import Bundle

if TYPE_CHECKING:
    from torch import Tensor, nn

    from martlet.train.structure import Group

What = Literal["units", "heads", "layers"]
_BATCHES = 16  # of the train part, by which a gradient tells what matters


@dataclass(frozen=True)
class Schedule:
    """How much is left out, by what, and how the rest is trained on.

    Attributes:
        share: of the units or heads of each layer, or of the layers.
        by: "magnitude", the norm of the numbers; or "gradient", the square of what the loss would
            change by, to first order, on some batches.
        steps: in which it is left out, the same part of the share each.
        epochs: of training after the last step, at most; validation ends it early, as the spec
            says. One follows each step before. 0 trains nothing.
    """

    share: float = 0.5
    by: Literal["magnitude", "gradient"] = "magnitude"
    steps: int = 2
    epochs: int = 10


def prune_network(
    label: str,
    bundle: Bundle,
    what: What,
    schedule: Schedule,
    dataset: Dataset | Tabular | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bundle:
    """Return a bundle over a smaller network: its matrices lack rows and columns, or whole layers.

    The model's own task, losses and validation train what is left, vectors of items too.

    **Source**: gradient: Molchanov et al., "Importance Estimation for Neural Network Pruning"
    (2019), equation 8; the schedule: Zhu and Gupta, "To prune, or not to prune" (2017).
    **Differs**: every layer loses the same share, so that the time saved is known before.

    Args:
        label: the transform, as the lineage and errors call it.
        bundle: fitted by a spec that can ``restore``.
        what: "units" of hidden layers, "heads" of attention, or residual "layers".
        schedule: how much, by what, how often.
        dataset: that the bundle was fitted on; needed but where nothing is trained or asked.
        seed: of training.
        progress: told of training.

    Raises:
        SpecError: no network, nothing of the kind in it, tables that are not as they were trained,
            an index, or a dataset that is missing or of other users and items.
    """
    spec, network = _restored(label, bundle, dataset)
    _check_data(label, schedule, dataset)
    sizes = _sizes(label, bundle, network.core, what)
    found = bundle
    for step in range(1, schedule.steps + 1):
        left = 1 - schedule.share * step / schedule.steps
        counts = {name: max(1, round(size * left)) for name, size in sizes.items()}
        matters = _importance(schedule.by, spec, network, dataset, seed)
        _cut(network.core, what, counts, matters)
        found = replace(found, scorer=spec.export(network, bundle))
        if schedule.epochs:
            last = step == schedule.steps
            found = _tuned(spec, found, schedule.epochs if last else 1, dataset, seed, progress)
        if step < schedule.steps:
            network = spec.restore(found)
    line = {"transform": label, "seed": seed, "of": sizes, "left": counts}
    return bundle.then(found.scorer, line)


def _restored(label: str, bundle: Bundle, dataset: Dataset | Tabular | None) -> tuple[Any, Any]:
    """Return the spec of a bundle whose network may be pruned, and that network."""
    from martlet.models.restore import spec_of

    scorer: Any = bundle.scorer
    before_index(label, scorer)
    if not getattr(scorer, "parameters", None):
        raise SpecError(f"{label} over a {scorer.kind} scorer: it has no network of parameters")
    try:
        spec = spec_of(bundle)
        if isinstance(dataset, Dataset):
            from martlet.train.transfer import check_same_rows

            check_same_rows(bundle, dataset)
    except SpecError as error:
        raise SpecError(f"{label} does not apply: {error}") from error
    trained = {"fp32", getattr(spec, "storage", "fp32")}
    for name, table in scorer.tables().items():
        if table.storage not in trained:
            raise SpecError(
                f"{label} after table {name} became {table.storage}: training would undo that; "
                "prune first"
            )
    try:
        return spec, spec.restore(bundle)
    except SpecError as error:
        raise SpecError(f"{label} does not apply: {error}") from error


def _check_data(label: str, schedule: Schedule, dataset: Dataset | Tabular | None) -> None:
    if dataset is None and (schedule.epochs or schedule.by == "gradient"):
        raise SpecError(
            f"{label} learns from the data that the bundle was fitted on: give the dataset, or "
            "epochs=0 and by=magnitude"
        )


def _sizes(label: str, bundle: Bundle, core: nn.Module, what: What) -> dict[str, int]:
    """Return how many units or heads each layer has; or the number of layers, by ""."""
    from martlet.train.structure import groups_of, residual_layers

    if what == "layers":
        count = len(residual_layers(core))
        sizes = {"layers": count} if count else {}
    else:
        sizes = {name: len(group[0].at) for name, group in groups_of(core, what).items()}
    if max(sizes.values(), default=1) < 2:
        raise SpecError(
            f"{label} over {bundle.lineage[0]['spec']}: its network has no {what} of which one "
            "could be left out"
        )
    return sizes


class _Importance:
    """Tells what matters in a network."""

    def __init__(self, slopes: list[dict[str, Tensor]]) -> None:
        self.slopes = slopes

    def of(self, core: nn.Module, group: Group) -> NDArray[np.float32]:
        """Return (members,) how much each matters: by gradients where there are any."""
        held = {name: one.detach() for name, one in core.named_parameters()}
        if not self.slopes:
            return _sums({name: p * p for name, p in held.items()}, group)
        total = np.zeros(len(group[0].at), np.float32)
        for slopes in self.slopes:
            change = {name: held[name] * slope for name, slope in slopes.items()}
            total += _sums(change, group) ** 2
        return total


def _sums(numbers: Mapping[str, Tensor], group: Group) -> NDArray[np.float32]:
    """Return the (members,) sums of the numbers that belong to each member of a group."""
    total = np.zeros(len(group[0].at), np.float32)
    for cut in group:
        if cut.parameter in numbers:
            one = numbers[cut.parameter]
            each = one.movedim(cut.axis, 0).flatten(1).sum(1) if one.ndim > 1 else one
            total += each.cpu().numpy()[cut.at].sum(1)
    return total


def _importance(
    by: str, spec: Any, network: Any, dataset: Dataset | Tabular | None, seed: int
) -> _Importance:
    if by == "magnitude":
        return _Importance([])
    import torch

    from martlet.train.device import device_of

    named = dict(network.core.named_parameters())
    task = spec.task(network.to(device_of(spec.device)).eval(), dataset, seed)
    slopes = []
    for step, batch in enumerate(task.batches(0)[:_BATCHES]):
        loss, _ = task.loss(task.take(batch, step))
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        there = zip(named, found, strict=True)
        slopes.append({name: slope for name, slope in there if slope is not None})
    return _Importance(slopes)


def _cut(core: nn.Module, what: What, counts: Mapping[str, int], matters: _Importance) -> None:
    """Leave out what matters least until ``counts`` are left."""
    from martlet.train import structure

    if what == "layers":
        layers = structure.residual_layers(core)
        wholes = structure.whole(core, layers).values()
        each = np.concatenate([matters.of(core, group) for group in wholes])
        out = np.argsort(each, kind="stable")[: len(layers) - counts["layers"]]
        structure.skip(core, [layers[at] for at in out])
        return
    numbers = structure.numbers_of(core)
    for name, group in structure.groups_of(core, what).items():
        order = np.argsort(matters.of(core, group), kind="stable")
        numbers = structure.left_without(numbers, group, order[: len(order) - counts[name]])
    structure.put(core, numbers)


def _tuned(
    spec: Any, bundle: Bundle, epochs: int, dataset: Any, seed: int, progress: Progress | None
) -> Bundle:
    """Return the bundle trained on, in the shape that it has."""
    from martlet.train.run import Run

    plan = replace(spec, epochs=epochs)
    return replace(
        bundle, scorer=plan.fit(dataset, seed=seed, init=bundle, run=Run(progress=progress))
    )
