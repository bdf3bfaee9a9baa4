"""Memory of the process of a trial on a CPU, where everything is in one: libraries, items, tensors, compiled kernels.

    libraries     0.62 GB            Python with torch, transformers, lm-eval and datasets, and the tokenizer
    items         10 kB              for each item of the study's tasks: a worker keeps what it has read
    tensors       those of a GPU (`cost.memory`) at most, but of the tokens that a micro-batch has: those of batch_size
                  items of the longest task, where that is less than it may have
    kernels       1.5 GB             where the processor multiplies in bfloat16: oneDNN compiles a product for every
                                     number of tokens that it meets, 0.6 MB each whatever the model's size, and keeps
                                     thousands of them

The first number and the last are measured, on the kept records (tests/cost/test_truth.py). Kernels are those of
workers with a trial or more behind them: in their first there are a third fewer. Products in float32, and of bfloat16
on a processor without it, which are taken in float32 (`compat.torch`), compile nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mosld_bench.cost.memory import Shape, memory_of, scoring_working
from mosld_bench.spec.trial import Fit, TrainSpec

if TYPE_CHECKING:
    from mosld_bench.cost.activations import Activations

_LIBRARY_BYTES = 0.62e9
_ITEM_BYTES = 10_000
_KERNEL_BYTES = 1.5e9


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
    bfloat16: bool = True,
    kept: Activations | None = None,
) -> int:
    """The most bytes of a worker's process with trials of ``fit``; ``score_tokens``: of a scoring batch.

    ``items``: of all tasks of the study, those of the test among them. ``lengths``: mean tokens of an item, of every
    task that is trained on; none where they are not known. ``text``: whether a held-out text is scored. ``bfloat16``:
    whether the processor multiplies in it (`compat.torch.has_bfloat16`). ``kept``: as in `memory_of`.
    """
    longest = max((min(length, spec.max_length) for length in lengths), default=spec.max_length)
    tokens = max(1, min(spec.micro_tokens, round(spec.batch_size * longest)))
    memory = memory_of(fit, shape, spec.model_copy(update={"micro_tokens": tokens}), optimizer=optimizer, kept=kept)
    number_bytes = 2 if spec.dtype == "bfloat16" else 4
    scoring = scoring_working(shape, number_bytes, score_tokens, text=text)
    trains = fit.trainable > 0
    training = memory.lasting + max(memory.working, memory.step) if trains else 0
    weights = (
        shape.frozen_bytes(fit.total - fit.trainable, number_bytes) + number_bytes * fit.trainable + memory.pristine
    )
    kernels = _KERNEL_BYTES if bfloat16 and spec.dtype == "bfloat16" else 0
    return round(_LIBRARY_BYTES + _ITEM_BYTES * items + max(training, weights + scoring) + kernels)
