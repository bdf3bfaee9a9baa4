"""The built-in methods. They come in by the same door as a stranger's: the entry points of pyproject.toml."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from torch import Tensor, nn

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.methods.base import Method


class BaseMethod(Method):
    """The frozen base model: nothing to train, the row that every gain is read against."""

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        _no_params("base", params)
        return model.requires_grad_(False)


class FullMethod(Method):
    """Full fine-tuning: every parameter trains. Its size cannot be matched, so tables set it apart."""

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
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
        return next((k for k in ("r", "num_virtual_tokens") if k in params), None)

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        from peft import get_peft_model
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        options = dict(params)
        kind = str(options.pop("peft_type", "")).upper()
        known = {str(getattr(t, "value", t)): config for t, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
        if kind not in known:
            raise UnknownNameError("PEFT type", kind, known, "Set it as peft_type in the recipe's params.")
        return _peft(get_peft_model, model, known[kind], options)


class MixtureMethod(Method):
    """Our mixture tuner: MoE-LoRA, MoLA, MoSLD and all between. ``params``: the fields of MixtureConfig."""

    knob: ClassVar[str | None] = "r"
    proportional: ClassVar[tuple[str, ...]] = ("lora_alpha",)
    pattern: ClassVar[str | None] = "rank_pattern"
    proportional_patterns: ClassVar[Mapping[str, str]] = {"lora_alpha": "alpha_pattern"}

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        from peft import get_peft_model

        return _peft(get_peft_model, model, self.config_class(), dict(params))

    def config_class(self) -> Any:
        from mosld_bench.tuners.mixture import MixtureConfig

        return MixtureConfig

    def aux_loss(self, model: nn.Module) -> Tensor | None:
        from mosld_bench.tuners.mixture import aux_loss

        return aux_loss(model)

    def active(self, model: nn.Module) -> int:
        from mosld_bench.tuners.mixture import idle_parameters

        return super().active(model) - idle_parameters(model)

    def before_step(self, model: nn.Module) -> None:
        from mosld_bench.tuners.mixture import draw_masks

        draw_masks(model)


class MixLoraMethod(MixtureMethod):
    """MixLoRA: routed LoRA experts on the frozen feed-forward blocks. ``params``: the fields of MixLoraConfig."""

    def config_class(self) -> Any:
        from mosld_bench.tuners.mixlora import MixLoraConfig

        return MixLoraConfig


def _peft(get_peft_model: Any, model: nn.Module, config_class: Any, options: dict[str, Any]) -> nn.Module:
    known = {field.name for field in fields(config_class)}
    for key in options:
        if key not in known:
            raise UnknownNameError(f"field of {config_class.__name__}", key, known - {"peft_type", "task_type"})
    try:
        config = config_class(task_type="CAUSAL_LM", **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name on its way out
            adapted: nn.Module = get_peft_model(model, config)
    except BenchError:
        raise
    except (TypeError, ValueError) as error:
        raise BenchError(f"PEFT refuses these settings of {config_class.__name__}: {error}") from error
    return adapted


def _no_params(name: str, params: Mapping[str, Any]) -> None:
    if params:
        raise BenchError(f"The method {name!r} takes no params, but the recipe gives {', '.join(params)}.")
