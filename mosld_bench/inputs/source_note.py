"""Where a fetched folder came from: the note that ``fetch`` leaves beside a model or a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mosld_bench.errors import BenchError

NOTE = "provenance.json"
DATA_SOURCE = "hub:datasets/"  # how the source of a data set begins


def noted(folder: Path) -> dict[str, Any]:
    """What is noted beside a fetched model or data set; empty for a folder that somebody made by hand."""
    file = folder / NOTE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def note(folder: Path, content: dict[str, Any]) -> None:
    """Leave the note in ``folder``: ``source``, ``revision`` and what else is to be known of it."""
    (folder / NOTE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def holds_data(folder: Path) -> bool:
    """Whether ``fetch`` has put a data set there."""
    return str(noted(folder).get("source", "")).startswith(DATA_SOURCE)


def check_revision(folder: Path, revision: str | None, error: type[BenchError]) -> None:
    """Raises ``error`` where the folder is noted to hold another revision than the one asked for; None asks for any.

    What came from a package stands for no revision, and is none that was asked for.
    """
    about = noted(folder)
    if revision is None or not about or about.get("revision") == revision:
        return
    what = f"the revision {about['revision']!r}" if "revision" in about else about.get("source", "no revision")
    raise error(
        f"{folder} holds {what}, but {revision!r} is asked for. Remove the folder, or fetch to another one by --to."
    )
