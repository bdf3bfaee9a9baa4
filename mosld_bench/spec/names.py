"""Names of tasks and studies: which there may be, and how one becomes a part of a path.

A file system takes 255 bytes a part of a path, and takes ``/`` and ``..`` for something else.
"""

from __future__ import annotations

import re

#: Longest name of a task, in characters, and of a recipe or study, in bytes.
MAX_TASK_NAME, MAX_NAME = 200, 100

_STUDY = re.compile(r"\w[\w .+-]*(?<![ .])")


def path_part(text: str, most: int = 60) -> str:
    """``text`` as a piece of a file's name: other characters than letters of ASCII, digits and ``._+-`` become ``_``.

    Cut at ``most`` characters. Unequal texts may come out equal: what tells them apart has to stand beside it.

    >>> path_part("mine/kinds"), path_part("../out of here")
    ('mine_kinds', '.._out_of_here')
    """
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text)[:most]


def problem_of_task(name: str) -> str | None:
    """Why a task cannot be called ``name``, to go on from "The name of a task"; None where it can."""
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > MAX_TASK_NAME:
        return f"is one line of 1 to {MAX_TASK_NAME} printable characters, without space around it"
    return None


def problem_of_study(name: str) -> str | None:
    """Why a study cannot be called ``name``, to go on from "The name of a study"; None where it can."""
    if name == "published":
        return "is not 'published': results/published holds the tables of papers"
    if not _STUDY.fullmatch(name) or len(name.encode(errors="replace")) > MAX_NAME:
        return (
            f"is that of a folder: letters, digits, space and ._+-, first a letter or digit, at most {MAX_NAME} bytes"
        )
    return None
