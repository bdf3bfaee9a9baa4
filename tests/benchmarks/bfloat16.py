"""Products of bfloat16 in float32 against torch's own, on a processor without instructions for bfloat16.

A step of LoRA on layers of SmolLM2's shape, forward and backward, and tokens as text is generated, of 16 texts at once
and of one, where there is too little to multiply for what it costs to look at each operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from mosld_bench.compat.torch import Float32Products, has_bfloat16
from tests.benchmarks import real
from tests.benchmarks.side_by_side import Row, faster, in_turns

TOKENS, LAYERS, VOCABULARY = 256, 2, 2048


def run(rounds: int) -> Iterator[Row]:
    """A training step and single tokens; nothing where the processor multiplies bfloat16 by itself."""
    if has_bfloat16():
        return
    model, shape = small(), f"{LAYERS} layers of SmolLM2's shape, {real.threads()} threads"
    for quantity, work in (
        (f"forward and backward of LoRA, {TOKENS} tokens, {shape}", partial(step, model)),
        (f"a token of each of 16 texts, {shape}", partial(tokens, model, 16)),
        (f"a token of one text, {shape}", partial(tokens, model, 1)),
    ):
        seconds = in_turns({"ours": partial(in_float32, work), "torch": work}, rounds)
        yield faster(
            "bfloat16", quantity, against="torch's products of bfloat16", ours=seconds["ours"], other=seconds["torch"],
            wanted="" if "one" in quantity else ">= 1",
        )  # fmt: skip


def small() -> nn.Module:
    """LoRA of rank 32 on a few random layers of SmolLM2-135M's shape."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=576, intermediate_size=1536, num_hidden_layers=LAYERS,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model: nn.Module = get_peft_model(base, LoraConfig(r=32, target_modules=["q_proj", "v_proj"]))
    return model


def step(model: nn.Module) -> None:
    """Loss and gradients of one text."""
    ids = torch.arange(TOKENS)[None] % VOCABULARY
    model(input_ids=ids, labels=ids).loss.backward()
    model.zero_grad()


@torch.no_grad()
def tokens(model: nn.Module, texts: int) -> None:
    """Some tokens of so many ``texts`` one after another, each without what went before."""
    for i in range(20):
        model(input_ids=torch.full((texts, 1), i))


def in_float32(work: partial[None]) -> None:
    """``work`` as trials do it."""
    with Float32Products():  # type: ignore[no-untyped-call]
        work()
