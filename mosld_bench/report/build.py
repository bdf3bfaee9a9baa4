"""The report: `mosld-bench report STUDY` turns a study's records into a PDF, tables and figures beside it.

    build_report(study, study.plan(workspace), Store(workspace.results).sources(study, tasks), folder)

Reads nothing but its arguments, runs no model and needs no network: the same records give the same files.
The text goes to typst as one JSON document, laid out by `report.typ`; nothing in it is read as markup.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mosld_bench.errors import BenchError
from mosld_bench.records.store import Sources
from mosld_bench.report.analysis import Analysis, analyse
from mosld_bench.report.document import Document, FigureBlock
from mosld_bench.report.figures import draw_all
from mosld_bench.report.figures.plot import Plot
from mosld_bench.report.sections import body as sections
from mosld_bench.report.sections.summary import summary
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial

FACE = "Libertinus Serif"  # typst carries it
SIZES = ("9.5", "9.3", "9.1", "8.9", "8.7")  # points
_TEMPLATE = Path(__file__).with_name("report.typ")


def build_report(study: Study, trials: Sequence[Trial], sources: Sources, folder: Path) -> Path:
    """Write ``report.pdf``, ``tables/`` and ``figures/`` into ``folder``; the path of the PDF.

    ``trials`` is the study's whole plan, so that what is missing is shown as missing; ``sources`` is what
    `Store.sources` gives. Raises BenchError where no record of the plan's protocol is finished, or where typst cannot
    set the document.
    """
    analysis = analyse(study, trials, sources)
    figures = draw_all(analysis)
    document = compose(analysis, figures)
    table_folder = _fresh(folder / "tables", (".csv", ".tex"))
    for table in document.tables:
        table.write(table_folder)
    drawn = [figure for figure in figures if isinstance(figure, Plot)]
    picture_folder = _fresh(folder / "figures", (".pdf", ".png"))
    for figure in drawn:
        figure.write(picture_folder)
    return _typeset(document, drawn, folder / "report.pdf", _latest(analysis))


def compose(analysis: Analysis, figures: Sequence[Plot | str]) -> Document:
    """The document as plain data: what `report.typ` sets."""
    drawn = [figure for figure in figures if isinstance(figure, Plot)]
    absent = [figure for figure in figures if isinstance(figure, str) and figure]
    results = [(figure.name, figure.shows) for figure in drawn if figure.section == "Results"]
    told = sections.figures_paragraph(results, absent)
    parts = []
    for part in (part for make in sections.SECTIONS if (part := make(analysis))):
        pictures = [_figure(figure) for figure in drawn if figure.section == part.title]
        parts.append(replace(part, blocks=(*part.blocks, *([told] if part.title == "Results" else []), *pictures)))
    return Document(
        title=analysis.study.question,
        study=analysis.study.name,
        span=_dates(analysis),
        summary=tuple(summary(analysis)),
        draft=_draft(analysis),
        sections=tuple(parts),
    )


def _draft(analysis: Analysis) -> str | None:
    """What is stamped on a report that no commit reproduces."""
    parts = [f"{analysis.dirty} of {len(analysis.records)} records"] if analysis.dirty else []
    parts += ["the profile"] if analysis.profile and analysis.profile.meta_info.get("dirty") else []
    if not parts:
        return None
    verb, them = ("comes", "it") if parts == ["the profile"] else ("come", "them")
    tree = "a working tree with uncommitted changes"
    return f"DRAFT: {' and '.join(parts)} {verb} from {tree}; no commit reproduces {them}."


def _figure(plot: Plot) -> FigureBlock:
    width, height = plot.figure.get_size_inches()
    return FigureBlock(plot.name, f"{plot.name}.svg", plot.caption, plot.wide, float(width), float(height))


def _fresh(folder: Path, endings: tuple[str, ...]) -> Path:
    """The folder, without what an earlier report left there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix in endings:
            path.unlink()
    return folder


def _typeset(document: Document, drawn: Sequence[Plot], target: Path, made: datetime) -> Path:
    """Set the document aside and move the PDF to its place when it is whole."""
    import typst

    with tempfile.TemporaryDirectory(prefix="mosld-report-") as temporary:
        aside = Path(temporary)
        for plot in drawn:
            plot.write_svg(aside / f"{plot.name}.svg", FACE)
        plain = polished({"face": FACE, **document.data()})
        (aside / "report.json").write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")
        shutil.copyfile(_TEMPLATE, aside / "report.typ")
        given: dict[str, Any] = {"root": str(aside), "ignore_system_fonts": True}
        source, sheet = str(aside / "report.typ"), str(aside / "report.pdf")
        try:
            size = _body_size(lambda size: _end(source, given | {"sys_inputs": {"size": size}}))
            when = int(made.timestamp())
            typst.compile(source, output=sheet, sys_inputs={"size": size}, timestamp=when, **given)
        except typst.TypstError as error:
            raise BenchError(f"typst cannot set the report of study {document.study}: {error}") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(aside / "report.pdf", target)
    return target


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


def _end(source: str, given: Mapping[str, Any]) -> tuple[int, float]:
    """Page on which the text ends, and how much of that page's two columns it fills (0 to 1)."""
    import typst

    end = json.loads(typst.query(source, "<end>", field="value", one=True, **given))
    second = end["x"] > 300  # points; the middle of the sheet
    return end["page"], (second + (end["y"] - 57) / 728) / 2


def _body_size(end: Callable[[str], tuple[int, float]]) -> str:
    """Size of the body text in points: a little smaller where that saves a nearly empty last page."""
    pages, filled = end(SIZES[0])
    if pages > 1 and filled < 0.4 and end(SIZES[-1])[0] < pages:  # else no size does, and setting takes its time
        for size in SIZES[1:]:
            if end(size)[0] < pages:
                return size
    return SIZES[0]


def _started(analysis: Analysis) -> list[datetime]:
    """When the trials began, in order; what is not a date is left out."""
    found = []
    for record in analysis.records:
        try:
            when = datetime.fromisoformat(str(record.meta_info.get("started")))
        except ValueError:
            continue
        found.append(when if when.tzinfo else when.replace(tzinfo=UTC))
    return sorted(found)


def _latest(analysis: Analysis) -> datetime:
    """The date of the document: that of the last record, so that building it again changes nothing."""
    return max(_started(analysis), default=datetime(2000, 1, 1, tzinfo=UTC))


def _dates(analysis: Analysis) -> str:
    days = [f"{when:%Y-%m-%d}" for when in _started(analysis)]
    return "" if not days else days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
