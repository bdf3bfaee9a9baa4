"""A probe: the largest trial of a study in short, and what its speed and memory say of the others.

The short trial goes the way of every trial (`trial.execute`), with the study's tasks, weights and settings: a few
optimiser steps, no validation, and a few scoring batches. All schedules are those of the whole trial, since a method
may have one of its own that so few steps do not hold. Others are taken to run at its FLOP/s, training and scoring each
at its own, so that what depends on the method beside its FLOPs is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosld_bench.cost.estimate import Price, TaskSize
from mosld_bench.records.record import Record
from mosld_bench.spec.trial import PlannedTrial, Trial

#: Optimiser steps of a probe, and how many of the first do not count: an optimiser makes its state, a GPU its kernels.
STEPS, UNCOUNTED = 8, 2
#: Scoring batches that the test items of a probe come to, by the estimate of their tokens.
SCORING_BATCHES = 4
#: Tokens of an item of a task of unknown size.
_UNKNOWN_TOKENS = 100.0


@dataclass(frozen=True)
class Probe:
    """What a short trial has shown. FLOPs are those of the estimate (`cost.estimate`)."""

    label: str  # recipe and model of the trial, for sentences
    device: str
    steps: int  # optimiser steps; 0 of a trial that does not train
    items: int  # test items that were scored
    step_seconds: float | None  # of one step; None without any
    train_rate: float | None  # FLOP/s of training; None without any, and where the size of a task is unknown
    score_rate: float | None  # FLOP/s of scoring; None where the size of a task is unknown
    memory: int  # bytes at most: of the process, or on a GPU of torch's tensors

    def hours(self, price: Price) -> float | None:
        """Hours of the trial of ``price``, one at a time; None where the size of a task is unknown."""
        if price.train_flops is None or price.other_flops is None or self.score_rate is None:
            return None
        training = price.train_flops / (self.train_rate or math.inf)
        return (training + price.other_flops / self.score_rate) / 3600

    def as_data(self, prices: Sequence[Price | None]) -> dict[str, Any]:
        """For programs: what was measured, and the hours of all trials of ``prices`` together."""
        hours = [self.hours(price) for price in prices if price]
        known = [value for value in hours if value is not None]
        return {**vars(self), "hours": sum(known) if known and len(known) == len(hours) else None}


def largest(planned: Sequence[PlannedTrial], prices: Sequence[Price | None]) -> int | None:
    """Which trial takes longest by the estimate, of equals the one with most memory; None where none has one."""
    known = [index for index, price in enumerate(prices) if price]

    def size(index: int) -> tuple[float, int, bool]:
        price = prices[index]
        assert price is not None
        return price.hours or 0.0, price.memory.total, bool(planned[index].trial.train_on)

    return max(known, key=size, default=None)


def shortened(trial: Trial, sizes: Mapping[str, TaskSize | None], *, score_tokens: int) -> Trial:
    """``trial`` for a probe. ``sizes``: of its tasks; ``score_tokens``: most tokens of a scoring batch."""
    assert trial.train is not None, "what only counts parameters has nothing to measure"
    round_tokens = sum(size.tokens if (size := sizes.get(task)) else _UNKNOWN_TOKENS for task in trial.scored_on)
    limit = max(2, math.ceil(SCORING_BATCHES * score_tokens / max(1.0, round_tokens)))
    limit = min(limit, trial.evaluate.limit or limit)
    return trial.model_copy(
        update={
            "train": trial.train.model_copy(update={"validation_items": 0}),
            "ends_after": STEPS,
            "evaluate": trial.evaluate.model_copy(update={"limit": limit, "split": "test", "text": None}),
            "rivals": None,
        }
    )


def probe_of(record: Record, price: Price, *, device: str) -> Probe:
    """What ``record``, of a shortened trial, says; ``price``: the estimate of that trial."""
    training, scoring = record.train_info, record.eval_info
    assert scoring is not None, "a shortened trial is scored"
    step_seconds = train_rate = None
    if training is not None and training.steps > UNCOUNTED:
        seconds = {point.step: point.seconds for point in training.curve}
        step_seconds = (seconds[training.steps] - seconds[UNCOUNTED]) / (training.steps - UNCOUNTED)
        if price.train_flops and price.train_tokens:
            train_rate = price.train_flops / price.train_tokens * training.tokens / training.steps / step_seconds
    return Probe(
        label=price.label,
        device=device,
        steps=training.steps if training else 0,
        items=sum(metric.items for metric in record.metrics if metric.primary),
        step_seconds=step_seconds,
        train_rate=train_rate,
        score_rate=price.other_flops / scoring.seconds if price.other_flops else None,
        memory=record.peak_memory_bytes or 0,
    )
