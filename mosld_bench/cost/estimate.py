"""What a trial will take, from its plan alone: tokens, FLOPs, GPU-hours, bytes. Estimates, no measurements.

FLOPs a token, with N parameters outside the embeddings (adapters included) and T of them trained:

    scoring, validation   2 N                       one forward
    training              4 N + 2 T                 forward, backward through the activations, gradients of what trains
      checkpointing       + 2 N                     the forward once more

so full fine-tuning comes to 6 N. Left out: attention's square (1 % of a 7B model at 256 tokens), the output head, which
works at answer positions only, loading, that generated answers are decoded token by token, and work element by element,
which made MixLoRA's trials of SmolLM2-135M take 1.5 times as long as those of other mixtures. Hours assume that a GPU
sustains ``SUSTAINED_FLOPS`` FLOP/s.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from mosld_bench.cost.memory import Memory, Shape, memory_over
from mosld_bench.cost.process import process_bytes
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import VALIDATIONS, Fit, TrainSpec, Trial
from mosld_bench.spec.yaml_file import Strict, parse

if TYPE_CHECKING:
    from mosld_bench.cost.activations import Activations

#: Assumed FLOP/s by train.dtype: bfloat16 on a GPU of the A100-80GB class at a third of its peak, float32 at three
#: quarters of its own.
SUSTAINED_FLOPS = {"bfloat16": 100e12, "float32": 15e12}
#: By train.dtype, the share of a core's FLOP/s at products of matrices that trials of SmolLM2-135M reach (measured).
REACHED_SHARE = {"bfloat16": 0.3, "float32": 0.5}
#: Tokens that the options of a question add to its prompt, which they share: by this share of its own tokens.
OPTION_TOKEN_SHARE = 0.25
#: Tokens of a micro-batch where memory is short.
_FEW_TOKENS = 1024
#: GPUs that a machine has at most.
_MOST_GPUS = 16


class TaskSize(Strict):
    """A task's ``metadata.size``: items of its splits, and mean tokens of prompt and answer of an item.

    Where several items ask about one passage, also how many do, and how many of the tokens are the passage's.
    """

    train: int = Field(0, ge=0)
    test: int = Field(ge=0)
    tokens: float = Field(gt=0)
    passage: float = Field(0, ge=0)
    items_a_passage: float = Field(1, ge=1)

    @model_validator(mode="after")
    def _require_tokens_beside_the_passage(self) -> TaskSize:
        if self.passage >= self.tokens:
            raise ValueError("passage has to be less than tokens, among which it is counted")
        return self

    def scored(self, items: int, *, of: int, together: bool = False) -> float:
        """Tokens that are computed to score ``items`` drawn from ``of`` items; a passage is computed once.

        ``together``: whether items of one passage are drawn together.
        """
        drawn = items / of if of else 0.0
        read = drawn if together else 1 - (1 - min(1.0, drawn)) ** self.items_a_passage
        own = (self.tokens - self.passage) * (1 + OPTION_TOKEN_SHARE)
        return items * own + of / self.items_a_passage * read * self.passage


def task_sizes(files: TaskFiles, tasks: Iterable[str]) -> dict[str, TaskSize | None]:
    """Task -> its size, None where its definition gives none. Raises BadFileError for a size that is malformed."""
    sizes: dict[str, TaskSize | None] = {}
    for task in tasks:
        size = ((files.config(task) or {}).get("metadata") or {}).get("size")
        sizes[task] = None if size is None else parse(TaskSize, f"metadata.size in {files.paths[task]}", size)
    return sizes


@dataclass(frozen=True)
class Needs:
    """What the memory of a trial comes from."""

    fit: Fit
    shape: Shape
    spec: TrainSpec
    optimizer: str
    score_tokens: int  # of a scoring batch
    kept: Callable[[str], Activations | None]  # train.dtype -> what layers keep for the backward; None: the formula's
    checkpoints: bool  # whether the method bears gradient checkpointing
    spreads: bool  # whether the model can lie on several GPUs: none that is rounded
    of_process: Mapping[str, Any]  # the rest of what `process_bytes` takes

    def over(self, gpus: int, *, optimizer: str = "", score_tokens: int | None = None, **changes: Any) -> Memory:
        """Of the fullest of ``gpus`` GPUs; with ``changes`` of the training, and another optimiser or scoring batch."""
        spec = self.spec.model_copy(update=changes)
        return memory_over(
            gpus,
            self.fit,
            self.shape,
            spec,
            optimizer=optimizer or self.optimizer,
            score_tokens=self.score_tokens if score_tokens is None else score_tokens,
            kept=self.kept(spec.dtype),
        )

    def process(self) -> int:
        """Bytes of a worker's process on a CPU."""
        return process_bytes(
            self.fit,
            self.shape,
            self.spec,
            optimizer=self.optimizer,
            score_tokens=self.score_tokens,
            kept=self.kept(self.spec.dtype),
            **self.of_process,
        )

    def savings(self, gpus: int) -> dict[str, int]:
        """Setting that would save memory -> bytes in all with it alone; first what changes the numbers least."""
        few, few_scored = self._few()
        settings: list[tuple[str, dict[str, Any]]] = [
            (f"resources.score_tokens: {few_scored}", {"score_tokens": few_scored}),
            (f"train.micro_tokens: {few}", {"micro_tokens": few}),
            ("train.gradient_checkpointing: true", {"gradient_checkpointing": True}),
            ("train.dtype: bfloat16", {"dtype": "bfloat16"}),
            ("optimizer: adafactor in the recipe", {"optimizer": "adafactor"}),
        ]
        whole = self.over(gpus).total
        alone = {
            text: self.over(gpus, **change).total
            for text, change in settings
            if self.checkpoints or "gradient_checkpointing" not in change
        }
        return {text: changed for text, changed in alone.items() if changed < 0.98 * whole}

    def thriftiest(self, gpus: int) -> Memory:
        """With every setting that saves memory."""
        few, few_scored = self._few()
        return self.over(
            gpus,
            optimizer="adafactor",
            score_tokens=few_scored,
            dtype="bfloat16",
            gradient_checkpointing=self.checkpoints,
            micro_tokens=few,
        )

    def _few(self) -> tuple[int, int]:
        return min(self.spec.micro_tokens, _FEW_TOKENS), min(self.score_tokens, _FEW_TOKENS)


@dataclass(frozen=True)
class Price:
    """The estimate of one trial. None where the size of one of its tasks is unknown; memory needs no sizes."""

    label: str  # recipe and model, for sentences
    train_tokens: float | None  # trained on, every exposure counted
    validation_tokens: float | None  # of all validation losses
    score_tokens: float | None  # of all forward passes that score test items
    train_flops: float | None  # operations of all training steps
    other_flops: float | None  # of validation and scoring, which are forward passes alone
    hours: float | None  # that it takes: of several GPUs one is at work at a time
    needs: Needs = field(repr=False)  # memory, looked at when it is asked for
    gpus: int = 1  # that the model lies on

    @cached_property
    def memory(self) -> Memory:
        """Of a GPU; of the fullest where there are several."""
        return self.needs.over(self.gpus)

    @cached_property
    def process(self) -> int:
        """Bytes of a worker's process on a CPU (`cost.process`)."""
        return self.needs.process()

    @property
    def gpu_hours(self) -> float | None:
        """Hours times GPUs."""
        return None if self.hours is None else self.hours * self.gpus

    def gpus_needed(self, gpu_bytes: float) -> int | None:
        """The least number of GPUs of ``gpu_bytes`` that hold it as it is; None where 16 do not."""
        if not self.needs.spreads:
            return None
        return next((n for n in range(1, _MOST_GPUS + 1) if self.needs.over(n).total <= gpu_bytes), None)

    @property
    def flops(self) -> float | None:
        """Operations in all."""
        return None if self.train_flops is None or self.other_flops is None else self.train_flops + self.other_flops


@dataclass(frozen=True)
class Summary:
    """The estimate of a plan. Hours are those of the trials whose tasks are known, None if there is none."""

    trials: int
    unknown: int  # trials without hours
    gpu_hours: float | None
    wall_hours: float | None
    most_memory: int  # bytes of a GPU, of the largest trial
    most_process: int  # bytes of a process on a CPU, of the largest trial


def price(
    trial: Trial,
    fit: Fit,
    shape: Shape,
    sizes: Mapping[str, TaskSize | None],
    *,
    checkpoints: bool = True,
    gpus: int = 1,
    score_batch: int = 0,
    bfloat16: bool = True,
    kept: Callable[[str], Activations | None] | None = None,
) -> Price:
    """Estimate ``trial`` as ``fit`` sizes it on a model of ``shape``. Loads and builds nothing.

    ``sizes``: of all tasks of the trial, as `task_sizes` gives them, or of all of its study. ``checkpoints``: whether
    the method bears gradient checkpointing. ``gpus``: how many its model lies on. ``score_batch``: tokens of a scoring
    batch; 0 leaves the memory of scoring out. ``bfloat16``: whether a CPU that does the work multiplies in it.
    ``kept``: dtype -> what the model's layers keep for the backward with the method; without, the formula's.
    """
    spec, optimizer = trial.train, trial.recipe.optimizer
    assert spec is not None, "a trial that only counts parameters has no price"
    if not checkpoints:
        spec = spec.model_copy(update={"gradient_checkpointing": False})
    train_tokens, validation_tokens = _train_tokens(trial, sizes)
    score_tokens = _score_tokens(trial, sizes)
    train_flops = other_flops = hours = None
    if train_tokens is not None and validation_tokens is not None and score_tokens is not None:
        body = fit.total - shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
        step = 4 * body + 2 * min(fit.trainable, body) + (2 * body if spec.gradient_checkpointing else 0)
        train_flops, other_flops = train_tokens * step, (validation_tokens + score_tokens) * 2 * body
        hours = (train_flops + other_flops) / SUSTAINED_FLOPS[spec.dtype] / 3600
    return Price(
        label=f"{trial.recipe.name} on {trial.model.name}",
        train_tokens=train_tokens,
        validation_tokens=validation_tokens,
        score_tokens=score_tokens,
        train_flops=train_flops,
        other_flops=other_flops,
        hours=hours,
        needs=Needs(
            fit=fit,
            shape=shape,
            spec=spec,
            optimizer=optimizer,
            score_tokens=score_batch,
            kept=kept or (lambda dtype: None),
            checkpoints=checkpoints,
            spreads=trial.model.load is None,
            of_process={
                "items": _items_read(trial, spec, sizes),
                "lengths": [size.tokens for task in trial.train_on if (size := sizes.get(task))],
                "text": bool(trial.text),
                "bfloat16": bfloat16,
            },
        ),
        gpus=gpus,
    )


def _items_read(trial: Trial, spec: TrainSpec, sizes: Mapping[str, TaskSize | None]) -> int:
    """Items that a worker reads: those that are drawn of the training splits, and all test items."""
    total = trial.general.items if trial.general else 0
    for task, size in sizes.items():
        if size and not (trial.general and task == trial.general.task):
            total += min(size.train, spec.items_of(task) or size.train) + size.test
    return total


def _train_tokens(trial: Trial, sizes: Mapping[str, TaskSize | None]) -> tuple[float | None, float | None]:
    """Tokens that are trained on, and tokens of the validation losses; None where a size is unknown."""
    spec = trial.train
    assert spec is not None
    items = tokens = held_tokens = 0.0
    for task in trial.train_on:
        size = sizes.get(task)
        if size is None:
            return None, None
        length = min(size.tokens, spec.max_length)
        drawn = min(size.train, spec.items_of(task) or size.train)
        trained = drawn - round(spec.validation_fraction * drawn)
        items, tokens = items + trained, tokens + trained * length
        held_tokens += _held_out(size, spec, task) * length
    if trial.general:
        size = sizes.get(trial.general.task)
        if size is None:
            return None, None
        items += trial.general.items
        tokens += trial.general.items * min(size.tokens, spec.max_length)
    if not items:
        return 0.0, 0.0
    steps = spec.steps or math.ceil((spec.epochs or 0) * items / spec.batch_size)
    return steps * spec.batch_size * tokens / items, min(VALIDATIONS, steps) * held_tokens


def _held_out(size: TaskSize, spec: TrainSpec, task: str) -> int:
    """Items of a task that the validation loss is taken over."""
    held = round(spec.validation_fraction * min(size.train, spec.items_of(task) or size.train))
    return held if spec.validation_items is None else min(held, spec.validation_items)


def _score_tokens(trial: Trial, sizes: Mapping[str, TaskSize | None]) -> float | None:
    """Tokens of the forward passes that score the test items, or the held-out ones; None where a size is unknown.

    With those of the held-out text, where its size is known.
    """
    total, spec = 0.0, trial.train
    for task in trial.scored_on:
        size = sizes.get(task)
        if size is None:
            return None
        if trial.evaluate.split == "validation" and spec is not None:
            total += size.scored(_held_out(size, spec, task), of=size.train, together=True)
        else:
            total += size.scored(min(size.test, trial.evaluate.limit or size.test), of=size.test)
    for size in filter(None, map(sizes.get, trial.text)):
        total += min(size.test, trial.evaluate.limit or size.test) * size.tokens
    return total


def why_too_large(price: Price, gpu_bytes: float) -> str | None:
    """A sentence that says why the trial does not fit a GPU of ``gpu_bytes``, and what to do; None where it fits."""
    if price.memory.total <= gpu_bytes:
        return None
    of_each = f" of each of its {price.gpus} GPUs" if price.gpus > 1 else ""
    why = (
        f"{price.label} needs about {_gb(price.memory.total)} GB{of_each} ({price.memory.breakdown()}); a GPU of "
        f"{_gb(gpu_bytes)} GB cannot hold it."
    )
    needed = price.gpus_needed(gpu_bytes)
    spread = f" Or spread it over {needed} of them: --gpus-per-trial {needed}." if needed else ""
    savings, thriftiest = price.needs.savings(price.gpus), price.needs.thriftiest(price.gpus).total
    enough = [setting for setting, left in savings.items() if left <= gpu_bytes]
    if enough:
        return f"{why} Set {enough[0]}: that brings it down to about {_gb(savings[enough[0]])} GB.{spread}"
    if thriftiest <= gpu_bytes:
        return f"{why} Set {', '.join(savings)}: together down to about {_gb(thriftiest)} GB.{spread}"
    if needed:
        return f"{why} Spread over {needed} of them it has room: --gpus-per-trial {needed}."
    return (
        f"{why} Even at its thriftiest it takes {_gb(thriftiest)} GB: leave the "
        f"recipe out (--methods names the others), take a smaller model, or a larger GPU."
    )


def summary(prices: Sequence[Price], gpus: int = 1) -> Summary:
    """Totals of a plan on ``gpus`` GPUs, of which each trial has as many as its price says.

    Raises ValueError for less than one GPU.
    """
    if gpus < 1:
        raise ValueError(f"a plan needs at least 1 GPU, not {gpus}")
    hours = [price.hours for price in prices if price.hours is not None]
    gpu_hours = [price.gpu_hours for price in prices if price.gpu_hours is not None]
    workers = max(1, gpus // max((price.gpus for price in prices), default=1))
    return Summary(
        trials=len(prices),
        unknown=len(prices) - len(hours),
        gpu_hours=sum(gpu_hours) if gpu_hours else None,
        wall_hours=side_by_side(hours, workers) if hours else None,
        most_memory=max((price.memory.total for price in prices), default=0),
        most_process=max((price.process for price in prices), default=0),
    )


def on_cores(gpu_hours: float, dtype: str, rate: float, cores: float) -> float:
    """Hours that work of so many GPU-hours takes on ``cores`` cores of ``rate`` FLOP/s each."""
    return gpu_hours * SUSTAINED_FLOPS[dtype] / (rate * REACHED_SHARE[dtype] * cores)


def side_by_side(times: Iterable[float], workers: int) -> float:
    """When the last of ``times`` is over: the longest first, each on the worker that is free first.

    A `Counter` has how often a time comes. Of a hundred thousand trials few take unlike times, and where all workers
    get free within one of them, every worker has the next one: as many rounds as there are go by at once.
    """
    busy_until = [0.0] * workers
    for duration, left in sorted(Counter(times).items(), reverse=True):
        while left > 0:
            rounds = left // workers
            if rounds and max(busy_until) - busy_until[0] <= duration:
                busy_until = [until + rounds * duration for until in busy_until]
                left -= rounds * workers
            else:
                heapq.heapreplace(busy_until, busy_until[0] + duration)
                left -= 1
    return max(busy_until)


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.0f}"
