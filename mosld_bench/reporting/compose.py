"""The report as a document: the summary, the sections in their order, and each figure in the section that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from mosld_bench.format import one_line
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Answer, Document, FigureBlock, Paragraph, Run, Section, paragraph
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.sections import SECTIONS
from mosld_bench.reporting.sections.summary import summary

_RESULTS = "Results"  # title of the section that says what its figures show, and why others are not there


def compose(analysis: Analysis, figures: Sequence[Plot | str]) -> Document:
    """The document as plain data. A figure that is a text is the sentence that stands in its place.

    What `summary` gives as an `Answer` opens the report; its sentences follow.
    """
    plots = [figure for figure in figures if isinstance(figure, Plot)]
    absent = [figure for figure in figures if isinstance(figure, str) and figure]
    sections = [section for make in SECTIONS if (section := make(analysis))]
    opening: Sequence[Answer | str] = summary(analysis)
    return Document(
        title=one_line(analysis.study.question),
        study=analysis.study.name,
        span=days(analysis),
        answers=tuple(part for part in opening if isinstance(part, Answer)),
        summary=tuple(part for part in opening if isinstance(part, str)),
        draft=draft(analysis),
        preliminary=preliminary(analysis),
        sections=tuple(_with_figures(section, plots, absent) for section in sections),
    )


def _with_figures(section: Section, plots: Sequence[Plot], absent: Sequence[str]) -> Section:
    """The section with its figures after its first block or at its end; but the results open with their first."""
    plots = [plot for plot in plots if plot.section == section.title]
    figures = [_figure(plot) for plot in plots]
    if section.title != _RESULTS:
        early = [figure for figure, plot in zip(figures, plots, strict=True) if plot.early]
        late = [figure for figure in figures if figure not in early]
        return replace(section, blocks=(*section.blocks[:1], *early, *section.blocks[1:], *late))
    text = [_figures_paragraph(plots, absent)] if plots or absent else []
    return replace(section, blocks=(*figures[:1], *section.blocks, *text, *figures[1:]))


def _figures_paragraph(plots: Sequence[Plot], absent: Sequence[str]) -> Paragraph:
    """What each figure shows, and why others are not there."""
    runs: list[str | Run] = [Run("Figures. ", "bold")]
    for i, plot in enumerate(plots):
        runs += ["; " if i else "", Run(plot.name, "ref"), f" shows {plot.shows}"]
    return paragraph(*runs, ". " if plots else "", " ".join(absent))


def _figure(plot: Plot) -> FigureBlock:
    width, height = plot.figure.get_size_inches()
    return FigureBlock(plot.name, f"{plot.name}.svg", plot.caption, plot.wide, float(width), float(height))


def preliminary(analysis: Analysis) -> str | None:
    """What is stamped on a report of a study that is still run; None where it is not."""
    if not analysis.preliminary:
        return None
    count, done = len(analysis.trials), len(analysis.trials) - len(analysis.missing)
    return f"PRELIMINARY: {done} of {count} trials have a record; the others may change what is said here."


def draft(analysis: Analysis) -> str | None:
    """What is stamped on a report that no commit reproduces; None where there is nothing to stamp."""
    parts = [f"{analysis.dirty} of {len(analysis.records)} records"] if analysis.dirty else []
    parts += ["the profile"] if analysis.profile and analysis.profile.meta_info.get("dirty") else []
    if not parts:
        return None
    verb, them = ("comes", "it") if parts == ["the profile"] else ("come", "them")
    tree = "a working tree with uncommitted changes"
    return f"DRAFT: {' and '.join(parts)} {verb} from {tree}; no commit reproduces {them}."


def latest_start(analysis: Analysis) -> datetime:
    """When the last trial began: the date of the report, so that building it again changes nothing."""
    return max(_starts(analysis), default=datetime(2000, 1, 1, tzinfo=UTC))


def days(analysis: Analysis) -> str:
    """The days on which the first and the last trial began; empty where none is known."""
    days = [f"{start:%Y-%m-%d}" for start in _starts(analysis)]
    return "" if not days else days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _starts(analysis: Analysis) -> list[datetime]:
    """When the trials began, in order; what is not a date is left out."""
    starts = []
    for record in analysis.records:
        try:
            start = datetime.fromisoformat(str(record.meta_info.get("started")))
        except ValueError:
            continue
        starts.append(start if start.tzinfo else start.replace(tzinfo=UTC))
    return sorted(starts)
