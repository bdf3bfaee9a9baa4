"""The main table of a report, for the terminal at the end of a run."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table


def results_table(main_csv: Path) -> Table:
    """One line a row of a report's ``tables/main.csv``: mean scores in per cent, and how they spread over seeds."""
    import pandas as pd

    frame = pd.read_csv(main_csv)
    table = Table(title="mean scores in per cent, mean ± standard deviation over seeds")
    for column in ("recipe", "setting", "budget", "trainable", "in-domain", "out-of-domain", "seeds"):
        if column in {"recipe", "setting", "budget"}:
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)

    def score(mean: float, sd: float) -> str:
        if pd.isna(mean):
            return "–"
        return f"{100 * mean:.1f}" + ("" if pd.isna(sd) else f" ± {100 * sd:.1f}")

    for row in frame.to_dict("records"):
        scores = [score(row[f"{domain}_mean"], row[f"{domain}_sd"]) for domain in ("in_domain", "out_of_domain")]
        count = row["trainable_parameters"]
        size = "–" if pd.isna(count) else f"{int(count):,}"
        table.add_row(row["recipe"], row["setting"], str(row["budget"]), size, *scores, str(row["seeds"]))
    return table
