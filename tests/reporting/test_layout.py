"""The pages of a report as they are set: tables with their captions, full pages, headings, the appendix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from matplotlib.text import Text
from pypdf import PdfReader

from mosld_bench.reporting.build import write_report
from mosld_bench.reporting.document import Document, paragraph, section
from mosld_bench.reporting.figures import draw_all
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.table import Column, Line, Table
from mosld_bench.reporting.typeset import typeset
from tests.reporting.conftest import FullReport
from tests.reporting.reading import MIDDLE, Mark, analysis_with, document_of, filled, marks_of
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials


@cache
def texts_of(folder: Path) -> list[str]:
    """The text of each page, in lines."""
    return [page.extract_text() for page in PdfReader(folder / "report.pdf").pages]


@cache
def pages(folder: Path) -> list[list[Mark]]:
    """What each page shows."""
    return [marks_of(page) for page in PdfReader(folder / "report.pdf").pages]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> FullReport:
    """A report with many tasks of long names, many recipes, each with routers and long deviations, and one seed."""
    root = tmp_path_factory.mktemp("long")
    names = tuple(f"a_task_with_a_long_name_{i}" for i in range(9))
    recipes = [
        RECIPES["mosld"].model_copy(
            update={
                "name": f"mosld-{i}",
                "title": f"MoSLD {i}",
                "deviations": tuple(f"The paper does not give number {j} of recipe {i}. " * 5 for j in range(3)),
            }
        )
        for i in range(14)
    ]
    study = make_study(in_domain=names[:6], out_of_domain=names[6:], seeds=(0,), about="What the study is about. " * 30)
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES["lora"], *recipes])]
    analysis = analysis_with(root, study, records, {}, routers=True)
    return FullReport(write_report(analysis, root / "out").parent, analysis, [])


@pytest.fixture(params=["full", "long"])
def report(request: pytest.FixtureRequest) -> FullReport:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, FullReport)
    return found


def letters(text: str) -> str:
    """A text without spaces and hyphens, which a line may have been broken at, and with plain apostrophes."""
    return re.sub(r"[\s‐\-]", "", text).replace("’", "'")


def headers(document: Document) -> dict[str, list[Table]]:
    """The header of a table, as it is extracted -> the tables that have it."""
    found: dict[str, list[Table]] = {}
    for table in document.tables:
        groups = dict.fromkeys(column.group for column in table.columns if column.group)
        found.setdefault(letters("".join([*groups, *(column.title for column in table.columns)])), []).append(table)
    return found


def test_no_table_stands_apart_from_its_caption(report: FullReport) -> None:
    """Before every header, in the order of the text, is the table's caption, or that it is continued."""
    texts = list(map(letters, texts_of(report.folder)))
    for header, tables in headers(document_of(report.analysis)).items():
        ends = tuple(letters(table.caption) for table in tables)
        places = [text[: match.start()] for text in texts for match in re.finditer(re.escape(header), text)]
        assert sum(before.endswith(ends) for before in places) == len(tables), header
        for before in places:
            assert before.endswith(ends) or re.search(r"Table\d+,continued\.$", before), (header, before[-200:])


def test_a_table_longer_than_a_column_goes_on_in_the_next(long: FullReport) -> None:
    text = " ".join(" ".join(texts_of(long.folder)).split())
    (number,) = re.findall(r"Table (\d+)\. Deviations of the recipes", text)
    assert f"Table {number}, continued. No. Deviation" in text


def test_no_figure_stands_apart_from_its_caption(report: FullReport) -> None:
    texts = list(map(letters, texts_of(report.folder)))
    plots = [figure for figure in draw_all(report.analysis) if isinstance(figure, Plot)]
    assert plots
    for plot in plots:
        labels = {letters(text.get_text()) for text in plot.figure.findobj(Text) if text.get_visible()}
        (page,) = [text for text in texts if re.search(rf"Figure\d+\.{re.escape(letters(plot.caption)[:60])}", text)]
        words = [label for label in labels if len(label) > 4 and label.isalnum()]
        assert words
        assert all(word in page for word in words)


def test_no_page_but_the_last_is_left_half_empty(report: FullReport) -> None:
    shares = [filled(page) for page in pages(report.folder)]
    assert min(shares[:-1]) > 0.6
    assert shares[-1] > 0.05


def columns(page: Sequence[Mark]) -> Iterator[list[Mark]]:
    """The texts of each column of a page."""
    texts = [mark for mark in page if mark.text]
    yield [mark for mark in texts if mark.left < MIDDLE]
    yield [mark for mark in texts if mark.left > MIDDLE]


HEADING = 11.5  # points of its type


def test_below_every_heading_is_text_of_its_column(report: FullReport) -> None:
    found = []
    for page in pages(report.folder):
        for column in columns(page):
            for heading in (mark for mark in column if mark.size == pytest.approx(HEADING)):
                found.append(heading.text.strip())
                assert any(mark.high < heading.low and mark.size < HEADING for mark in column), heading
    titles = [section.title for section in document_of(report.analysis).sections]
    assert [text for text in found if text in titles] == titles


def test_nothing_stands_out_of_the_type_area(report: FullReport) -> None:
    for page in pages(report.folder):
        for mark in page:
            if mark.text and not mark.text.strip().isdigit():
                assert mark.low > 50, mark


def test_the_appendix_is_lettered_and_follows_the_main_part(full: FullReport) -> None:
    sections = document_of(full.analysis).sections
    appendix = [section.appendix for section in sections]
    assert appendix == sorted(appendix)
    titles = {flag: [section.title for section in sections if section.appendix is flag] for flag in (False, True)}
    assert titles[False][0] == "Results"
    assert {"Methods", "Deviations", "Protocol", "Budget audit", "Provenance"} <= set(titles[True])
    lines = [" ".join(line.split()) for text in texts_of(full.folder) for line in text.splitlines()]
    assert "Appendix" in lines
    numbers = [f"{i + 1} {title}" for i, title in enumerate(titles[False])]
    numbers += [f"{chr(ord('A') + i)} {title}" for i, title in enumerate(titles[True])]
    assert [line for line in lines if line in numbers] == numbers


def test_the_report_opens_with_its_question_and_answers(full: FullReport) -> None:
    document = document_of(full.analysis)
    first = document.answers[0]
    opening = letters(f"Summary• {first.question}{''.join(run.text for run in first.runs)}")
    text = letters(texts_of(full.folder)[0])
    assert text.startswith(letters(document.title))
    assert opening[:60] in text
    assert text.index(opening[:60]) < min(text.index(word) for word in ("Table", "Figure", "1Results") if word in text)


@pytest.mark.parametrize("sentences", [3, 90])
def test_what_spans_both_columns_never_stands_above_the_summary(sentences: int, tmp_path: Path) -> None:
    table = Table("t", "A wide table.", (Column("Left"), Column("Right")), (Line.of("1", "2"),), None, wide=True)
    summary = tuple(f"Sentence {i} of a summary that goes on." for i in range(sentences))
    document = Document("Title", "s", "", (), summary, None, (section("One", paragraph("Text."), table),))
    typeset(document, [], tmp_path / "s.pdf", date=datetime(2026, 1, 1, tzinfo=UTC))
    marks = [mark for mark in marks_of(PdfReader(tmp_path / "s.pdf").pages[0]) if mark.text]
    last = min(mark.low for mark in marks if "summary that goes" in mark.text)
    (caption,) = [mark for mark in marks if "A wide table" in mark.text]
    assert caption.high < last
