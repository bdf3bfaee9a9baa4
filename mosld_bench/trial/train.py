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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mosld_bench.errors import UnknownNameError
from mosld_bench.inputs.items import Encoded
from mosld_bench.methods.base import Method
from mosld_bench.methods.stages import one_stream
from mosld_bench.records.record import TrainInfo
from mosld_bench.spec.recipe import OPTIMIZERS
from mosld_bench.spec.trial import VALIDATIONS, TrainSpec
from mosld_bench.trial.batching import cut
from mosld_bench.trial.checkpoint import Checkpoints, Moving, Noted
from mosld_bench.trial.logits import logits_at, padded
from mosld_bench.trial.router_log import Counts, Part, RouterLog, Text, parts_of
from mosld_bench.trial.training_log import Judge, StepResult, StepWatcher, TrainingLog


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
    rivals: Sequence[Sequence[float]] | None = None,
    ends_after: int | None = None,
    routers: RouterLog | None = None,
    progress: StepWatcher = lambda step, steps, loss: None,
    checkpoints: Checkpoints | None = None,
    base: nn.Module | None = None,
) -> TrainInfo:
    """Train ``model`` in place on ``examples``, with the validation loss taken over ``validation``.

    ``learning_rate`` is the peak, the recipe's scale applied; ``seed`` fixes the order of the examples; ``pad`` is the
    token id that fills a batch. ``optimizer``: ``adamw``, or ``adafactor``, whose steps are ``learning_rate`` times the
    spread of each matrix and whose state is a row and a column of it. ``rivals``: of a run of a search, by rung, the
    validation losses that it must keep up with (`spec.search`); it ends early where it does not, or where a loss is no
    number. ``ends_after``: of a probe, how many steps are made, where the schedules are those of a whole training.
    ``routers`` notes what the model's routers do with the validation items. ``progress`` is called at every point of
    the curve. ``checkpoints``: where the training is gone on with, and left from time to time; it needs the
    ``base`` that ``model`` shares weights with.

    Raises FloatingPointError where a loss is no number in what is no search, and UnknownNameError for another
    optimizer.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    steps = spec.steps or math.ceil((spec.epochs or 0) * len(examples) / spec.batch_size)
    last = ends_after or steps
    steps = max(steps, last)  # a study may be shorter than a probe
    stepper = make_optimizer(optimizer, trained, learning_rate=learning_rate, weight_decay=spec.weight_decay)
    order = batch_order(len(examples), spec.batch_size, seed)
    held_out = _HeldOut(validation, spec, steps, routers)
    log = TrainingLog(last, learning_rate, progress)
    judge, diverged = Judge(rivals), None
    parts: dict[str, Noted] = {"log": log, "held_out": held_out, "judge": judge}
    moving = None if base is None else Moving(model, base, method, stepper, parts, routers)
    step = done = checkpoints.resume(moving) if checkpoints and moving else 0
    for _ in range(done):
        next(order)

    stream = one_stream(model)
    model.train()
    for step in range(done + 1, last + 1):
        batch = [examples[index] for index in next(order)]
        for group in stepper.param_groups:
            group["lr"] = learning_rate * schedule(step, steps, spec)
        result = optimizer_step(
            model, method, batch, spec=spec, optimizer=stepper, pad=pad, step=step, steps=steps, stream=stream
        )
        validation_loss = held_out.loss(model, pad, step) if held_out.due(step) else None
        try:
            log.add(step, batch, result, validation_loss=validation_loss, learning_rate=stepper.param_groups[0]["lr"])
        except FloatingPointError as error:
            if rivals is None:
                raise
            diverged = str(error)
            break
        if validation_loss is not None and step < steps and not judge.goes_on(step, validation_loss):
            break
        if checkpoints and moving:
            log.leave_out(checkpoints.after(step, moving, last=step == last))
    seconds = log.elapsed() - held_out.seconds
    items = Counter(example.task for example in examples)
    return TrainInfo(
        steps=step,
        examples=step * spec.batch_size,
        exposures={task: log.seen[task] / items[task] for task in items},
        train_items=dict(items),
        cut_items=dict(Counter(example.task for example in examples if example.cut)),
        validation_items=dict(Counter(example.task for example in validation)),
        tokens=log.tokens,
        padding_share=1 - log.tokens / log.padded_tokens,
        seconds=seconds,
        tokens_per_second=log.tokens / seconds,
        learning_rate=learning_rate,
        final_validation_loss=log.curve[-1].validation_loss if step == steps and not diverged else None,
        curve=tuple(log.curve),
        judged=tuple(judge.judged),
        diverged=diverged,
    )


def make_optimizer(
    name: str, parameters: list[nn.Parameter], *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """``adamw``, or ``adafactor`` (arXiv 1804.04235), which keeps next to no state.

    Raises UnknownNameError for another name.
    """
    if name not in OPTIMIZERS:
        raise UnknownNameError("optimizer", str(name), OPTIMIZERS, "A recipe names it.")
    if name == "adafactor":  # one matrix at a time: the fused update of all would take as much memory as it saves
        # torch's own floor under squared gradients, 1.2e-7, is above all of them in a model of 7B with clipping.
        return torch.optim.Adafactor(
            parameters, lr=learning_rate, weight_decay=weight_decay, eps=(1e-15, 1e-3), foreach=False
        )
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)


def optimizer_step(
    model: nn.Module,
    method: Method,
    batch: Sequence[Encoded],
    *,
    spec: TrainSpec,
    optimizer: torch.optim.Optimizer,
    pad: int,
    step: int = 1,
    steps: int = 1,
    stream: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - keeps nothing
) -> StepResult:
    """One step on ``batch``, in micro-batches of at most ``spec.micro_tokens`` padded tokens.

    It is number ``step`` (from 1) of ``steps``. ``stream``: around what the method does between two forwards.
    """
    with stream:
        method.before_step(model)
    device = next(model.parameters()).device
    answer_tokens, tokens = sum(example.answer for example in batch), sum(len(example.ids) for example in batch)
    total = torch.zeros((), device=device)
    auxiliary: Tensor | None = None
    padded_tokens = 0
    for micro in micro_batches(batch, spec.micro_tokens):
        share = sum(len(example.ids) for example in micro) / tokens  # the method's own loss is a mean over tokens
        # The cache keeps a copy of every trained weight until the forward ends: checkpointing must not pay that.
        with torch.autocast(device.type, torch.bfloat16, enabled=spec.dtype == "bfloat16",
                            cache_enabled=not spec.gradient_checkpointing):  # fmt: skip
            loss = answer_loss(model, micro, pad) / answer_tokens
            extra = method.aux_loss(model)
        total += loss.detach()
        if extra is not None:
            auxiliary = share * extra.detach() + (0.0 if auxiliary is None else auxiliary)
            loss = loss + share * extra
        loss.backward()  # type: ignore[no-untyped-call]
        padded_tokens += len(micro) * max(len(example.ids) for example in micro)
    if spec.gradient_clip is not None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], spec.gradient_clip)
    optimizer.step()
    with stream:
        method.after_step(model, step, steps)
    optimizer.zero_grad(set_to_none=True)
    return StepResult(total, auxiliary, padded_tokens)


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


def micro_batches(batch: Sequence[Encoded], tokens: int) -> list[list[Encoded]]:
    """``batch`` by length, cut where it costs least; a piece takes at most ``tokens`` with its padding."""
    items = sorted(batch, key=lambda item: -len(item.ids))
    return [items[piece] for piece in cut([len(item.ids) for item in items], tokens)]


def batch_order(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of ``size`` indices of ``count`` examples.

    A new shuffle of all examples every epoch, epochs running into each other.
    """
    generator = random.Random(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            epoch = list(range(count))
            generator.shuffle(epoch)
            waiting += epoch
        yield waiting[:size]
        waiting = waiting[size:]


def schedule(step: int, steps: int, spec: TrainSpec) -> float:
    """Share of the peak learning rate at ``step`` (from 1): linear warm-up, then the study's schedule down to zero."""
    warmup = min(spec.warmup_steps, math.floor(spec.warmup_limit * steps))
    if step <= warmup:
        return step / (warmup + 1)
    done = (step - warmup - 1) / max(1, steps - warmup)
    return {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}[spec.schedule]


class _HeldOut:
    """The validation items of a trial, and when their loss is taken: `VALIDATIONS` times at most, and at the end."""

    def __init__(self, items: Sequence[Encoded], spec: TrainSpec, steps: int, routers: RouterLog | None) -> None:
        self.pieces, self.dtype = micro_batches(items, spec.micro_tokens), spec.dtype
        self.steps, self.every = steps, -(-steps // VALIDATIONS)
        self.routers, self.parts = routers, [list[Part]() for _ in self.pieces]
        if routers is not None:
            every = iter(parts_of([Text(item.task, item.ids, item.shared) for piece in self.pieces for item in piece]))
            self.parts = [[next(every) for _ in piece] for piece in self.pieces]
        self.seconds = 0.0  # spent on it so far

    def notes(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"seconds": self.seconds}

    def restore(self, notes: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.seconds = notes["seconds"]

    def due(self, step: int) -> bool:
        return bool(self.pieces) and (step == self.steps or step % self.every == 0)

    @torch.no_grad()
    def loss(self, model: nn.Module, pad: int, step: int) -> float:
        """Mean negative log-likelihood of an answer token after ``step`` steps, in nats, dropout off."""
        started = time.perf_counter()
        device = next(model.parameters()).device
        model.eval()
        tasks = {item.task for micro in self.pieces for item in micro}
        moment = None if self.routers is None else self.routers.moment(step, "validation", tasks)
        total = 0.0
        with torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == "bfloat16", cache_enabled=False):
            for micro, parts in zip(self.pieces, self.parts, strict=True):
                lengths = [len(item.ids) for item in micro]
                with Counts(moment, parts).rows(range(len(micro)), lengths, max(lengths)):
                    loss = answer_loss(model, micro, pad)
                total += float(loss)
        model.train()
        self.seconds += time.perf_counter() - started
        return total / sum(example.answer for micro in self.pieces for example in micro)
