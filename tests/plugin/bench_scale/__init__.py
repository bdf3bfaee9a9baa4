"""A sample method: y = (1 + s) * W0 x with one trained s for every output, on the layers named in params."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mosld_bench import Method, register


class Scaled(nn.Module):
    """A linear layer with a trained factor for each of its outputs."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.zeros(inner.out_features, device=inner.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        y: Tensor = self.inner(x)
        return y + (self.scale * y).to(y.dtype)


@register("scale")
class ScaleMethod(Method):
    """Trains nothing but the factors; its size is fixed, so it has no knob."""

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """Put factors of zero on every layer whose name is in ``target_modules``."""
        model.requires_grad_(False)
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if name in params["target_modules"] and isinstance(child, nn.Linear):
                    setattr(module, name, Scaled(child))
        return model
