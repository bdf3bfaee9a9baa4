"""One adapted linear layer: y = W0 x + (alpha / r) * Up (g * Down x).

With the down-projections of all N experts stacked to (N r, d_in) and the up-projections to (d_out, N r), a routed
mixture is two matrix products with the gates between them: sum_n g_n B_n A_n x = Up (g repeated r times * Down x).
It is exact for dense and for top-K routing, since the gates that were not picked are zero; there is no loop over
experts, no gather and no wait for the device. A shared A makes Down (r, d_in), a shared B makes Up (d_out, r).
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from mosld_bench.errors import BenchError
from mosld_bench.tuners.mixture.config import MixtureConfig


def gate(logits: Tensor, top_k: int | None, renormalize: bool) -> tuple[Tensor, Tensor]:
    """Gates and router probabilities, both (..., N), from router logits (..., N).

    p = softmax(logits). Dense: gates = p. Top-K: the K largest of p, others 0, divided by their sum if
    ``renormalize`` (MoSLD, arXiv 2412.08946, section 3; MoLA, arXiv 2402.08562, eq. 4).
    """
    probabilities = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    if top_k is None or top_k == logits.shape[-1]:
        return probabilities, probabilities
    values, picks = probabilities.topk(top_k, dim=-1)
    if renormalize:
        values = values / values.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, picks, values), probabilities


def balance_loss(gates: Tensor, probabilities: Tensor, mask: Tensor | None = None) -> Tensor:
    """Switch-style load balance N * sum_i f_i P_i of one module (arXiv 2101.03961, eq. 4-6), a scalar.

    f_i is expert i's share of the picks, over tokens and picks both, so that uniform routing scores 1 for every K.
    P_i is its mean probability. ``mask`` (tokens' shape, 1 for real tokens) leaves padding out.
    """
    experts = probabilities.shape[-1]
    weight = torch.ones_like(gates[..., :1]) if mask is None else mask.to(gates.dtype).unsqueeze(-1)
    picked = (gates > 0).to(gates.dtype) * weight
    share = picked.reshape(-1, experts).sum(0) / picked.sum().clamp(min=1)
    mass = (probabilities * weight).reshape(-1, experts).sum(0) / weight.sum().clamp(min=1)
    return experts * (share.detach() * mass).sum()


class MixtureLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A linear layer with a mixture of LoRA experts beside it; tensor in, tensor out.

    Parameters of an adapter, with N experts of rank r (routers have no bias; one expert has no router):

    =================  ==========================  ======================
    ``mixture_down``   (N r, d_in), share down: (r, d_in)    Gaussian, std 1/sqrt(3 d_in)
    ``mixture_up``     (d_out, N r), share up: (d_out, r)    zero
    ``mixture_router`` (N, d_in)                             uniform in +-1/sqrt(d_in)
    =================  ==========================  ======================
    """

    adapter_layer_names = ("mixture_down", "mixture_up", "mixture_router")
    other_param_names = ("settings", "experts", "rank", "scale")

    def __init__(self, base_layer: nn.Module, adapter: str, config: MixtureConfig, **shape: Any) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = _features(base_layer)
        self.mixture_down = nn.ParameterDict()
        self.mixture_up = nn.ParameterDict()
        self.mixture_router = nn.ParameterDict()
        self.settings: dict[str, MixtureConfig] = {}
        self.experts: dict[str, int] = {}
        self.rank: dict[str, int] = {}
        self.scale: dict[str, float] = {}
        self.merged_adapters: list[str] = []
        self.token_mask: list[Tensor | None] = [None]  # one cell shared by all layers; the model fills it
        self.weight_mask: dict[str, Tensor] = {}  # drawn once a step by draw_masks, else in every forward
        self.balance: Tensor | None = None
        self._active_adapter = adapter
        self.update_layer(adapter, config, **shape)

    def update_layer(self, adapter: str, config: MixtureConfig, experts: int, rank: int, alpha: float) -> None:
        """Add the parameters of ``adapter``."""
        self.settings[adapter] = config
        self.experts[adapter], self.rank[adapter], self.scale[adapter] = experts, rank, alpha / rank
        downs = rank if config.share == "down" else experts * rank
        ups = rank if config.share == "up" else experts * rank
        # Gaussian as in the paper (std not given there), at the spread of PEFT's uniform default.
        self.mixture_down[adapter] = nn.Parameter(
            torch.randn(downs, self.in_features) / math.sqrt(3 * self.in_features)
        )
        self.mixture_up[adapter] = nn.Parameter(torch.zeros(self.out_features, ups))
        if experts > 1:
            bound = 1 / math.sqrt(self.in_features)
            self.mixture_router[adapter] = nn.Parameter(torch.empty(experts, self.in_features).uniform_(-bound, bound))
        self._move_adapter_to_device_of_base_layer(adapter)  # type: ignore[operator]
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)  # type: ignore[operator]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., d_in) -> (..., d_out)."""
        y: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return y
        for adapter in self.active_adapters:  # type: ignore[union-attr]
            if adapter in self.mixture_down:
                y = y + self._update(adapter, x).to(y.dtype)
        return y

    def _update(self, adapter: str, x: Tensor) -> Tensor:
        config, experts, rank = self.settings[adapter], self.experts[adapter], self.rank[adapter]
        down, up = self.mixture_down[adapter], self.mixture_up[adapter]
        x = self._cast_input_dtype(x, down.dtype)  # type: ignore[operator]
        where = config.dropout_on if self.training else "none"
        if where == "weight" and config.share == "up":
            up = self._masked(adapter, up)
        elif where == "weight":
            down = self._masked(adapter, down)

        hidden = F.linear(F.dropout(x, config.dropout) if where == "input" else x, down)
        if where == "hidden":
            hidden = F.dropout(hidden, config.dropout)
        if experts > 1:
            gates = self._route(adapter, x).to(hidden.dtype)
            if config.share == "down":
                hidden = (gates.unsqueeze(-1) * hidden.unsqueeze(-2)).flatten(-2)
            elif config.share == "up":
                hidden = (gates.unsqueeze(-2) @ hidden.reshape(*hidden.shape[:-1], experts, rank)).squeeze(-2)
            else:
                hidden = (gates.unsqueeze(-1) * hidden.reshape(*hidden.shape[:-1], experts, rank)).flatten(-2)
        return F.linear(hidden, up) * self.scale[adapter]

    def _route(self, adapter: str, x: Tensor) -> Tensor:
        """Gates (..., N); leaves the balance loss of this call on the module where it will be asked for."""
        config = self.settings[adapter]
        gates, probabilities = gate(F.linear(x, self.mixture_router[adapter]), config.top_k, config.renormalize)
        if self.training and config.balance_coef > 0:
            mask = self.token_mask[0]
            self.balance = balance_loss(gates, probabilities, mask if _fits(mask, gates) else None)
        return gates

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

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> NoReturn:
        refuse_to_merge()

    def unmerge(self) -> NoReturn:
        refuse_to_merge()


def refuse_to_merge() -> NoReturn:
    """Say why a mixture stays beside the base weights."""
    raise BenchError(
        "A routed mixture cannot be merged into the base weights: its gates depend on the token. "
        "Keep the adapter beside the model (PeftModel.from_pretrained)."
    )


def _fits(mask: Tensor | None, gates: Tensor) -> bool:
    return mask is not None and mask.shape == gates.shape[:-1]


def _features(layer: nn.Module) -> tuple[int, int]:
    """(d_in, d_out) of a linear layer or of GPT-2's transposed one."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
    if type(layer).__name__ == "Conv1D":
        rows, columns = layer.weight.shape  # type: ignore[union-attr, misc]
        return int(rows), int(columns)
    raise BenchError(f"The mixture adapts linear layers, not {type(layer).__name__}; name others in target_modules.")
