"""The main table of a report, for the terminal at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from rich.table import Table

from mosld_bench.records.scale import SHARE, Scale


class ResultScore(Protocol):
    """One score of a row, as `report.MainRow` has it."""

    @property
    def title(self) -> str:
        """Of its column."""

    @property
    def scale(self) -> Scale:
        """That its numbers are printed on."""

    @property
    def mean(self) -> float | None:
        """Over seeds; None where there is none."""

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds; None where there is none."""

    @property
    def mark(self) -> str:
        """What tests say of it; empty where they say nothing."""


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
    def scores(self) -> Sequence[ResultScore]:
        """The means, or the scores of tasks that have none; the same columns in every row."""

    @property
    def seeds(self) -> int:
        """Seeds with a score on every in-domain task."""


def results_table(rows: Iterable[ResultRow], notes: Sequence[str] = ()) -> Table:
    """One line a row: scores as their scales print them, how they spread over seeds, and the marks of tests.

    ``notes``, which say what the marks mean, stand below the table.
    """
    rows = list(rows)
    scores = rows[0].scores if rows else ()
    shares = all(score.scale == SHARE for score in scores)
    marks = [max(len(row.scores[i].mark) for row in rows) for i in range(len(scores))]  # so that digits stay in line
    table = Table(
        title="mean scores in per cent, mean ± standard deviation over seeds"
        if shares
        else "scores, mean ± standard deviation over seeds; shares in per cent",
        caption="\n".join(notes) or None,
        caption_justify="left",
    )
    for column in ("recipe", "setting", "budget"):
        table.add_column(column, overflow="fold")
    table.add_column("trainable", justify="right", no_wrap=True)
    for score in scores:
        table.add_column(score.title, justify="right", no_wrap=len(scores) <= 2, overflow="fold")
    table.add_column("seeds", justify="right", no_wrap=True)
    for row in rows:
        size = "–" if row.trainable is None else f"{row.trainable:,}"
        texts = [
            score.scale.mean_text(score.mean, score.sd) + score.mark.ljust(width)
            for score, width in zip(row.scores, marks, strict=True)
        ]
        table.add_row(row.recipe, row.setting, row.budget, size, *texts, str(row.seeds))
    return table
