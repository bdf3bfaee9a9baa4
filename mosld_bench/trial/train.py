"""The training loop, in plain torch, top to bottom: the same for every method.

An optimiser step sees exactly the study's batch of examples, drawn by the trial's seed alone, so that all recipes see
the same examples in the same order. The batch is sorted by length and cut into micro-batches by a token budget; the
loss is the mean over the answer tokens of the whole batch, however it was cut.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mosld_bench.errors import UnknownNameError
from mosld_bench.methods.base import Method
from mosld_bench.records.record import Point, TrainInfo
from mosld_bench.spec.recipe import OPTIMIZERS
from mosld_bench.spec.trial import VALIDATIONS, TrainSpec
from mosld_bench.trial.batching import cut
from mosld_bench.trial.logits import logits_at, padded

_POINTS = 200  # losses of a stored curve at most, the first and those beside a validation loss apart


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and answer together, and how many of them are the answer's."""

    task: str
    ids: list[int]
    answer: int


def train(
    model: nn.Module,
    method: Method,
    *,
    examples: Sequence[Encoded],
    validation: Sequence[Encoded],
    spec: TrainSpec,
    learning_rate: float,
    seed: int,
    pad: int,
    optimizer: str = "adamw",
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> TrainInfo:
    """Train ``model`` in place on ``examples``. ``learning_rate`` is the peak, the recipe's scale applied.

    ``optimizer``: ``adamw``, or ``adafactor``, whose steps are ``learning_rate`` times the spread of each matrix and
    whose state is a row and a column of it.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    steps = spec.steps or math.ceil((spec.epochs or 0) * len(examples) / spec.batch_size)
    stepper = make_optimizer(optimizer, trained, learning_rate, spec.weight_decay)
    order = batch_order(len(examples), spec.batch_size, seed)
    every, noted = -(-steps // VALIDATIONS), -(-steps // _POINTS)
    held_pieces = micro_batches(validation, spec.micro_tokens)
    curve: list[Point] = []
    seen: Counter[str] = Counter()
    real = computed = 0
    started, validating = time.perf_counter(), 0.0

    model.train()
    for step in range(1, steps + 1):
        batch = [examples[index] for index in next(order)]
        for group in stepper.param_groups:
            group["lr"] = learning_rate * _schedule(step, steps, spec)
        losses, auxiliary, padded_tokens = optimizer_step(model, method, batch, spec, stepper, pad)
        computed += padded_tokens
        seen.update(example.task for example in batch)
        real += sum(len(example.ids) for example in batch)
        held = None
        if validation and (step == steps or step % every == 0):
            paused = time.perf_counter()
            held = validation_loss(model, held_pieces, pad, spec.dtype)
            validating += time.perf_counter() - paused
        if held is not None or step == 1 or step % noted == 0:
            value = float(losses)
            for what, one in (("loss", value), ("validation loss", held)):
                if one is not None and not math.isfinite(one):
                    raise FloatingPointError(
                        f"The {what} became {one} at step {step} of {steps}, at a peak learning rate of "
                        f"{learning_rate:g}."
                    )
            curve.append(
                Point(
                    step=step,
                    loss=value,
                    validation_loss=held,
                    aux_loss=None if auxiliary is None else float(auxiliary),
                    learning_rate=stepper.param_groups[0]["lr"],
                    seconds=time.perf_counter() - started,
                )
            )
            progress(step, steps, value)
    seconds = time.perf_counter() - started - validating
    counts = Counter(example.task for example in examples)
    return TrainInfo(
        steps=steps,
        examples=steps * spec.batch_size,
        exposures={task: seen[task] / counts[task] for task in counts},
        train_items=dict(counts),
        validation_items=dict(Counter(example.task for example in validation)),
        tokens=real,
        padding_share=1 - real / computed,
        seconds=seconds,
        tokens_per_second=real / seconds,
        learning_rate=learning_rate,
        final_validation_loss=curve[-1].validation_loss,
        curve=tuple(curve),
    )


def make_optimizer(name: str, trained: list[nn.Parameter], rate: float, decay: float) -> torch.optim.Optimizer:
    """``adamw``, or ``adafactor``, which keeps next to no state. Raises UnknownNameError for another name."""
    if name not in OPTIMIZERS:
        raise UnknownNameError("optimizer", str(name), OPTIMIZERS, "A recipe names it.")
    if name == "adafactor":  # one matrix at a time: the fused update of all would take as much memory as it saves
        # torch's own floor under squared gradients, 1.2e-7, is above all of them in a model of 7B with clipping.
        return torch.optim.Adafactor(trained, lr=rate, weight_decay=decay, eps=(1e-15, 1e-3), foreach=False)
    return torch.optim.AdamW(trained, lr=rate, weight_decay=decay)


def optimizer_step(
    model: nn.Module,
    method: Method,
    batch: Sequence[Encoded],
    spec: TrainSpec,
    stepper: torch.optim.Optimizer,
    pad: int,
) -> tuple[Tensor, Tensor | None, int]:
    """One step on ``batch``. Returns its loss (nats an answer token), the method's own loss, and the padded tokens."""
    method.before_step(model)
    device = next(model.parameters()).device
    total, tokens = sum(example.answer for example in batch), sum(len(example.ids) for example in batch)
    losses = torch.zeros((), device=device)
    auxiliary: Tensor | None = None
    computed = 0
    for micro in micro_batches(batch, spec.micro_tokens):
        share = sum(len(example.ids) for example in micro) / tokens  # the method's own loss is a mean over tokens
        # The cache keeps a copy of every trained weight until the forward ends: checkpointing must not pay that.
        with torch.autocast(device.type, torch.bfloat16, enabled=spec.dtype == "bfloat16",
                            cache_enabled=not spec.gradient_checkpointing):  # fmt: skip
            loss = answer_loss(model, micro, pad) / total
            extra = method.aux_loss(model)
        losses += loss.detach()
        if extra is not None:
            auxiliary = share * extra.detach() + (0.0 if auxiliary is None else auxiliary)
            loss = loss + share * extra
        loss.backward()  # type: ignore[no-untyped-call]
        computed += len(micro) * max(len(example.ids) for example in micro)
    if spec.gradient_clip is not None:
        nn.utils.clip_grad_norm_([p for group in stepper.param_groups for p in group["params"]], spec.gradient_clip)
    stepper.step()
    stepper.zero_grad(set_to_none=True)
    return losses, auxiliary, computed


def answer_loss(model: nn.Module, batch: Sequence[Encoded], pad: int) -> Tensor:
    """Sum over the batch's answer tokens of the negative log-likelihood, in nats; a scalar in float32."""
    device = next(model.parameters()).device
    ids, mask = padded([example.ids for example in batch], pad, device)
    places = [
        (row, column)
        for row, example in enumerate(batch)
        for column in range(len(example.ids) - example.answer, len(example.ids))
    ]
    rows, columns = torch.tensor(places, device=device).unbind(1)
    logits = logits_at(model, rows, columns - 1, input_ids=ids, attention_mask=mask)
    return F.cross_entropy(logits.float(), ids[rows, columns], reduction="sum")


@torch.no_grad()
def validation_loss(model: nn.Module, pieces: Sequence[Sequence[Encoded]], pad: int, dtype: str) -> float:
    """Mean negative log-likelihood of an answer token over held-out items in micro-batches, dropout off."""
    device = next(model.parameters()).device
    model.eval()
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16", cache_enabled=False):
        total = sum(float(answer_loss(model, micro, pad)) for micro in pieces)
    model.train()
    return total / sum(example.answer for micro in pieces for example in micro)


def micro_batches(batch: Sequence[Encoded], tokens: int) -> list[list[Encoded]]:
    """``batch`` by length, cut where it costs least; a piece takes at most ``tokens`` with its padding."""
    items = sorted(batch, key=lambda one: -len(one.ids))
    return [items[piece] for piece in cut([len(item.ids) for item in items], tokens)]


def batch_order(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of indices: a new shuffle of all examples every epoch, epochs running into each other."""
    generator = random.Random(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            epoch = list(range(count))
            generator.shuffle(epoch)
            waiting += epoch
        yield waiting[:size]
        waiting = waiting[size:]


def _schedule(step: int, steps: int, spec: TrainSpec) -> float:
    """Share of the peak learning rate at ``step`` (from 1): linear warm-up, then the study's schedule down to zero."""
    warmup = min(spec.warmup_steps, math.floor(spec.warmup_limit * steps))
    if step <= warmup:
        return step / (warmup + 1)
    done = (step - warmup - 1) / max(1, steps - warmup)
    return {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}[spec.schedule]
