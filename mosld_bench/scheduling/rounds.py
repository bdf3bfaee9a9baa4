"""Rounds of a study: the first seed of every row, then the second of every row that has one, and so on.

A whole answer, of one seed, is there after the first round; each further one makes it surer.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from mosld_bench.background import BackgroundCall
from mosld_bench.spec.trial import Condition, PlannedTrial, Trial

#: A report of which a later one would take the place within that time is not begun.
WORTH_SECONDS = 20.0


def rounds_of(trials: Iterable[Trial]) -> dict[str, int]:
    """Trial id -> its round, from 0, of a study's ``trials`` in the study's order.

    A row is what a recipe trains on under one condition; its trials are its seeds.
    """
    seeds: Counter[tuple[str, Condition, tuple[str, ...]]] = Counter()
    rounds: dict[str, int] = {}
    for trial in trials:
        row = trial.recipe.name, trial.condition, trial.train_on
        rounds[trial.id] = seeds[row]
        seeds[row] += 1
    return rounds


class Rounds:
    """Which rounds of a run are over. A round of which nothing is to be run is over from the start."""

    def __init__(self, rounds: dict[str, int], todo: Sequence[PlannedTrial]) -> None:
        """``rounds``: that of every trial of the plan; ``todo``: what of the plan is to be run."""
        self._round = rounds
        self._open: list[set[str]] = [set() for _ in range(max(rounds.values(), default=-1) + 1)]
        for trial, _ in todo:
            self._open[rounds[trial.id]].add(trial.id)
        self._over = self._leading()

    def ended(self, trial: str) -> bool:
        """Note that the trial of that id ended. Whether a round, with all before it, is over now, and not the last."""
        self._open[self._round[trial]].discard(trial)
        before, self._over = self._over, self._leading()
        return before < self._over < len(self._open)

    def _leading(self) -> int:
        """How many rounds are over before the first that is not."""
        return next((number for number, left in enumerate(self._open) if left), len(self._open))


class InterimReports:
    """Reports of what there is whenever a round is over and others are to come, made in the background one at a time.

    Where rounds end faster than reports are made, the latest is made. Use as a context manager, at the end of which one
    that is being made is ended: another takes its place.

    ``begin``: begins one, and has what it is given told why it failed, or None. ``say``: prints a line. ``where``: the
    file that people open.
    """

    def __init__(
        self,
        rounds: Rounds,
        begin: Callable[[Callable[[str | None], None]], BackgroundCall],
        *,
        say: Callable[[str], None],
        where: Path,
    ) -> None:
        self._rounds, self._begin, self._say, self._where = rounds, begin, say, where
        self._lock = threading.Lock()  # between this thread and the one that a call is told in
        self._call: BackgroundCall | None = None
        self._waiting = ""  # what the next one is of, if one waits
        self._stopped = False

    def __enter__(self) -> InterimReports:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._stopped, call = True, self._call
        if call is not None:
            call.stop()

    def ended(self, trial: str, *, of: str, seconds_left: float | None) -> None:
        """Note that the trial of that id ended, and have a report made if a round is over.

        ``of``: what the report will be of, such as '9 of 27 trials'. ``seconds_left``: until all are over, None where
        that is unknown.
        """
        if not self._rounds.ended(trial) or (seconds_left is not None and seconds_left < WORTH_SECONDS):
            return
        with self._lock:
            if self._call is None:
                self._start(of)
            else:
                self._waiting = of

    def _start(self, of: str) -> None:
        def told(error: str | None) -> None:
            self._say(f"report so far, of {of}: {self._where}" if error is None else f"no report of {of}: {error}")
            with self._lock:
                self._call, of_next, self._waiting = None, self._waiting, ""
                if of_next and not self._stopped:
                    self._start(of_next)

        self._call = self._begin(told)
