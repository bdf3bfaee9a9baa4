"""The table of trials that run and of those that ended last, within the width of a terminal.

A number is never cut. Where not all fits, the frame goes first, then the columns `loss` and `step`; then names lose
what tells least: the digest at their end, and then their middle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich.box import HEAVY_HEAD
from rich.table import Table

_DIGEST = re.compile(r"-[0-9a-f]{8}$")
_NAME = 24  # characters of a name, below which a column is given up for it
_TAIL = 7  # characters at the end of a name, which has the seed there
_OF_NUMBERS = "0123456789.,%±"
_RESULT = 24  # characters of a result that a narrow table has room for


class Line(NamedTuple):
    """A trial as the table shows it; ``ended``: ``state`` is its result, and it has no step and loss."""

    trial: str
    state: str
    step: str = ""
    loss: str = ""
    time: str = ""
    ended: bool = False


#: What goes where not all columns fit, the first of it first.
_GIVEN_UP: tuple[frozenset[str], ...] = (frozenset(), frozenset({"loss"}), frozenset({"loss", "step"}))


def progress_table(title: str, lines: Sequence[Line], width: int) -> Table:
    """``lines`` below ``title``, at most ``width`` characters wide from about 40 on."""
    columns = [name for name in Line._fields if name != "ended"]
    wide = sum(_widest(name, lines) + 3 for name in columns) + 1 <= width
    if wide:
        return _table(title, columns, lines, wide=True)
    result = min(_RESULT, _widest("state", lines))
    for given_up in _GIVEN_UP:
        columns = [name for name in columns if name not in given_up]
        others = sum(_widest(name, lines) + 1 for name in columns if name not in {"trial", "state"})
        room = width - others - result - 2
        if room >= min(_NAME, max((len(_DIGEST.sub("", line.trial)) for line in lines), default=0)):
            break
    room = max(room, 1)
    shortened = [line._replace(trial=short_name(line.trial, room), state=_cut(line.state, result)) for line in lines]
    return _table(title, columns, shortened, wide=False)


def _widest(name: str, lines: Sequence[Line]) -> int:
    return max([len(name), *(len(getattr(line, name)) for line in lines)])


def _table(title: str, columns: Sequence[str], lines: Sequence[Line], *, wide: bool) -> Table:
    table = Table(
        title=title, box=HEAVY_HEAD if wide else None, padding=(0, 1) if wide else (0, 1, 0, 0), title_justify="left"
    )
    for name in columns:
        table.add_column(name, justify="left" if name in {"trial", "state"} else "right", no_wrap=True)
    for line in lines:
        table.add_row(*(getattr(line, name) for name in columns), style="dim" if line.ended else None)
    return table


def short_name(trial: str, room: int) -> str:
    """The id of a trial in at most ``room`` characters: without its digest, then without its middle.

    >>> short_name("hydralora-mixture-lora-r32-s0-fc38e68d", 26)
    'hydralora-mixture-…-r32-s0'
    """
    if len(trial) <= room:
        return trial
    name = _DIGEST.sub("", trial)
    if len(name) <= room:
        return name
    tail = name[-min(_TAIL, room // 2) :]
    return f"{name[: max(0, room - len(tail) - 1)]}…{tail}"[:room]


def _cut(text: str, room: int) -> str:
    """The beginning of ``text`` that fits, then an ellipsis: a number in it is whole, or is not there."""
    if len(text) <= room:
        return text
    kept = text[: room - 1]
    if text[room - 1] in _OF_NUMBERS:
        kept = kept.rstrip(_OF_NUMBERS)
    return f"{kept.rstrip(' ,;:')}…"
