"""MixLoRA (arXiv 2404.15159): routed LoRA experts over a shared frozen feed-forward block; in PEFT, MIXLORA."""

from __future__ import annotations

from mosld_bench.compat.peft import register_tuner
from mosld_bench.tuners.mixlora.config import MixLoraConfig
from mosld_bench.tuners.mixlora.layer import MixLoraLayer
from mosld_bench.tuners.mixlora.model import MixLoraModel

register_tuner("mixlora", MixLoraConfig, MixLoraModel)

__all__ = ["MixLoraConfig", "MixLoraLayer", "MixLoraModel"]
