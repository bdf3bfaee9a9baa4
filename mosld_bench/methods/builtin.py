"""The built-in methods. They are found as those of other packages are: by the entry points of pyproject.toml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from mosld_bench.compat.peft import (
    allocate,
    allocation_state,
    before_allocation,
    classes_of,
    config_classes,
    frozen_stays_frozen,
    orthogonality,
    restore_allocation,
)
from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.methods import peft_types
from mosld_bench.methods.base import Method, Sizing
from mosld_bench.methods.live import virtual_tokens
from mosld_bench.methods.matching import linear_layers_hint, refuse_unmatched

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from mosld_bench.spec.trial import Load, TrainSpec


class BaseMethod(Method):
    """The frozen base model: nothing to train, the row that every gain is read against."""

    trains: ClassVar[bool] = False

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """Freeze everything. Raises BenchError for any params."""
        _no_params("base", params)
        return model.requires_grad_(False)


class FullMethod(Method):
    """Full fine-tuning: every parameter trains. Its size cannot be matched, so tables set it apart."""

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """Let everything train. Raises BenchError for any params."""
        _no_params("full", params)
        return model.requires_grad_(True)

    def save(self, model: nn.Module, base: nn.Module, params: Mapping[str, Any], folder: Path) -> None:
        """The whole model, as transformers writes it: nothing of the base model is left."""
        model.save_pretrained(str(folder))  # type: ignore[operator]


class PeftMethod(Method):
    """Any method of PEFT. ``params``: ``peft_type`` (LORA, PREFIX_TUNING, ...) and the fields of its config."""

    def defaults(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """PEFT's own, of the configuration of the type."""
        return peft_types.defaults_of(_peft_type(params))

    def sizing(self, params: Mapping[str, Any]) -> Sizing:
        """As the table of PEFT's types has it."""
        return peft_types.sizing_of(_peft_type(params), params)

    def starts_at_zero(self, params: Mapping[str, Any]) -> bool:
        """Virtual tokens start at random values, and so does what is told not to start at zero."""
        return peft_types.starts_at_zero(_peft_type(params), params)

    def checkpoints(self, params: Mapping[str, Any]) -> bool:
        """A prefix stands in the cache of keys and values, to which a second forward would add again."""
        return peft_types.kind_of(_peft_type(params)).checkpoints

    def why_not_rounded(self, params: Mapping[str, Any], load: Load, dtype: str) -> str | None:
        """As the table of PEFT's types has it."""
        return peft_types.why_not_rounded(_peft_type(params), params, load, dtype)

    def parts(self, params: Mapping[str, Any]) -> tuple[type, ...]:
        """The classes of the tuner."""
        return classes_of(_peft_type(params))

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """As the contract.

        Raises UnknownNameError for a type or a field that PEFT lacks, and BenchError for a type that a benchmark cannot
        run (`peft_types`), settings that PEFT refuses, and names and patterns that match no module.
        """
        peft_type, classes = _peft_type(params), config_classes()
        if peft_type not in classes:
            raise UnknownNameError("PEFT type", peft_type, classes, "Set it as peft_type in the recipe's params.")
        options = {name: value for name, value in params.items() if name != "peft_type"}
        _refuse_unknown(classes[peft_type], options)
        reason = peft_types.why_refused(peft_type, params)
        if reason:
            raise BenchError(f"The PEFT type {peft_type} cannot be run with these params: {reason}")
        self.check_numbers(params)
        if peft_type == "ADALORA":
            if "total_step" in options:
                raise BenchError(
                    "AdaLoRA's total_step is the number of steps of the trial, which the study sets. Leave it out of "
                    "the recipe's params."
                )
            options = before_allocation(options)
        return _with_adapter(model, classes[peft_type], options)

    def aux_loss(self, model: nn.Module) -> Tensor | None:
        """AdaLoRA's, which keeps its factors orthogonal; None of the others."""
        return orthogonality(model)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Let AdaLoRA, and AdaMSS under ``use_asa``, take rank from some modules and leave it to others."""
        allocate(model, step, steps)

    def training_state(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        """What AdaLoRA has found of the weights so far; None of AdaMSS under ``use_asa``, nothing of the others."""
        return allocation_state(model)

    def restore_training_state(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """See the contract."""
        restore_allocation(model, state)


class TunerMethod(Method):
    """A PEFT tuner of one's own (`register_tuner`). ``params``: the fields of its configuration class."""

    def config_class(self) -> Any:
        """The class of the tuner's configuration, whose fields are the ``params``."""
        raise NotImplementedError(f"{type(self).__qualname__} has to say by config_class what its configuration is.")

    def defaults(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Those of the configuration, whatever the ``params``."""
        return peft_types.defaults_in(self.config_class())

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """As the contract. Raises BenchError for fields and values that the configuration refuses."""
        _refuse_unknown(self.config_class(), params)
        self.check_numbers(params)
        return _with_adapter(model, self.config_class(), dict(params))


class MixtureMethod(TunerMethod):
    """Our mixture tuner: MoE-LoRA, MoLA, MoSLD and all between. ``params``: the fields of MixtureConfig."""

    knob: ClassVar[str | None] = "r"
    proportional: ClassVar[tuple[str, ...]] = ("lora_alpha",)
    pattern: ClassVar[str | None] = "rank_pattern"
    proportional_patterns: ClassVar[Mapping[str, str]] = {"lora_alpha": "alpha_pattern"}

    #: The field that holds the number of experts of single modules, or None.
    experts_pattern: ClassVar[str | None] = "experts_pattern"

    def version(self, train: TrainSpec | None) -> int:
        """2 in bfloat16, since router logits are float32 there too: some tokens go to other experts than before."""
        return 2 if train is not None and train.dtype == "bfloat16" else 1

    def sizing_by(self, params: Mapping[str, Any], knob: str) -> Sizing:
        """By the number of experts, of which a token picks the same share; single modules may have one more.

        Two or more picks stay two at least, since one alone may have a gate of 1 whatever the router says.
        """
        if knob != "experts":
            return super().sizing_by(params, knob)
        picks = params.get("top_k")
        follow = ("top_k",) if picks is not None else ()
        return Sizing(knob, pattern=self.experts_pattern, follow=follow, least=1 if picks == 1 else 2)

    def config_class(self) -> Any:
        """The class of the tuner's configuration, whose fields are the ``params``."""
        from mosld_bench.tuners.mixture import MixtureConfig

        return MixtureConfig

    def aux_loss(self, model: nn.Module) -> Tensor | None:
        """The balance loss of the routers; None without one."""
        from mosld_bench.tuners.mixture import aux_loss

        return aux_loss(model)

    def active(self, model: nn.Module) -> int:
        """All but the experts that a token's routers left out."""
        from mosld_bench.tuners.mixture import idle_parameters

        return super().active(model) - idle_parameters(model)

    def before_step(self, model: nn.Module) -> None:
        """Draw the masks of the step, of dropout on weights or updates."""
        from mosld_bench.tuners.mixture import draw_masks

        draw_masks(model)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Under dropout on updates, give what the step drops its value back; move the biases of choices, if any."""
        from mosld_bench.tuners.mixture import keep_dropped, move_biases

        keep_dropped(model)
        move_biases(model)

    def training_state(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        """The masks of the last step, of dropout on weights or updates, by module and adapter."""
        from mosld_bench.tuners.mixture import masks_of

        return masks_of(model)

    def restore_training_state(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """See the contract."""
        from mosld_bench.tuners.mixture import set_masks

        set_masks(model, state)


class MixLoraMethod(MixtureMethod):
    """MixLoRA: routed LoRA experts on the frozen feed-forward blocks. ``params``: the fields of MixLoraConfig."""

    experts_pattern: ClassVar[str | None] = None

    def config_class(self) -> Any:
        """The class of the tuner's configuration, whose fields are the ``params``."""
        from mosld_bench.tuners.mixlora import MixLoraConfig

        return MixLoraConfig


def _with_adapter(model: nn.Module, config_class: Any, options: dict[str, Any]) -> nn.Module:
    """``model`` with the adapter that PEFT makes of ``config_class(**options)``; a PeftModel."""
    from peft import get_peft_model
    from torch import OutOfMemoryError

    from mosld_bench.compat.transformers import old_names_allowed

    modules = [name for name, _ in model.named_modules() if name]
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    try:
        config = config_class(task_type="CAUSAL_LM", **options)
        with old_names_allowed(), frozen_stays_frozen():
            adapted: nn.Module = get_peft_model(model, config)
    except (BenchError, MemoryError, OutOfMemoryError):
        raise
    except Exception as error:
        if on_meta and isinstance(error, RuntimeError):
            raise  # it reads values, which the meta device has not; whoever counts can give it some
        said = _said_by_peft(error, config_class, options)
        raise BenchError(f"{said}{linear_layers_hint(model, options)}") from error
    refuse_unmatched(adapted, options, modules, str(config.peft_type.value))
    _refuse_no_room(adapted)
    return adapted


def _refuse_no_room(model: Any) -> None:
    """Raise BenchError where virtual tokens take all the positions that the model has for a text."""
    virtual, positions = virtual_tokens(model), getattr(model.config, "max_position_embeddings", None)
    if positions and virtual >= positions:
        raise BenchError(
            f"{virtual} virtual tokens stand before every text, and the model has {positions} positions, which leaves "
            f"none for the text. Set num_virtual_tokens, or the budget, lower."
        )


def _refuse_unknown(config_class: Any, options: Mapping[str, Any]) -> None:
    """Raise UnknownNameError for an option that ``config_class`` has no field for."""
    known = {field.name for field in fields(config_class)}
    for key in options:
        if key not in known:
            raise UnknownNameError(f"field of {config_class.__name__}", key, known - {"peft_type", "task_type"})


def _said_by_peft(error: Exception, config_class: Any, options: Mapping[str, Any]) -> str:
    """What PEFT says about these settings, and which of the fields that it names the recipe did not write."""
    words = str(error).replace("_", " ").lower()
    if "rank" in words:
        words += " r"
    unset = [
        f"{name} {value!r}"
        for name, value in peft_types.defaults_in(config_class).items()
        if name not in options and type(value) is int and re.search(rf"\b{name.replace('_', ' ')}\b", words)
    ]
    said = str(error) if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: {error}"
    end = "" if said.endswith((".", "!")) else "."
    hint = f" The recipe leaves PEFT's default of {' and '.join(unset)}; set it in the params." if unset else ""
    return f"PEFT refuses these settings of {config_class.__name__}: {said}{end}{hint}"


def _peft_type(params: Mapping[str, Any]) -> str:
    return str(params.get("peft_type", "")).upper()


def _no_params(method: str, params: Mapping[str, Any]) -> None:
    if params:
        raise BenchError(f"The method {method!r} takes no params, but the recipe gives {', '.join(params)}.")
