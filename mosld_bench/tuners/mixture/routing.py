"""Routing: from router logits to gates, the balance loss, and what every adapted module with a router has in common.

All of it is tensor algebra: no loop over experts, no gather and no wait for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from mosld_bench.compat.peft import to_base_device
from mosld_bench.errors import BenchError
from mosld_bench.tuners.mixture.config import MixtureConfig


def is_rounded(x: Tensor) -> bool:
    """Whether a product with ``x`` comes out below float32: by autocast, or since ``x`` is below it."""
    return _under_autocast(x) or x.dtype != torch.promote_types(x.dtype, torch.float32)


def _under_autocast(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def router_logits(x: Tensor, router: Tensor) -> Tensor:
    """Router logits (..., N) from x (..., d_in) and a router (N, d_in): in float32 at least, under autocast too.

    Training in bfloat16 would otherwise pick other experts than scoring does, whose adapters are in float32, wherever
    two logits are nearer than bfloat16 tells apart (MixLoRA's code has its routers in float32 for that reason).
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    if not _under_autocast(x):
        return F.linear(x.to(dtype), router.to(dtype))
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.to(dtype), router.to(dtype))


def gate(
    logits: Tensor, top_k: int | None, renormalize: bool, dropout: float = 0.0, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gates and router probabilities, both (..., N), from router logits (..., N).

    p = softmax(logits). Dense: gates = p. Top-K: the K largest of p, others 0, divided by their sum if
    ``renormalize`` (MoSLD, arXiv 2412.08946, section 3; MoLA, arXiv 2402.08562, eq. 4). ``dropout`` zeroes that share
    of p before the choice and divides the rest by 1 - dropout (SiRA's expert dropout, arXiv 2311.09179): a dropped
    expert is picked only where fewer than K remain, and its gate is 0 there. The returned p is without dropout.
    ``bias`` (N,) is added to the logits for the choice of the K, and to no gate; not with dropout.
    """
    probabilities = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    scores = F.dropout(probabilities, dropout) if dropout else probabilities
    if top_k is None or (top_k == logits.shape[-1] and not dropout):  # dense
        return scores, probabilities
    if bias is not None:
        picks = (logits + bias).topk(top_k, dim=-1).indices
        chosen = (logits if renormalize else probabilities).gather(-1, picks)
        values = chosen.softmax(dim=-1, dtype=probabilities.dtype) if renormalize else chosen
    elif renormalize and not dropout:
        values, picks = _renormalized_top_k(logits, top_k, probabilities.dtype)
    else:
        values, picks = scores.topk(top_k, dim=-1)
        if renormalize:
            total = values.sum(dim=-1, keepdim=True)
            values = values / (total + (total == 0))  # all experts of a token may have been dropped
    return torch.zeros_like(probabilities).scatter(-1, picks, values), probabilities


def magnitude_gates(hidden: Tensor, top_k: int, bias: Tensor | None = None) -> Tensor:
    """Gates (..., N) of 1 for the K largest of |A x + d|, else 0, from A x (..., N) with a row of A for each expert.

    ``bias`` is d (N,), zero if not given (FlyLoRA, arXiv 2510.08396). No gradient goes through the choice.
    """
    scores = (hidden.detach() if bias is None else hidden.detach() + bias).abs()
    return torch.zeros_like(scores).scatter(-1, scores.topk(top_k, dim=-1).indices, 1.0)


def _renormalized_top_k(logits: Tensor, top_k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The K largest of softmax(logits) divided by their sum, and their indices, both (..., K), from logits (..., N).

    A softmax over the K largest logits is the same, in half as many operations.
    """
    values, picks = logits.topk(top_k, dim=-1)
    return values.softmax(dim=-1, dtype=dtype), picks


def within_capacity(gates: Tensor, top_k: int, capacity: float, mask: Tensor | None = None) -> Tensor:
    """``gates`` (..., T, N) with the picks beyond an expert's capacity set to 0, the others as they were.

    In one sequence of T real tokens an expert takes at most ceil(capacity * T * K / N) picks (the capacity factor of
    arXiv 2101.03961, eq. 3), those of the first tokens: what becomes of a token depends on no later one and on no
    other sequence of the batch. ``mask`` (..., T) is 1 for real tokens; padding takes no room.
    """
    real = torch.ones_like(gates[..., 0], dtype=torch.bool) if mask is None else mask.bool()
    place = ((gates > 0) & real.unsqueeze(-1)).cumsum(dim=-2)
    # Less a trifle, so that a product that is whole but for rounding is not taken up to the next whole number.
    room = (real.sum(dim=-1).double() * (capacity * top_k / gates.shape[-1]) - 1e-9).ceil()
    return gates * (place <= room[..., None, None])


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


def counts_loss(gates: Tensor, mask: Tensor | None = None) -> Tensor:
    """MoSLD's Eq. 4 read word by word, sum_k c_k s_k of one module, a scalar (arXiv 2412.08946, section 3.3).

    c_k is how many tokens picked expert k, and s_k the sum over tokens of a softmax over a token's picks of their
    gates, which are a softmax already: 0 for an expert that the token did not pick. Uniform routing of T tokens to K of
    N experts scores T^2 K / N, so that a coefficient depends on how many tokens a micro-batch has. ``mask`` (tokens'
    shape, 1 for real tokens) leaves padding out.
    """
    weight = torch.ones_like(gates[..., :1]) if mask is None else mask.to(gates.dtype).unsqueeze(-1)
    picked = (gates > 0).to(gates.dtype)
    exponentials = gates.exp() * picked
    scores = exponentials / exponentials.sum(dim=-1, keepdim=True).clamp(min=1)  # below 1 only without a pick
    counts, sums = ((each * weight).flatten(0, -2).sum(0) for each in (picked, scores))
    return (counts.detach() * sums).sum()


@torch.no_grad()
def picks_of(gates: Tensor, mask: Tensor | None = None) -> Tensor:
    """How many tokens picked each expert, (N,), from gates (..., N); ``mask`` as in `balance_loss`."""
    picked: Tensor = (gates > 0).float() if mask is None else (gates > 0) * mask.float().unsqueeze(-1)
    picks: Tensor = picked.flatten(0, -2).sum(0)
    return picks


#: Is called with a layer, its gates (..., N), and its router's probabilities (..., N) where it has any.
Observer = Callable[["RoutedLayer", Tensor, Tensor | None], None]


@dataclass
class ForwardPass:
    """What the adapted modules of a model share in one forward pass; the model fills it."""

    mask: Tensor | None = None  # (batch, tokens), 1 for real tokens, 0 for padding; None: all are real
    open: bool = True  # until the balance losses are asked for
    observer: Observer | None = None  # is shown what every router does outside of training
    positions: Tensor | None = None  # (batch, tokens) or (1, tokens): the place of each token in its text, from 0

    def note_positions(self, module: nn.Module, args: Any, inputs: Mapping[str, Any]) -> None:
        """Before a forward of the model with the arguments ``inputs``: learn where each token stands in its text.

        From the positions that the model is given, else from its mask, of which padding is no part, else by counting on
        from the keys and values that are kept.
        """
        tokens = next((inputs[name] for name in ("input_ids", "inputs_embeds") if inputs.get(name) is not None), None)
        positions, mask = inputs.get("position_ids"), inputs.get("attention_mask")
        if tokens is None:
            self.positions = None
        elif positions is not None:
            self.positions = positions
        elif mask is not None and mask.dim() == 2:
            self.positions = (mask.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        else:
            kept = next((inputs[name] for name in ("past_key_values", "cache") if inputs.get(name) is not None), None)
            begin = 0 if kept is None else int(kept.get_seq_length())
            self.positions = torch.arange(begin, begin + tokens.shape[1], device=tokens.device)[None]

    def positions_of(self, x: Tensor) -> Tensor:
        """The positions of the tokens of ``x`` (batch, tokens, features), (batch, tokens).

        Raises BenchError where the module is not given all tokens of each text.
        """
        positions = self.positions
        if positions is None or x.dim() != 3 or positions.shape not in (x.shape[:2], (1, x.shape[1])):
            raise BenchError(
                f"A router that reads noise needs the place of each token, but an adapted module was given "
                f"{tuple(x.shape)} for {'no' if positions is None else tuple(positions.shape)} positions. In "
                f"target_modules, name modules that see (texts, tokens, features)."
            )
        return positions.expand(x.shape[:2]).to(x.device)


class RoutedLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A frozen module with N experts beside it, and with ``mixture_router`` (N, d_in) where N is more than one.

    ``settings``, ``experts`` (N), ``rank`` (r) and ``scale`` (alpha / r) have one entry for every adapter of the model.
    """

    mixture_router: nn.ParameterDict
    adapter_layer_names: tuple[str, ...] = ("mixture_router",)
    constants: tuple[str, ...] = ()  # of these, what is saved with the others and never trains
    other_param_names = ("settings", "experts", "rank", "scale")

    def __init__(
        self, base_layer: nn.Module, adapter: str, config: MixtureConfig, *, experts: int, rank: int, alpha: float
    ) -> None:
        """Put ``experts`` experts of ``rank`` beside ``base_layer``, their output scaled by ``alpha / rank``."""
        super().__init__()
        self.base_layer = base_layer
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict())
        self.settings: dict[str, MixtureConfig] = {}
        self.experts: dict[str, int] = {}
        self.rank: dict[str, int] = {}
        self.scale: dict[str, float] = {}
        self.merged_adapters: list[str] = []
        self.current = ForwardPass()
        self.balance: Tensor | None = None
        self.load: dict[str, Tensor] = {}  # with a bias of the choice: picks of each expert since it was last moved
        self.cast_input_dtype_enabled = True  # what PEFT's disable_input_dtype_casting turns off
        self._active_adapter = adapter
        self.update_layer(adapter, config, experts=experts, rank=rank, alpha=alpha)

    def update_layer(self, adapter: str, config: MixtureConfig, *, experts: int, rank: int, alpha: float) -> None:
        """Add the parameters of ``adapter``, as the constructor does for the first one."""
        self.settings[adapter] = config
        self.experts[adapter], self.rank[adapter], self.scale[adapter] = experts, rank, alpha / rank
        for name, parameter in self._parameters_of(adapter).items():
            getattr(self, name)[adapter] = nn.Parameter(parameter)
        weight = next(self.base_layer.parameters())
        to_base_device(self, adapter, weight.device)
        for name, constant in self._constants_of(adapter).items():  # not in the base's dtype, which would round them
            getattr(self, name)[adapter] = nn.Parameter(constant.to(weight.device), requires_grad=False)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)  # type: ignore[operator]

    def set_adapter(self, *args: Any, **kwargs: Any) -> None:
        """As PEFT's, which makes all that is active trainable; but what is frozen stays so."""
        super().set_adapter(*args, **kwargs)
        self._freeze()

    def set_requires_grad(self, *args: Any, **kwargs: Any) -> None:
        """As PEFT's; but what is frozen stays so."""
        super().set_requires_grad(*args, **kwargs)
        self._freeze()

    def _freeze(self) -> None:
        """Take the gradient from what does not train."""
        for adapter, config in self.settings.items():
            for name in (*self.constants, *(f"mixture_{matrix}" for matrix in config.frozen)):
                if adapter in getattr(self, name):
                    getattr(self, name)[adapter].requires_grad_(False)

    def _parameters_of(self, adapter: str) -> dict[str, Tensor]:
        """Initial values of the adapter's parameters, by their names, in the order in which they are drawn."""
        raise NotImplementedError

    def _constants_of(self, adapter: str) -> dict[str, Tensor]:
        """What the adapter keeps beside its parameters and never trains, by name, made when these are in place."""
        return {}

    def _bias(self, adapter: str) -> Tensor | None:
        """What is added to the logits for the choice of experts, (N,); None where nothing is."""
        return None

    def _shared(self, adapter: str) -> tuple[str, ...]:
        """Names of the parameters that every token uses whole; the others are stacked, one part for each expert."""
        return ("mixture_router",)

    def idle(self, adapter: str) -> int:
        """How many trained parameters are of the experts that one token leaves out: N - K of N, none if dense.

        They are computed all the same, with a gate of zero, since the experts are stacked.
        """
        experts, picked = self.experts[adapter], self.settings[adapter].top_k or self.experts[adapter]
        names = (name for name in self.adapter_layer_names if name not in self._shared(adapter))
        stacked = (getattr(self, name)[adapter] for name in names if adapter in getattr(self, name))
        return sum(each.numel() * (experts - picked) // experts for each in stacked if each.requires_grad)

    def _route(self, adapter: str, logits: Tensor) -> Tensor:
        """Gates (..., N) from router logits (..., N); leaves the balance loss on the module where it is asked for.

        The capacity holds in training only, as dropout does: a score must not depend on the tokens before it in any
        way but through the model. The balance loss counts the picks before the limit.
        """
        config = self.settings[adapter]
        dropout = config.dropouts.get("gates", 0.0) if self.training else 0.0
        probabilities: Tensor | None
        bias = self._bias(adapter)
        if config.router == "magnitude" and config.top_k is not None:
            gates, probabilities = magnitude_gates(logits, config.top_k, bias), None
        else:
            gates, probabilities = gate(logits, config.top_k, config.renormalize, dropout, bias)
        if self.training:
            mask = self.current.mask
            mask = mask.to(gates.device) if mask is not None and mask.shape == gates.shape[:-1] else None
            if bias is not None and self.current.open:  # as below
                self.load[adapter] = picks_of(gates, mask) + self.load.get(adapter, 0)
            if config.balance_coef > 0 and probabilities is not None:
                if config.balance_form == "counts":
                    balance = counts_loss(gates, mask)
                else:
                    balance = balance_loss(gates, probabilities, mask)
                # Checkpointing runs this again in the backward pass, with a graph of its own: to leave that on the
                # module would keep every layer's activations alive, which checkpointing is there to avoid.
                if self.current.open:
                    self.balance = balance
            if config.capacity is not None and config.top_k is not None:
                gates = within_capacity(gates, config.top_k, config.capacity, mask)
        elif self.current.observer is not None:
            self.current.observer(self, gates, probabilities)
        return gates

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> NoReturn:
        """Raises BenchError: gates depend on the token, so no one matrix does what the mixture does."""
        refuse_to_merge()

    def unmerge(self) -> NoReturn:
        """Raises BenchError: nothing was merged."""
        refuse_to_merge()


def gaussian(rows: int, columns: int) -> Tensor:
    """Initial values of a down-projection, (rows, columns): Gaussian with std 1/sqrt(3 columns).

    MoSLD draws from a Gaussian and names no std; this is the std of PEFT's default for LoRA's A, which is uniform.
    """
    values = torch.randn(rows, columns)
    # Counting attaches on the meta device, where a division of no numbers would be half of the work.
    return values if values.is_meta else values / math.sqrt(3 * columns)


def sparse_gaussian(rows: int, columns: int, share: float) -> Tensor:
    """Initial values of a down-projection, (rows, columns), that are zero but for a ``share`` of each row.

    The others are Gaussian with std 1/rows, at random places (FlyLoRA, arXiv 2510.08396, and its code).
    """
    kept = max(1, int(columns * share))
    places = torch.rand(rows, columns).argsort(dim=-1)[:, :kept]
    return torch.zeros(rows, columns).scatter(-1, places, torch.randn(rows, kept) / rows)


def random_up(rows: int, columns: int, rank: int) -> Tensor:
    """Random initial values of up-projections, (rows, columns): Gaussian with std r^(1/4) / (8 sqrt(rows)).

    Those of R-LoRA's code (arXiv 2502.15455), its gamma 64.
    """
    return torch.randn(rows, columns) * (math.pow(rank, 0.25) / (8 * math.sqrt(rows)))


def fresh_router(experts: int, features: int) -> Tensor:
    """Initial values of a router, (N, d_in): PyTorch's default for linear layers, uniform in +-1/sqrt(d_in)."""
    bound = 1 / math.sqrt(features)
    return torch.empty(experts, features).uniform_(-bound, bound)


#: Angles of the noise are multiples of a turn over this, so that they are whole numbers that float32 holds.
_TURN = 1 << 24


def fresh_noise(features: int) -> Tensor:
    """What the noise of a router is made of, (2, features): steps and starts, whole numbers below 2^24 in float32."""
    return torch.rand(2, features).mul(_TURN).floor()


def position_noise(noise: Tensor, positions: Tensor) -> Tensor:
    """Noise (..., d) for ``positions`` (...), by the steps and starts of `fresh_noise`: sqrt(2) cos(2 pi (k p + c)).

    A fixed function of the position p alone. Over random steps k and starts c it has mean 0 and variance 1, and is
    uncorrelated from position to position; so no table is needed, however long a text.
    """
    steps, starts = noise.long()
    angles = (positions.unsqueeze(-1) * steps + starts) % _TURN
    return math.sqrt(2) * torch.cos(angles.to(torch.float32) * (2 * math.pi / _TURN))


def refuse_to_merge() -> NoReturn:
    """Raise BenchError, which says why a mixture stays beside the base weights."""
    raise BenchError(
        "A routed mixture cannot be merged into the base weights: its gates depend on the token. "
        "Keep the adapter beside the model (PeftModel.from_pretrained)."
    )


def features(layer: nn.Module) -> tuple[int, int]:
    """(d_in, d_out) of a linear layer or of GPT-2's transposed one. Raises BenchError for anything else."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
    if type(layer).__name__ == "Conv1D":
        rows, columns = layer.weight.shape  # type: ignore[union-attr, misc]
        return int(rows), int(columns)
    raise BenchError(f"The mixture adapts linear layers, not {type(layer).__name__}; name others in target_modules.")
