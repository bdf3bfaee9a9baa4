"""The report: `mosld-bench report STUDY` turns a study's records into a PDF, a page, tables and figures.

    build_report(study, study.plan(workspace), Store(workspace.results).sources(study, tasks), folder)

Reads nothing but its arguments, runs no model and needs no network: the same records give the same files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mosld_bench.records.store import Sources
from mosld_bench.reporting.analysis import Analysis, analyse
from mosld_bench.reporting.compose import compose, latest_start
from mosld_bench.reporting.explorer.page import write_apology, write_page
from mosld_bench.reporting.figures import draw_all
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.typeset import typeset
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_LOG = logging.getLogger(__name__)


def build_report(study: Study, trials: Sequence[Trial], sources: Sources, folder: Path) -> Path:
    """Write ``report.pdf``, ``index.html``, ``tables/`` and ``figures/`` into ``folder``; the path of the PDF.

    ``trials`` is the study's whole plan, so that what is missing is shown as missing; ``sources`` is what
    `Store.sources` gives. Raises BenchError where no record of the plan's protocol is finished, or where typst cannot
    set the document.
    """
    return write_report(analyse(study, trials, sources), folder)


def write_report(analysis: Analysis, folder: Path) -> Path:
    """What `build_report` does, for an analysis that is at hand; the path of the PDF.

    What keeps the page from being made keeps nothing else: it is logged, and the page says it. Raises BenchError where
    typst cannot set the document.
    """
    figures = draw_all(analysis)
    plots = [figure for figure in figures if isinstance(figure, Plot)]
    document = compose(analysis, figures)
    table_folder = _emptied(folder / "tables", (".csv", ".tex"))
    for table in document.tables:
        table.write(table_folder)
    figure_folder = _emptied(folder / "figures", (".pdf", ".png"))
    for plot in plots:
        plot.write(figure_folder)
    pdf = folder / "report.pdf"
    typeset(document, plots, pdf, date=latest_start(analysis))
    _write_page(analysis, folder)
    return pdf


def tables_of(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """Name -> the numbers of every table of the report that has a CSV, in its order."""
    return {table.name: table.frame for table in compose(analysis, ()).tables if table.frame is not None}


def figures_of(analysis: Analysis) -> dict[str, Figure]:
    """Name -> every figure of the report, in its order."""
    return {figure.name: figure.figure for figure in draw_all(analysis) if isinstance(figure, Plot)}


def _write_page(analysis: Analysis, folder: Path) -> None:
    try:
        write_page(analysis, folder)
    except Exception as error:  # whatever it is, the report is there, and is what was asked for
        path = write_apology(analysis.study.name, folder, error)
        _LOG.exception("The page %s could not be made; the report beside it is whole.", path)


def _emptied(folder: Path, suffixes: tuple[str, ...]) -> Path:
    """The folder, without the files that an earlier report left there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix in suffixes:
            path.unlink()
    return folder
