"""What can be left out of a network as a whole: its units, its heads, its layers.

Nothing but the parameters tells how large a pruned network is. A module with something to leave out
says in ``prunable`` where the numbers of each unit or head lie; a layer whose input goes around it
says ``residual``. ``take_over`` then finds from parameters alone what is missing, and gives the
network that shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from martlet.core import SpecError
from martlet.scorers.table import Table

_WIDE = (nn.Linear, nn.LayerNorm, nn.BatchNorm1d)


@dataclass(frozen=True, eq=False)
class Cut:
    """Where the numbers of each member of a group lie in one parameter.

    Attributes:
        parameter: its name.
        axis: along which the members lie.
        at: (members, m) int64, the places of each along the axis.
    """

    parameter: str
    axis: int
    at: NDArray[np.int64]

    @staticmethod
    def of(
        parameter: str, members: int, *, axis: int = 0, parts: int = 1, width: int = 1,
        first: int = 0,
    ) -> Cut:  # fmt: skip
        """Return members of ``width`` places side by side, in each of some parts one after another.

        The parts start at place ``first``.
        """
        part, member = np.arange(parts)[None, :, None], np.arange(members)[:, None, None]
        at = first + (part * members + member) * width + np.arange(width)
        return Cut(parameter, axis, at.reshape(members, -1))


Group = tuple[Cut, ...]


class Skipped(nn.Module):
    """Stands where a residual layer was left out."""

    def forward(self, x: Tensor, *beside: Tensor | None) -> Tensor:
        """Return ``x``."""
        return x


def groups_of(network: nn.Module, what: str | None = None) -> dict[str, Group]:
    """Return the groups of "units" or "heads" by name, or all of them; parameters by full name."""
    found = {}
    for path, module in network.named_modules():
        start = f"{path}." if path else ""
        for kind, groups in getattr(module, "prunable", dict)().items():
            if what in (None, kind):
                for number, group in enumerate(groups):
                    cuts = (replace(cut, parameter=start + cut.parameter) for cut in group)
                    found[f"{start}{kind}{number}"] = tuple(cuts)
    return found


def residual_layers(network: nn.Module) -> list[str]:
    """Return the names of the layers that may be left out as a whole."""
    return [name for name, one in network.named_modules() if getattr(one, "residual", False)]


def chain(**parts: nn.Module) -> list[Group]:
    """Return a group a hidden layer of linear layers that feed each other, in their order.

    A layer may read other numbers before those of the layer in front of it. Parts are called as
    attributes are, and what is in sequence is opened.
    """
    opened: list[tuple[str, nn.Module]] = []
    for name, part in parts.items():
        inner = [(f"{name}.{at}", one) for at, one in part.named_children()]
        opened += inner if isinstance(part, nn.Sequential) else [(name, part)]
    found, open_cuts, count = list[Group](), list[Cut](), 0
    for name, part in opened:
        if isinstance(part, nn.Linear):
            if open_cuts:
                first = part.in_features - count
                open_cuts.append(Cut.of(f"{name}.weight", count, axis=1, first=first))
                found.append(tuple(open_cuts))
            count, open_cuts = part.out_features, []
        if isinstance(part, _WIDE):
            open_cuts += [Cut.of(f"{name}.{one}", count) for one in numbers_of(part)]
    return found


def numbers_of(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers of numbers by name: what a bundle keeps of a network."""
    held = network.state_dict().items()
    return {name: one.detach() for name, one in held if one.is_floating_point()}


def tables_from(network: nn.Module) -> dict[str, Table]:
    """Return what a bundle keeps of a network: a table each, what follows the first axis a row."""
    return {
        name: Table.of(one.cpu().numpy().reshape(len(one) if one.ndim else 1, -1))
        for name, one in numbers_of(network).items()
    }


def take_over(network: nn.Module, tables: Mapping[str, Table]) -> None:
    """Give a network the parameters that ``tables_from`` told of it, or of what pruning left of it.

    Raises:
        SpecError: they are those of another network; says which differ.
    """
    for name in residual_layers(network):
        if not any(own.startswith(f"{name}.") for own in tables):
            _set(network, name, Skipped())
    sizes = {name: list(one.shape) for name, one in numbers_of(network).items()}
    if sizes.keys() != tables.keys():
        other = ", ".join(sorted(sizes.keys() ^ tables.keys())[:3])
        raise SpecError(f"parameters are of one network alone: {other}")
    for group in groups_of(network).values():
        _shrink(sizes, group, tables)
    for name, size in sizes.items():
        flat = (size[0], math.prod(size[1:])) if size else (1, 1)
        if flat != tables[name].shape:
            raise SpecError(f"parameter {name} is {tables[name].shape}: expected {flat}")
    dense = {name: torch.tensor(tables[name].dense()) for name in sizes}
    put(network, {name: one.reshape(sizes[name]) for name, one in dense.items()})


def _shrink(sizes: dict[str, list[int]], group: Group, tables: Mapping[str, Table]) -> None:
    """Take those members from the sizes that the first parameter of a group lacks."""
    members, width = group[0].at.shape
    lost, rest = divmod(sizes[group[0].parameter][0] - tables[group[0].parameter].shape[0], width)
    if rest == 0 and 0 <= lost < members:
        for cut in group:
            sizes[cut.parameter][cut.axis] -= lost * cut.at.shape[1]


def left_without(
    numbers: Mapping[str, Tensor], group: Group, members: NDArray[np.integer]
) -> dict[str, Tensor]:
    """Return the numbers without those of some members of a group."""
    found = dict(numbers)
    for cut in group:
        size = found[cut.parameter].shape[cut.axis]
        kept = np.setdiff1d(np.arange(size), cut.at[members])
        found[cut.parameter] = found[cut.parameter].index_select(cut.axis, torch.from_numpy(kept))
    return found


def put(network: nn.Module, numbers: Mapping[str, Tensor]) -> None:
    """Replace parameters and buffers by others, of any size, and let their layers know."""
    for name, one in numbers.items():
        path, _, leaf = name.rpartition(".")
        module = network.get_submodule(path)
        old = getattr(module, leaf)
        one = one.to(old.device).contiguous()
        kept = nn.Parameter(one, old.requires_grad) if isinstance(old, nn.Parameter) else one
        setattr(module, leaf, kept)
        _settle(module)


def _settle(module: nn.Module) -> None:
    """Set what a layer says of its own size."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv1d):
        module.out_channels, module.in_channels = module.weight.shape[:2]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.BatchNorm1d):
        module.num_features = len(module.weight)
    elif isinstance(module, nn.GRU):
        module.hidden_size = module.weight_hh_l0.size(1)  # type: ignore[operator]


def skip(network: nn.Module, layers: Iterable[str]) -> None:
    """Leave residual layers out."""
    for name in layers:
        _set(network, name, Skipped())


def _set(network: nn.Module, name: str, module: nn.Module) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(path), leaf, module)


def whole(network: nn.Module, layers: Sequence[str]) -> dict[str, Group]:
    """Return a group of one member a layer: all its parameters."""
    found = {}
    for name in layers:
        own = dict(network.get_submodule(name).named_parameters())
        found[name] = tuple(Cut.of(f"{name}.{one}", 1, width=p.shape[0]) for one, p in own.items())
    return found
