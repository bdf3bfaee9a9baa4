"""The main table of a report, for the terminal at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rich.table import Table

#: A mean (0 to 1) and its standard deviation over seeds; None where there is none.
MeanSd = tuple[float | None, float | None]


class ResultRow(Protocol):
    """What the table shows of a row of a report, as `report.MainRow` has it."""

    @property
    def recipe(self) -> str:
        """Its name."""

    @property
    def setting(self) -> str:
        """mixture, single, frozen or counted."""

    @property
    def budget(self) -> str:
        """As the study writes it."""

    @property
    def trainable(self) -> int | None:
        """Trainable parameters; None where no record tells."""

    @property
    def in_domain(self) -> MeanSd:
        """Over the in-domain tasks."""

    @property
    def out_of_domain(self) -> MeanSd:
        """Over the out-of-domain tasks."""

    @property
    def seeds(self) -> int:
        """Seeds that the in-domain mean is over."""


def results_table(rows: Iterable[ResultRow]) -> Table:
    """One line a row: mean scores in per cent, and how they spread over seeds."""
    table = Table(title="mean scores in per cent, mean ± standard deviation over seeds")
    for column in ("recipe", "setting", "budget", "trainable", "in-domain", "out-of-domain", "seeds"):
        if column in {"recipe", "setting", "budget"}:
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        size = "–" if row.trainable is None else f"{row.trainable:,}"
        scores = [_score(mean, sd) for mean, sd in (row.in_domain, row.out_of_domain)]
        table.add_row(row.recipe, row.setting, row.budget, size, *scores, str(row.seeds))
    return table


def _score(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "–"
    return f"{100 * mean:.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}")
