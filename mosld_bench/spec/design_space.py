"""The coordinates of the mixture's design space and their defaults: plain data, read without torch.

`tuners/mixture` makes its configuration of them, and a report fills in by them what a recipe leaves open, so that both
mean the same mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

#: Which projection the experts share: neither, the down-projection A (HydraLoRA, MoSL, MoSLD) or the up-projection B.
Share = Literal["none", "down", "up"]

#: What dropout is drawn over.
DropoutPlace = Literal["none", "input", "weight", "hidden", "gates"]

SHARES: tuple[Share, ...] = get_args(Share)
DROPOUT_PLACES: tuple[DropoutPlace, ...] = get_args(DropoutPlace)


@dataclass(frozen=True)
class Coordinates:
    """A point of the design space; `tuners.mixture.MixtureConfig` has the same fields and says what each means."""

    r: int = 8
    lora_alpha: float = 16
    experts: int | list[int] = 4
    share: Share = "none"
    top_k: int | None = None
    renormalize: bool = True
    capacity: float | None = None
    balance_coef: float = 0.0
    dropout: float = 0.0
    dropout_on: DropoutPlace = "none"

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Coordinates:
        """The point that a recipe's ``params`` name, what they leave open at its default; other keys are ignored."""
        return cls(**{field.name: params[field.name] for field in fields(cls) if field.name in params})
