"""One adapted linear layer: y = W0 x + (alpha / r) * Up (g * Down x).

With the down-projections of all N experts stacked to (N r, d_in) and the up-projections to (d_out, N r), a routed
mixture is two matrix products with the gates between them: sum_n g_n B_n A_n x = Up (g repeated r times * Down x).
It is exact for dense and for top-K routing, since the gates that were not picked are zero; there is no loop over
experts, no gather and no wait for the device. A shared A makes Down (r, d_in), a shared B makes Up (d_out, r).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mosld_bench.errors import BenchError
from mosld_bench.tuners.mixture.config import MixtureConfig
from mosld_bench.tuners.mixture.routing import RoutedLayer, fresh_router, gaussian


class MixtureLayer(RoutedLayer):
    """A linear layer with a mixture of LoRA experts beside it; tensor in, tensor out.

    Parameters of an adapter, with N experts of rank r (routers have no bias; one expert has no router):

    =================  ==========================  ======================
    ``mixture_down``   (N r, d_in), share down: (r, d_in)    Gaussian, std 1/sqrt(3 d_in)
    ``mixture_up``     (d_out, N r), share up: (d_out, r)    zero
    ``mixture_router`` (N, d_in)                             uniform in +-1/sqrt(d_in)
    =================  ==========================  ======================
    """

    mixture_down: nn.ParameterDict
    mixture_up: nn.ParameterDict
    adapter_layer_names = ("mixture_down", "mixture_up", "mixture_router")

    def __init__(self, base_layer: nn.Module, adapter: str, config: MixtureConfig, **shape: Any) -> None:
        self.weight_mask: dict[str, Tensor] = {}  # drawn once a step by draw_masks, else in every forward
        super().__init__(base_layer, adapter, config, **shape)

    def _parameters_of(self, adapter: str) -> dict[str, Tensor]:
        share, experts, rank = self.settings[adapter].share, self.experts[adapter], self.rank[adapter]
        d_in, d_out = _features(self.base_layer)
        parameters = {
            "mixture_down": gaussian(rank if share == "down" else experts * rank, d_in),
            "mixture_up": torch.zeros(d_out, rank if share == "up" else experts * rank),
        }
        return parameters | ({"mixture_router": fresh_router(experts, d_in)} if experts > 1 else {})

    def _shared(self, adapter: str) -> tuple[str, ...]:
        share = self.settings[adapter].share
        return ("mixture_router", *(() if share == "none" else (f"mixture_{share}",)))

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
        """The two factors of what the adapter adds: (alpha / r) g * Down x, (..., n), and Up, (d_out, n)."""
        config, experts, rank = self.settings[adapter], self.experts[adapter], self.rank[adapter]
        down, up = self.mixture_down[adapter], self.mixture_up[adapter]
        x = self._cast_input_dtype(x, down.dtype)  # type: ignore[operator]
        where = config.dropout_on if self.training else "none"
        if where == "weight" and config.share == "up":
            up = self._masked(adapter, up)
        elif where == "weight":
            down = self._masked(adapter, down)

        logits = None
        if experts == 1 or where == "input":
            hidden = F.linear(F.dropout(x, config.dropout) if where == "input" else x, down)
            logits = F.linear(x, self.mixture_router[adapter]) if experts > 1 else None
        else:  # one product for both: x is read once, and so is its gradient
            both = F.linear(x, torch.cat([down, self.mixture_router[adapter]]))
            hidden, logits = both.split([down.shape[0], experts], dim=-1)  # type: ignore[no-untyped-call]
        if where == "hidden":
            hidden = F.dropout(hidden, config.dropout)
        if logits is None:
            hidden = hidden * self.scale[adapter]
        else:  # the scale goes where it is the cheapest: N numbers a token instead of d_out
            gates = (self._route(adapter, logits) * self.scale[adapter]).to(hidden.dtype)
            if config.share == "down":
                hidden = (gates.unsqueeze(-1) * hidden.unsqueeze(-2)).flatten(-2)
            elif config.share == "up":
                hidden = (gates.unsqueeze(-2) @ hidden.reshape(*hidden.shape[:-1], experts, rank)).squeeze(-2)
            else:
                hidden = (gates.unsqueeze(-1) * hidden.reshape(*hidden.shape[:-1], experts, rank)).flatten(-2)
        return hidden, up

    def masked_parameter(self, adapter: str) -> Tensor:
        """The parameter that weight dropout falls on: the shared matrix, or down where none is shared."""
        parameters = self.mixture_up if self.settings[adapter].share == "up" else self.mixture_down
        return parameters[adapter]  # type: ignore[no-any-return]

    def _masked(self, adapter: str, weight: Tensor) -> Tensor:
        """mask * weight / (1 - q), the mask element-wise and the same for all experts (MoSLD, eq. 2)."""
        mask = self.weight_mask.get(adapter)
        if mask is None:  # training without draw_masks: a forward is a step. Checkpointing replays the generator.
            mask = torch.rand_like(weight) >= self.settings[adapter].dropout
        dropped: Tensor = weight * mask / (1 - self.settings[adapter].dropout)
        return dropped


def _added(y: Tensor, hidden: Tensor, up: Tensor) -> Tensor:
    """y + Up hidden, in one product where both have one dtype: the update itself is never in memory."""
    if y.dtype != hidden.dtype or y.dim() < 2:
        return y + F.linear(hidden, up).to(y.dtype)
    rows = torch.addmm(y.flatten(0, -2), hidden.flatten(0, -2), up.to(y.dtype).t())
    return rows.view_as(y)


def _features(layer: nn.Module) -> tuple[int, int]:
    """(d_in, d_out) of a linear layer or of GPT-2's transposed one."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
    if type(layer).__name__ == "Conv1D":
        rows, columns = layer.weight.shape  # type: ignore[union-attr, misc]
        return int(rows), int(columns)
    raise BenchError(f"The mixture adapts linear layers, not {type(layer).__name__}; name others in target_modules.")
