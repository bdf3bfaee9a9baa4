"""FLOPs a token of a model with an adapter: as torch counts them, and by a formula that says where they go.

Both count matrix products alone, two operations for a multiplication with its addition; what is element by element
(norms, activations, gates times a hidden state) is left out. Attention is counted as the full square, though half of
it is masked. The counter watches a forward and a training step on the meta device, where nothing is computed, so a 7B
model takes a second; attention is written out there (eager), as the counter knows no fused kernel of a CPU.

The formula, with n tokens, W_i the matrices that a token meets and k_i how often it meets them:

    forward     2 sum_i k_i |W_i|  +  4 d (n + virtual tokens) a layer, d = heads * head size; the output head is a W_i
    backward    once more the product for each of its two factors that needs a gradient

What an adapter adds to the sum: LoRA |A| + |B|. A mixture |Down| + |Up| + |router|, all experts of it: they are
stacked, and those that were not picked have a gate of zero. If B is shared, the gates times the hidden state are a
product too, N r. MixLoRA, with K picks a token: A of gate and up, the router and B of down once, the rest K times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mosld_bench.compat.peft import is_plain_lora, prompt_parameters
from mosld_bench.inputs import Encoded
from mosld_bench.methods.attaching import attach
from mosld_bench.methods.base import Method
from mosld_bench.methods.count import empty_model
from mosld_bench.methods.live import virtual_tokens
from mosld_bench.records.profile import Flops
from mosld_bench.trial import answer_loss

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def attached_on_meta(method: Method, config: PreTrainedConfig, params: Mapping[str, Any]) -> nn.Module:
    """The model of ``config`` with ``method`` on it, on the meta device: shapes without numbers."""
    with torch.device("meta"):
        model = attach(method, empty_model(config).requires_grad_(False), params)
        model.set_attn_implementation("eager")  # type: ignore[operator]
    return model


def flops(method: Method, model: nn.Module, *, tokens: int, answer: int) -> Flops:
    """FLOPs a token of a prompt of ``tokens``, and of a training step on a text of as many.

    The output head works at every token of the prompt, but in training only at the ``answer`` tokens of the answer.
    ``model`` is what `attached_on_meta` returns.
    """
    trains = any(parameter.requires_grad for parameter in model.parameters())
    prompt = _formula(model.eval(), tokens=tokens, headed=tokens)
    step = _formula(model.train(), tokens=tokens, headed=answer)
    return Flops(
        forward=_count(lambda: _prompt(model.eval(), tokens)) / tokens,
        forward_formula=prompt[0] / tokens if prompt else None,
        step=_count(lambda: _step(method, model.train(), tokens, answer)) / tokens if trains else None,
        step_formula=sum(step) / tokens if trains and step else None,
    )


def _count(work: Callable[[], object]) -> int:
    """FLOPs of ``work`` by torch's counter."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@torch.no_grad()
def _prompt(model: nn.Module, tokens: int) -> None:
    ids = torch.zeros((1, tokens), dtype=torch.long, device="meta")
    model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


def _step(method: Method, model: nn.Module, tokens: int, answer: int) -> None:
    method.before_step(model)
    loss, extra = answer_loss(model, [Encoded("", [0] * tokens, answer)], 0), method.aux_loss(model)
    (loss if extra is None else loss + extra).backward()  # type: ignore[no-untyped-call]


class _NoFormulaError(Exception):
    """A module whose products are not known here."""


class _Tally:
    """FLOPs of one pass, added up product by product. ``needs`` is whether a factor needs a gradient."""

    def __init__(self) -> None:
        self.forward = self.backward = 0
        self.met: set[int] = set()  # ids of the parameters that had a part in a product

    def product(self, size: float, *needs: bool) -> bool:
        """Add one product of ``size`` multiplications. Returns whether its result needs a gradient."""
        self.forward += round(2 * size)
        self.backward += round(2 * size) * sum(needs)
        return any(needs)

    def matrix(self, weight: torch.Tensor, times: int, needs: bool) -> bool:
        """Add ``weight`` applied to ``times`` vectors. Returns whether the results need a gradient."""
        self.met.add(id(weight))
        return self.product(weight.numel() * times, needs, weight.requires_grad)


def _formula(model: nn.Module, *, tokens: int, headed: int) -> tuple[int, int] | None:
    """FLOPs of forward and backward over one text, the head at ``headed`` of its tokens; None where unknown."""
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    tally, virtual = _Tally(), virtual_tokens(model)
    if virtual:  # keys and values as they are; a network that makes them would have matrices of its own
        tally.met |= {id(parameter) for parameter in prompt_parameters(model)}
    try:
        head = base.get_output_embeddings()
        if head is None:
            raise _NoFormulaError("no output head")
        needs = base.get_input_embeddings().weight.requires_grad
        for layer in _part(_part(base, "model"), "layers"):
            needs = _layer(tally, layer, tokens, virtual, needs)
        tally.matrix(head.weight, headed, needs)
    except _NoFormulaError:
        return None
    # A trained matrix that the formula did not meet has products that it does not know.
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = (p for p in model.parameters() if p.requires_grad and p.dim() > 1)
    if any(id(matrix) not in tally.met | looked_up for matrix in matrices):
        return None
    return tally.forward, tally.backward


def _part(module: Any, name: str) -> Any:
    """The part of a module that the formula calls ``name``. Raises _NoFormulaError where it has none."""
    if not hasattr(module, name):
        raise _NoFormulaError(f"{type(module).__name__} has no {name}")
    return getattr(module, name)


def _layer(tally: _Tally, layer: Any, tokens: int, virtual: int, needs: bool) -> bool:
    """Add a decoder layer on ``tokens`` tokens after ``virtual`` ones. Returns whether its output needs a gradient."""
    attention = _part(layer, "self_attn")
    heads, head_dim = _part(_part(attention, "config"), "num_attention_heads"), _part(attention, "head_dim")
    queries = _linear(tally, _part(attention, "q_proj"), tokens, needs)
    keys = _linear(tally, _part(attention, "k_proj"), tokens, needs) or virtual > 0
    values = _linear(tally, _part(attention, "v_proj"), tokens, needs) or virtual > 0
    square = heads * head_dim * tokens * (tokens + virtual)
    mixed = tally.product(square, tally.product(square, queries, keys), values)
    needs = _linear(tally, _part(attention, "o_proj"), tokens, mixed) or needs
    return _block(tally, _part(layer, "mlp"), tokens, needs) or needs


def _linear(tally: _Tally, module: Any, tokens: int, needs: bool) -> bool:
    """Add a linear layer as it is, with LoRA, or with a mixture. Returns whether its output needs a gradient."""
    from mosld_bench.tuners.mixture import MixtureLayer

    if type(module) is nn.Linear:
        return tally.matrix(module.weight, tokens, needs)
    result = _linear(tally, _part(module, "base_layer"), tokens, needs)
    kind: type = type(module)
    if is_plain_lora(module):
        for name in module.active_adapters:
            hidden = tally.matrix(module.lora_A[name].weight, tokens, needs)
            result = tally.matrix(module.lora_B[name].weight, tokens, hidden) or result
    elif kind is MixtureLayer:
        for name in module.active_adapters:
            config, hidden = module.settings[name], tally.matrix(module.mixture_down[name], tokens, needs)
            gates = False
            if name in module.mixture_router:
                reads = {"x": needs, "hidden": hidden, "noise": False}[config.router_input]
                gates = tally.matrix(module.mixture_router[name], tokens, reads)
            if config.share == "both":
                hidden = tally.matrix(module.mixture_core[name], tokens, hidden)
            if config.share in {"up", "both"} and module.experts[name] > 1:
                tally.product(tokens * module.experts[name] * module.rank[name], gates, hidden)
            hidden = hidden or gates
            if config.up_init == "random":  # in one product with Up, and so with gradients that nobody asked for
                hidden = tally.matrix(module.mixture_start_down[name], tokens, needs) or hidden
                tally.product(module.mixture_start_up[name].numel() * tokens, hidden, True)
            result = tally.matrix(module.mixture_up[name], tokens, hidden) or result
    else:
        raise _NoFormulaError(f"{kind.__name__} is no linear layer that is known here")
    return result


def _block(tally: _Tally, block: Any, tokens: int, needs: bool) -> bool:
    """Add a gated feed-forward block, perhaps with MixLoRA's experts. Returns whether its output needs a gradient."""
    from mosld_bench.tuners.mixlora import MixLoraLayer

    kind: type = type(block)
    if kind is not MixLoraLayer:
        inner = [_linear(tally, _part(block, name), tokens, needs) for name in ("gate_proj", "up_proj")]
        return _linear(tally, _part(block, "down_proj"), tokens, any(inner))

    def applied(names: Iterable[str], times: int, needs: bool) -> None:
        for name in names:
            tally.matrix(getattr(block, f"mixture_{name}")[block.active_adapters[0]], times, needs)

    picks = block.settings[block.active_adapters[0]].top_k or 1
    base: Any = block.base_layer
    for part in (base.gate_proj, base.up_proj):
        _linear(tally, part, tokens, needs)
    applied(("gate_a", "up_a", "router"), tokens, needs)
    applied(("gate_b", "up_b", "down_a"), tokens * picks, True)
    applied(("down_b",), tokens, True)
    return _linear(tally, base.down_proj, tokens, True)
