"""The parts of a report's text as plain data, which `report.typ` sets.

A section is ``{"title", "blocks"}``; a block is a paragraph, a list, an equation (by name), a table, a
figure or code. A paragraph is a list of runs, each ``{"text", "style"}``, so that no text is ever read as
markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mosld_bench.format import counted
from mosld_bench.report.table import Table

Block = dict[str, Any] | Table

Section = dict[str, Any]


def run(text: str, style: str = "") -> dict[str, str]:
    """A stretch of text; ``style`` is empty, bold, italic, mono or ref (to the table or figure named)."""
    return {"text": text, "style": style}


def paragraph(*runs: str | dict[str, str]) -> dict[str, Any]:
    return {
        "kind": "text",
        "runs": [run(part) if isinstance(part, str) else part for part in runs if _text(part)],
    }


def _text(part: str | dict[str, str]) -> str:
    return part if isinstance(part, str) else part["text"]


def bullets(items: Iterable[str]) -> Block:
    return {"kind": "list", "items": [[run(item)] for item in items]}


def section(title: str, *blocks: Block | None) -> Section:
    return {"title": title, "blocks": [block for block in blocks if block is not None]}


def machine(hardware: Any, each: str = " a trial") -> str:
    """The hardware of a record (provenance.hardware) in words; ``each``: what has so many threads."""
    if not isinstance(hardware, dict):
        return "unrecorded hardware"
    memory = hardware.get("memory_bytes")
    parts = [
        str(hardware["gpu"]) if hardware.get("gpu") else "",
        str(hardware.get("cpu") or "an unnamed CPU"),
        f"{hardware['cores']} cores" if hardware.get("cores") else "",
        f"{counted(hardware['threads'], 'thread')}{each}" if hardware.get("threads") else "",
        f"{memory / 2**30:.0f} GiB" if memory else "",
    ]
    return ", ".join(part for part in parts if part)
