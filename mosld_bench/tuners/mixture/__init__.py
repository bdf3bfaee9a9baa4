"""The design space of MoE-LoRA, SiRA, MoLA, HydraLoRA, MoSL and MoSLD as one PEFT tuner, there LORA_MIXTURE."""

from __future__ import annotations

from mosld_bench.compat.peft import register_tuner
from mosld_bench.tuners.mixture.config import MixtureConfig, allocate
from mosld_bench.tuners.mixture.layer import MixtureLayer
from mosld_bench.tuners.mixture.model import (
    MixtureModel,
    aux_loss,
    draw_masks,
    idle_parameters,
    keep_dropped,
    masks_of,
    move_biases,
    set_masks,
)
from mosld_bench.tuners.mixture.routing import balance_loss, counts_loss, gate, router_logits, within_capacity

register_tuner("lora_mixture", MixtureConfig, MixtureModel)

__all__ = [
    "MixtureConfig",
    "MixtureLayer",
    "MixtureModel",
    "allocate",
    "aux_loss",
    "balance_loss",
    "counts_loss",
    "draw_masks",
    "gate",
    "idle_parameters",
    "keep_dropped",
    "masks_of",
    "move_biases",
    "router_logits",
    "set_masks",
    "within_capacity",
]
