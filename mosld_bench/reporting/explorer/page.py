"""The page of a study: one HTML file that needs nothing else but the items of a task when these are asked for.

It loads nothing from elsewhere and runs no code but the bundle in `assets/`, which a Content-Security-Policy holds by
its digest. Whatever a study, a recipe or a task is called is text: in the data it cannot end the script element, and
everywhere else it is escaped.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from mosld_bench.format import one_line
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.explorer import PAGE
from mosld_bench.reporting.explorer.data import explorer_data
from mosld_bench.reporting.explorer.items import FOLDER, item_files
from mosld_bench.reporting.explorer.markup import escaped, head
from mosld_bench.reporting.explorer.overview import belongs_to_an_index, write_index, write_overview
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.explorer.plain import encoded
from mosld_bench.reporting.sections.results.main_table import main_tables
from mosld_bench.reporting.table import Cell, Line, Table
from mosld_bench.scratch import replace_file

_ASSETS = "assets"

#: What would end the script or style element that a file is set in.
_ENDS = re.compile(r"</(?=script|style)|<!--", re.IGNORECASE)


def write_page(analysis: Analysis, folder: Path) -> Path:
    """Write ``index.html``, ``items/`` and ``overview.json`` into ``folder``; the path of the page.

    The same records, and the same PDF and tables beside it, give the same bytes. In the folder of a study among all
    reports of a workspace, the page over all of them is written anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items = folder / FOLDER
    shutil.rmtree(items, ignore_errors=True)  # those of an earlier report
    files = list(item_files(analysis, Places.of(analysis)))
    for file in files:
        items.mkdir(exist_ok=True)
        (folder / file.name).write_text(file.text, encoding="utf-8")
    page = folder / PAGE
    replace_file(page, page_text(analysis, explorer_data(analysis, folder, files)).encode())
    write_overview(analysis, folder)
    if belongs_to_an_index(analysis.study.name, folder):
        write_index(folder.resolve().parent)
    return page


def write_apology(study: str, folder: Path, error: Exception) -> Path:
    """Write a page that says why there is none, in the place of one of earlier records; its path."""
    reason = f"{type(error).__name__}: {one_line(str(error))}"
    body = (
        f"<h1>{escaped(study)}</h1>\n<p>This page could not be made ({escaped(reason)}).</p>\n"
        '<p><a href="report.pdf">The report as a PDF</a></p>'
    )
    page = folder / PAGE
    page.write_text(f"{head(study, '')}\n<body>\n{body}\n</body>\n</html>\n", encoding="utf-8")
    return page


def page_text(analysis: Analysis, data: dict[str, Any]) -> str:
    """The page that shows ``data``; a browser that runs no scripts shows the table of results."""
    script, style = _asset("explorer.js"), _asset("explorer.css")
    title = f"{analysis.study.name}: {one_line(analysis.study.question)}"
    return (
        f'{head(title, style, script=script)}\n<body>\n<div id="explorer"></div>\n'
        f"<noscript>\n{_without_scripts(analysis, title)}\n</noscript>\n"
        f'<script type="application/json" id="explorer-data">{encoded(data)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    """A file of the bundle, as it may stand in its element."""
    text = (resources.files(__package__) / _ASSETS / name).read_text(encoding="utf-8")
    return _ENDS.sub(lambda found: f"{found[0][0]}\\{found[0][1:]}", text)


def _without_scripts(analysis: Analysis, title: str) -> str:
    """The heading and the tables of results; of a study that trains nothing, the heading and where the report is."""
    tables = main_tables(analysis) if analysis.study.trains else []
    parts = [f"<h1>{escaped(title)}</h1>", '<p><a href="report.pdf">The report as a PDF</a></p>', *map(_table, tables)]
    return "\n".join(parts)


def _table(table: Table) -> str:
    """A table of the report as HTML, its headings spanning all columns."""
    heads = "".join(f'<th scope="col">{escaped(_heading(c.group, c.title))}</th>' for c in table.columns)
    notes = "".join(f"<p>{escaped(note)}</p>" for note in table.notes)
    lines = "\n".join(_lines(table))
    return (
        f"<table>\n<caption>{escaped(table.caption)}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}\n"
        f"</tbody>\n</table>\n{notes}"
    )


def _heading(group: str, title: str) -> str:
    return f"{group}: {title}" if group else title


def _lines(table: Table) -> Iterator[str]:
    for line in table.rows:
        if len(line.cells) == 1:
            yield f'<tr><th colspan="{len(table.columns)}">{escaped(line.cells[0].text)}</th></tr>'
        else:
            yield _line(line)


def _line(line: Line) -> str:
    first, *others = line.cells
    cells = "".join(f"<td>{escaped(_cell(cell))}</td>" for cell in others)
    return f'<tr><th scope="row">{escaped(_cell(first))}</th>{cells}</tr>'


def _cell(cell: Cell) -> str:
    """'70.7 ± 0.6 †'."""
    return " ".join(filter(None, (cell.text, cell.sd, cell.mark)))
