"""Parameters of a method on the model of a configuration, counted without weights.

The method's own ``attach`` is called on the meta device, where tensors have shapes and no numbers, so that any plug-in
is counted truly and a model of any size in a second or two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mosld_bench.compat.peft import base_name
from mosld_bench.methods.base import Method
from mosld_bench.spec.trial import canonical

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

CountByModule = dict[str, int]  # adapted module's name in the base model -> its trainable parameters


class Counts:
    """Parameters of methods on the model of one configuration; each setting of a method is built and counted once."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config
        self._counted: dict[tuple[type[Method], str], tuple[int, CountByModule]] = {}

    def trainable(self, method: Method, params: Mapping[str, Any]) -> int:
        """Trainable parameters of ``method`` at ``params``."""
        return sum(self.by_module(method, params).values())

    def total(self, method: Method, params: Mapping[str, Any]) -> int:
        """All parameters of the built model, trainable and frozen."""
        return self._count(method, params)[0]

    def by_module(self, method: Method, params: Mapping[str, Any]) -> CountByModule:
        """Trainable parameters of every adapted module."""
        return self._count(method, params)[1]

    def _count(self, method: Method, params: Mapping[str, Any]) -> tuple[int, CountByModule]:
        """All parameters, and the trainable ones by module."""
        import torch

        key = type(method), canonical(dict(params))
        if key not in self._counted:
            with torch.device("meta"):
                model = method.attach(empty_model(self.config), params)
            modules: CountByModule = {}
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    module = adapted_module(model, name)
                    modules[module] = modules.get(module, 0) + parameter.numel()
            self._counted[key] = sum(p.numel() for p in model.parameters()), modules
        return self._counted[key]


def count_trainable(method: Method, config: PreTrainedConfig, params: Mapping[str, Any]) -> int:
    """Trainable parameters of ``method`` at ``params`` on the model of ``config``."""
    return Counts(config).trainable(method, params)


def empty_model(config: PreTrainedConfig) -> nn.Module:
    """The model of ``config`` with random weights; without weights when called on the meta device."""
    from transformers import AutoModelForCausalLM

    from mosld_bench.compat.transformers import old_names_allowed

    with old_names_allowed():
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model


def base_size(config: PreTrainedConfig) -> int:
    """Parameters of the base model of ``config``, tied ones once."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in empty_model(config).parameters())


def adapted_module(model: nn.Module, parameter: str) -> str:
    """The base model's name of the module that an adapter's parameter belongs to (q_proj, not its lora_A)."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    parts = parameter.split(".")
    module = model
    for depth, part in enumerate(parts):
        if isinstance(module, BaseTunerLayer):
            parts = parts[:depth]
            break
        module = getattr(module, part)
    return base_name(".".join(parts))
