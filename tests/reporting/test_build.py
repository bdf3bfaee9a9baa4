"""The report as files: which there are, what their pages hold, and that the same records give the same bytes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mosld_bench.reporting
from mosld_bench.records.store import Store
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.build import build_report, write_report
from mosld_bench.reporting.compose import compose, latest_start
from mosld_bench.reporting.document import Document, FigureBlock
from mosld_bench.reporting.explorer.study import study_data
from mosld_bench.reporting.figures import draw_all
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.table import Table, latex, tex_text
from mosld_bench.reporting.typeset import typeset
from mosld_bench.spec.recipe import Recipe
from tests.reporting.conftest import FullReport
from tests.reporting.reading import TASKS, analysis_of, analysis_with, pages_of, read_csv
from tests.support.synthetic import (
    IN_DOMAIN,
    RECIPES,
    make_record,
    make_records,
    make_study,
    make_trials,
    write_records,
)


def typeset_pages(analysis: Analysis, folder: Path) -> tuple[Document, list[str]]:
    """The analysis' report as a document and as the text of its pages, without writing its tables and figures."""
    figures = draw_all(analysis)
    plots = [figure for figure in figures if isinstance(figure, Plot)]
    document, pdf = compose(analysis, figures), folder / "report.pdf"
    typeset(document, plots, pdf, date=latest_start(analysis))
    return document, pages_of(pdf)


def table_of(document: Document, name: str) -> Table:
    """The document's table of that name."""
    (table,) = [table for table in document.tables if table.name == name]
    return table


def test_files(full: FullReport) -> None:
    figures = {path.stem for path in (full.folder / "figures").glob("*.pdf")}
    assert figures == {"size", "tasks-by-method", "difference", "settings", "training", "fronts"}
    assert {path.stem for path in (full.folder / "figures").glob("*.png")} == figures
    names = {path.stem for path in (full.folder / "tables").glob("*.csv")}
    assert names >= {"main", "differences", "cost", "pareto", "audit", "methods", "tasks", "exposure"}
    beside = {"index.html", "overview.json"}
    assert {path.name for path in full.folder.iterdir()} == {"report.pdf", "tables", "figures", *beside}
    assert (full.folder / "index.html").stat().st_size < 3e6, "of 316 trials"


def test_pages_hold_the_numbers(full: FullReport) -> None:
    text = "\n".join(full.pages)
    for row in read_csv(full.folder / "tables" / "main.csv"):
        for column in ("in_domain_mean", "out_of_domain_mean", *IN_DOMAIN):
            if row[column]:
                value = 100 * float(row[column])  # six digits: a half may be rounded either way
                assert f"{value - 1e-4:.1f}" in text or f"{value + 1e-4:.1f}" in text
        assert f"{int(row['trainable_parameters']):,}" in text
    for title in ("MoE-LoRA", "HydraLoRA", "Full fine-tuning", "Frozen base", "Chance", "Provenance"):
        assert title in text
    assert "3 of 316 trials have no record" in text
    assert "DRAFT" not in text


def test_each_figure_stands_in_the_section_that_it_names(full: FullReport) -> None:
    figures = draw_all(full.analysis)
    document = compose(full.analysis, figures)
    sections = {
        block.name: section.title
        for section in document.sections
        for block in section.blocks
        if isinstance(block, FigureBlock)
    }
    assert sections == {figure.name: figure.section for figure in figures if isinstance(figure, Plot)}


def test_dirty_is_a_draft_on_every_page(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, recipes=("base", "lora", "mosld"), seeds=(0,), dirty=True)
    analysis = analysis_of(tmp_path, study, trials)
    document, pages = typeset_pages(analysis, tmp_path)
    assert document.draft is not None
    assert "3 of 3 records" in document.draft
    assert "uncommitted changes" in document.draft
    answers = ["".join(run.text for run in answer.runs) for answer in document.answers]
    assert any("With one seed nothing is said of methods" in text or "one seed" in text.lower() for text in answers)
    assert all("DRAFT" in page and "uncommitted changes" in page for page in pages)


def test_a_report_of_a_study_that_still_runs_says_so_on_every_page(tmp_path: Path) -> None:
    study = make_study(seeds=(0, 1))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    done = [make_record(trial, study, dirty=True) for trial in trials if trial.seed == 0]
    write_records(tmp_path, done)
    whole = analysis_of(tmp_path, study, trials)
    assert compose(whole, []).preliminary is None, "that trials are missing is no sign that they are still to be run"
    document, pages = typeset_pages(replace(whole, preliminary=True), tmp_path)
    told = f"PRELIMINARY: {len(done)} of {len(trials)} trials have a record"
    assert document.preliminary is not None
    assert document.preliminary.startswith(told)
    assert all(told in " ".join(page.split()) and "DRAFT:" in page for page in pages)
    stamps = study_data(replace(whole, preliminary=True))["draft"]
    assert stamps.startswith(told), "the page says it too"
    assert "DRAFT:" in stamps


def test_names_survive(tmp_path: Path) -> None:
    odd = r"A_b #1 $x$ & *bold* @see <tag> 50% \n ~^{}"
    recipe = Recipe(
        name="odd",
        title=odd,
        method="mixture",
        about=odd,
        params={"r": 8, "share": odd, "target_modules": [odd]},
        deviations=(odd,),
    )
    study = make_study(
        in_domain=("task_a#", "t$b"),
        out_of_domain=("*c*",),
        question=odd,
        about=odd,
        settings=("mixture", "single"),
    )
    records = [make_record(trial, study) for trial in make_trials(study, [recipe, RECIPES["lora"]])]
    tasks: dict[str, dict[str, Any]] = {
        "t$b": {"metadata": {"title": "B & <b>", "kind": "q_a"}},
        "*c*": {"metadata": None},
    }
    analysis = analysis_with(tmp_path, study, records, tasks)
    document, pages = typeset_pages(analysis, tmp_path)
    text = "".join(pages).replace(" ", "")
    for part in (odd, "task_a#", "B&<b>", "*c*"):
        assert part.replace(" ", "") in text
    tex = latex(table_of(document, "main"))
    assert r"task\_a\#" in tex
    assert r"A\_b \#1 \$x\$ \& *bold*" in tex
    assert tex_text(odd) in tex


def test_same_records_same_files(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, recipes=("base", "lora", "mosld"), seeds=(0, 1))
    sources, folder = Store(tmp_path / "results").sources(study, TASKS), tmp_path / "out"
    assert build_report(study, trials, sources, folder) == folder / "report.pdf"
    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "figures" / "stale.pdf").write_bytes(b"")
    write_report(analysis_of(tmp_path, study, trials), folder)
    assert first == {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_many_tasks_and_recipes(tmp_path: Path) -> None:
    names = tuple(f"task_{i:02d}" for i in range(26))
    extra = [RECIPES["mosld"].model_copy(update={"name": f"mosld-{i}", "title": f"MoSLD {i}"}) for i in range(15)]
    study = make_study(in_domain=names[:20], out_of_domain=names[20:], seeds=(0, 1), budgets=("60000", "120000"))
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES["lora"], *extra])]
    analysis = analysis_with(tmp_path, study, records, {})
    document, pages = typeset_pages(analysis, tmp_path)
    text = "\n".join(pages)
    assert "task_25" in text
    assert "MoSLD 14" in text
    numbers = table_of(document, "main").frame
    assert numbers is not None
    assert len(numbers) == 32


def test_the_door_is_light() -> None:
    code = (
        "import sys, mosld_bench.reporting\n"
        "heavy = {'torch', 'ray', 'transformers', 'peft', 'lm_eval', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert not {'matplotlib', 'pandas', 'typst'} & set(sys.modules)\n"
        "import mosld_bench.reporting.build\n"
        "heavy = {'torch', 'ray', 'transformers', 'peft', 'lm_eval', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    for name in mosld_bench.reporting.__all__:
        assert getattr(mosld_bench.reporting, name).__name__ == name
