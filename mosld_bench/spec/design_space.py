"""The coordinates of the mixture's design space and their defaults: plain data, read without torch.

`tuners/mixture` makes its configuration of them, and a report fills in by them what a recipe leaves open, so that both
mean the same mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

#: Which projection the experts share: neither, the down-projection A (HydraLoRA, MoSL, MoSLD), the up-projection B, or
#: both, where an expert is a square core between them.
Share = Literal["none", "down", "up", "both"]

#: What dropout is drawn over.
DropoutPlace = Literal["none", "input", "weight", "update", "hidden", "expert_hidden", "gates"]

#: The matrix that weight and update dropout fall on: the shared one (down where none is), or a named one.
DropoutMatrix = Literal["shared", "down", "up"]

#: The formula of the balance loss: Switch's, or MoSLD's Eq. 4 read word by word.
BalanceForm = Literal["switch", "counts"]

#: How the balance losses of the adapted modules become one.
BalanceReduce = Literal["mean", "sum"]

#: What gives the gates: a trained product with what ``router_input`` names, one over the number of experts for each, or
#: the size of what the down-projections make of the input.
Router = Literal["learned", "uniform", "magnitude"]

#: What a router reads: the module's input, what A makes of it, or noise that is fixed for every position of a text.
RouterInput = Literal["x", "hidden", "noise"]

#: What the down-projections start from, and the up-projections.
DownInit = Literal["gaussian", "sparse"]
UpInit = Literal["zero", "random"]

#: What may be left at its initial values.
Freezable = Literal["down", "router"]

SHARES: tuple[Share, ...] = get_args(Share)
ROUTERS: tuple[Router, ...] = get_args(Router)
ROUTER_INPUTS: tuple[RouterInput, ...] = get_args(RouterInput)
DOWN_INITS: tuple[DownInit, ...] = get_args(DownInit)
UP_INITS: tuple[UpInit, ...] = get_args(UpInit)
FREEZABLE: tuple[Freezable, ...] = get_args(Freezable)
DROPOUT_PLACES: tuple[DropoutPlace, ...] = get_args(DropoutPlace)
DROPOUT_MATRICES: tuple[DropoutMatrix, ...] = get_args(DropoutMatrix)
BALANCE_FORMS: tuple[BalanceForm, ...] = get_args(BalanceForm)
BALANCE_REDUCES: tuple[BalanceReduce, ...] = get_args(BalanceReduce)


def dropout_rates(dropout: float | Mapping[str, float], dropout_on: str) -> dict[str, float]:
    """Place -> rate of each dropout that acts: of a rate with its place, or of a mapping of places to rates."""
    rates = dropout if isinstance(dropout, Mapping) else {dropout_on: dropout}
    return {place: rate for place, rate in rates.items() if rate > 0}


@dataclass(frozen=True)
class Coordinates:
    """A point of the design space; `tuners.mixture.MixtureConfig` has the same fields and says what each means."""

    r: int = 8
    lora_alpha: float = 16
    experts: int | list[int] = 4
    share: Share = "none"
    router: Router = "learned"
    router_input: RouterInput = "x"
    frozen: list[Freezable] = field(default_factory=list)
    down_init: DownInit = "gaussian"
    up_init: UpInit = "zero"
    top_k: int | None = None
    renormalize: bool = True
    capacity: float | None = None
    balance_coef: float = 0.0
    balance_form: BalanceForm = "switch"
    balance_reduce: BalanceReduce = "mean"
    balance_step: float = 0.0
    dropout: float | dict[str, float] = 0.0
    dropout_on: DropoutPlace = "none"
    dropout_matrix: DropoutMatrix = "shared"

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Coordinates:
        """The point that a recipe's ``params`` name, what they leave open at its default; other keys are ignored."""
        return cls(**{each.name: params[each.name] for each in fields(cls) if each.name in params})

    @property
    def dropouts(self) -> dict[str, float]:
        """Place -> rate of each dropout that acts."""
        return dropout_rates(self.dropout, self.dropout_on)
