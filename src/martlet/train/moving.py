"""How a network moves: the dense optimizer, and the tables behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from martlet.train import checkpoint
from martlet.train.embeddings import tables_of
from martlet.train.plan import Plan
from martlet.train.precision import Scale


class Movers:
    """The optimizers of a network: one over its parameters, and that of each of its tables.

    Attributes:
        scale: by which a loss is multiplied before its gradient is taken.
    """

    def __init__(self, network: nn.Module, plan: Plan) -> None:
        self.plan = plan
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.tables = tables_of(network)
        self.dense = optimizer_of(plan, self.parameters) if self.parameters else None
        self.scale = Scale("fp32")

    def move(self, loss: Tensor, share: float) -> None:
        """Take a step against the gradient of ``loss``, by ``share`` of each rate.

        Where a loss in fp16 was scaled and its gradients overflow, no step is taken.
        """
        scaled = self.scale.by != 1
        if self.dense is not None:
            for group in self.dense.param_groups:
                group["lr"] = self.plan.rate * share
            self.dense.zero_grad(set_to_none=True)
        (loss * self.scale.by if scaled else loss).backward()  # type: ignore[no-untyped-call]
        if (self.plan.clip or scaled) and not self._tame(scaled):
            return
        if self.dense is not None:
            self.dense.step()
        for table in self.tables.values():
            table.step(share)

    def tensors(self) -> dict[str, Tensor]:
        """Return the moments of all by name."""
        found = {} if self.dense is None else checkpoint.optimizer_tensors(self.dense)
        held = {f"dense.{name}": tensor for name, tensor in found.items()}
        for name, table in self.tables.items():
            held |= {f"table.{name}.{key}": value for key, value in table.moments().items()}
        return held

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what ``tensors`` returned, of the same network and plan."""
        if self.dense is not None:
            checkpoint.restore_optimizer(self.dense, _under(tensors, "dense"))
        for name, table in self.tables.items():
            table.restore(_under(tensors, f"table.{name}"))

    def _tame(self, scaled: bool) -> bool:
        """Take the scale back, and clip the whole gradient, dense and of tables, to ``clip``.

        Returns whether it is finite; one that a scale made infinite is forgotten.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if scaled:
            self._multiply(gradients, 1 / self.scale.by)
        square = sum(table.square_norm() for table in self.tables.values())
        norm = torch.hypot(nn.utils.get_total_norm(gradients), torch.tensor(square).sqrt())
        finite = bool(norm.isfinite())
        if scaled:
            self.scale.after(finite)
            if not finite:
                for table in self.tables.values():
                    table.forget()
                return False
        if self.plan.clip:
            nn.utils.clip_grads_with_norm_(self.parameters, self.plan.clip, norm)
            by = self.plan.clip / (float(norm) + 1e-6)
            self._multiply([], min(by, 1.0))
        return True

    def _multiply(self, gradients: Sequence[Tensor], by: float) -> None:
        """Multiply some dense gradients, and those of all tables."""
        if by == 1:
            return
        for gradient in gradients:
            gradient.mul_(by)
        for table in self.tables.values():
            table.scale_gradients(by)


def optimizer_of(plan: Plan, parameters: Sequence[nn.Parameter]) -> Optimizer:
    """Return the optimizer of a plan; its rate is set before each step."""
    if plan.optimizer == "sgd":
        return torch.optim.SGD(parameters, plan.rate, weight_decay=plan.weight_decay, fused=True)
    kind = torch.optim.AdamW if plan.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, plan.rate, weight_decay=plan.weight_decay, fused=True)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
