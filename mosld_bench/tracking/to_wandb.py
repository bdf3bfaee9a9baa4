"""Trials as runs of Weights & Biases: a group a study."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mosld_bench.tracking.tracker import Course

_PROJECT = "mosld-bench"  # unless WANDB_PROJECT names another


class WeightsAndBiases:
    """A `Tracker`. Account and mode are as the library finds them: `wandb login`, WANDB_MODE."""

    name = "wandb"

    def __init__(self, study: str, folder: Path) -> None:
        self._study, self._folder = study, folder
        self._url: str | None = None

    def begin(self, trial: str, config: Mapping[str, Any]) -> _Run:
        """See `Tracker.begin`."""
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            group=self._study,
            name=trial,
            config=dict(config),
            dir=str(self._folder),  # in wandb/, as the library does it
            reinit="create_new",  # trials run side by side
            # What the driver prints, and what its processor does, is not of one trial.
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        run.define_metric("*", step_metric="step")
        if run.offline is False:
            self._url = f"{run.project_url}?group={self._study}" if run.project_url else None
        return _Run(run)

    def where(self) -> str:
        """See `Tracker.where`."""
        return self._url or f"`wandb sync {self._folder / 'wandb'}/offline-run-*` sends the runs"


class _Run:
    """A `TrackedRun`."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def live(self, step: int, loss: float) -> None:
        self._run.log({"step": step, "live/loss": loss})

    def end(self, course: Course) -> None:
        for step, scalars in course.points:
            self._run.log({"step": step, **scalars})
        self._run.summary.update(dict(course.results) | ({"error": course.error} if course.error else {}))
        self._run.finish(exit_code=1 if course.error else 0)

    def abandon(self) -> None:
        self._run.finish(exit_code=1)
