"""One adapted linear layer: y = W0 x + (alpha / r) * Up (g * Down x).

With the down-projections of all N experts stacked to (N r, d_in) and the up-projections to (d_out, N r), a routed
mixture is two matrix products with the gates between them: sum_n g_n B_n A_n x = Up (g repeated r times * Down x).
It is exact for dense and for top-K routing, since the gates that were not picked are zero; there is no loop over
experts, no gather and no wait for the device.

Where all experts share A, Down is (r, d_in) and its r outputs are repeated for every expert before the gates. Where
they share B, Up is (d_out, r) and the gated A_n x are summed over the experts before it. Where they share both, an
expert is a core M_n (r, r): B sum_n g_n M_n A x (CoMoL). One expert is LoRA: no router.

If Up starts at random (R-LoRA), the update less (alpha / r) B' A' x is added, with A' the A of the start and B' the
mean of its B_n: nothing at first, since the router starts at zero and all gates at 1 / N.

In training a share q of one of these may be dropped; M is a mask of zeros (a share q) and ones:

    input    A (M * x) / (1 - q)         for the experts, the router reads all of x
    hidden   M * (A x) / (1 - q)
    expert_hidden   the same for a shared A, under a mask for each expert (R-LoRA)
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
from mosld_bench.tuners.mixture.config import MixtureConfig
from mosld_bench.tuners.mixture.routing import (
    RoutedLayer,
    features,
    fresh_noise,
    fresh_router,
    gaussian,
    is_rounded,
    position_noise,
    random_up,
    router_logits,
    sparse_gaussian,
)


class MixtureLayer(RoutedLayer):
    """A linear layer with a mixture of LoRA experts beside it; tensor in, tensor out.

    Parameters of an adapter, with N experts of rank r (routers have no bias; one expert has no router):

    =================  ==========================  ======================
    ``mixture_down``   (N r, d_in), shared: (r, d_in)        Gaussian, std 1/sqrt(3 d_in), or `sparse_gaussian`
    ``mixture_up``     (d_out, N r), shared: (d_out, r)      zero, or `random_up`
    ``mixture_core``   (N r, r), where both are shared       Gaussian, std 1/sqrt(3 r)
    ``mixture_router`` (N, d_in), or of hidden: (N, rows)    uniform in +-1/sqrt(d_in); zero beside a random Up
    =================  ==========================  ======================

    Uniform gates and those by magnitude have no router. What never trains, and is saved with the others, ``frozen``
    apart:

    ======================  =============  ===============================================
    ``mixture_noise``       (2, d_in)      what a router of noise reads, see `position_noise`
    ``mixture_bias``        (N)            of the choice of experts, moved by `move_bias`
    ``mixture_start_down``  (r, d_in)      beside a random Up: Down and the mean of all experts' Up, as they started
    ``mixture_start_up``    (d_out, r)
    ======================  =============  ===============================================
    """

    mixture_down: nn.ParameterDict
    mixture_up: nn.ParameterDict
    mixture_core: nn.ParameterDict
    mixture_noise: nn.ParameterDict
    mixture_bias: nn.ParameterDict
    mixture_start_down: nn.ParameterDict
    mixture_start_up: nn.ParameterDict
    constants = ("mixture_noise", "mixture_bias", "mixture_start_down", "mixture_start_up")
    adapter_layer_names = ("mixture_down", "mixture_up", "mixture_core", "mixture_router", *constants)

    def __init__(
        self, base_layer: nn.Module, adapter: str, config: MixtureConfig, *, experts: int, rank: int, alpha: float
    ) -> None:
        """As RoutedLayer. ``base_layer``: a linear layer, or GPT-2's transposed one. Raises BenchError for others."""
        self.weight_mask: dict[str, Tensor] = {}  # drawn once a step by draw_masks, else in every forward
        self.held: dict[str, Tensor] = {}  # under dropout on updates: the weights before the step
        super().__init__(base_layer, adapter, config, experts=experts, rank=rank, alpha=alpha)

    def _parameters_of(self, adapter: str) -> dict[str, Tensor]:
        config, experts, rank = self.settings[adapter], self.experts[adapter], self.rank[adapter]
        d_in, d_out = features(self.base_layer)
        rows = rank if config.share in {"down", "both"} else experts * rank
        columns = rank if config.share in {"up", "both"} else experts * rank
        random = config.up_init == "random"
        kept = (config.top_k or experts) / experts
        parameters = {
            "mixture_down": sparse_gaussian(rows, d_in, kept) if config.down_init == "sparse" else gaussian(rows, d_in),
            "mixture_up": random_up(d_out, columns, rank) if random else torch.zeros(d_out, columns),
        }
        if config.share == "both":
            parameters["mixture_core"] = gaussian(experts * rank, rank)
        if experts > 1 and config.router == "learned":
            width = rows if config.router_input == "hidden" else d_in
            # Even gates at first, where what the start adds under these is taken off.
            parameters["mixture_router"] = torch.zeros(experts, width) if random else fresh_router(experts, width)
        return parameters

    def _constants_of(self, adapter: str) -> dict[str, Tensor]:
        config, experts = self.settings[adapter], self.experts[adapter]
        constants = {}
        if adapter in self.mixture_router and config.router_input == "noise":
            constants["mixture_noise"] = fresh_noise(features(self.base_layer)[0])
        if config.balance_step and experts > 1:
            constants["mixture_bias"] = torch.zeros(experts)
        if config.up_init == "random":
            down, up = (matrix[adapter].detach() for matrix in (self.mixture_down, self.mixture_up))
            wide = torch.promote_types(up.dtype, torch.float32)  # of bfloat16, in which the mean would be rounded
            constants["mixture_start_down"] = down.to(wide, copy=True)
            constants["mixture_start_up"] = _mean_up(up.to(wide), experts)
        return constants

    def _shared(self, adapter: str) -> tuple[str, ...]:
        share = self.settings[adapter].share
        return ("mixture_router", *(f"mixture_{name}" for name in ("down", "up") if share in {name, "both"}))

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

        n is N r, and r more where a random start is taken off. It is r where the experts share Up: then the sum over
        experts comes before it, of M_n Down x where they share both.
        """
        config, scale = self.settings[adapter], self.scale[adapter]
        x = cast_input(self, x, self.mixture_down[adapter].dtype)
        dropouts = config.dropouts if self.training else {}
        down, up = self._dropped_weights(adapter, dropouts)
        hidden, logits = self._down_and_router(adapter, x, down, dropouts.get("input", 0.0))
        if "hidden" in dropouts:
            hidden = F.dropout(hidden, dropouts["hidden"])
        # The scale goes where it is the cheapest: N numbers a token instead of d_out.
        gates = None if logits is None else (self._route(adapter, logits) * scale).to(hidden.dtype)
        if config.share == "both":
            hidden = F.linear(hidden, self.mixture_core[adapter])
        if gates is None:
            mixed = hidden * scale
        elif config.share == "down":
            mixed = _mix_shared_down(gates, hidden)
        elif config.share in {"up", "both"}:
            mixed = _mix_shared_up(gates, hidden)
        else:
            mixed = _mix_separate(gates, hidden)
        if "expert_hidden" in dropouts:
            mixed = F.dropout(mixed, dropouts["expert_hidden"])
        if adapter in self.mixture_start_down:
            # In one product, so that nothing is left of the two at first, whatever the dtype of what they are added to.
            start = self.mixture_start_down[adapter]
            taken = F.linear(x.to(start.dtype), start) * -scale
            mixed, up = torch.cat([mixed, taken], dim=-1), torch.cat([up, self.mixture_start_up[adapter]], dim=-1)
        return mixed, up

    def _dropped_weights(self, adapter: str, dropouts: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """Down and Up; with dropout on weights or updates, one of them masked (see `masked_parameter`)."""
        down, up = self.mixture_down[adapter], self.mixture_up[adapter]
        if "weight" not in dropouts and "update" not in dropouts:
            return down, up
        masked = self._masked(adapter, dropouts)
        return (down, masked) if self.masked_parameter(adapter) is up else (masked, up)

    def _down_and_router(self, adapter: str, x: Tensor, down: Tensor, dropout: float) -> tuple[Tensor, Tensor | None]:
        """Down x, (..., N r), of a shared Down (..., r), and the router's logits (..., N), None for one expert.

        ``dropout``: the share of x that is dropped for the experts; a router that reads x reads all of it.
        """
        experts, kept = self.experts[adapter], F.dropout(x, dropout) if dropout else x
        config = self.settings[adapter]
        if experts == 1:
            return F.linear(kept, down), None
        if config.router == "magnitude":  # what decides on gates is float32, here and below
            hidden = router_logits(kept, down)
            return hidden, hidden
        if adapter not in self.mixture_router:  # logits that are all alike make gates that are
            return F.linear(kept, down), x.new_zeros(*x.shape[:-1], experts)
        router = self.mixture_router[adapter]
        if adapter in self.mixture_noise:
            noise = position_noise(self.mixture_noise[adapter], self.current.positions_of(x))
            return F.linear(kept, down), router_logits(noise, router)
        if config.router_input == "hidden":
            hidden = router_logits(kept, down)
            return hidden, router_logits(hidden, router)
        if dropout or is_rounded(x) or config.frozen:
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

    def _bias(self, adapter: str) -> Tensor | None:
        return self.mixture_bias.get(adapter)  # type: ignore[no-any-return]

    @torch.no_grad()
    def move_bias(self, adapter: str) -> None:
        """Move the bias of every expert by ``balance_step``: up where it had less picks than the mean, down for more.

        The picks are those since the last call, of real tokens in training (arXiv 2408.15664, algorithm 1).
        """
        load = self.load.pop(adapter, None)
        if load is not None:
            self.mixture_bias[adapter].add_((load.mean() - load).sign(), alpha=self.settings[adapter].balance_step)


def _drawn(weight: Tensor, dropouts: Mapping[str, float]) -> Tensor:
    """Which entries of ``weight`` stay: a mask of its shape, of torch's generator."""
    return torch.rand_like(weight) >= (dropouts["weight"] if "weight" in dropouts else dropouts["update"])


def _mean_up(up: Tensor, experts: int) -> Tensor:
    """The mean over experts of their Up, (d_out, r), from all of them, (d_out, N r)."""
    by_expert: Tensor = up.unflatten(-1, (experts, -1))  # type: ignore[no-untyped-call]
    return by_expert.mean(dim=-2)


def _mix_separate(gates: Tensor, hidden: Tensor) -> Tensor:
    """g_n A_n x of every expert n, (..., N r), from gates (..., N) and all A_n x, (..., N r)."""
    by_expert: Tensor = hidden.unflatten(-1, (gates.shape[-1], -1))  # type: ignore[no-untyped-call]
    return (gates.unsqueeze(-1) * by_expert).flatten(-2)


def _mix_shared_down(gates: Tensor, hidden: Tensor) -> Tensor:
    """g_n A x of every expert n, (..., N r), from gates (..., N) and the A x of them all, (..., r)."""
    return (gates.unsqueeze(-1) * hidden.unsqueeze(-2)).flatten(-2)


def _mix_shared_up(gates: Tensor, hidden: Tensor) -> Tensor:
    """sum_n g_n A_n x, (..., r), from gates (..., N) and all A_n x, (..., N r): with one B, the sum may come first.

    Where A is shared too, there are M_n A x in their place.
    """
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
