"""Rounded layers that stay as they were loaded, and compute alike in training and in scoring.

Importing this module imports bitsandbytes. Of its own layers two things do not suit a base model that trials share:

* on a CPU with AVX512-BF16 the first forward of four bits in evaluation mode packs the weight in another way, in place,
  after which no gradient comes through it any more;
* of eight bits the input is rounded as well, but for columns in which any number of a batch is large, so that what a
  text scores depends on the texts that it is scored with; in training on a CPU nothing of that is done.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from torch import Tensor, nn

from mosld_bench.compat.transformers import linear_layers
from mosld_bench.spec.trial import Load


def settle(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Make the rounded layers of ``model`` compute in ``dtype`` by their rounded weights alone, and change nothing."""
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
        elif isinstance(module, Linear8bitLt):
            scale = module.weight.SCB if module.weight.CB is not None else module.state.SCB
            module.weight.CB, module.weight.SCB = None, scale
            module.state.CB, module.state.SCB = module.weight.data, scale
            module.compute_dtype = dtype
            module.__class__ = EightBitLinear
    return model


def round_in_place(model: nn.Module, load: Load, dtype: torch.dtype) -> nn.Module:
    """``model`` with its linear layers rounded as a model is that is loaded so, one after another; `settle`d.

    For weights that are in no file. Frozen.
    """
    for name in linear_layers(model):
        layer: Any = model.get_submodule(name)
        weight = layer.weight.detach() if isinstance(layer, nn.Linear) else layer.weight.detach().t().contiguous()
        d_out, d_in = weight.shape
        shape = {"bias": layer.bias is not None, "device": "meta"}
        new: Any
        if load == "nf4":
            kind = {"compress_statistics": True, "quant_type": "nf4"}
            new = Linear4bit(d_in, d_out, compute_dtype=dtype, **kind, **shape)
            new.weight = Params4bit(weight, requires_grad=False, module=new, **kind).to(weight.device)
        else:
            new = Linear8bitLt(d_in, d_out, has_fp16_weights=False, **shape)
            new.weight = Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False).to(weight.device)
        new.bias = layer.bias
        model.set_submodule(name, new)
    marks: Any = model
    marks.is_loaded_in_4bit, marks.is_loaded_in_8bit = load == "nf4", load == "int8"  # by which PEFT picks its layers
    return settle(model, dtype).requires_grad_(False)


class EightBitLinear(Linear8bitLt):  # type: ignore[misc]
    """A linear layer with a weight in eight bits: y = x (s W)^T + b, where row i of W is read by s_i = SCB_i / 127."""

    compute_dtype: torch.dtype

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) -> (..., d_out), in the dtype of ``x``."""
        scale = self.state.SCB if self.weight.SCB is None else self.weight.SCB
        y: Tensor = _Product.apply(x.to(self.compute_dtype), self.weight.data, scale)  # type: ignore[no-untyped-call]
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.to(x.dtype)


class _Product(torch.autograd.Function):
    """x W^T, which keeps the rounded weight for its backward and not what it is read as."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(x, _read(weight, scale, x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        weight, scale = ctx.saved_tensors
        return gradient @ _read(weight, scale, gradient.dtype), None, None


def _read(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """(d_out, d_in), from integers of that shape and a scale for each row."""
    return weight.to(dtype).mul_((scale / 127).unsqueeze(1))
