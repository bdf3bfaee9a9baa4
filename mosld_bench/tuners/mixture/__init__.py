"""The design space of MoE-LoRA, MoLA, HydraLoRA, MoSL and MoSLD as one PEFT tuner, known to PEFT as LORA_MIXTURE."""

from __future__ import annotations

from aenum import extend_enum
from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType

# PEFT refuses names that its enum lacks, so the name comes first. Both happen once, whoever imports us.
if "LORA_MIXTURE" not in PeftType.__members__:
    extend_enum(PeftType, "LORA_MIXTURE", "LORA_MIXTURE")

from mosld_bench.tuners.mixture.config import MixtureConfig, allocate
from mosld_bench.tuners.mixture.layer import MixtureLayer, balance_loss, gate
from mosld_bench.tuners.mixture.model import MixtureModel, aux_loss, draw_masks

register_peft_method(name="lora_mixture", config_cls=MixtureConfig, model_cls=MixtureModel, prefix=MixtureModel.prefix)

__all__ = [
    "MixtureConfig",
    "MixtureLayer",
    "MixtureModel",
    "allocate",
    "aux_loss",
    "balance_loss",
    "draw_masks",
    "gate",
]
