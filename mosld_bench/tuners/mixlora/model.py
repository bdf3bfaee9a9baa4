"""The tuner that PEFT injects: experts on the feed-forward blocks, the mixture's one-expert layer on the attention."""

from __future__ import annotations

from typing import Any

from torch import nn

from mosld_bench.compat.peft import is_excluded
from mosld_bench.errors import BenchError
from mosld_bench.tuners.mixlora.config import MixLoraConfig
from mosld_bench.tuners.mixlora.layer import MixLoraLayer
from mosld_bench.tuners.mixture.config import MixtureConfig
from mosld_bench.tuners.mixture.layer import MixtureLayer
from mosld_bench.tuners.mixture.model import MixtureModel
from mosld_bench.tuners.mixture.routing import RoutedLayer


class MixLoraModel(MixtureModel):
    """Wraps every feed-forward block into a MixLoraLayer and every target layer into a MixtureLayer with one expert."""

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """As PEFT's. Raises BenchError where the model has no feed-forward block of the names given."""
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        if not any(isinstance(module, MixLoraLayer) and adapter_name in module.settings for module in model.modules()):
            raise BenchError(
                f"No module of the model is named {' or '.join(self.peft_config[adapter_name].ffn_modules)}, so that "
                f"MixLoRA has no experts. Name the model's feed-forward blocks in ffn_modules."
            )

    @staticmethod
    def _check_target_module_exists(peft_config: MixLoraConfig, key: str) -> Any:
        """As PEFT's, and the feed-forward blocks; exclude_modules holds for both."""
        target = MixtureModel._check_target_module_exists(peft_config, key)
        if is_excluded(target):
            return target
        if not target:
            return _is_ffn(peft_config, key)
        inside = next((name for name in peft_config.ffn_modules if f".{name}." in f".{key}"), None)
        if inside is not None:
            raise BenchError(
                f"MixLoRA's target_modules match {key!r}, inside {inside!r}, whose matrices have the experts' LoRA "
                f"already. Name layers outside the feed-forward blocks, or other blocks in ffn_modules."
            )
        return target

    def _layer_for(self, config: MixLoraConfig, module: str) -> tuple[type[RoutedLayer], MixtureConfig]:
        if _is_ffn(config, module):
            return MixLoraLayer, config.coordinates(config.experts)
        return MixtureLayer, config.coordinates(1)


def _is_ffn(config: MixLoraConfig, module: str) -> bool:
    """Whether the module of this name is a feed-forward block that gets experts."""
    return any(f".{module}".endswith(f".{name}") for name in config.ffn_modules)
