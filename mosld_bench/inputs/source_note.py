"""Where a fetched folder came from: the note that ``fetch`` leaves beside a model or a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mosld_bench.errors import BadFileError, BenchError
from mosld_bench.spec.model_folder import NOTE as NOTE
from mosld_bench.spec.plain_file import read_json_mapping

_MAX_BYTES = 1 << 20

DATA_SOURCE = "hub:datasets/"  # how the source of a data set begins


def read_note(folder: Path) -> dict[str, Any]:
    """The note in the folder of a fetched model or data set; empty for a folder that somebody made by hand.

    Raises BadFileError for a note that says nothing of where it is from in words.
    """
    file = folder / NOTE
    if not file.is_file():
        return {}
    content = read_json_mapping(file, most_bytes=_MAX_BYTES)
    for key in ("source", "revision", "sha256", "note"):
        if not isinstance(content.get(key, ""), str):
            raise BadFileError(f"{file}, {key}: must be a text. Correct it, or remove the file.")
    return content


def write_note(folder: Path, content: dict[str, Any]) -> None:
    """Leave a note in ``folder``: its ``source``, ``revision``, and whatever else belongs to where it came from."""
    (folder / NOTE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def holds_data(folder: Path) -> bool:
    """Whether ``fetch`` has put a data set there."""
    return str(read_note(folder).get("source", "")).startswith(DATA_SOURCE)


def check_revision(folder: Path, revision: str | None, error: type[BenchError]) -> None:
    """Raises ``error`` where the folder is noted to hold another revision than the one asked for; None asks for any.

    What came from a package stands for no revision, and is none that was asked for.
    """
    content = read_note(folder)
    if revision is None or not content or content.get("revision") == revision:
        return
    held = f"the revision {content['revision']!r}" if "revision" in content else content.get("source", "no revision")
    raise error(
        f"{folder} holds {held}, but {revision!r} is asked for. Remove the folder, or fetch to another one by --to."
    )
