"""The numbers that the MoSLD paper (COLING 2025, arXiv 2412.08946) prints, as data.

``results/published`` holds its tables as CSV files, copied digit by digit with their slips (`slips.py` finds those),
and in ``protocol.yaml`` what the paper says about how the numbers were made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

from mosld_bench.errors import BadFileError, UnknownNameError
from mosld_bench.spec.plain_file import read_csv
from mosld_bench.spec.yaml_file import Strict, parse, read_yaml

TABLES = ("table1_main", "table2_location", "table3_uncommon", "table5_parameters", "table6_rank", "table7_scaling")
PARAMETERS_TABLE = "table5_parameters"  # the one of parameter counts
MODEL = "llama2-7b"  # of every table that names no other
RANK = 8  # of every table but the sixth
AVERAGE = "average"  # in place of a task, where a score is the mean over tasks

_RECIPES = {"mosld-a": "mosld"}  # name in a table -> our recipe
# Percentage points: a printed score is off by up to half of its last digit, so their mean is, and the printed mean too.
_ROUNDING = Decimal("0.01")


class TaskItems(Strict):
    """Items of a task as the paper states them; ``shown``: of its test set, as its numbers show, where that differs."""

    train: int
    test: int
    shown: int | None = None

    @property
    def scored(self) -> int:
        """Items that the printed scores are over."""
        return self.shown or self.test


class Protocol(Strict):
    """How the paper made its numbers; None where it does not say.

    ``models``: name in the tables -> hub id. ``study``: keys of a study.yaml, with dots for the levels, and ``tables``
    those in which a table differs. ``params``: of the recipes of all LoRA variants, and ``recipes`` those of single
    ones. ``other``: what a study.yaml has no key for. ``tasks``: by benchmark.
    """

    models: dict[str, str]
    study: dict[str, Any]
    tables: dict[str, dict[str, Any]]
    params: dict[str, Any]
    recipes: dict[str, dict[str, Any]]
    other: dict[str, Any]
    tasks: dict[str, TaskItems]


@dataclass(frozen=True)
class PrintedScore:
    """A score that a table prints: ``text`` in per cent, digit by digit.

    ``setting`` is None in Table 5, ``rank`` where the table does not give it, and ``task`` is `AVERAGE` for a mean.
    ``table4``: what Table 4 prints in the same place, where that is something else.
    """

    recipe: str
    setting: str | None
    task: str
    text: str
    rank: int | None
    model: str
    table4: str | None = None

    @property
    def percent(self) -> Decimal:
        """The number as it is printed."""
        return Decimal(self.text)


@dataclass(frozen=True)
class PrintedCount:
    """Parameters of a recipe in billions, as Table 5 prints them: trained, and all those of the forward pass."""

    trainable: str
    forward: str


@dataclass(frozen=True)
class PrintedAverage:
    """A printed average beside the printed scores that it is of; all in per cent."""

    printed: PrintedScore
    scores: tuple[PrintedScore, ...]

    @property
    def mean(self) -> Decimal:
        """The mean of the scores; the printed average where no score is printed."""
        if not self.scores:
            return self.printed.percent
        return sum((score.percent for score in self.scores), Decimal()) / len(self.scores)

    @property
    def slipped(self) -> bool:
        """Whether rounding does not explain the difference between the printed average and the mean."""
        return abs(self.printed.percent - self.mean) > _ROUNDING

    @property
    def slips(self) -> tuple[PrintedScore, ...]:
        """The scores that are slips rather than the average: with what Table 4 has for them, it is their mean."""
        differing = tuple(score for score in self.scores if score.table4 is not None)
        scores = tuple(replace(score, text=score.table4 or score.text) for score in self.scores)
        mended = self.slipped and not PrintedAverage(self.printed, scores).slipped
        return differing if mended else ()


@dataclass(frozen=True)
class Published:
    """What the paper prints: ``tables`` by the names in `TABLES`, the counts of Table 5 by recipe, and the protocol."""

    protocol: Protocol
    tables: Mapping[str, tuple[PrintedScore, ...]]
    counts: Mapping[str, PrintedCount]

    @classmethod
    def load(cls, folder: Path) -> Published:
        """Read all of it from ``folder``. Raises BadFileError for a file that is missing or malformed."""
        protocol = parse(Protocol, folder / "protocol.yaml", read_yaml(folder / "protocol.yaml"))
        tables = {name: tuple(_read(folder / f"{name}.csv", _score)) for name in TABLES}
        return cls(protocol, tables, dict(_read(folder / f"{PARAMETERS_TABLE}.csv", _count)))

    def scores(self, name: str) -> tuple[PrintedScore, ...]:
        """The scores of a table, in its order. Raises UnknownNameError for a name that is not in `TABLES`."""
        if name not in self.tables:
            raise UnknownNameError("published table", name, TABLES)
        return self.tables[name]

    def right(self, name: str) -> dict[PrintedScore, Decimal]:
        """The scores of a table that are slips, in per cent as they must have been meant.

        An average is the mean of its scores, and a score what Table 4 has, where that alone gives the average.
        """
        meant: dict[PrintedScore, Decimal] = {}
        for average in self.averages(name):
            if average.slips:
                meant |= {score: Decimal(score.table4 or score.text) for score in average.slips}
            elif average.slipped:
                meant[average.printed] = average.mean
        return meant

    def averages(self, name: str) -> list[PrintedAverage]:
        """The printed averages of a table that names settings, in its order, each with the scores of its row."""
        scores = [score for score in self.scores(name) if score.setting is not None]
        return [
            PrintedAverage(average, tuple(s for s in scores if s.task != AVERAGE and _row(s) == _row(average)))
            for average in scores
            if average.task == AVERAGE
        ]


def _row(score: PrintedScore) -> tuple[str, str | None, int | None, str]:
    """What the scores of one row of a table share."""
    return score.recipe, score.setting, score.rank, score.model


_Parsed = TypeVar("_Parsed")


def _read(path: Path, parse_line: Callable[[dict[str, str]], _Parsed]) -> list[_Parsed]:
    """The lines of a CSV file. Raises BadFileError where it is missing, lacks a column or holds no number."""
    lines = read_csv(path, needed="a table of numbers that the paper prints")
    try:
        return [parse_line(line) for line in lines]
    except (KeyError, ValueError, TypeError, InvalidOperation) as error:
        raise BadFileError(f"{path} is no table of the paper ({type(error).__name__}: {error}).") from error


def _score(line: dict[str, str]) -> PrintedScore:
    score = PrintedScore(
        recipe=_RECIPES.get(line["method"], line["method"]),
        setting=line.get("setting"),
        task=line.get("task", AVERAGE),
        text=line["accuracy"] if "accuracy" in line else line["average_accuracy"],
        rank=int(line["rank"]) if "rank" in line else None,
        model=line.get("model", MODEL),
        table4=line.get("table4") or None,
    )
    for text in (score.text, score.table4 or score.text):
        if not 0 <= Decimal(text) <= 100:
            raise ValueError(f"{text} is no score in per cent")
    return score


def _count(line: dict[str, str]) -> tuple[str, PrintedCount]:
    count = PrintedCount(line["trainable_params_billion_as_printed"], line["forward_params_billion_as_printed"])
    for text in (count.trainable, count.forward):
        Decimal(text)  # raises for what is no number
    return line["method"], count


def as_printed(count: int) -> str:
    """The digits that Table 5 has for ``count`` parameters, under a unit that is 100 times too large.

    >>> as_printed(4_194_304), as_printed(22_282_240), as_printed(13_893_632)
    ('0.419', '2.228', '1.389')
    """
    return str(rounded(Decimal(count) / 10**7, 3))


def in_units(count: int) -> str:
    """``count`` parameters with as many digits as Table 5 has, in the right units.

    >>> in_units(4_194_304)
    '0.00419 B = 4.19 M'
    """
    return f"{rounded(Decimal(count) / 10**9, 5)} B = {rounded(Decimal(count) / 10**6, 2)} M"


def billions(count: int) -> str:
    """``count`` in billions, with as many decimals as Table 5 has.

    >>> billions(6_738_415_616)
    '6.738'
    """
    return str(rounded(Decimal(count) / 10**9, 3))


def rounded(value: Decimal, places: int) -> Decimal:
    """To so many decimals, halves away from zero, as the paper's tables are taken to be."""
    return value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
