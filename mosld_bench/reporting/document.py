"""The text of a report as plain data, which `report.typ` sets.

A `Document` has sections, a section has blocks, and text is made of runs, so that no text is ever read as markup.
Every class has a method ``data``: the JSON that the template reads, described beside the class.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from mosld_bench.reporting.table import Table

#: How a run is set; ``ref`` is a reference to the table or figure that the run's text names.
Style = Literal["", "bold", "italic", "mono", "ref"]


@dataclass(frozen=True)
class Run:
    """A stretch of text in one style."""

    text: str
    style: Style = ""

    def data(self) -> dict[str, str]:
        """``text`` and ``style``."""
        return {"text": self.text, "style": self.style}


@dataclass(frozen=True)
class Paragraph:
    """Runs of text set one after the other."""

    runs: tuple[Run, ...]

    def data(self) -> dict[str, Any]:
        """``kind`` "text" and ``runs``."""
        return {"kind": "text", "runs": [run.data() for run in self.runs]}


@dataclass(frozen=True)
class Bullets:
    """A list with one text an item."""

    items: tuple[str, ...]

    def data(self) -> dict[str, Any]:
        """``kind`` "list" and ``items``, each a list of runs."""
        return {"kind": "list", "items": [[Run(item).data()] for item in self.items]}


@dataclass(frozen=True)
class Equation:
    """A displayed equation that the template holds under ``name``."""

    name: str

    def data(self) -> dict[str, Any]:
        """``kind`` "equation" and ``name``."""
        return {"kind": "equation", "name": self.name}


@dataclass(frozen=True)
class Code:
    """Commands to be copied, one a line; a long one goes on in the next line as a shell lets it (`shell_lines`)."""

    lines: tuple[str, ...]

    def data(self) -> dict[str, Any]:
        """``kind`` "code" and ``lines``, none of them longer than a column of the page."""
        return {"kind": "code", "lines": [line for command in self.lines for line in shell_lines(command)]}


CODE_CHARACTERS = 50  # that a line of code in a column of the page has room for

#: A word of a command with its quotes, which may hold spaces; or a quote that is never closed.
_SHELL_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+|\S""")


def shell_lines(command: str, width: int = CODE_CHARACTERS) -> list[str]:
    r"""A command in lines of at most ``width`` characters, all but the last ended by a backslash: pasted, they are it.

    They are broken at spaces that no quotes hold; only a word that is longer than a line is broken itself.

    >>> print("\\n".join(shell_lines("run smollm2 --methods 'a b,c' --seeds 0", width=20)))
    run smollm2 \
      --methods 'a b,c' \
      --seeds 0
    """
    if len(command) <= width:
        return [command]
    lines = [""]
    for word in _SHELL_WORD.findall(command):
        if len(lines[-1]) + len(word) + len("  \\") <= width:
            lines[-1] += f" {word}" if lines[-1] else word
        else:
            first, *others = _broken(word, width - len("  \\"))
            lines = [*lines[:-1], f"{lines[-1]} \\", f"  {first}", *others] if lines != [""] else [first, *others]
    return lines


def _broken(word: str, width: int) -> list[str]:
    """A word of a command in pieces with quotes of their own, all but the last ended by a backslash; at its spaces."""
    if len(word) <= width:
        return [word]
    pieces, rest = [], "".join(shlex.split(word))
    while len(shlex.quote(rest)) > width:
        ends = [end for end in range(1, len(rest)) if len(shlex.quote(rest[:end])) <= width]
        end = max((end for end in ends if rest[end - 1] == " "), default=ends[-1])
        pieces.append(shlex.quote(rest[:end]) + "\\")
        rest = rest[end:]
    return [*pieces, shlex.quote(rest)]


@dataclass(frozen=True)
class FigureBlock:
    """A figure from a file beside the document; ``width`` and ``height`` in inches, ``wide`` over both columns."""

    name: str
    path: str
    caption: str
    wide: bool
    width: float
    height: float

    def data(self) -> dict[str, Any]:
        """``kind`` "figure" and every field."""
        return {"kind": "figure", **vars(self)}


Block = Paragraph | Bullets | Equation | Code | FigureBlock | Table


@dataclass(frozen=True)
class Answer:
    """What the records say to one question of the study; set as an item that begins with the question, in bold."""

    question: str
    runs: tuple[Run, ...]

    def data(self) -> dict[str, Any]:
        """``question`` and ``runs``."""
        return {"question": self.question, "runs": [run.data() for run in self.runs]}


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it; ``appendix``: it stands after the main part, under a letter."""

    title: str
    blocks: tuple[Block, ...]
    appendix: bool = False

    def data(self) -> dict[str, Any]:
        """``title``, ``blocks`` and ``appendix``."""
        return {"title": self.title, "blocks": [block.data() for block in self.blocks], "appendix": self.appendix}


@dataclass(frozen=True)
class Document:
    """A whole report: the study's question and name, the days of its trials, how it opens, and the sections.

    It opens with ``answers``, one a question of the study, and goes on with the sentences of ``summary``. ``draft`` is
    what is stamped on a report that no commit reproduces, ``preliminary`` on one of a study that is still run; None
    where there is nothing to stamp.
    """

    title: str
    study: str
    span: str
    answers: tuple[Answer, ...]
    summary: tuple[str, ...]
    draft: str | None
    sections: tuple[Section, ...]
    preliminary: str | None = None

    @property
    def tables(self) -> list[Table]:
        """Every table, in the order of the sections."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]

    def data(self) -> dict[str, Any]:
        """Every field, lists in place of tuples."""
        answers = [answer.data() for answer in self.answers]
        sections = [section.data() for section in self.sections]
        return {**vars(self), "answers": answers, "summary": list(self.summary), "sections": sections}


def paragraph(*parts: str | Run) -> Paragraph:
    """A paragraph of texts and runs; empty ones are left out."""
    return Paragraph(_runs(parts))


def answer(question: str, *parts: str | Run) -> Answer:
    """An answer of texts and runs; empty ones are left out."""
    return Answer(question, _runs(parts))


def _runs(parts: Iterable[str | Run]) -> tuple[Run, ...]:
    runs = (Run(part) if isinstance(part, str) else part for part in parts)
    return tuple(run for run in runs if run.text)


def bullets(items: Iterable[str]) -> Bullets:
    """A list of the texts."""
    return Bullets(tuple(items))


def section(title: str, *blocks: Block | None, appendix: bool = False) -> Section:
    """A section of the blocks that are there; None stands for one that is not."""
    return Section(title, tuple(block for block in blocks if block is not None), appendix)
