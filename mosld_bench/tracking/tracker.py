"""What a tracker is told of a trial, what it has to be able to do, and which there are.

To add one, write a file with a class that does what `Tracker` says, and enter it in `TRACKERS`.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.records.record import Record
from mosld_bench.scheduling.progress import domain_mean
from mosld_bench.spec.trial import Domain, PlannedTrial

#: Name, of --report-to, of the extra and of the library -> its module here and its class.
TRACKERS = {
    "tensorboard": ("to_tensorboard", "TensorBoard"),
    "trackio": ("to_trackio", "Trackio"),
    "wandb": ("to_wandb", "WeightsAndBiases"),
}

Scalars = Mapping[str, float]
"""Name -> number; of losses in nats an answer token, of scores lm-eval's."""


@dataclass(frozen=True)
class Course:
    """A trial that has ended: its training step by step, what it came to, and its error if it failed.

    ``points``: optimiser steps taken and the numbers after as many, in the order of steps.
    """

    points: tuple[tuple[int, Scalars], ...]
    results: Scalars
    error: str | None = None

    @property
    def steps(self) -> int:
        """Optimiser steps taken; 0 where nothing was trained."""
        return self.points[-1][0] if self.points else 0

    @classmethod
    def of(cls, record: Record) -> Course:
        """The course that a record tells of. What is no number, or is missing, is left out."""
        info = record.train_info
        points = [
            (
                point.step,
                _finite(
                    {
                        "train/loss": point.loss,
                        "train/aux_loss": point.aux_loss,
                        "train/learning_rate": point.learning_rate,
                        "validation/loss": point.validation_loss,
                    }
                ),
            )
            for point in (info.curve if info else ())
        ]
        error = (record.error or "no error was noted") if record.status == "failed" else None
        return cls(tuple(points), _finite(dict(_results(record))), error)


class TrackedRun(Protocol):
    """A trial in a tracker. Ended once, by `end` or, where the run of the study is broken off, by `abandon`."""

    def live(self, step: int, loss: float) -> None:
        """Note the loss of a training that goes on; `end` gives all of them."""

    def end(self, course: Course) -> None:
        """Note all that there is of the trial, which has ended."""

    def abandon(self) -> None:
        """Give up a trial that has not ended."""


class Tracker(Protocol):
    """A library that keeps runs."""

    name: str

    def begin(self, trial: str, config: Mapping[str, Any]) -> TrackedRun:
        """A run of the name ``trial`` with plain data as its ``config``; others may be open at the same time."""

    def where(self) -> str:
        """Where the runs are found, as a sentence for the user."""


def tracker_names(given: Sequence[str]) -> tuple[str, ...]:
    """The trackers that --report-to names, each text one or several by comma; none for none.

    Raises UnknownNameError for a name that is not there, and BenchError for none beside others.
    """
    names = tuple(dict.fromkeys(part.strip() for text in given for part in text.split(",") if part.strip()))
    for name in names:
        if name not in {"none", *TRACKERS}:
            raise UnknownNameError("tracker for --report-to", name, ["none", *TRACKERS])
    if "none" in names and len(names) > 1:
        raise BenchError(f"--report-to takes none, or trackers; given: {', '.join(names)}.")
    return () if names == ("none",) else names


def check_trackers(names: Sequence[str]) -> None:
    """Raises BenchError for a tracker whose library is not installed, before anything is run for it."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise BenchError(
                f"--report-to {name} needs the library {name}, which is not installed: pip install "
                f"'mosld-bench[{name}]' brings it."
            )


def make_trackers(names: Sequence[str], study: str, folder: Path) -> list[Tracker]:
    """The trackers of these names for the trials of ``study``; what they write here goes below ``folder``.

    Raises what `tracker_names` and `check_trackers` do.
    """
    names = tracker_names(names)
    check_trackers(names)
    trackers: list[Tracker] = []
    for name in names:
        module, kind = TRACKERS[name]
        trackers.append(getattr(importlib.import_module(f"mosld_bench.tracking.{module}"), kind)(study, folder))
    return trackers


def config_of(planned: PlannedTrial) -> dict[str, Any]:
    """What tells trials apart, as plain data: recipe, setting, budget, seed, and how it is trained."""
    trial, fit = planned
    spec = trial.train
    return {
        "study": trial.study,
        "recipe": trial.recipe.name,
        "title": trial.recipe.title,
        "method": trial.recipe.method,
        "setting": trial.setting,
        "train_on": list(trial.train_on),
        "budget": str(trial.budget),
        "seed": trial.seed,
        "model": trial.model.name,
        "load": trial.model.load,
        "protocol": trial.protocol,
        "rate": trial.rate,
        "learning_rate": spec.learning_rate * trial.recipe.learning_rate_scale if spec else None,
        "trainable_parameters": fit.trainable,
        "params": fit.model_dump(mode="json")["params"],
        "train": spec.model_dump(mode="json") if spec else None,
    }


def _results(record: Record) -> Iterator[tuple[str, float | None]]:
    for domain in Domain:
        mean = domain_mean(record, domain)
        yield f"score/{domain}_mean", mean[1] if mean else None
    for metric in record.metrics:
        yield f"score/{metric.task}/{metric.metric.removesuffix(',none')}", metric.value
    info = record.train_info
    yield "cost/training_seconds", info.seconds if info else None
    yield "cost/scoring_seconds", record.eval_info.seconds if record.eval_info else None
    yield "cost/peak_memory_bytes", record.peak_memory_bytes
    yield "cost/trainable_parameters", record.size.trainable if record.size else None


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
