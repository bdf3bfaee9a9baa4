"""A table as data, and its LaTeX.

A `Table` has two faces. `frame` holds the numbers at full precision (accuracies as fractions, perplexities as they
are, missing as empty) and becomes the CSV; `rows` hold what is printed (shares in per cent, – for missing) and become
LaTeX and the PDF.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mosld_bench.format import one_line
from mosld_bench.records.scale import Scale

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Cell:
    """A printed text, perhaps with a smaller ``sd`` beside it ("± 1.2"), bold, and with a mark above."""

    text: str
    sd: str = ""
    bold: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """A heading and how its column is set: ``wrap`` breaks lines, ``turned`` stands upright.

    Neighbours of one ``group`` share a heading above theirs.
    """

    title: str
    align: Literal["left", "right", "wrap"] = "right"
    turned: bool = False
    group: str = ""


@dataclass(frozen=True)
class Line:
    """A row of cells, or, if it has one cell only, a heading that spans the table; ``ruled``: a thin rule above."""

    cells: tuple[Cell, ...]
    ruled: bool = False

    @classmethod
    def of(cls, *texts: str) -> Line:
        """A row of plain texts."""
        return cls(tuple(map(Cell, texts)))

    @classmethod
    def heading(cls, text: str, *, ruled: bool = False) -> Line:
        """A heading over the rows that follow."""
        return cls((Cell(text),), ruled)


@dataclass(frozen=True)
class Table:
    """A table with its caption and the notes below it; ``wide``: over both columns of the page.

    ``name`` names its files and what text refers to; ``frame`` is None where another table's numbers hold its own.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Line, ...]
    frame: pd.DataFrame | None
    notes: tuple[str, ...] = ()
    wide: bool = False

    def data(self) -> dict[str, Any]:
        """What `report.typ` reads: ``kind`` "table" and every field but ``frame``."""
        return {
            "kind": "table",
            "name": self.name,
            "caption": self.caption,
            "columns": [asdict(column) for column in self.columns],
            "rows": [{"cells": [asdict(cell) for cell in row.cells], "ruled": row.ruled} for row in self.rows],
            "notes": list(self.notes),
            "wide": self.wide,
        }

    def write(self, folder: Path) -> None:
        """``NAME.csv`` and ``NAME.tex``, the same bytes for the same analysis."""
        if self.frame is not None:
            text = self.frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
            (folder / f"{self.name}.csv").write_text(text, encoding="utf-8", errors="replace")
        (folder / f"{self.name}.tex").write_text(latex(self), encoding="utf-8", errors="replace")


def score_cell(
    scale: Scale, mean: float | None, sd: float | None = None, *, bold: bool = False, mark: str = ""
) -> Cell:
    """A mean and its standard deviation, as their ``scale`` prints them."""
    return Cell(scale.text(mean), "" if mean is None else scale.spread(mean, sd), bold, mark)


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
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "–": "--",
    "—": "---",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "≈": r"$\approx$",
    "√": r"$\surd$",
    "→": r"$\to$",
    "←": r"$\leftarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "∞": r"$\infty$",
    "|": r"\textbar{}",
    "…": r"\dots{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
}


def _greek(letter: str) -> str:
    """LaTeX's command for a Greek letter."""
    name = unicodedata.name(letter).split()[-1].replace("LAMDA", "LAMBDA")
    return f"$\\{name.lower() if letter.islower() else name.capitalize()}$"


_TEX |= {letter: _greek(letter) for letter in "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ"}


_LAST_LATIN = "\u017f"  # of the letters that every LaTeX knows


def tex_text(text: str) -> str:
    """Any text in one line, safe to \\input. Letters that LaTeX has no command for stay as they are."""
    return "".join(_TEX.get(character, character) for character in one_line(text))


def latex(table: Table) -> str:
    """A booktabs tabular, ready to \\input into a table environment (packages: booktabs, graphicx).

    A row is one line, and none begins with a bracket or an asterisk, which the command of the row before would take.
    """
    letters = {"left": "l", "right": "r", "wrap": r"p{0.4\linewidth}"}
    lines = [
        f"\\begin{{tabular}}{{{''.join(letters[column.align] for column in table.columns)}}}",
        r"\toprule",
    ]
    if any(column.group for column in table.columns):
        cells, rules = [], []
        for start, span, group in column_groups(table.columns):
            cells.append(f"\\multicolumn{{{span}}}{{c}}{{{tex_text(group)}}}" if group else " & " * (span - 1))
            rules += [f"\\cmidrule(lr){{{start + 1}-{start + span}}}"] if group else []
        lines += [_tex_row(cells), "".join(rules)]
    titles = [tex_text(column.title) for column in table.columns]
    turned = [f"\\rotatebox{{90}}{{{t}}}" if c.turned else t for c, t in zip(table.columns, titles, strict=True)]
    lines += [_tex_row(turned), r"\midrule"]
    for row in table.rows:
        if row.ruled:
            lines.append(r"\midrule")
        if len(row.cells) == 1:
            heading = tex_text(row.cells[0].text)
            lines.append(f"\\multicolumn{{{len(table.columns)}}}{{l}}{{\\emph{{{heading}}}}} \\\\")
        else:
            lines.append(_tex_row(map(_tex_cell, row.cells)))
    beyond = "".join(sorted({character for line in lines for character in line if character > _LAST_LATIN}))
    needs = "Needs the packages booktabs and graphicx" + (f", and LuaLaTeX or XeLaTeX for {beyond}" if beyond else "")
    return "\n".join([f"% {one_line(table.caption)} {needs}.", *lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex_row(cells: Iterable[str]) -> str:
    r"""A row of set cells. What ends or rules the row before takes a ``[`` or ``*`` that follows for its argument."""
    row = " & ".join(cells)
    return f"{'{}' if row.lstrip().startswith(('[', '*')) else ''}{row} \\\\"


def _tex_cell(cell: Cell) -> str:
    text = tex_text(cell.text)
    text = f"\\textbf{{{text}}}" if cell.bold else text
    mark = f"\\textsuperscript{{{tex_text(cell.mark)}}}" if cell.mark else ""
    return text + (f" {{\\scriptsize {tex_text(cell.sd)}}}" if cell.sd else "") + mark


class ColumnGroup(NamedTuple):
    """Neighbouring columns of one group: the first, how many, and the heading above theirs."""

    start: int
    span: int
    title: str


def column_groups(columns: Sequence[Column]) -> list[ColumnGroup]:
    """The runs of neighbouring columns that have one group; columns without a group are one of an empty title."""
    groups: list[ColumnGroup] = []
    for title, members in groupby(columns, key=lambda column: column.group):
        start = sum(group.span for group in groups)
        groups.append(ColumnGroup(start, len(list(members)), title))
    return groups
