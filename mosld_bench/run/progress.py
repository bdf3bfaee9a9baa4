"""What a user sees while trials run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from statistics import fmean
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mosld_bench.cost.estimate import side_by_side
from mosld_bench.records.record import Record
from mosld_bench.trial.session import Progress


class ProgressDisplay:
    """Shows running and finished trials. Use as a context manager.

    ``hours``: trial to come -> what it is estimated to take, on whatever machine; 0 where there is no estimate.
    """

    def __init__(self, hours: Mapping[str, float], console: Console) -> None:
        self.total, self.console = len(hours), console
        self.done = self.failed = 0
        self.started = time.monotonic()
        usual = fmean(known) if (known := [one for one in hours.values() if one]) else 1.0
        self._left = {trial: one or usual for trial, one in hours.items()}  # estimated hours of what is not done
        self._hours = self._seconds = 0.0  # of the trials that are done: estimated, and measured
        self._workers = 0  # the most that were seen to run side by side
        self._running: dict[str, tuple[Progress, float]] = {}
        self._finished: deque[tuple[str, str, float]] = deque(maxlen=5)
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def __enter__(self) -> ProgressDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, progress: Progress) -> None:
        """Note where a running trial is."""
        old = self._running.get(progress.trial)
        since = old[1] if old else time.monotonic()
        self._running[progress.trial] = (progress, since)
        self._workers = max(self._workers, len(self._running))
        if self._live:
            self._live.update(self._table())
        elif old is None or old[0].phase != progress.phase:
            self.say(f"  {progress.trial}: {progress.phase}")

    def finish(self, record: Record) -> None:
        """Note that a trial ended."""
        _, since = self._running.pop(record.trial_id, (None, self.started))
        seconds = float(record.meta_info.get("seconds", time.monotonic() - since))
        self.done += 1
        self.failed += record.status == "failed"
        accuracy = _in_domain_mean(record)
        hours = self._left.pop(record.trial_id)
        if record.status == "failed":
            last = (record.error or "").strip().splitlines()[-1:]
            outcome = f"FAILED: {last[0] if last else 'unknown'}"
        else:
            outcome = f"in-domain {accuracy:.1%}" if accuracy is not None else "finished"
            self._hours, self._seconds = self._hours + hours, self._seconds + seconds
        self._finished.append((record.trial_id, outcome, seconds))
        self.say(f"[{self.done}/{self.total}] {record.trial_id}  {outcome}  {seconds:.1f} s  left {self.time_left()}")
        if self._live:
            self._live.update(self._table())

    def time_left(self) -> str:
        """Wall time to go: the estimates of what is left, at the pace of what is done; ? before that."""
        if not self._hours:
            return "?"
        now, pace = time.monotonic(), self._seconds / self._hours
        spent = {trial: now - since for trial, (_, since) in self._running.items()}
        left = (max(0.0, hours * pace - spent.get(trial, 0.0)) for trial, hours in self._left.items())
        return str(timedelta(seconds=round(side_by_side(left, max(1, self._workers)))))

    def _table(self) -> Table:
        table = Table(title=f"{self.done} of {self.total} trials done, {self.failed} failed, left {self.time_left()}")
        for column in ("trial", "state", "step", "loss", "time"):
            table.add_column(column, justify="left" if column in {"trial", "state"} else "right")
        for trial, outcome, seconds in self._finished:
            table.add_row(trial, outcome, "", "", f"{seconds:.0f} s", style="dim")
        for progress, since in self._running.values():
            table.add_row(
                progress.trial,
                progress.phase,
                f"{progress.step}/{progress.steps}" if progress.steps else "",
                f"{progress.loss:.3f}" if progress.loss is not None else "",
                f"{time.monotonic() - since:.0f} s",
            )
        return table


def _in_domain_mean(record: Record) -> float | None:
    """Mean of the primary metrics over the trial's in-domain tasks."""
    values = [metric.value for metric in record.metrics if metric.primary and metric.role == "in_domain"]
    return sum(values) / len(values) if values else None
