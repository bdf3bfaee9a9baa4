"""A table as data, how numbers and labels are printed, and the LaTeX of a table.

A `Table` has two faces. `frame` holds the numbers at full precision (accuracies as fractions, missing as
empty) and becomes the CSV; `rows` hold what is printed (percent, one decimal, – for missing) and become
LaTeX and the PDF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mosld_bench.spec.budget import Native
from mosld_bench.spec.trial import Condition

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """What is printed: a text, perhaps with a smaller ± beside it, bold, and with a mark above."""

    text: str
    sd: str = ""
    bold: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Column:
    title: str
    align: str = "right"
    turned: bool = False
    group: str = ""  # neighbours of one group share a heading above theirs


@dataclass(frozen=True)
class Line:
    """A row of cells, or, if it has one cell only, a heading that spans the table."""

    cells: tuple[Cell, ...]
    ruled: bool = False  # a thin rule above


@dataclass(frozen=True)
class Table:
    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Line, ...]
    frame: pd.DataFrame | None  # None for a table that another one's numbers hold
    notes: tuple[str, ...] = ()
    wide: bool = False

    def data(self) -> dict[str, Any]:
        """Plain data for the report."""
        plain = {key: value for key, value in vars(self).items() if key not in {"frame", "columns", "rows"}}
        return {
            "kind": "table",
            **plain,
            "columns": [asdict(column) for column in self.columns],
            "rows": [asdict(row) for row in self.rows],
        }

    def write(self, folder: Path) -> None:
        """``NAME.csv`` and ``NAME.tex``, the same bytes for the same analysis."""
        if self.frame is not None:
            text = self.frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
            (folder / f"{self.name}.csv").write_text(text, encoding="utf-8")
        (folder / f"{self.name}.tex").write_text(latex(self), encoding="utf-8")


def percent(value: float | None, sign: bool = False) -> str:
    """0.685 -> '68.5'; with ``sign`` '+68.5'. A true minus, no signed zero, and – for None."""
    if value is None:
        return MISSING
    text = f"{100 * value:{'+' if sign else ''}.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def score(mean_sd: tuple[float | None, float | None], bold: bool = False, mark: str = "") -> Cell:
    mean, sd = mean_sd
    return Cell(percent(mean), "" if sd is None else f"± {percent(sd)}", bold, mark)


def count(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


_TEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "−": "$-$",
    "±": r"$\pm$",
    "†": r"\dag{}",
    "–": "--",
    "≥": r"$\ge$",
}


def tex_text(text: str) -> str:
    """Any text, safe to \\input."""
    return "".join(_TEX.get(character, character) for character in text)


def latex(table: Table) -> str:
    """A booktabs tabular, ready to \\input into a table environment (packages: booktabs, graphicx)."""
    letters = {"left": "l", "right": "r", "wrap": r"p{0.4\linewidth}"}
    width = len(table.columns)
    lines = [
        f"% {table.caption} Needs the packages booktabs and graphicx.",
        f"\\begin{{tabular}}{{{''.join(letters[column.align] for column in table.columns)}}}",
        r"\toprule",
    ]
    if any(column.group for column in table.columns):
        cells, rules = [], []
        for start, span, group in spans(table.columns):
            cells.append(f"\\multicolumn{{{span}}}{{c}}{{{tex_text(group)}}}" if group else " & " * (span - 1))
            rules += [f"\\cmidrule(lr){{{start + 1}-{start + span}}}"] if group else []
        lines += [" & ".join(cells) + r" \\", "".join(rules)]
    titles = [tex_text(column.title) for column in table.columns]
    turned = [f"\\rotatebox{{90}}{{{t}}}" if c.turned else t for c, t in zip(table.columns, titles, strict=True)]
    lines += [" & ".join(turned) + r" \\", r"\midrule"]
    for row in table.rows:
        if row.ruled:
            lines.append(r"\midrule")
        if len(row.cells) == 1:
            lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{tex_text(row.cells[0].text)}}}}} \\\\")
        else:
            lines.append(" & ".join(map(_tex_cell, row.cells)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex_cell(cell: Cell) -> str:
    text = tex_text(cell.text)
    text = f"\\textbf{{{text}}}" if cell.bold else text
    mark = f"\\textsuperscript{{{tex_text(cell.mark)}}}" if cell.mark else ""
    return text + (f" {{\\scriptsize {tex_text(cell.sd)}}}" if cell.sd else "") + mark


def spans(columns: Sequence[Column]) -> list[tuple[int, int, str]]:
    """(first column, how many, group) for the heading above the headings."""
    found: list[tuple[int, int, str]] = []
    for i, column in enumerate(columns):
        if found and found[-1][2] == column.group:
            first, span, group = found[-1]
            found[-1] = first, span + 1, group
        else:
            found.append((i, 1, column.group))
    return found


def setting_label(setting: str) -> str:
    return {"mixture": "mixture", "single": "single task", "frozen": "frozen", "counted": "counted only"}.get(
        setting, setting
    )


def short_label(block: Condition) -> str:
    """'mixture, 60,000 parameters' and what else the block is: within a sentence."""
    return f"{setting_label(block.setting)}, {block.budget.label}{beside(block)}"


def block_label(block: Condition) -> str:
    """'Mixture, budget 60,000 parameters' and, in a study of several, the model and the general items."""
    label = block.budget.label
    size = f"budget {label}" if block.budget.sets_size else f"equal {label}"
    if isinstance(block.budget, Native):
        size = "not matched in size"
    return f"{setting_label(block.setting).capitalize()}, {size}{beside(block)}"


def beside(block: Condition) -> str:
    """What a block is beside its setting and budget, as the end of a label."""
    model = f", {block.model.rsplit('/', 1)[-1]}" if block.model else ""
    return model + (f", {block.general:,} general items" if block.general else "")


def titled(title: str, block: Condition) -> str:
    """The title of a row; an untrained model stands in no block and carries its own beside it."""
    return title + (beside(block) if block.setting == "frozen" else "")


def interval(low: float | None, high: float | None, between: str = " to ") -> str:
    return MISSING if low is None or high is None else f"{percent(low, True)}{between}{percent(high, True)}"


def plain(value: Any) -> str:
    """A parameter as text: whole numbers of a list by hyphens (2-4-6-8), other lists by commas."""
    if isinstance(value, list | tuple):
        return ("-" if all(isinstance(item, int) for item in value) else ", ").join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return MISSING if value is None else str(value)


def p_value(p: float | None) -> str:
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
