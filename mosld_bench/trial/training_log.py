"""What is kept of a training while it runs, and whether a search lets it go on."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from mosld_bench.inputs.items import Encoded
from mosld_bench.records.record import Judgement, Point
from mosld_bench.spec.search import goes_on
from mosld_bench.spec.trial import RUNGS

if TYPE_CHECKING:
    from torch import Tensor

_POINTS = 200  # losses of a stored curve at most, the first and those beside a validation loss apart

StepWatcher = Callable[[int, int, float], None]  # is called with the step, all steps, and the loss of the step


class StepResult(NamedTuple):
    """What an optimiser step came to. The losses stay on the device, so that no step waits for one."""

    loss: Tensor  # nats an answer token, mean over the batch; a scalar
    aux_loss: Tensor | None  # the method's own loss, mean over the tokens of the batch; a scalar
    padded_tokens: int  # that were computed, padding counted


class Judge:
    """Decides at every rung whether a run goes on; one without ``rivals`` always does."""

    def __init__(self, rivals: Sequence[Sequence[float]] | None) -> None:
        self._rivals = dict(zip(RUNGS, rivals or (), strict=False))
        self._validations = 0
        self.judged: list[Judgement] = []

    def notes(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"validations": self._validations, "judged": [judgement.model_dump() for judgement in self.judged]}

    def restore(self, notes: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self._validations = notes["validations"]
        self.judged = [Judgement.model_validate(judgement) for judgement in notes["judged"]]

    def goes_on(self, step: int, loss: float) -> bool:
        """Whether it does after another validation, with this ``loss``; noted where it is held against others."""
        self._validations += 1
        rivals = self._rivals.get(self._validations, ())
        decision = goes_on(loss, rivals)
        if rivals:
            self.judged.append(Judgement(step=step, loss=loss, rivals=tuple(rivals), goes_on=decision))
        return decision


class TrainingLog:
    """What is kept of a training: the curve, and how much was seen. Reads the loss only at the points of the curve."""

    def __init__(self, steps: int, peak: float, progress: StepWatcher) -> None:
        self.steps, self.every, self.peak, self.progress = steps, -(-steps // _POINTS), peak, progress
        self.curve: list[Point] = []
        self.seen: Counter[str] = Counter()  # task -> examples, repetitions counted
        self.tokens = self.padded_tokens = 0
        self.started = time.perf_counter()

    def elapsed(self) -> float:
        """Seconds since training began; of one that was gone on with, all that it took."""
        return time.perf_counter() - self.started

    def leave_out(self, seconds: float) -> None:
        """Do not count ``seconds`` that something else took."""
        self.started += seconds

    def notes(self) -> dict[str, Any]:
        """For a checkpoint."""
        curve = [asdict(point) for point in self.curve]  # type: ignore[call-overload]
        counted = {"seen": dict(self.seen), "tokens": self.tokens, "padded_tokens": self.padded_tokens}
        return {"curve": curve, "seconds": self.elapsed(), **counted}

    def restore(self, notes: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.curve = [Point(**point) for point in notes["curve"]]
        self.seen, self.tokens, self.padded_tokens = Counter(notes["seen"]), notes["tokens"], notes["padded_tokens"]
        self.started = time.perf_counter() - notes["seconds"]

    def add(
        self,
        step: int,
        batch: Sequence[Encoded],
        result: StepResult,
        *,
        validation_loss: float | None,
        learning_rate: float,
    ) -> None:
        """Note a step. Raises FloatingPointError for a loss that is no number, where it is looked at."""
        self.padded_tokens += result.padded_tokens
        self.seen.update(example.task for example in batch)
        self.tokens += sum(len(example.ids) for example in batch)
        if validation_loss is None and step != 1 and step % self.every != 0:
            return
        loss = float(result.loss)
        self._check_finite("loss", loss, step)
        self._check_finite("validation loss", validation_loss, step)
        self.curve.append(
            Point(
                step=step,
                loss=loss,
                validation_loss=validation_loss,
                aux_loss=None if result.aux_loss is None else float(result.aux_loss),
                learning_rate=learning_rate,
                seconds=self.elapsed(),
            )
        )
        self.progress(step, self.steps, loss)

    def _check_finite(self, name: str, value: float | None, step: int) -> None:
        if value is not None and not math.isfinite(value):
            raise FloatingPointError(
                f"The {name} became {value} at step {step} of {self.steps}, at a peak learning rate of {self.peak:g}."
            )
