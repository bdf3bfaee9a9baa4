"""Two ways to one result, run in turns in one process: a busy machine is as unfair to the one as to the other."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what was measured against what.

    ``ours`` and ``other`` are medians over the rounds, in ``unit``. ``ratio`` is the median over the rounds of their
    quotient: a speed-up, or a share of time or memory; ``low`` and ``high`` are its smallest and largest. Where nothing
    stands beside ours, ``ratio`` is None and the two are the spread of ours. ``wanted`` says what the ratio (or ours)
    must be, as ``>= 4`` or ``<= 1.3``.
    """

    benchmark: str
    quantity: str
    against: str
    ours: float
    other: float | None
    unit: str
    ratio: float | None
    low: float
    high: float
    rounds: int
    wanted: str = ""
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether ``wanted`` is met; None where nothing was wanted."""
        if not self.wanted:
            return None
        sign, number = self.wanted.split()[:2]
        value = self.ours if self.ratio is None else self.ratio
        return value >= float(number) if sign == ">=" else value <= float(number)

    def to_dict(self) -> dict[str, object]:
        """The fields and ``holds``, for JSON."""
        return asdict(self) | {"holds": self.holds}


def seconds_of(device: str) -> float:
    """A clock's seconds, when ``device`` has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def in_turns(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of ``clock`` that each of ``ways`` took in each round, after ``warm`` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm + rounds):
        for name, way in ways.items():
            gc.collect()
            started = clock()
            way()
            if turn >= warm:
                seconds[name].append(clock() - started)
    return seconds


def faster(
    benchmark: str,
    quantity: str,
    *,
    against: str,
    ours: Sequence[float],
    other: Sequence[float],
    wanted: str = "",
    note: str = "",
) -> Row:
    """How many times faster ours was, from the seconds of each round."""
    ratios = [theirs / mine for mine, theirs in zip(ours, other, strict=True)]
    return Row(
        benchmark=benchmark, quantity=quantity, against=against, ours=statistics.median(ours),
        other=statistics.median(other), unit="s", ratio=statistics.median(ratios), low=min(ratios), high=max(ratios),
        rounds=len(ratios), wanted=wanted, note=note,
    )  # fmt: skip


def share(
    benchmark: str,
    quantity: str,
    *,
    against: str,
    ours: Sequence[float],
    other: Sequence[float],
    wanted: str = "",
    note: str = "",
    unit: str = "s",
) -> Row:
    """How much of the other ours took, round by round."""
    ratios = [mine / theirs for mine, theirs in zip(ours, other, strict=True)]
    return Row(
        benchmark=benchmark, quantity=quantity, against=against, ours=statistics.median(ours),
        other=statistics.median(other), unit=unit, ratio=statistics.median(ratios), low=min(ratios), high=max(ratios),
        rounds=len(ratios), wanted=wanted, note=note,
    )  # fmt: skip


def alone(
    benchmark: str, quantity: str, values: Sequence[float], *, unit: str = "s", wanted: str = "", note: str = ""
) -> Row:
    """A figure with nothing beside it: the median of ``values``, with its spread in ``low`` and ``high``."""
    return Row(
        benchmark=benchmark, quantity=quantity, against="", ours=statistics.median(values), other=None, unit=unit,
        ratio=None, low=min(values), high=max(values), rounds=len(values), wanted=wanted, note=note,
    )  # fmt: skip
