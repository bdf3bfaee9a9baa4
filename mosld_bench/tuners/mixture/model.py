"""The tuner that PEFT injects: finds the layers, counts their experts, hands the token mask to the routers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from mosld_bench.compat.peft import default_target_modules, frozen_stays_frozen, of_module, replace_module
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

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """As PEFT's, which makes parameters of 16 bits anew in float32, and trainable; but what is frozen stays so."""
        with frozen_stays_frozen():
            super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)

    def _layer_for(self, config: Any, module: str) -> tuple[type[RoutedLayer], MixtureConfig]:
        """What the module of this name is wrapped into, and its coordinates in the design space."""
        return MixtureLayer, config

    def _experts_of(self, config: MixtureConfig, module: str) -> int:
        """Experts of the module of this name. Raises BenchError for a list by depth where its layer has no number."""
        own = of_module(config.experts_pattern, module, 0)
        if own:
            return own
        if isinstance(config.experts, int):
            return config.experts
        index = layer_of(module)
        if index is None:
            raise BenchError(f"experts is a list by depth, but the module {module!r} is in no numbered layer.")
        return allocate(config.experts, int(index), int(self.model.config.num_hidden_layers))

    def _forward_pass(self) -> ForwardPass:
        """What all layers share. Made on demand, since layers are injected while PEFT's constructor runs."""
        if "_shared_pass" not in self.__dict__:
            self.__dict__["_shared_pass"] = current = ForwardPass()
            # On the model itself, since what writes answers calls that and passes over `forward` below.
            self.model.register_forward_pre_hook(current.note_positions, with_kwargs=True)
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


def layer_of(module: str) -> str | None:
    """The number of the layer that the module of this name is in, None for a module outside of the numbered ones."""
    index = re.search(r"(?:^|\.)(\d+)\.", module)
    return index[1] if index else None


def aux_loss(model: nn.Module) -> Tensor | None:
    """The balance loss of the last training forward, a scalar to be added to the task's loss; None where there is none.

    balance_coef * mean over adapted modules of N * sum_i f_i P_i: uniform routing scores balance_coef, whatever the
    model's size. With ``balance_reduce: sum``, the sum over layers of the mean over a layer's modules, as MoLA's code
    adds up layers: the coefficient times the depth. Asking takes the losses away, so that none is counted twice, and
    closes the forward pass: what runs again in the backward pass leaves none.
    """
    by_layer: dict[str, list[Tensor]] = {}
    sums, home = False, next(model.parameters()).device
    for name, layer in ((name, module) for name, module in model.named_modules() if isinstance(module, RoutedLayer)):
        layer.current.open = False
        if layer.balance is not None:
            settings = [layer.settings[adapter] for adapter in layer.active_adapters]  # type: ignore[union-attr]
            loss = (max(config.balance_coef for config in settings) * layer.balance).to(home)
            by_layer.setdefault(layer_of(name) or name, []).append(loss)
            sums = sums or any(config.balance_reduce == "sum" for config in settings)
            layer.balance = None
    if not by_layer:
        return None
    if sums:
        return torch.stack([torch.stack(losses).mean() for losses in by_layer.values()]).sum()
    return torch.stack([loss for losses in by_layer.values() for loss in losses]).mean()


def idle_parameters(model: nn.Module) -> int:
    """How many parameters of the active adapter one token leaves out, since its routers picked other experts."""
    idle = 0
    for layer in (module for module in model.modules() if isinstance(module, RoutedLayer)):
        for name in layer.active_adapters:  # type: ignore[union-attr]
            idle += layer.idle(name) if name in layer.experts else 0
    return idle


def draw_masks(model: nn.Module) -> None:
    """Draw the masks of one optimiser step, of dropout on weights or updates, from torch's generator.

    All micro-batches of the step then see the same masks. A training loop that never calls this gets a new mask in
    every forward.
    """
    for layer, adapter in _mixtures(model):
        layer.draw_mask(adapter)


def keep_dropped(model: nn.Module) -> None:
    """Take back what the optimiser made of the weights that this step drops: under dropout on updates they stay.

    To be called after the optimiser's step. A training loop that never does masks their gradients and no more.
    """
    for layer, adapter in _mixtures(model):
        layer.keep_dropped(adapter)


def move_biases(model: nn.Module) -> None:
    """Move the biases of the choice of experts by the picks of the step. To be called after the optimiser's step."""
    for layer, adapter in _mixtures(model):
        layer.move_bias(adapter)


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """The masks that `draw_masks` drew last, by the name of the module and, behind a colon, of the adapter."""
    return {f"{name}:{adapter}": mask for name, layer in _layers(model) for adapter, mask in layer.weight_mask.items()}


def set_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set what `masks_of` gave of the same adapters on the same model."""
    for name, layer in _layers(model):
        own = {key.removeprefix(f"{name}:"): mask for key, mask in masks.items() if key.startswith(f"{name}:")}
        layer.weight_mask.update({key: mask.to(layer.masked_parameter(key).device) for key, mask in own.items()})


def _layers(model: nn.Module) -> Iterator[tuple[str, MixtureLayer]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, MixtureLayer))


def _mixtures(model: nn.Module) -> Iterator[tuple[MixtureLayer, str]]:
    """Every mixture layer with each adapter that is active in it."""
    for layer in (module for module in model.modules() if isinstance(module, MixtureLayer)):
        for name in layer.active_adapters:  # type: ignore[union-attr]
            if name in layer.settings:
                yield layer, name
