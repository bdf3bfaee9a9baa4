"""One mixture layer, forward and backward, against a loop over its experts and against plain LoRA."""

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

TOKENS, EXPERTS, RANK, TOP_K = 1024, 8, 8, 2
SIZES = ((576, torch.float32), (576, torch.bfloat16), (4096, torch.float32), (4096, torch.bfloat16))
REPEATS = 20  # steps of a round, so that a round is no shorter than what a clock and a scheduler disturb


def run(rounds: int) -> Iterator[Row]:
    threads = real.threads()
    for width, dtype in SIZES:
        strict = (width, dtype) == SIZES[0]
        repeats = REPEATS if width < 1000 else 1
        what = f"{width} -> {width}, {TOKENS} tokens, {str(dtype).removeprefix('torch.')}, {threads} threads"
        layers = {
            "own A": mixture(width, dtype, "none"),
            "shared A": mixture(width, dtype, "down"),
            "loop": Loop(width, dtype, False),
            "gather": Loop(width, dtype, True),
            "LoRA": lora(width, dtype, RANK),
            "wide LoRA": lora(width, dtype, EXPERTS * RANK),
        }
        x = torch.randn(1, TOKENS, width, dtype=dtype, requires_grad=True)
        ways: dict[str, Callable[[], object]] = {name: step(layer, x, repeats) for name, layer in layers.items()}
        ways["compiled"] = step(torch.compile(mixture(width, dtype, "down"), dynamic=True), x, repeats)
        seconds = {name: [s / repeats for s in taken] for name, taken in in_turns(ways, rounds, warm=2).items()}
        mixed = f"{EXPERTS} experts of r {RANK}, top {TOP_K}"
        for against, wanted in (("loop", ">= 4" if strict else ""), ("gather", "")):
            other = "a loop over the experts" + (", each on its own tokens" if against == "gather" else "")
            yield faster("layer", f"{mixed}; {what}", other, seconds["own A"], seconds[against], wanted)
        for name, against, wanted in (
            ("shared A", "LoRA", "<= 1.3" if strict else ""),
            ("own A", "wide LoRA", ""),
            ("compiled", "shared A", ""),
        ):
            other = {"LoRA": f"PEFT's LoRA, r {RANK}", "wide LoRA": f"PEFT's LoRA, r {EXPERTS * RANK}"}.get(
                against, "the same, not compiled"
            )
            yield share("layer", f"{name}, {mixed}; {what}", other, seconds[name], seconds[against], wanted)
        peaks = {name: peak(step(layers[name], x, 1)) / 2**20 for name in ("own A", "shared A", "wide LoRA")}
        for name in ("own A", "shared A"):
            yield share(
                "layer", f"peak memory of a step, {name}; {what}", f"PEFT's LoRA, r {EXPERTS * RANK}",
                [peaks[name]], [peaks["wide LoRA"]], "<= 1.5", unit="MiB",
            )  # fmt: skip


def step(layer: Callable[[Tensor], Tensor], x: Tensor, repeats: int) -> Callable[[], None]:
    """Forward and backward, with the gradient of the input, as inside a model."""

    def once() -> None:
        for _ in range(repeats):
            x.grad = None
            layer(x).square().mean().backward()

    return once


def mixture(width: int, dtype: torch.dtype, share_: Any) -> MixtureLayer:
    config = MixtureConfig(r=RANK, lora_alpha=RANK, experts=EXPERTS, top_k=TOP_K, share=share_)
    layer = MixtureLayer(base(width, dtype), "default", config, experts=EXPERTS, rank=RANK, alpha=RANK)
    return layer.to(dtype).train()


def base(width: int, dtype: torch.dtype) -> nn.Linear:
    return nn.Linear(width, width, bias=False, dtype=dtype).requires_grad_(False)


def lora(width: int, dtype: torch.dtype, rank: int) -> nn.Module:
    layer: nn.Module = LoraLinear(
        base(width, dtype), "default", LoraConfig(r=rank, lora_alpha=rank), r=rank, lora_alpha=rank
    )
    return layer.to(dtype).train()


class Loop(nn.Module):
    """The mixture as it is usually written: expert by expert, on all tokens or on those that picked it."""

    def __init__(self, width: int, dtype: torch.dtype, gather: bool) -> None:
        super().__init__()
        self.base, self.gather = base(width, dtype), gather
        self.router = nn.Linear(width, EXPERTS, bias=False, dtype=dtype)
        self.down = nn.ModuleList(nn.Linear(width, RANK, bias=False, dtype=dtype) for _ in range(EXPERTS))
        self.up = nn.ModuleList(nn.Linear(RANK, width, bias=False, dtype=dtype) for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        gates, _ = gate(F.linear(x, self.router.weight), TOP_K, True)
        gates = gates.to(x.dtype)
        for expert, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            if self.gather:
                row, place = gates[..., expert].nonzero(as_tuple=True)
                update = up(down(x[row, place])) * gates[row, place, expert, None]
                y = y.index_put((row, place), update, accumulate=True)
            else:
                y = y + gates[..., expert, None] * up(down(x))
        return y
