"""One adapted linear layer: y = W0 x + (alpha / r) * Up (g * Down x).

With the down-projections of all N experts stacked to (N r, d_in) and the up-projections to (d_out, N r), a routed
mixture is two matrix products with the gates between them: sum_n g_n B_n A_n x = Up (g repeated r times * Down x).
It is exact for dense and for top-K routing, since the gates that were not picked are zero; there is no loop over
experts, no gather and no wait for the device.

Where all experts share A, Down is (r, d_in) and its r outputs are repeated for every expert before the gates. Where
they share B, Up is (d_out, r) and the gated A_n x are summed over the experts before it. One expert is LoRA: no router.

In training a share q of one of these may be dropped; M is a mask of zeros (a share q) and ones:

    input    A (M * x) / (1 - q)         for the experts, the router reads all of x
    hidden   M * (A x) / (1 - q)
    weight   (M * W) / (1 - q)           W is A or B, one mask for an optimiser step (MoSLD, eq. 2)
    update   W <- M * W' + (1 - M) * W   W' is what the optimiser makes of W by the gradient M * dL/dW; the forward
                                         has all of W and nothing is rescaled (MoSLD, section 3.2, in another reading)

A weight that a mask in the forward pass dropped moves all the same, by the momentum and the decay of AdamW. Under
`update` it keeps its value: the gradient is masked in the forward pass, and what the optimiser made of a dropped entry
is taken back after its step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mosld_bench.compat.peft import cast_input
from mosld_bench.errors import BenchError
from mosld_bench.tuners.mixture.config import MixtureConfig
from mosld_bench.tuners.mixture.routing import (
    RoutedLayer,
    fresh_noise,
    fresh_router,
    gaussian,
    is_rounded,
    position_noise,
    router_logits,
)


class MixtureLayer(RoutedLayer):
    """A linear layer with a mixture of LoRA experts beside it; tensor in, tensor out.

    Parameters of an adapter, with N experts of rank r (routers have no bias; one expert has no router):

    =================  ==========================  ======================
    ``mixture_down``   (N r, d_in), share down: (r, d_in)    Gaussian, std 1/sqrt(3 d_in)
    ``mixture_up``     (d_out, N r), share up: (d_out, r)    zero
    ``mixture_router`` (N, d_in)                             uniform in +-1/sqrt(d_in)
    ``mixture_noise``  (2, d_in), where routers read noise   whole numbers, see `position_noise`
    =================  ==========================  ======================

    Uniform gates have no router. The noise never trains; ``frozen`` names what else does not.
    """

    mixture_down: nn.ParameterDict
    mixture_up: nn.ParameterDict
    mixture_noise: nn.ParameterDict
    adapter_layer_names = ("mixture_down", "mixture_up", "mixture_router", "mixture_noise")
    constants = ("mixture_noise",)

    def __init__(
        self, base_layer: nn.Module, adapter: str, config: MixtureConfig, *, experts: int, rank: int, alpha: float
    ) -> None:
        """As RoutedLayer. ``base_layer``: a linear layer, or GPT-2's transposed one. Raises BenchError for others."""
        self.weight_mask: dict[str, Tensor] = {}  # drawn once a step by draw_masks, else in every forward
        self.held: dict[str, Tensor] = {}  # under dropout on updates: the weights before the step
        super().__init__(base_layer, adapter, config, experts=experts, rank=rank, alpha=alpha)

    def _parameters_of(self, adapter: str) -> dict[str, Tensor]:
        share, experts, rank = self.settings[adapter].share, self.experts[adapter], self.rank[adapter]
        d_in, d_out = _features(self.base_layer)
        parameters = {
            "mixture_down": gaussian(rank if share == "down" else experts * rank, d_in),
            "mixture_up": torch.zeros(d_out, rank if share == "up" else experts * rank),
        }
        return parameters | self._router_of(adapter, d_in)

    def _router_of(self, adapter: str, d_in: int) -> dict[str, Tensor]:
        """Initial values of the router, and of the noise that it may read; none where there is no router."""
        config, experts = self.settings[adapter], self.experts[adapter]
        if experts == 1 or config.router == "uniform":
            return {}
        router = {"mixture_router": fresh_router(experts, d_in)}
        return router | ({"mixture_noise": fresh_noise(d_in)} if config.router_input == "noise" else {})

    def _shared(self, adapter: str) -> tuple[str, ...]:
        share = self.settings[adapter].share
        return ("mixture_router", "mixture_noise", *(() if share == "none" else (f"mixture_{share}",)))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., d_in) -> (..., d_out)."""
        y: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return y
        for adapter in self.active_adapters:  # type: ignore[union-attr]
            if adapter in self.mixture_down:
                y = _added(y, *self._update(adapter, x))
        return y

    def _update(self, adapter: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two factors of what the adapter adds: (alpha / r) g * Down x, (..., n), and Up, (d_out, n).

        n is N r, and r where the experts share Up.
        """
        config, scale = self.settings[adapter], self.scale[adapter]
        x = cast_input(self, x, self.mixture_down[adapter].dtype)
        dropouts = config.dropouts if self.training else {}
        down, up = self._dropped_weights(adapter, dropouts)
        hidden, logits = self._down_and_router(adapter, x, down, dropouts.get("input", 0.0))
        if "hidden" in dropouts:
            hidden = F.dropout(hidden, dropouts["hidden"])
        if logits is None:
            return hidden * scale, up
        # The scale goes where it is the cheapest: N numbers a token instead of d_out.
        gates = (self._route(adapter, logits) * scale).to(hidden.dtype)
        if config.share == "down":
            return _mix_shared_down(gates, hidden), up
        if config.share == "up":
            return _mix_shared_up(gates, hidden), up
        return _mix_separate(gates, hidden), up

    def _dropped_weights(self, adapter: str, dropouts: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """Down and Up; with dropout on weights or updates, one of them masked (see `masked_parameter`)."""
        down, up = self.mixture_down[adapter], self.mixture_up[adapter]
        if "weight" not in dropouts and "update" not in dropouts:
            return down, up
        masked = self._masked(adapter, dropouts)
        return (down, masked) if self.masked_parameter(adapter) is up else (masked, up)

    def _down_and_router(self, adapter: str, x: Tensor, down: Tensor, dropout: float) -> tuple[Tensor, Tensor | None]:
        """Down x, (..., N r), of a shared Down (..., r), and the router's logits (..., N), None for one expert.

        ``dropout``: the share of x that is dropped for the experts; the router reads all of it.
        """
        experts, kept = self.experts[adapter], F.dropout(x, dropout) if dropout else x
        if experts == 1:
            return F.linear(kept, down), None
        if adapter not in self.mixture_router:  # logits that are all alike make gates that are
            return F.linear(kept, down), x.new_zeros(*x.shape[:-1], experts)
        router = self.mixture_router[adapter]
        if adapter in self.mixture_noise:
            noise = position_noise(self.mixture_noise[adapter], self.current.positions_of(x))
            return F.linear(kept, down), router_logits(noise, router)
        if dropout or is_rounded(x) or self.settings[adapter].frozen:
            return F.linear(kept, down), router_logits(x, router)
        # One product for both: x is read once, and so is its gradient.
        both = F.linear(x, torch.cat([down, router]))
        hidden, logits = both.split([down.shape[0], experts], dim=-1)  # type: ignore[no-untyped-call]
        return hidden, logits

    def masked_parameter(self, adapter: str) -> Tensor:
        """The parameter that dropout on weights or updates falls on: the shared matrix, unless one is named."""
        parameters = self.mixture_up if self.settings[adapter].masked_matrix == "up" else self.mixture_down
        return parameters[adapter]  # type: ignore[no-any-return]

    def draw_mask(self, adapter: str) -> None:
        """Draw which weights of `masked_parameter` are dropped until the next call; nothing without such a dropout."""
        dropouts = self.settings[adapter].dropouts
        if "weight" in dropouts or "update" in dropouts:
            weight = self.masked_parameter(adapter)
            self.weight_mask[adapter] = _drawn(weight, dropouts)
            if "update" in dropouts:
                self.held[adapter] = weight.detach().clone()

    @torch.no_grad()
    def keep_dropped(self, adapter: str) -> None:
        """Give dropped weights their values of when the mask was drawn, under dropout on updates."""
        held = self.held.pop(adapter, None)
        if held is not None:
            weight = self.masked_parameter(adapter)
            weight.copy_(torch.where(self.weight_mask[adapter], weight, held))

    def _masked(self, adapter: str, dropouts: Mapping[str, float]) -> Tensor:
        """`masked_parameter` with the mask on its values or on its gradient, element-wise; see the module."""
        weight, mask = self.masked_parameter(adapter), self.weight_mask.get(adapter)
        if mask is None:  # training without draw_masks: a forward is a step. Checkpointing replays the generator.
            mask = _drawn(weight, dropouts)
        if "update" in dropouts:
            return torch.where(mask, weight, weight.detach())
        dropped: Tensor = weight * mask / (1 - dropouts["weight"])
        return dropped


def _drawn(weight: Tensor, dropouts: Mapping[str, float]) -> Tensor:
    """Which entries of ``weight`` stay: a mask of its shape, of torch's generator."""
    return torch.rand_like(weight) >= (dropouts["weight"] if "weight" in dropouts else dropouts["update"])


def _mix_separate(gates: Tensor, hidden: Tensor) -> Tensor:
    """g_n A_n x of every expert n, (..., N r), from gates (..., N) and all A_n x, (..., N r)."""
    by_expert: Tensor = hidden.unflatten(-1, (gates.shape[-1], -1))  # type: ignore[no-untyped-call]
    return (gates.unsqueeze(-1) * by_expert).flatten(-2)


def _mix_shared_down(gates: Tensor, hidden: Tensor) -> Tensor:
    """g_n A x of every expert n, (..., N r), from gates (..., N) and the A x of them all, (..., r)."""
    return (gates.unsqueeze(-1) * hidden.unsqueeze(-2)).flatten(-2)


def _mix_shared_up(gates: Tensor, hidden: Tensor) -> Tensor:
    """sum_n g_n A_n x, (..., r), from gates (..., N) and all A_n x, (..., N r): with one B, the sum may come first."""
    by_expert: Tensor = hidden.unflatten(-1, (gates.shape[-1], -1))  # type: ignore[no-untyped-call]
    return (gates.unsqueeze(-2) @ by_expert).squeeze(-2)


def _added(y: Tensor, hidden: Tensor, up: Tensor) -> Tensor:
    """y + Up hidden, (..., d_out), from hidden (..., n) and Up (d_out, n).

    In one product where both have one dtype: the update itself is never in memory.
    """
    if y.dtype != hidden.dtype or y.dim() < 2:
        return y + F.linear(hidden, up).to(y.dtype)
    rows = torch.addmm(y.flatten(0, -2), hidden.flatten(0, -2), up.to(y.dtype).t())
    return rows.view_as(y)


def _features(layer: nn.Module) -> tuple[int, int]:
    """(d_in, d_out) of a linear layer or of GPT-2's transposed one. Raises BenchError for anything else."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
    if type(layer).__name__ == "Conv1D":
        rows, columns = layer.weight.shape  # type: ignore[union-attr, misc]
        return int(rows), int(columns)
    raise BenchError(f"The mixture adapts linear layers, not {type(layer).__name__}; name others in target_modules.")
