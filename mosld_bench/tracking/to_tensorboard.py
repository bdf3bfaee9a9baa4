"""Trials as runs of TensorBoard: event files below the study's report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench.tracking.tracker import Course

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """A `Tracker` that writes ``tensorboard/TRIAL/`` into the folder of a report."""

    name = "tensorboard"

    def __init__(self, study: str, folder: Path) -> None:
        self._folder = folder / "tensorboard"

    def begin(self, trial: str, config: Mapping[str, Any]) -> _Run:
        """See `Tracker.begin`; what an earlier run of the trial left is removed."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder / trial
        shutil.rmtree(folder, ignore_errors=True)  # TensorBoard would draw both as one curve
        return _Run(SummaryWriter(str(folder)), config)  # type: ignore[no-untyped-call]

    def where(self) -> str:
        """See `Tracker.where`."""
        return f"tensorboard --logdir {self._folder}"


class _Run:
    """A `TrackedRun`."""

    def __init__(self, writer: SummaryWriter, config: Mapping[str, Any]) -> None:
        self._writer, self._config = writer, config
        text = json.dumps(config, indent=1, ensure_ascii=False)
        self._writer.add_text("config", f"```\n{text}\n```")  # type: ignore[no-untyped-call]

    def live(self, step: int, loss: float) -> None:
        self._add("live/loss", loss, step)

    def end(self, course: Course) -> None:
        for step, scalars in course.points:
            for name, value in scalars.items():
                self._add(name, value, step)
        if course.error:
            self._writer.add_text("error", f"```\n{course.error}\n```")  # type: ignore[no-untyped-call]
        self._writer.add_hparams(  # type: ignore[no-untyped-call]
            dict(_flat(self._config)), dict(course.results), run_name=".", global_step=course.steps
        )
        self.abandon()

    def abandon(self) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]

    def _add(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """Dotted key -> value, as TensorBoard takes hyperparameters; what is no plain value as text, none left out."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float | str) else json.dumps(value)
