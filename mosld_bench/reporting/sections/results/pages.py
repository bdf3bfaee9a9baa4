"""Tables of many blocks: what is longer than a page goes on in a further table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mosld_bench.reporting.table import Line, Table

_LONGEST = 34  # rows that fit the largest float of the report


def in_pages(table: Table, blocks: Sequence[Sequence[Line]]) -> list[Table]:
    """The table with the lines of ``blocks``, or several of whole blocks where it would be longer than a page.

    The first has the numbers of all, the last the notes.
    """
    pages: list[list[Line]] = [[]]
    for lines in blocks:
        if pages[-1] and len(pages[-1]) + len(lines) > _LONGEST:
            pages.append([])
        pages[-1] += lines
    tables = [replace(table, rows=tuple(pages[0]), notes=())]
    for i, page in enumerate(pages[1:], start=1):
        caption = "Continued from the table before."
        tables.append(
            replace(tables[0], name=f"{table.name}-continued-{i}", caption=caption, rows=tuple(page), frame=None)
        )
    tables[-1] = replace(tables[-1], notes=table.notes)
    return tables
