"""The PDF: a document goes to typst as JSON, laid out by `report.typ`; nothing in it is read as markup."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from mosld_bench.errors import BenchError
from mosld_bench.reporting.document import Document
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.typst_process import Typst, TypstError
from mosld_bench.scratch import scratch_folder

FACE = "Libertinus Serif"  # typst carries it
SIZES = ("9.5", "8.7")  # of the body text, in points; what is smaller goes with it
_TEMPLATE = Path(__file__).with_name("report.typ")
_NEARLY_EMPTY = 0.4  # of a page's two columns
_MOST_TRIALS = 8  # of one sheet

# Points, of the sheet that the template lays out.
_MIDDLE, _TOP, _TEXT_HEIGHT = 300, 57, 728


def typeset(document: Document, plots: Sequence[Plot], target: Path, *, date: datetime) -> None:
    """Set the document, dated ``date``, and move the PDF to ``target`` when it is whole.

    ``plots`` are the document's figures. Raises BenchError where typst cannot set it.
    """
    with scratch_folder() as folder, Typst() as typst:
        for plot in plots:
            plot.write_svg(folder / f"{plot.name}.svg", FACE)
        text = json.dumps(polished({"face": FACE, **document.data()}), ensure_ascii=False)
        (folder / "report.json").write_text(text, encoding="utf-8", errors="replace")
        shutil.copyfile(_TEMPLATE, folder / "report.typ")
        source, sheet = str(folder / "report.typ"), str(folder / "report.pdf")
        options: dict[str, Any] = {"root": str(folder), "ignore_system_fonts": True}
        try:
            size, known = body_size(lambda size, known: _trial(typst, source, options, size, known))
            options |= {"sys_inputs": _inputs(size, known), "timestamp": int(date.timestamp())}
            typst.compile(source, sheet, **options)
        except TypstError as error:
            raise BenchError(f"typst cannot set the report of study {document.study}: {error}") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(sheet, target)


def polished(part: Any) -> Any:
    """A plain document with its prose polished: numbers keep their unit or sign on the line, apostrophes are curved.

    What a reader may copy stays as it is to the byte: commands (blocks of code) and runs in the style ``mono``.
    """
    if isinstance(part, str):
        kept = re.sub(r" (?=[%±])|(?<=[±×]) ", "\u00a0", part)
        return re.sub(r"(?<=\w)'", "’", kept)
    if isinstance(part, list):
        return [polished(item) for item in part]
    if isinstance(part, dict) and part.get("kind") != "code" and part.get("style") != "mono":
        return {key: polished(value) for key, value in part.items()}
    return part


#: What each table in a column does: see ``plan`` in the template.
Plan = Mapping[str, Mapping[str, Any]]


class Sheet(NamedTuple):
    """What setting a document has taught: the tables' plan that would suit it, and their heights in points.

    ``page`` is that on which its text ends, ``filled`` how much of the page's two columns is filled then (0 to 1).
    """

    page: int
    filled: float
    plan: Plan
    heights: Mapping[str, float]


_BLANK = Sheet(0, 0.0, {}, {})


def settled(trial: Callable[[Sheet], Sheet], known: Sheet = _BLANK) -> Sheet:
    """The sheet whose plan is the one that it was set by; ``trial`` sets one by what an earlier one has taught.

    Where plans begin to come again, or `_MOST_TRIALS` are not enough, it is the last sheet with a plan that leaves no
    caption behind: every table is ready to break, and skips a column only where all those plans have it so.
    """
    sheets = [known]
    for _ in range(_MOST_TRIALS):
        sheet = trial(sheets[-1])
        plans = [known.plan for known in sheets]
        if sheet.plan == plans[-1]:
            return sheet
        if sheet.plan in plans:
            sheets = sheets[plans.index(sheet.plan) :]
            break
        sheets.append(sheet)
    skips = {name: min(known.plan.get(name, {}).get("skips", 0) for known in sheets) for name in sheet.plan}
    plan = {name: {**action, "skips": skips[name], "breaks": True} for name, action in sheet.plan.items()}
    return sheet._replace(plan=plan)


def body_size(trial: Callable[[str, Sheet], Sheet]) -> tuple[str, Sheet]:
    """Size of the body text in points, a smaller one where that saves a nearly empty last page, and its settled sheet.

    ``trial`` sets the document in a size of `SIZES` by what an earlier sheet has taught.
    """
    size, smaller = SIZES
    sheet = settled(lambda known: trial(size, known))
    if sheet.page > 1 and sheet.filled < _NEARLY_EMPTY:
        saving = settled(lambda known: trial(smaller, known), sheet._replace(heights={}))
        if saving.page < sheet.page:
            return smaller, saving
    return size, sheet


def _inputs(size: str, known: Sheet) -> dict[str, str]:
    """What the template asks for."""
    return {"size": size, "known": json.dumps({"plan": known.plan, "heights": known.heights})}


def _trial(typst: Typst, source: str, options: Mapping[str, Any], size: str, known: Sheet) -> Sheet:
    inputs = {**_inputs(size, known), "trial": "yes"}
    end = typst.query(source, "<end>", field="value", one=True, sys_inputs=inputs, **options)
    second_column = end["x"] > _MIDDLE
    filled = (second_column + (end["y"] - _TOP) / _TEXT_HEIGHT) / 2
    return Sheet(end["page"], filled, end["plan"], end["heights"])
