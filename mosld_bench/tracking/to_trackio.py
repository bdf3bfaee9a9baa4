"""Trials as runs of Trackio: a group a study, in the library's own folder or where it is told to send them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from mosld_bench.tracking.tracker import Course

_PROJECT = "mosld-bench"  # unless TRACKIO_PROJECT names another


class Trackio:
    """A `Tracker`. Place and account are as the library finds them: TRACKIO_DIR, TRACKIO_SPACE_ID."""

    name = "trackio"

    def __init__(self, study: str, folder: Path) -> None:
        self._study = study

    def begin(self, trial: str, config: Mapping[str, Any]) -> _Run:
        """See `Tracker.begin`."""
        import trackio  # noqa: F401 - one that cannot be imported is to be told of now

        return _Run(self._study, trial, config)

    def where(self) -> str:
        """See `Tracker.where`."""
        return f"trackio show --project {_project()}"


class _Run:
    """A `TrackedRun` that is written when its trial has ended: the library has one open run in a process."""

    def __init__(self, study: str, trial: str, config: Mapping[str, Any]) -> None:
        self._study, self._trial, self._config = study, trial, dict(config)

    def live(self, step: int, loss: float) -> None: ...

    def end(self, course: Course) -> None:
        import trackio

        with _silent():
            run = trackio.init(
                project=_project(),
                name=self._trial,
                group=self._study,
                config=self._config | ({"error": course.error} if course.error else {}),
                embed=False,  # no dashboard in a notebook for every trial
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            for step, scalars in course.points:
                if scalars:
                    run.log(dict(scalars), step=step)
            if course.results:
                run.log(dict(course.results), step=course.steps)
            run.finish()

    def abandon(self) -> None: ...


def _project() -> str:
    return os.environ.get("TRACKIO_PROJECT") or _PROJECT


@contextmanager
def _silent() -> Iterator[None]:
    """Without the lines that the library prints for every run: the display tells the progress."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield
