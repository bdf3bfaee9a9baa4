"""Small models whose weights are rounded as `model.load` asks, and the same numbers in layers that are not."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

from mosld_bench.compat.bitsandbytes import rounded_layers
from mosld_bench.spec.trial import Load
from tests.support.models import build, config

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: pip install 'mosld-bench[quantised]'"
)
LOADS: tuple[Load, ...] = ("nf4", "int8")

#: As wide as a block of nf4.
SHAPE = config(layers=4, hidden_size=64, intermediate_size=128)


def rounded(load: Load, dtype: torch.dtype = torch.float32, shape: Any = SHAPE) -> Any:
    """A frozen random model of ``shape`` that is rounded."""
    from mosld_bench.compat.bitsandbytes_layers import round_in_place

    model = build(shape)
    for parameter in model.parameters():  # and no buffer, which a model keeps in float32 when it is loaded
        parameter.data = parameter.data.to(dtype)
    return round_in_place(model, load, dtype).eval()


def read(layer: Any) -> torch.Tensor:
    """The weight that a rounded layer stands for, (d_out, d_in), as PEFT reads it."""
    from peft.utils.integrations import dequantize_bnb_weight

    weight: torch.Tensor = dequantize_bnb_weight(layer.weight, state=getattr(layer, "state", None))
    return weight


def unpacked(model: nn.Module, shape: Any = SHAPE) -> Any:
    """The model of ``shape`` with the numbers of ``model``, all of them in layers of torch."""
    dense = build(shape)
    for name, layer in rounded_layers(model):
        dense.get_submodule(name).weight.data.copy_(read(layer))
    return dense
