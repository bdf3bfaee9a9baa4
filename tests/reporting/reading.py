"""How the tests of the report make an analysis from records, and read what was composed, tables and pages."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pypdf import PageObject, PdfReader

from mosld_bench.records.record import Record
from mosld_bench.records.store import Store
from mosld_bench.reporting.analysis import Analysis, analyse
from mosld_bench.reporting.compose import compose
from mosld_bench.reporting.document import Document, Section
from mosld_bench.reporting.figures import draw_all
from mosld_bench.reporting.sections.results import further_results, results
from mosld_bench.reporting.table import Table
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition, Trial
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials, task_configs, write_records

TASKS = task_configs()
MIXTURE = Condition("mixture", Budget.parse("60000"))  # the block of a study made by `make_study`


def analysis_of(
    root: Path, study: Study, trials: list[Trial], tasks: Mapping[str, Mapping[str, Any]] = TASKS
) -> Analysis:
    """The analysis of the records below ``root``/results."""
    return analyse(study, trials, Store(root / "results").sources(study, tasks))


def analysis_with(
    root: Path,
    study: Study,
    records: list[Record],
    tasks: Mapping[str, Mapping[str, Any]] = TASKS,
    *,
    routers: bool = False,
) -> Analysis:
    """The analysis of these records, written below ``root``, in a study that planned no other trial.

    ``routers``: as of `write_records`.
    """
    write_records(root, records, routers=routers)
    return analysis_of(root, study, [record.trial for record in records], tasks)


def document_of(analysis: Analysis) -> Document:
    """The whole report as data, with its figures."""
    return compose(analysis, draw_all(analysis))


def words(part: Document | Section | Table | None) -> str:
    """All text of a part of a report: a paragraph a line, as the template reads it."""
    assert part is not None
    return "\n".join(_lines(part.data()))


def _lines(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    if isinstance(part, dict):
        if "runs" in part:
            return ["".join(run["text"] for run in part["runs"])]
        return [line for value in part.values() for line in _lines(value)]
    return [line for item in part for line in _lines(item)] if isinstance(part, list) else []


def tables_of(section: Section | None) -> dict[str, Table]:
    """Name -> table of a section."""
    assert section is not None
    return {block.name: block for block in section.blocks if isinstance(block, Table)}


def tables_of_results(analysis: Analysis) -> dict[str, Table]:
    """Name -> table of the results, those in the appendix too."""
    further = further_results(analysis)
    return tables_of(results(analysis)) | (tables_of(further) if further else {})


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV by their columns."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pages_of(pdf: Path) -> list[str]:
    """The text of each page, with single spaces."""
    return [" ".join(page.extract_text().split()) for page in PdfReader(pdf).pages]


@dataclass(frozen=True)
class Mark:
    """What a page shows in one place, in points from its lower left corner; ``text`` is empty for what is drawn."""

    left: float
    right: float
    low: float
    high: float
    text: str = ""
    size: float = 0.0  # of the type


MIDDLE = 298  # of a page's width: between its columns
_BOTTOM, _TOP = 57, 785  # of the type area
_BACKGROUND_SIZE = 100  # type from which on it is the word DRAFT behind the text


def marks_of(page: PageObject) -> list[Mark]:
    """Texts and drawn paths within the type area, in the order of the document."""
    marks: list[Mark] = []
    path: list[tuple[float, float]] = []

    def place(m: list[float], x: float, y: float) -> tuple[float, float]:
        return m[0] * x + m[2] * y + m[4], m[1] * x + m[3] * y + m[5]

    def text(words: str, cm: list[float], tm: list[float], font: object, size: float) -> None:
        x, y = place(cm, tm[4], tm[5])
        height = size * max(abs(cm[0]), abs(cm[1]), abs(cm[3]))
        if words.strip() and height < _BACKGROUND_SIZE:
            marks.append(Mark(x, x + 0.45 * height * len(words.strip()), y - 2, y + height, words, height))

    def operand(operator: bytes, operands: list[Any], cm: list[float], tm: list[float]) -> None:
        if operator in {b"m", b"l"}:
            path.append(place(cm, float(operands[0]), float(operands[1])))
        elif operator == b"re":
            x, y, width, height = map(float, operands)
            path.extend((place(cm, x, y), place(cm, x + width, y + height)))
        elif operator in {b"S", b"s", b"f", b"f*", b"B", b"b", b"n"}:
            if path and operator != b"n":
                across, up = [x for x, _ in path], [y for _, y in path]
                marks.append(Mark(min(across), max(across), min(up), max(up)))
            path.clear()

    page.extract_text(visitor_text=text, visitor_operand_before=operand)
    return [mark for mark in marks if mark.high > _BOTTOM and mark.low < _TOP]


def filled(marks: Sequence[Mark], gap: float = 45) -> float:
    """The share of a page's two columns that is text, tables and figures, with spaces of up to ``gap`` points."""
    covered = 0.0
    for left, right in ((49, MIDDLE - 12), (MIDDLE + 12, 547)):
        end = _BOTTOM - gap
        here = [mark for mark in marks if mark.right > left and mark.left < right]
        for low, high in sorted((max(mark.low, _BOTTOM), min(mark.high, _TOP)) for mark in here):
            covered += max(0.0, high - (max(low, _BOTTOM) if low > end + gap else max(end, _BOTTOM)))
            end = max(end, high)
    return covered / (2 * (_TOP - _BOTTOM))


def uneven_study(root: Path) -> tuple[Study, list[Trial]]:
    """LoRA, MoLA and MoSLD with three seeds, two others with one, of which MoE-LoRA happens to be the highest.

    A record of every trial is written below ``root``.
    """
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",))
    scores: dict[str, tuple[float, ...]] = {
        "full": (0.8,),
        "lora": (0.60, 0.61, 0.605),
        "moe-lora": (0.75,),
        "mola": (0.69, 0.72, 0.70),
        "hydralora": (0.5,),
        "mosld": (0.70, 0.71, 0.71),
    }
    recipes = [RECIPES[name] for name in scores]
    trials = [trial for trial in make_trials(study, recipes) if trial.seed < len(scores[trial.recipe.name])]
    values = [dict.fromkeys("abc", scores[trial.recipe.name][trial.seed]) for trial in trials]
    write_records(root, [make_record(trial, study, values=row) for trial, row in zip(trials, values, strict=True)])
    return study, trials


def uneven_analysis(root: Path) -> Analysis:
    """The analysis of `uneven_study`."""
    return analysis_of(root, *uneven_study(root))


def records_of_two_metrics(study: Study) -> list[Record]:
    """LoRA with seeds 0 and 1 on tasks a, b and c: accuracies of 0.5, 0.7 and 0.3, under acc_norm by seed 0.4 and 0.6.

    Under acc_norm task b is 0.1 higher.
    """
    records = []
    for trial, norm in zip(make_trials(study, [RECIPES["lora"]]), (0.4, 0.6), strict=True):
        record = make_record(trial, study, values={"a": 0.5, "b": 0.7, "c": 0.3})
        metrics = [
            m if m.primary else m.model_copy(update={"value": norm + 0.1 * (m.task == "b")}) for m in record.metrics
        ]
        records.append(record.model_copy(update={"metrics": tuple(metrics)}))
    return records
