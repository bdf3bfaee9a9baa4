"""Memory of the process of a trial on a CPU, where everything is in one: libraries, items, tensors, and what was freed.

    libraries     0.58 GB            Python with torch, transformers, lm-eval and datasets, and the tokenizer
    items         10 kB              for each item of the study's tasks: a worker keeps what it has read
    tensors       those of a GPU (`cost.memory`) at most, but of the tokens that a micro-batch has: those of batch_size
                  items of the longest task, where that is less than it may have
    freed         1.5 times what a micro-batch and a scoring batch take, which the C library keeps for later trials

The last number is measured, on the kept records (tests/cost/test_truth.py). It is of workers with a trial or more
behind them: the first takes a sixth less.
"""

from __future__ import annotations

from collections.abc import Iterable

from mosld_bench.cost.memory import Shape, memory_of, scoring_working
from mosld_bench.spec.trial import Fit, TrainSpec

_LIBRARY_BYTES = 0.58e9
_ITEM_BYTES = 10_000
_FREED_SHARE = 1.5


def process_bytes(
    fit: Fit,
    shape: Shape,
    spec: TrainSpec,
    *,
    optimizer: str,
    score_tokens: int,
    items: int,
    lengths: Iterable[float],
    text: bool = False,
) -> int:
    """The most bytes of a worker's process with trials of ``fit``; ``score_tokens``: of a scoring batch.

    ``items``: of all tasks of the study, those of the test among them. ``lengths``: mean tokens of an item, of every
    task that is trained on; none where they are not known. ``text``: whether a held-out text is scored.
    """
    longest = max((min(length, spec.max_length) for length in lengths), default=spec.max_length)
    tokens = max(1, min(spec.micro_tokens, round(spec.batch_size * longest)))
    memory = memory_of(fit, shape, spec.model_copy(update={"micro_tokens": tokens}), optimizer=optimizer)
    number_bytes = 2 if spec.dtype == "bfloat16" else 4
    scoring = scoring_working(shape, number_bytes, score_tokens)
    largest = scoring_working(shape, number_bytes, score_tokens, text=True) if text else scoring
    trains = fit.trainable > 0
    training = memory.lasting + max(memory.working, memory.step) if trains else 0
    weights = (
        shape.frozen_bytes(fit.total - fit.trainable, number_bytes) + number_bytes * fit.trainable + memory.pristine
    )
    freed = _FREED_SHARE * (scoring + (memory.working if trains else 0))
    return round(_LIBRARY_BYTES + _ITEM_BYTES * items + max(training, weights + largest) + freed)
