"""A prototype: packed scoring by FlexAttention, which skips the blocks of a prefix tree's mask that nothing sees.

The product hands attention one dense mask, (trees, 1, nodes, nodes), of which it computes all. Here the same rule, that
a node sees itself and its ancestors, is given as a function, and torch compiles a kernel for it that leaves out whole
blocks. It is no part of the product: it would be if it scored faster than the dense mask on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask

from mosld_bench.compat.transformers import KeptPrefix
from mosld_bench.inputs.encoding import Request
from mosld_bench.inputs.models import load_base
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial import packed_scoring
from mosld_bench.trial.packed_scoring import Score, score_packed
from mosld_bench.trial.prefix_tree import Tree
from tests.benchmarks.side_by_side import Row, faster, in_turns, seconds_of
from tests.support.repository import REPOSITORY

#: Questions -> tokens of the text that each is about, and how many options it has, of how many tokens.
QUESTIONS, STORY, OPTIONS, ANSWER = 24, 700, 4, 20


def run(rounds: int, device: str = "cpu") -> Iterator[Row]:
    """One row: invented questions on long texts with several options, scored by a model of the embedded shape."""
    study = Study.load(Workspace(REPOSITORY, REPOSITORY).study_file("embedded"))
    yield from compare(rounds, load_base(study.models[0], torch.float32, device))


def compare(rounds: int, model: nn.Module, tokens: int = 8192, width: int = 1024) -> Iterator[Row]:
    """One row: ``model``, on its device, by both ways; forwards of ``tokens`` tokens in rows of ``width``."""
    device = packed_scoring.device_and_dtype(model)[0].type
    pending = requests(int(model.get_input_embeddings().weight.shape[0]))  # type: ignore[operator, union-attr]
    score = partial(score_packed, model, pending, pad=0, tokens=tokens, width=width)
    answers: dict[str, list[Score]] = {}

    def dense() -> None:
        answers["dense"] = score()

    def flex() -> None:
        with by_blocks(model):
            answers["flex"] = score()

    seconds = in_turns({"flex": flex, "dense": dense}, rounds, clock=partial(seconds_of, device))
    yield faster(
        "flex", f"{len(pending)} requests scored by FlexAttention, {device}", against="one dense mask",
        ours=seconds["flex"], other=seconds["dense"], wanted=">= 1",
        note=f"largest gap {gap(answers['flex'], answers['dense']):.0e} nats",
    )  # fmt: skip


def requests(vocabulary: int) -> list[Request]:
    """Options of questions on long texts, of random tokens."""
    generator = torch.Generator().manual_seed(0)

    def text(length: int) -> list[int]:
        return torch.randint(1, vocabulary, (length,), generator=generator).tolist()  # type: ignore[no-any-return]

    stories = [text(STORY) for _ in range(QUESTIONS)]
    return [Request(story, text(ANSWER)) for story in stories for _ in range(OPTIONS)]


def gap(some: Sequence[Score], other: Sequence[Score]) -> float:
    """The largest difference of a log-likelihood, in nats."""
    return max(abs(a - b) for (a, _), (b, _) in zip(some, other, strict=True))


@contextmanager
def by_blocks(model: nn.Module) -> Iterator[None]:
    """Inside the block, packed scoring of ``model`` is by FlexAttention; trunks, which have no mask, are as before."""
    extended = packed_scoring._extended
    with (
        _attention(model, "flex_attention") as before,
        patch.object(packed_scoring, "_inputs", _inputs),
        patch.object(packed_scoring, "_extended", _attention(model, before)(extended)),
    ):
        yield


@contextmanager
def _attention(model: nn.Module, implementation: str) -> Iterator[str]:
    """Inside the block, the ``implementation`` of the model's attention; gives the one before."""
    config: Any = model.config
    before: str = config._attn_implementation
    model.set_attn_implementation(implementation)  # type: ignore[operator]
    try:
        yield before
    finally:
        model.set_attn_implementation(before)  # type: ignore[operator]


def _inputs(
    batch: Sequence[Tree], kept: KeptPrefix | None, pad: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """As `packed_scoring._inputs`, with a mask of blocks."""
    begin = kept.tokens if kept else 0
    ids, ends, positions = packed_scoring.laid_out(batch, begin, pad, device)
    size = ids.shape[1]

    def sees(row: Tensor, head: Tensor, node: Tensor, key: Tensor) -> Tensor:
        place = key - begin
        inside = (node >= place) & (node < ends[row, place.clamp(min=0)])
        return (place < 0) | inside

    mask = create_block_mask(sees, len(batch), None, size, begin + size, device=str(device))
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
