"""The contract of a method: what it must do, and what it may declare about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mosld_bench.spec.trial import TrainSpec


class Method(ABC):
    """An algorithm that makes a frozen language model trainable in few parameters.

    The contract, held by :func:`mosld_bench.methods.contract.check_method`: after ``attach`` exactly the method's own
    parameters require a gradient, and the model's output is what it was before (unless ``starts_at_zero`` says no).
    """

    #: The integer field of ``params`` that the budget solver turns (``r``), or None where the size is fixed.
    knob: ClassVar[str | None] = None

    #: Fields that move in proportion to the knob (``lora_alpha`` with ``r``: the scale alpha / r is held).
    proportional: ClassVar[tuple[str, ...]] = ()

    #: Field, if any, that raises the knob for single modules (PEFT's ``rank_pattern``: module name -> knob).
    pattern: ClassVar[str | None] = None

    #: Proportional field -> the field that raises it for single modules (``lora_alpha`` -> ``alpha_pattern``).
    proportional_patterns: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """Return ``model`` (wrapped or changed in place) with the method's parameters requiring a gradient.

        ``params`` are those of the recipe, sized to the budget. Raises BenchError for params without meaning. Must work
        on the meta device too, since that is how parameters are counted.
        """

    def aux_loss(self, model: nn.Module) -> Tensor | None:
        """A scalar to add to the loss of the step just computed (a balance loss), or None."""
        return None

    def before_step(self, model: nn.Module) -> None:
        """Called once before every optimiser step, whatever the number of micro-batches."""
        return

    def after_step(self, model: nn.Module) -> None:
        """Called once after every optimiser step, with the gradients of the step still in place."""
        return

    def version(self, train: TrainSpec | None) -> int:
        """The version of the code, for trials that train as ``train`` says; None for those that train nothing.

        To be raised when a change of the code changes the numbers of such trials: records of another version are then
        made again. (Of a plug-in the source is compared too.)
        """
        return 1

    def parts(self, params: Mapping[str, Any]) -> tuple[type, ...]:
        """Classes beside this one whose code makes the numbers: of a tuner that another package registered with PEFT.

        Records note where they are from and a digest of their source, if they are not of this package.
        """
        return ()

    def active(self, model: nn.Module) -> int:
        """How many of the trained parameters of ``model`` (what ``attach`` returned) enter the output of one token.

        All of them, unless the method picks some for each token: a router with top-K leaves the other experts out.
        """
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    def starts_at_zero(self, params: Mapping[str, Any]) -> bool:
        """Whether the output right after ``attach`` is the base model's."""
        return True

    def checkpoints(self, params: Mapping[str, Any]) -> bool:
        """Whether a layer's forward may be run again in the backward pass (gradient checkpointing)."""
        return True

    def knob_of(self, params: Mapping[str, Any]) -> str | None:
        """The knob for these ``params``, None where they have none. A method with several kinds inside overrides it."""
        return self.knob if self.knob in params else None

    def at(self, params: Mapping[str, Any], value: int, knob: str | None = None) -> dict[str, Any]:
        """``params`` with the knob at ``value`` and the proportional fields moved along.

        ``knob`` is a recipe's own choice; nothing else moves with one that is not the method's.
        """
        method_knob = self.knob_of(params)
        knob = knob or method_knob
        assert knob is not None, "only a method with a knob, or a recipe with one, has a size to set"
        if knob != method_knob:
            return {**params, knob: value}
        moved = {f: params[f] * value / params[knob] for f in self.proportional if f in params}
        return {**params, **moved, knob: value}
