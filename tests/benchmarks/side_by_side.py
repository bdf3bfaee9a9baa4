"""Two ways to one result, run in turns in one process: a busy machine is as unfair to the one as to the other."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured against what.

    ``times`` is how often ours goes into the other (a speed-up, or a share of memory), its median over the rounds;
    ``low`` and ``high`` are its smallest and largest. ``wanted`` says what it must be, as ``>= 4`` or ``<= 1.3``.
    """

    benchmark: str
    what: str
    against: str
    ours: float
    other: float | None
    unit: str
    times: float | None
    low: float | None
    high: float | None
    rounds: int
    wanted: str = ""
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether ``wanted`` is met; None where nothing was wanted."""
        if not self.wanted:
            return None
        sign, number = self.wanted.split()[:2]
        value = self.ours if self.times is None else self.times
        return value >= float(number) if sign == ">=" else value <= float(number)

    def to_dict(self) -> dict[str, object]:
        return asdict(self) | {"holds": self.holds}


def in_turns(ways: dict[str, Callable[[], object]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds that each of ``ways`` took in each round, after ``warm`` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm + rounds):
        for name, way in ways.items():
            gc.collect()
            started = time.perf_counter()
            way()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def faster(
    benchmark: str, what: str, against: str, ours: list[float], other: list[float], wanted: str = "", note: str = ""
) -> Row:
    """How many times faster ours was, round by round."""
    return _row(benchmark, what, against, ours, other, [b / a for a, b in zip(ours, other, strict=True)], wanted, note)


def share(
    benchmark: str, what: str, against: str, ours: list[float], other: list[float], wanted: str = "", note: str = "",
    unit: str = "s",
) -> Row:  # fmt: skip
    """How much of the other ours took, round by round."""
    quotients = [a / b for a, b in zip(ours, other, strict=True)]
    return _row(benchmark, what, against, ours, other, quotients, wanted, note, unit)


def alone(benchmark: str, what: str, values: list[float], unit: str = "s", wanted: str = "", note: str = "") -> Row:
    """A figure of its own, with nothing beside it; its spread is in ``low`` and ``high``."""
    middle = statistics.median(values)
    return Row(benchmark, what, "", middle, None, unit, None, min(values), max(values), len(values), wanted, note)


def _row(
    benchmark: str, what: str, against: str, ours: list[float], other: list[float], quotients: list[float],
    wanted: str, note: str, unit: str = "s",
) -> Row:  # fmt: skip
    return Row(
        benchmark, what, against, statistics.median(ours), statistics.median(other), unit,
        statistics.median(quotients), min(quotients), max(quotients), len(quotients), wanted, note,
    )  # fmt: skip
