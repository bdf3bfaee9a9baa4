"""One mixture layer, forward and backward, against a loop over its experts and against plain LoRA.

The frozen product W0 x is most of a layer's time and the same in all of them, so that it hides what the adapters take:
both are shown, the adapter alone and the whole layer. 8 experts of rank 8, top 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from mosld_bench.tuners.mixture import MixtureConfig, MixtureLayer, gate
from tests.benchmarks import real
from tests.benchmarks.memory import peak
from tests.benchmarks.side_by_side import Row, faster, in_turns, share

TOKENS, EXPERTS, RANK, TOP_K, SCALE = 1024, 8, 8, 2, 2.0
SIZES = ((576, torch.float32), (576, torch.bfloat16), (4096, torch.float32), (4096, torch.bfloat16))
NAMED = {"none": "own A", "down": "shared A"}
REPEATS = 20  # steps of a round, so that a round is no shorter than what a clock and a scheduler disturb


def run(rounds: int) -> Iterator[Row]:
    """Time and peak memory of the layer at each of :data:`SIZES`; figures are wanted of the first alone."""
    threads = real.threads()
    for width, dtype in SIZES:
        shape = f"{width} -> {width}, {TOKENS} tokens, {str(dtype).removeprefix('torch.')}, {threads} threads"
        first = (width, dtype) == SIZES[0]
        yield from _compared(
            f"adapter alone, {shape}", width=width, dtype=dtype, frozen=False, rounds=rounds,
            than_loop=">= 4" if first else "",
        )  # fmt: skip
        yield from _compared(
            f"layer, {shape}", width=width, dtype=dtype, frozen=True, rounds=rounds,
            than_lora="<= 1.3" if first else "",
        )  # fmt: skip
        for shared in ("none", "down"):
            ours, wide = (
                peak(step(layer, torch.randn(1, TOKENS, width, dtype=dtype, requires_grad=True), 1)) / 2**20
                for layer in (mixture(width, dtype, shared), lora(width, dtype, EXPERTS * RANK))
            )
            yield share(
                "layer", f"peak memory of a step, {NAMED[shared]}; {shape}", against=f"PEFT's LoRA, r {EXPERTS * RANK}",
                ours=[ours], other=[wide], wanted="<= 1.5", unit="MiB",
            )  # fmt: skip


def _compared(
    quantity: str,
    *,
    width: int,
    dtype: torch.dtype,
    frozen: bool,
    rounds: int,
    than_loop: str = "",
    than_lora: str = "",
) -> Iterator[Row]:
    """The mixture against a loop and LoRA, with what is wanted of either comparison.

    ``frozen``: with the frozen product W0 x, which all of them do alike.
    """
    layers: dict[str, nn.Module] = {
        "own A": mixture(width, dtype, "none", frozen=frozen),
        "shared A": mixture(width, dtype, "down", frozen=frozen),
        "loop": Loop(width, dtype, gather=False, frozen=frozen),
        "gather": Loop(width, dtype, gather=True, frozen=frozen),
        "LoRA": lora(width, dtype, RANK, frozen=frozen),
        "wide LoRA": lora(width, dtype, EXPERTS * RANK, frozen=frozen),
    }
    x = torch.randn(1, TOKENS, width, dtype=dtype, requires_grad=True)
    repeats = REPEATS if width < 1000 else 2
    ways: dict[str, Callable[[], object]] = {name: step(layer, x, repeats) for name, layer in layers.items()}
    if frozen:
        ways["compiled"] = step(torch.compile(mixture(width, dtype, "down"), dynamic=True), x, repeats)
    seconds = {name: [s / repeats for s in taken] for name, taken in in_turns(ways, rounds, warm=2).items()}
    for way, against, wanted in (
        ("loop", "a loop over the experts", than_loop),
        ("gather", "the loop, each on its own tokens", ""),
    ):
        yield faster(
            "layer", f"own A; {quantity}", against=against, ours=seconds["own A"], other=seconds[way], wanted=wanted
        )
    yield share(
        "layer", f"shared A; {quantity}", against=f"LoRA, r {RANK}", ours=seconds["shared A"], other=seconds["LoRA"],
        wanted=than_lora,
    )  # fmt: skip
    yield share(
        "layer", f"own A; {quantity}", against=f"LoRA, r {EXPERTS * RANK}", ours=seconds["own A"],
        other=seconds["wide LoRA"],
    )  # fmt: skip
    if frozen:
        yield share(
            "layer", f"compiled; {quantity}", against="not compiled", ours=seconds["compiled"],
            other=seconds["shared A"],
        )  # fmt: skip


def step(layer: Callable[[Tensor], Tensor], x: Tensor, repeats: int) -> Callable[[], None]:
    """A function that does ``repeats`` forwards and backwards, with the gradient of the input, as inside a model."""
    slope = torch.ones_like(x)

    def once() -> None:
        for _ in range(repeats):
            x.grad = None
            torch.autograd.backward(layer(x), slope)

    return once


def mixture(width: int, dtype: torch.dtype, shared: Any, *, frozen: bool = True) -> MixtureLayer:
    """Our layer, (..., width) -> (..., width); ``shared``: ``none``, ``down`` or ``up``."""
    config = MixtureConfig(r=RANK, lora_alpha=SCALE * RANK, experts=EXPERTS, top_k=TOP_K, share=shared)
    layer = MixtureLayer(base(width, dtype, frozen), "default", config, experts=EXPERTS, rank=RANK, alpha=SCALE * RANK)
    return layer.to(dtype).train()


def base(width: int, dtype: torch.dtype, frozen: bool) -> nn.Linear:
    """The layer that is adapted; without ``frozen``, one that hands its input on and multiplies nothing."""
    linear = nn.Linear if frozen else Passing
    return linear(width, width, bias=False, dtype=dtype).requires_grad_(False)


class Passing(nn.Linear):
    """In place of the frozen layer where the adapter alone is timed."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x


def lora(width: int, dtype: torch.dtype, rank: int, *, frozen: bool = True) -> nn.Module:
    """PEFT's own LoRA layer of that rank."""
    layer: nn.Module = LoraLinear(
        base(width, dtype, frozen),
        "default",
        LoraConfig(r=rank, lora_alpha=SCALE * rank),
        r=rank,
        lora_alpha=SCALE * rank,
    )
    return layer.to(dtype).train()


class Loop(nn.Module):
    """The mixture as it is usually written, expert by expert; with ``gather``, each on the tokens that picked it."""

    def __init__(self, width: int, dtype: torch.dtype, *, gather: bool, frozen: bool = True) -> None:
        super().__init__()
        self.base: nn.Linear = base(width, dtype, frozen)
        self.gather = gather
        self.router = nn.Linear(width, EXPERTS, bias=False, dtype=dtype)
        self.down = nn.ModuleList(nn.Linear(width, RANK, bias=False, dtype=dtype) for _ in range(EXPERTS))
        self.up = nn.ModuleList(nn.Linear(RANK, width, bias=False, dtype=dtype) for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        """(1, tokens, width) -> (1, tokens, width)."""
        y: Tensor = self.base(x)
        gates, _ = gate(F.linear(x, self.router.weight), TOP_K, True)
        gates = gates.to(x.dtype)
        for expert, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            if self.gather:
                row, place = gates[..., expert].nonzero(as_tuple=True)
                update = up(down(x[row, place])) * SCALE * gates[row, place, expert, None]
                y = y.index_put((row, place), update, accumulate=True)
            else:
                y = y + up(down(x)) * SCALE * gates[..., expert, None]
        return y
