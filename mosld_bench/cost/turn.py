"""One recipe's turn in a profile: its model is built, trains for some steps, answers prompts, and is thrown away.

It shares the base's weights, so that no other recipe's memory is beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mosld_bench.inputs import Encoded
from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.live import attached_copy, checkpoint_layers
from mosld_bench.records.profile import Workload
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Fit, TrainSpec
from mosld_bench.trial import Clock, PeakMemory, make_optimizer, optimizer_step, release, resident


@dataclass(frozen=True)
class Bench:
    """What all turns share."""

    base: nn.Module  # frozen, on the device
    device: str
    spec: TrainSpec
    load: Workload
    ids: Tensor  # (batch or streams, prompt_tokens), the larger number of rows


class Turn(NamedTuple):
    """What one turn measures, named as the fields of `records.profile.Entry`; None for what there is not."""

    prompt: float  # seconds from the prompt to the scores of its next token
    decode: float  # seconds a token after the first, of every stream at once
    decode_memory: int | None = None  # bytes; on a GPU only
    train: float | None = None  # seconds a step; of what trains
    train_memory: int | None = None  # bytes


def take_turn(bench: Bench, recipe: Recipe, fit: Fit) -> Turn:
    """Build the model of ``recipe`` as ``fit`` sizes it, and measure it once."""
    method = registry.get(recipe.method)
    model = attached_copy(method, bench.base, fit.params, seed=0).model
    used = {parameter.data_ptr() for parameter in model.parameters()}
    beside = sum(p.nbytes for p in bench.base.parameters() if p.data_ptr() not in used)  # kept, but not by this model
    step, peak = None, None
    if fit.trainable:
        checkpointed = bench.spec.gradient_checkpointing and method.checkpoints(fit.params)
        spec = bench.spec.model_copy(update={"gradient_checkpointing": checkpointed})
        step, peak = _train(replace(bench, spec=spec), model, method, optimizer=recipe.optimizer, beside=beside)
    for parameter in model.parameters():  # answers in the dtype of the base; what trains is float32
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, bench.spec.dtype))
    return _answer(bench, model.eval(), beside=beside)._replace(train=step, train_memory=peak)


def _train(bench: Bench, model: nn.Module, method: Method, *, optimizer: str, beside: int) -> tuple[float, int]:
    """Seconds of a training step and the most bytes that it takes.

    At a learning rate of 0, so that all steps do the same work on the same weights. ``beside``: bytes on the device
    that the model does not use.
    """
    load, spec = bench.load, bench.spec
    batch = [Encoded("", row, load.answer_tokens) for row in bench.ids[: load.batch].tolist()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stepper = make_optimizer(optimizer, trained, learning_rate=0.0, weight_decay=spec.weight_decay)
    if spec.gradient_checkpointing:
        checkpoint_layers(model, True)
    model.train()

    def step() -> None:
        optimizer_step(model, method, batch, spec=spec, optimizer=stepper, pad=0)

    release(bench.device)
    before = beside if bench.device != "cpu" else resident()
    with PeakMemory(bench.device, every=0.002) as memory:
        for _ in range(2):  # the first makes the optimiser's state
            step()
    seconds = Clock(bench.device).seconds(step)
    if spec.gradient_checkpointing:
        checkpoint_layers(model, False)
    return seconds, max(0, memory.peak - before)


@torch.no_grad()
def _answer(bench: Bench, model: nn.Module, *, beside: int) -> Turn:
    """A prompt as a server reads it, with the cache on and scores of its last token alone; then greedy decoding.

    As answers are written in trials, but that no token ends a text: all are as long.
    """
    from transformers import LogitsProcessor

    from mosld_bench.trial.generation import with_cache

    ids, clock = bench.ids[: bench.load.streams], Clock(bench.device)
    mask, prompts = torch.ones_like(ids), ids.tolist()

    class Begin(LogitsProcessor):  # type: ignore[misc]
        """Called before each new token is chosen: the first time, the prompt has just been read."""

        mark: Any = None

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            if self.mark is None:
                self.mark = clock.mark()
            return scores

    def prompt() -> None:
        model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1)

    def decode(tokens: int) -> float:
        begin = Begin()
        texts = with_cache(model, prompts, pad=0, new_tokens=1 + tokens, logits_processor=[begin])
        seconds = clock.between(begin.mark, clock.mark())
        assert texts.shape[1] == 1 + tokens, "the text ended early"
        return seconds / tokens

    prompt()
    seconds = clock.seconds(prompt)
    decode(1)
    with PeakMemory(bench.device) as memory:
        token = decode(bench.load.new_tokens)
    return Turn(
        prompt=seconds,
        decode=token,
        decode_memory=memory.peak - beside if bench.device != "cpu" else None,
    )
