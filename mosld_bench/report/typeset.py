"""The PDF: a document goes to typst as JSON, laid out by `report.typ`; nothing in it is read as markup."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from mosld_bench.errors import BenchError
from mosld_bench.report.document import Document
from mosld_bench.report.figures.plot import Plot

FACE = "Libertinus Serif"  # typst carries it
SIZES = ("9.5", "9.3", "9.1", "8.9", "8.7")  # of the body text, in points
_TEMPLATE = Path(__file__).with_name("report.typ")
_NEARLY_EMPTY = 0.4  # of a page's two columns

# Points, of the sheet that the template lays out.
_MIDDLE, _TOP, _TEXT_HEIGHT = 300, 57, 728


def typeset(document: Document, plots: Sequence[Plot], target: Path, *, date: datetime) -> None:
    """Set the document, dated ``date``, and move the PDF to ``target`` when it is whole.

    ``plots`` are the document's figures. Raises BenchError where typst cannot set it.
    """
    import typst

    with tempfile.TemporaryDirectory(prefix="mosld-report-") as temporary:
        folder = Path(temporary)
        for plot in plots:
            plot.write_svg(folder / f"{plot.name}.svg", FACE)
        text = json.dumps(polished({"face": FACE, **document.data()}), ensure_ascii=False)
        (folder / "report.json").write_text(text, encoding="utf-8", errors="replace")
        shutil.copyfile(_TEMPLATE, folder / "report.typ")
        source, sheet = str(folder / "report.typ"), str(folder / "report.pdf")
        options: dict[str, Any] = {"root": str(folder), "ignore_system_fonts": True}
        try:
            size = body_size(lambda size: _end(source, {**options, "sys_inputs": {"size": size}}))
            options |= {"sys_inputs": {"size": size}, "timestamp": int(date.timestamp())}
            typst.compile(source, output=sheet, **options)
        except typst.TypstError as error:
            raise BenchError(f"typst cannot set the report of study {document.study}: {error}") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(sheet, target)


def polished(part: Any) -> Any:
    """A plain document with its prose polished: numbers keep their unit on the line, and apostrophes are curved.

    What a reader may copy stays as it is to the byte: commands (blocks of code) and runs in the style ``mono``.
    """
    if isinstance(part, str):
        return re.sub(r"(?<=\w)'", "’", part.replace(" %", "\u00a0%").replace(" ± ", "\u00a0±\u00a0"))
    if isinstance(part, list):
        return [polished(item) for item in part]
    if isinstance(part, dict) and part.get("kind") != "code" and part.get("style") != "mono":
        return {key: polished(value) for key, value in part.items()}
    return part


class End(NamedTuple):
    """Where the text ends: on which page, and how much of that page's two columns it fills (0 to 1)."""

    page: int
    filled: float


def body_size(end: Callable[[str], End]) -> str:
    """Size of the body text in points: a little smaller where that saves a nearly empty last page.

    ``end`` tells where the text ends in a size of `SIZES`.
    """
    pages, filled = end(SIZES[0])
    # Where the smallest size saves no page, none does, and setting takes its time.
    if pages > 1 and filled < _NEARLY_EMPTY and end(SIZES[-1]).page < pages:
        for size in SIZES[1:]:
            if end(size).page < pages:
                return size
    return SIZES[0]


def _end(source: str, options: Mapping[str, Any]) -> End:
    import typst

    end = json.loads(typst.query(source, "<end>", field="value", one=True, **options))
    second_column = end["x"] > _MIDDLE
    return End(end["page"], (second_column + (end["y"] - _TOP) / _TEXT_HEIGHT) / 2)
