"""The contract of a method: what it must do, and what it may declare about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from mosld_bench.errors import BenchError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from mosld_bench.spec.trial import Load, TrainSpec


@dataclass(frozen=True)
class Sizing:
    """How a method at certain params gets its size: the field that a budget turns, and what has to move along."""

    #: The integer field that is turned (``r``); None for a fixed size.
    knob: str | None = None

    #: Field that moves along, so that the scale of the update is held -> the field that holds it for single modules,
    #: or None where there is none (``lora_alpha`` -> ``alpha_pattern``).
    moves: Mapping[str, str | None] = field(default_factory=dict)

    #: Fields with whole numbers that keep their ratio to the knob, rounded (AdaLoRA's ``target_r``).
    follow: tuple[str, ...] = ()

    #: What those are at least, where the knob is as large.
    least: int = 1

    #: The field that holds the knob for single modules (PEFT's ``rank_pattern``), or None.
    pattern: str | None = None

    #: Whether a pattern's key may be a module's whole name, so that a budget can raise single modules by it.
    spreads: bool = True

    #: Whether what moves along does so with the root of the knob (rsLoRA's scale is alpha / sqrt(r)).
    by_root: bool = False

    #: What every value of the knob is a multiple of.
    unit: int = 1

    #: The field that a rank as budget sets (``r8``); None where the method's update has no rank to set.
    rank: str | None = "r"

    #: Why there is no knob, as the end of a sentence, where there is more to say than that the size is fixed.
    why_fixed: str = ""

    def moved(self, value: float, before: int, after: int) -> float:
        """``value`` of a field that moves along when the knob goes from ``before`` to ``after``."""
        return value * sqrt(after / before) if self.by_root else value * after / before

    @staticmethod
    def in_ratio(value: int, before: int, after: int) -> int:
        """``value`` times ``after / before`` to the nearest whole number, halves up, and at least 1."""
        return max(1, (2 * value * after + before) // (2 * before))


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

    #: Whether there is anything to train; of the frozen base model alone there is not.
    trains: ClassVar[bool] = True

    @abstractmethod
    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """Return ``model`` (wrapped or changed in place) with the method's parameters requiring a gradient.

        ``model`` comes frozen. ``params`` are those of the recipe, sized to the budget. Raises BenchError for params
        without meaning. Must work on the meta device too, since that is how parameters are counted.
        """

    def save(self, model: nn.Module, base: nn.Module, params: Mapping[str, Any], folder: Path) -> None:
        """Write into ``folder`` what `load` makes ``model`` of again: this method at ``params`` on ``base``, trained.

        A PEFT adapter as PEFT writes it; of a plain module every parameter and buffer that is not the base model's.
        """
        from mosld_bench.methods import saved

        saved.write(self, model, base, params, folder)

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """``model``, an untouched base model, with what `save` wrote into ``folder``; frozen, in evaluation mode."""
        from mosld_bench.methods import saved

        return saved.read(self, model, folder)

    def aux_loss(self, model: nn.Module) -> Tensor | None:
        """A scalar to add to the loss of the step just computed (a balance loss), or None."""
        return None

    def before_step(self, model: nn.Module) -> None:
        """Called once before every optimiser step, whatever the number of micro-batches."""
        return

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Called once after every optimiser step, before the next forward, with the gradients of the step still there.

        ``step`` is the one just made, from 1 to ``steps``, which is how many the trial makes. For what has to be done
        between two steps: give rank to some modules and take it from others, undo a step in part. Raises BenchError
        where so many steps do not suit the method's schedule; then best at the first.
        """
        return

    def training_state(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        """What the method keeps from one step to the next beside the parameters and buffers of ``model``, by name.

        A trial that is broken off goes on from it (`restore_training_state`) and ends as if it had not been. None where
        that is not known, so that the trial begins anew: as it is here of a method with a `before_step` or `after_step`
        of its own, which may keep something anywhere.
        """
        steps = (type(self).before_step, type(self).after_step)
        return {} if steps == (Method.before_step, Method.after_step) else None

    def restore_training_state(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Set what `training_state` gave, on the device of ``model``, which was attached anew. Nothing, if not needed.

        The parameters and buffers of ``model`` have their values already.
        """
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

    def why_not_rounded(self, params: Mapping[str, Any], load: Load, dtype: str) -> str | None:
        """Why it cannot be on a base model whose linear layers are rounded by ``load``, as a clause; None where it can.

        There a layer's ``weight`` holds packed integers of another shape: take sizes from ``in_features`` and
        ``out_features``, and what a layer makes of its input by calling it. ``dtype``: `train.dtype`. What trains
        those weights is refused in any case.
        """
        return None

    def defaults(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the fields that ``params`` leave out are; fields that are not named here have no value then."""
        return {}

    def sizing(self, params: Mapping[str, Any]) -> Sizing:
        """How these ``params`` are sized. A method with several kinds inside overrides it."""
        moves = {name: self.proportional_patterns.get(name) for name in self.proportional}
        return Sizing(self.knob, moves, pattern=self.pattern)

    def sizing_by(self, params: Mapping[str, Any], knob: str) -> Sizing:
        """How ``knob`` sizes these ``params``: the method's, or a recipe's own, with which nothing else moves."""
        return self.sizing(params) if knob == self.knob_of(params) else Sizing(knob)

    def knob_at(self, params: Mapping[str, Any], module: str) -> int:
        """The value of the knob for the ``module`` of this name: its own one under ``pattern``, else that of all.

        For `attach`: a budget gives some modules one more than others, so that it is met as exactly as can be.
        """
        from mosld_bench.compat.peft import of_module

        sizing, whole = self.sizing(params), {**self.defaults(params), **params}
        value: int = of_module(whole.get(sizing.pattern or "") or {}, module, whole[sizing.knob or ""])
        return value

    def knob_of(self, params: Mapping[str, Any]) -> str | None:
        """The knob for these ``params``, None where they have none."""
        knob = self.sizing(params).knob
        return knob if knob in params or knob in self.defaults(params) else None

    def check_numbers(self, params: Mapping[str, Any]) -> None:
        """Raise BenchError for a knob, or what moves with it, that is no number, as `at` does at any other size."""
        knob = self.knob_of(params)
        if knob is not None:
            self.at(params, 1, knob)

    def at(self, params: Mapping[str, Any], value: int, knob: str | None = None) -> dict[str, Any]:
        """``params`` with the knob at ``value``, and what depends on it moved so that the scale of the update is held.

        What single modules have of their own (``rank_pattern``) moves in the same ratio, rounded to the nearest whole
        number, halves up, and at least 1; their ``alpha_pattern`` then holds the scale at the rounded rank. ``knob`` is
        a recipe's own choice; with one that is not the method's only what `sizing_by` names moves. Raises BenchError
        for what is no number.
        """
        knob = knob or self.knob_of(params)
        assert knob is not None, "only a method with a knob, or a recipe with one, has a size to set"
        sizing, whole = self.sizing_by(params, knob), {**self.defaults(params), **params}
        if whole.get(knob) is None or (knob != self.knob_of(params) and type(whole[knob]) is not int):
            return {**params, knob: value}
        before = _number(knob, whole[knob], int)
        own = _numbers(sizing.pattern, whole, int)
        ranks = {key: sizing.in_ratio(rank, before, value) for key, rank in own.items()}
        moved: dict[str, Any] = {
            name: max(sizing.in_ratio(_number(name, whole[name], int), before, value), min(sizing.least, value))
            for name in sizing.follow
        }
        if own and sizing.pattern:
            moved[sizing.pattern] = ranks
        for name, pattern in sizing.moves.items():
            if whole.get(name) is None:
                continue
            alpha, alphas = _number(name, whole[name], float), _numbers(pattern, whole, float)
            moved[name] = sizing.moved(alpha, before, value)
            if pattern and (own or alphas):
                moved[pattern] = {
                    key: sizing.moved(alphas.get(key, alpha), own.get(key, before), ranks.get(key, value))
                    for key in dict.fromkeys([*alphas, *own])
                }
        return {**params, **moved, knob: value}


N = TypeVar("N", int, float)


def _number(name: str, value: Any, kind: type[N]) -> N:
    """``value``, which has to be of ``kind``, and above 0 where it is a whole number. Raises BenchError otherwise."""
    holds = isinstance(value, int) and value >= 1 if kind is int else isinstance(value, (int, float))
    if isinstance(value, bool) or not holds:
        what = "a whole number above 0" if kind is int else "a number"
        raise BenchError(f"{name} is {value!r} in the recipe's params; it has to be {what}.")
    number: N = value
    return number


def _numbers(pattern: str | None, params: Mapping[str, Any], kind: type[N]) -> dict[str, N]:
    """The entries of ``pattern`` in ``params``; empty without. Raises BenchError for what is no mapping of numbers."""
    entries = (params.get(pattern) or {}) if pattern else {}
    if not isinstance(entries, Mapping):
        raise BenchError(f"{pattern} is {entries!r} in the recipe's params; it has to be names with a number each.")
    return {key: _number(f"{key!r} of {pattern}", value, kind) for key, value in entries.items()}
