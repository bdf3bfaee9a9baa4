"""One feed-forward block with MixLoRA's experts, without a loop over them.

A gated block is W2 (act(W1 x) * W3 x). Expert e puts LoRA on each of the three frozen matrices (arXiv 2404.15159):

    h_e = act(W1 x + s B1_e A1_e x) * (W3 x + s B3_e A3_e x)        (d_ff)
    y   = sum over the top-K e of g_e (W2 h_e + s B2_e A2_e h_e)    (d), g the top-K of softmax(router x), sum 1

W1 x and W3 x hold no expert's parameter and are computed once. So is W2, since it is linear: sum_e g_e W2 h_e =
W2 (sum_e g_e h_e), to which a bias would be added once, as the gates sum to one. h_e itself goes through the
activation and cannot be summed before it, so there is one h a token for each of its K picks, called slots below.

With the experts' A stacked to (N r, d) and their B to (d_ff, N r), let m (N r) be 1 at the r rows of a slot's expert e
and 0 elsewhere: B_e A_e x = B (m * A x), since m cuts out A_e's rows and the zeros silence the other columns of B. A x
is computed once for all slots. For W2, sum_e g_e B2_e A2_e h_e = B2 (sum over slots of g m * A2 h): again one product
with B2. That is exact, has loops over the K slots only, and no gather of tokens and no wait for the device, which a
loop over experts needs to learn the tokens of each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mosld_bench.compat.peft import cast_input
from mosld_bench.errors import BenchError
from mosld_bench.tuners.mixture.routing import RoutedLayer, features, fresh_router, gaussian, router_logits

#: What a feed-forward block must have: its three linear layers and its activation, under LLaMA's names.
_PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")


class MixLoraLayer(RoutedLayer):
    """A gated feed-forward block with N experts of rank r over its frozen weights; tensor in, tensor out.

    Parameters of an adapter, A as ``..._a`` and B as ``..._b``, all experts stacked:

    ==================  =============  ============================
    ``mixture_gate_a``  (N r, d)       Gaussian, std 1/sqrt(3 d)
    ``mixture_gate_b``  (d_ff, N r)    zero
    ``mixture_up_a``    (N r, d)       Gaussian, std 1/sqrt(3 d)
    ``mixture_up_b``    (d_ff, N r)    zero
    ``mixture_down_a``  (N r, d_ff)    Gaussian, std 1/sqrt(3 d_ff)
    ``mixture_down_b``  (d, N r)       zero
    ``mixture_router``  (N, d)         uniform in +-1/sqrt(d)
    ==================  =============  ============================

    Dropout falls on the input of each A, the experts of a matrix under one mask.
    """

    mixture_gate_a: nn.ParameterDict
    mixture_gate_b: nn.ParameterDict
    mixture_up_a: nn.ParameterDict
    mixture_up_b: nn.ParameterDict
    mixture_down_a: nn.ParameterDict
    mixture_down_b: nn.ParameterDict
    adapter_layer_names = (
        "mixture_gate_a", "mixture_gate_b", "mixture_up_a", "mixture_up_b", "mixture_down_a", "mixture_down_b",
        "mixture_router",
    )  # fmt: skip

    def _parameters_of(self, adapter: str) -> dict[str, Tensor]:
        missing = [part for part in _PARTS if not hasattr(self.base_layer, part)]
        if missing:
            raise BenchError(
                f"MixLoRA's experts need a feed-forward block with {', '.join(_PARTS)}, but a "
                f"{type(self.base_layer).__name__} has no {' and no '.join(missing)}. Name such blocks in ffn_modules."
            )
        d, d_ff = features(self.base_layer.gate_proj)  # type: ignore[arg-type]
        rows = self.experts[adapter] * self.rank[adapter]
        return {
            "mixture_gate_a": gaussian(rows, d),
            "mixture_gate_b": torch.zeros(d_ff, rows),
            "mixture_up_a": gaussian(rows, d),
            "mixture_up_b": torch.zeros(d_ff, rows),
            "mixture_down_a": gaussian(rows, d_ff),
            "mixture_down_b": torch.zeros(d, rows),
            "mixture_router": fresh_router(self.experts[adapter], d),
        }

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d). Raises BenchError where more than one adapter is active."""
        active = [name for name in self.active_adapters if name in self.mixture_router]  # type: ignore[union-attr]
        if self.disable_adapters or not active:
            return self.base_layer(x)  # type: ignore[no-any-return]
        if len(active) > 1:
            raise BenchError(
                f"MixLoRA runs one adapter at a time, but {', '.join(active)} are active: each routes through its own "
                f"experts. Activate one with set_adapter."
            )
        return self._mix(active[0], x)

    def _mix(self, adapter: str, x: Tensor) -> Tensor:
        """The block's output with the experts of ``adapter``, (..., d) -> (..., d), by the equations above."""
        base, config, scale = self.base_layer, self.settings[adapter], self.scale[adapter]
        dropout = config.dropouts.get("input", 0.0)
        down_a, gate_b, up_b = self.mixture_down_a[adapter], self.mixture_gate_b[adapter], self.mixture_up_b[adapter]
        gate_base: Tensor = base.gate_proj(x)  # type: ignore[operator]
        up_base: Tensor = base.up_proj(x)  # type: ignore[operator]
        x = cast_input(self, x, down_a.dtype)
        gate_low = F.linear(self._dropped(x, dropout), self.mixture_gate_a[adapter]) * scale
        up_low = F.linear(self._dropped(x, dropout), self.mixture_up_a[adapter]) * scale

        logits = router_logits(x, self.mixture_router[adapter])
        values, picks = self._route(adapter, logits).topk(config.top_k or 1, dim=-1)
        expert_of_row = torch.arange(self.experts[adapter], device=x.device).repeat_interleave(self.rank[adapter])
        hidden, low = None, None  # sums over the slots: of g h, and of g m * A2 h
        for slot in range(picks.shape[-1]):
            rows = picks[..., slot, None] == expert_of_row  # m, (..., N r)
            gated = base.act_fn(gate_base + F.linear(gate_low * rows, gate_b).to(gate_base.dtype))  # type: ignore[operator]
            h = gated * (up_base + F.linear(up_low * rows, up_b).to(up_base.dtype))
            weight = values[..., slot, None]
            part = (weight * h).to(h.dtype)
            down_low = F.linear(self._dropped(h.to(down_a.dtype), dropout), down_a)
            part_low = (weight * rows).to(down_low.dtype) * down_low
            hidden, low = (part, part_low) if hidden is None or low is None else (hidden + part, low + part_low)
        y: Tensor = base.down_proj(hidden)  # type: ignore[operator]
        return y + (F.linear(low, self.mixture_down_b[adapter]) * scale).to(y.dtype)  # type: ignore[arg-type]

    def _dropped(self, x: Tensor, share: float) -> Tensor:
        """``x`` with ``share`` of it zeroed, in training."""
        return F.dropout(x, share) if self.training and share else x
