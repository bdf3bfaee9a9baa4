"""The built-in methods. They are found as those of other packages are: by the entry points of pyproject.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from mosld_bench.compat.peft import classes_of, config_classes
from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.methods.base import Method

if TYPE_CHECKING:
    from mosld_bench.spec.trial import TrainSpec


class BaseMethod(Method):
    """The frozen base model: nothing to train, the row that every gain is read against."""

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


class PeftMethod(Method):
    """Any method of PEFT. ``params``: ``peft_type`` (LORA, PREFIX_TUNING, ...) and the fields of its config."""

    knob: ClassVar[str | None] = "r"
    proportional: ClassVar[tuple[str, ...]] = ("lora_alpha", "alpha")
    pattern: ClassVar[str | None] = "rank_pattern"
    proportional_patterns: ClassVar[Mapping[str, str]] = {
        "lora_alpha": "alpha_pattern",
        "alpha": "alpha_pattern",
    }

    def starts_at_zero(self, params: Mapping[str, Any]) -> bool:
        """Virtual tokens start at random values."""
        return "num_virtual_tokens" not in params

    def checkpoints(self, params: Mapping[str, Any]) -> bool:
        """A prefix stands in the cache of keys and values, to which a second forward would add again."""
        return str(params.get("peft_type", "")).upper() != "PREFIX_TUNING"

    def knob_of(self, params: Mapping[str, Any]) -> str | None:
        """The rank, or the number of virtual tokens."""
        return next((field for field in ("r", "num_virtual_tokens") if field in params), None)

    def parts(self, params: Mapping[str, Any]) -> tuple[type, ...]:
        """The classes of the tuner."""
        return classes_of(str(params.get("peft_type", "")).upper())

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """As the contract. Raises UnknownNameError for a type or a field that PEFT lacks."""
        options = dict(params)
        peft_type = str(options.pop("peft_type", "")).upper()
        classes = config_classes()
        if peft_type not in classes:
            raise UnknownNameError("PEFT type", peft_type, classes, "Set it as peft_type in the recipe's params.")
        return _with_adapter(model, classes[peft_type], options)


class MixtureMethod(Method):
    """Our mixture tuner: MoE-LoRA, MoLA, MoSLD and all between. ``params``: the fields of MixtureConfig."""

    knob: ClassVar[str | None] = "r"
    proportional: ClassVar[tuple[str, ...]] = ("lora_alpha",)
    pattern: ClassVar[str | None] = "rank_pattern"
    proportional_patterns: ClassVar[Mapping[str, str]] = {"lora_alpha": "alpha_pattern"}

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """As the contract. Raises BenchError for fields and values that the configuration refuses."""
        return _with_adapter(model, self.config_class(), dict(params))

    def version(self, train: TrainSpec | None) -> int:
        """2 in bfloat16, since router logits are float32 there too: some tokens go to other experts than before."""
        return 2 if train is not None and train.dtype == "bfloat16" else 1

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

    def after_step(self, model: nn.Module) -> None:
        """Under dropout on updates, give what the step drops its value back."""
        from mosld_bench.tuners.mixture import keep_dropped

        keep_dropped(model)


class MixLoraMethod(MixtureMethod):
    """MixLoRA: routed LoRA experts on the frozen feed-forward blocks. ``params``: the fields of MixLoraConfig."""

    def config_class(self) -> Any:
        """The class of the tuner's configuration, whose fields are the ``params``."""
        from mosld_bench.tuners.mixlora import MixLoraConfig

        return MixLoraConfig


def _with_adapter(model: nn.Module, config_class: Any, options: dict[str, Any]) -> nn.Module:
    """``model`` with the adapter that PEFT makes of ``config_class(**options)``; a PeftModel."""
    from peft import get_peft_model

    from mosld_bench.compat.transformers import old_names_allowed

    known = {field.name for field in fields(config_class)}
    for key in options:
        if key not in known:
            raise UnknownNameError(f"field of {config_class.__name__}", key, known - {"peft_type", "task_type"})
    try:
        config = config_class(task_type="CAUSAL_LM", **options)
        with old_names_allowed():
            adapted: nn.Module = get_peft_model(model, config)
    except BenchError:
        raise
    except (TypeError, ValueError) as error:
        raise BenchError(f"PEFT refuses these settings of {config_class.__name__}: {error}") from error
    return adapted


def _no_params(method: str, params: Mapping[str, Any]) -> None:
    if params:
        raise BenchError(f"The method {method!r} takes no params, but the recipe gives {', '.join(params)}.")
