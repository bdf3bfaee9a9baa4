"""What a notebook shows of a result: the tables of the terminal as HTML. Every text is data, and is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def table(content: Table) -> str:
    """A table of the terminal with the same cells, its title and the notes below it."""
    columns = [(str(column.header), list(map(str, column.cells)), column.justify) for column in content.columns]
    head = "".join(f"<th{_align(justify)}>{_lines(title)}</th>" for title, _, justify in columns)
    rows = "".join(
        f"<tr>{''.join(f'<td{_align(justify)}>{_lines(cells[i])}</td>' for _, cells, justify in columns)}</tr>"
        for i in range(len(columns[0][1]) if columns else 0)
    )
    title = f"<caption>{_lines(str(content.title))}</caption>" if content.title else ""
    notes = paragraph(str(content.caption)) if content.caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{notes}"


def heading(text: str) -> str:
    """A heading, smaller than those of a notebook."""
    return f"<h4>{escape(text)}</h4>"


def paragraph(text: str) -> str:
    """A paragraph with the text's own lines."""
    return f"<p>{_lines(text)}</p>"


def bullets(texts: Iterable[str]) -> str:
    """A list; nothing where there is no text."""
    items = "".join(f"<li>{_lines(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def whole(*parts: str) -> str:
    """The parts as one piece."""
    return f"<div>{''.join(parts)}</div>"


def _align(justify: str) -> str:
    return f' style="text-align: {"right" if justify == "right" else "left"}"'


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")
