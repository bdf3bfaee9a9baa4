"""Two sides of a comparison in the terminal: a table of their scores, and the items on which they differ most."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from rich.box import HEAVY_HEAD
from rich.table import Table

from mosld_bench.format import one_line
from mosld_bench.records.scale import MISSING, Scale

_WIDE = 120  # characters, which hold every column
_LONGEST = 40  # characters of an answer


class ComparedScore(Protocol):
    """What the table shows of a score, as `report.ScoreLine` has it."""

    @property
    def title(self) -> str:
        """Domain or task."""

    @property
    def scale(self) -> Scale:
        """That its numbers are printed on."""

    @property
    def ours(self) -> float:
        """The mean of A."""

    @property
    def theirs(self) -> float:
        """The mean of B."""

    @property
    def difference(self) -> float:
        """A minus B."""

    @property
    def low(self) -> float | None:
        """The lower end of its interval; None without one."""

    @property
    def high(self) -> float | None:
        """The upper end of its interval; None without one."""

    @property
    def p(self) -> float | None:
        """Of no difference; None without a test."""

    @property
    def adjusted(self) -> float | None:
        """p, corrected with the other lines of its family."""

    @property
    def freedom(self) -> float | None:
        """Degrees of freedom of the interval."""

    @property
    def noise(self) -> str:
        """Where the noise of seeds is from."""

    @property
    def words(self) -> str:
        """The verdict."""


class ComparedItem(Protocol):
    """What the table shows of an item, as `report.ItemDifference` has it."""

    @property
    def title(self) -> str:
        """Of the task."""

    @property
    def doc(self) -> int:
        """Its position in the evaluation set."""

    @property
    def item(self) -> str:
        """Its own id."""

    @property
    def scale(self) -> Scale:
        """That its numbers are printed on."""

    @property
    def ours(self) -> float:
        """Of A."""

    @property
    def theirs(self) -> float:
        """Of B."""

    @property
    def our_predictions(self) -> Sequence[str | None]:
        """Of A, by seed."""

    @property
    def their_predictions(self) -> Sequence[str | None]:
        """Of B, by seed."""

    @property
    def target(self) -> str:
        """The right one."""


def comparison_table(title: str, sections: Iterable[tuple[str, Sequence[ComparedScore]]], width: int = 160) -> Table:
    """A line a domain and task, below the heading of its metric.

    Where ``width`` characters do not hold all columns, those that explain the interval are left out.
    """
    wide = width >= _WIDE
    table = Table(title=title, box=HEAVY_HEAD if wide else None, padding=(0, 1) if wide else (0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for column in ("A", "B", "A − B", "95 %", "p", *(("Holm", "df") if wide else ())):
        table.add_column(column, justify="right", no_wrap=True)
    for column in (("noise of seeds",) if wide else ()) + ("verdict",):
        table.add_column(column, overflow="fold")
    for heading, lines in sections:
        table.add_row(heading)
        for line in lines:
            scale, like = line.scale, max(line.ours, line.theirs, key=abs)
            table.add_row(
                line.title,
                scale.text(line.ours, like=like),
                scale.text(line.theirs, like=like),
                scale.text(line.difference, sign=True, more=1),
                scale.interval(line.low, line.high, more=1),
                _p(line.p),
                *((_p(line.adjusted), _number(line.freedom)) if wide else ()),
                *((line.noise,) if wide else ()),
                line.words,
            )
        table.add_section()
    return table


def items_table(items: Sequence[tuple[str, ComparedItem]], width: int = 160) -> Table:
    """The items on which two sides differ most, each with the rows that it is of (empty where there is one pair)."""
    table = Table(
        title="Where A and B differ most: probability of the right option (%), else the score",
        box=HEAVY_HEAD if width >= _WIDE else None,
    )
    several = any(of for of, _ in items)
    for column in (*(("rows",) if several else ()), "task", "item"):
        table.add_column(column, overflow="fold")
    for column in ("doc", "A", "B", "A − B"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("A answers", "B answers", "right"):
        table.add_column(column, overflow="fold")
    for of, item in items:
        table.add_row(
            *((of,) if several else ()),
            item.title,
            item.item,
            str(item.doc),
            item.scale.text(item.ours),
            item.scale.text(item.theirs),
            item.scale.text(item.ours - item.theirs, sign=True),
            _answers(item.our_predictions),
            _answers(item.their_predictions),
            _short(item.target),
        )
    return table


def _p(p: float | None) -> str:
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float | None) -> str:
    return MISSING if value is None or math.isinf(value) else f"{value:,.1f}"


def _answers(predictions: Sequence[str | None]) -> str:
    """By seed; one for all where they are the same."""
    texts = [MISSING if text is None else _short(text) for text in predictions]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)


def _short(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
