"""The tuner that PEFT injects: finds the layers, counts their experts, hands the token mask to the routers."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from mosld_bench.compat.peft import default_target_modules, of_module, replace_module
from mosld_bench.errors import BenchError
from mosld_bench.tuners.mixture.config import MixtureConfig, allocate
from mosld_bench.tuners.mixture.layer import MixtureLayer
from mosld_bench.tuners.mixture.routing import ForwardPass, RoutedLayer, refuse_to_merge


class MixtureModel(BaseTuner):  # type: ignore[misc]
    """Wraps every target layer into a MixtureLayer. PEFT calls `_create_and_replace` once for each of them."""

    prefix = "mixture_"
    tuner_layer_cls = RoutedLayer
    target_module_mapping = default_target_modules()

    def _create_and_replace(
        self,
        peft_config: MixtureConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        rank = of_module(peft_config.rank_pattern, current_key, peft_config.r)
        alpha = of_module(peft_config.alpha_pattern, current_key, peft_config.lora_alpha)
        layer_class, settings = self._layer_for(peft_config, current_key)
        experts = self._experts_of(settings, current_key)
        if isinstance(target, RoutedLayer):
            target.update_layer(adapter_name, settings, experts=experts, rank=rank, alpha=alpha)
            return
        layer = layer_class(target, adapter_name, settings, experts=experts, rank=rank, alpha=alpha)
        layer.current = self._forward_pass()
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        replace_module(self, parent=parent, name=target_name, adapted=layer, original=target)

    def _layer_for(self, config: Any, module: str) -> tuple[type[RoutedLayer], MixtureConfig]:
        """What the module of this name is wrapped into, and its coordinates in the design space."""
        return MixtureLayer, config

    def _experts_of(self, config: MixtureConfig, module: str) -> int:
        """Experts of the module of this name. Raises BenchError for a list by depth where its layer has no number."""
        if isinstance(config.experts, int):
            return config.experts
        index = re.search(r"(?:^|\.)(\d+)\.", module)
        if index is None:
            raise BenchError(f"experts is a list by depth, but the module {module!r} is in no numbered layer.")
        return allocate(config.experts, int(index[1]), int(self.model.config.num_hidden_layers))

    def _forward_pass(self) -> ForwardPass:
        """What all layers share. Made on demand, since layers are injected while PEFT's constructor runs."""
        if "_shared_pass" not in self.__dict__:
            self.__dict__["_shared_pass"] = ForwardPass()
        return self.__dict__["_shared_pass"]  # type: ignore[no-any-return]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's; notes which tokens are padding, for the balance loss and the capacity."""
        mask = kwargs.get("attention_mask")
        current = self._forward_pass()
        current.mask, current.open = mask if mask is not None and mask.dim() == 2 else None, True
        return self.model(*args, **kwargs)

    def merge_and_unload(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises BenchError: gates depend on the token."""
        refuse_to_merge()

    def merge_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises BenchError: gates depend on the token."""
        refuse_to_merge()


def aux_loss(model: nn.Module) -> Tensor | None:
    """The balance loss of the last training forward, a scalar to be added to the task's loss; None where there is none.

    balance_coef * mean over adapted modules of N * sum_i f_i P_i: uniform routing scores balance_coef, whatever the
    model's size. Asking takes the losses away, so that none is counted twice, and closes the forward pass: what runs
    again in the backward pass leaves none.
    """
    losses = []
    for layer in (module for module in model.modules() if isinstance(module, RoutedLayer)):
        layer.current.open = False
        if layer.balance is not None:
            coefficient = max(layer.settings[name].balance_coef for name in layer.active_adapters)  # type: ignore[union-attr]
            losses.append(coefficient * layer.balance)
            layer.balance = None
    return torch.stack(losses).mean() if losses else None


def idle_parameters(model: nn.Module) -> int:
    """How many parameters of the active adapter one token leaves out, since its routers picked other experts."""
    idle = 0
    for layer in (module for module in model.modules() if isinstance(module, RoutedLayer)):
        for name in layer.active_adapters:  # type: ignore[union-attr]
            idle += layer.idle(name) if name in layer.experts else 0
    return idle


def draw_masks(model: nn.Module) -> None:
    """Draw the weight-dropout masks of one optimiser step from torch's generator.

    All micro-batches of the step then see the same masks. A training loop that never calls this gets a new mask in
    every forward.
    """
    for layer in (module for module in model.modules() if isinstance(module, MixtureLayer)):
        for name in layer.active_adapters:  # type: ignore[union-attr]
            config = layer.settings[name]
            if config.dropout_on == "weight":
                layer.weight_mask[name] = torch.rand_like(layer.masked_parameter(name)) >= config.dropout
