"""A drawn figure with its caption and place in the report, and how it is written to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from mosld_bench.reporting.figures.style import FONT, report_style
from mosld_bench.reporting.rows import Row


@dataclass(frozen=True)
class Plot:
    """A drawn figure and what the report says of it."""

    name: str  # of its files, and of references to it
    shows: str  # ends the sentence "Figure 1 shows ..."
    caption: str
    figure: Figure
    wide: bool = False  # over both columns of the page
    section: str = "Results"  # title of the section of the report that it stands in
    early: bool = False  # whether it stands after the first paragraph of its section, and not at the end
    rows: Sequence[Row] | None = None  # that are drawn; None for a figure that is not of the report's rows

    def write(self, folder: Path) -> None:
        """Write ``NAME.pdf`` and ``NAME.png`` into ``folder``; the same analysis gives the same bytes."""
        with report_style():
            self.figure.savefig(folder / f"{self.name}.pdf", metadata={"CreationDate": None})
            self.figure.set_layout_engine("none")  # the layout that was found is kept: finding it takes its time
            self.figure.savefig(folder / f"{self.name}.png", metadata={"Software": None})

    def write_svg(self, path: Path, typeface: str) -> None:
        """Write an SVG whose text stays text, in the typeface of the document that takes it up."""
        with report_style():
            self.figure.savefig(path, format="svg", metadata={"Date": None})
        path.write_text(path.read_text(encoding="utf-8").replace(FONT, typeface), encoding="utf-8")
