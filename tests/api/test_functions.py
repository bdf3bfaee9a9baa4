"""The functions for notebooks: the same numbers, files and sentences as the commands, as objects."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from mosld_bench import BenchError, Comparison, Report, Study, compare, load, pipeline, plan, report, run
from mosld_bench.api import html
from mosld_bench.records.record import Outcome
from mosld_bench.reporting import Analysis
from mosld_bench.scheduling import ProgressDisplay, progress
from mosld_bench.spec.trial import Trial
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.execute import execute, failed
from tests.conftest import REPOSITORY, bench

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_template: Path) -> tuple[Path, Report, str]:
    """A study of the tiny workspace that was run by `run`: the workspace, the report, and what was printed."""
    import shutil
    from contextlib import redirect_stdout

    from tests.conftest import STUDY

    root = tmp_path_factory.mktemp("api") / "root"
    shutil.copytree(tiny_template, root)
    (root / "reports" / "tiny" / "study.yaml").write_text(STUDY.format(model=root / "model"))
    printed = io.StringIO()
    with redirect_stdout(printed):
        made = run(Study.of("tiny", root=root, seeds=[0, 1], figures=["size"]), root=root, executor="inline")
    return root, made, printed.getvalue()


def test_a_run_returns_its_report(ran: tuple[Path, Report, str]) -> None:
    root, made, printed = ran
    assert made.pdf == root / "reports" / "tiny" / "report.pdf"
    assert "tiny: 5 trials, 0 recorded, 5 to run" in printed
    assert (made.missing, made.failures) == ([], {})
    assert made.answers
    assert len(made.frame) == len(load(root / "results", "tiny")) == len(load(str(root / "results")))
    (command,) = {record.meta_info["command"] for record in made.frame.record}
    assert command == "mosld_bench.run('tiny')"


def test_tables_are_those_of_the_files(ran: tuple[Path, Report, str]) -> None:
    _, made, _ = ran
    files = {path.stem: path for path in (made.folder / "tables").glob("*.csv")}
    assert made.tables.keys() == files.keys()
    for name, path in files.items():
        text = made.tables[name].to_csv(index=False, float_format="%.9g", lineterminator="\n")
        assert text == path.read_text(encoding="utf-8"), name


def test_figures_are_those_of_the_files(ran: tuple[Path, Report, str]) -> None:
    _, made, _ = ran
    assert made.figures.keys() == {path.stem for path in (made.folder / "figures").glob("*.pdf")}
    assert all(isinstance(figure, Figure) and figure.axes for figure in made.figures.values())


def test_a_notebook_shows_the_answers_and_the_table_of_results(ran: tuple[Path, Report, str]) -> None:
    _, made, _ = ran
    shown = made._repr_html_()
    assert all(answer.split()[0] in shown for answer in made.answers)
    for recipe in ("base", "lora", "mosld"):
        assert f">{recipe}</td>" in shown
    assert "5 trials" in repr(made)


def test_a_report_is_written_as_the_command_writes_it_or_not_at_all(
    ran: tuple[Path, Report, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, made, _ = ran
    written: list[tuple[Analysis, Path]] = []
    monkeypatch.setattr(pipeline, "write", lambda *words: written.append(words))
    read = report(made.study, root=root, to=tmp_path / "read", write=False)
    assert read.pdf is read.page is None
    pd.testing.assert_frame_equal(read.tables["main"], made.tables["main"])
    assert written == []
    report(made.study, root=root, to=str(tmp_path / "written"))
    pipeline.report(made.study, Workspace(root, root), to=tmp_path / "command")
    (ours, folder), (theirs, other) = written
    assert (folder.name, other.name) == ("written", "command")
    assert [row.records for row in ours.rows] == [row.records for row in theirs.rows]
    (tmp_path / "written").mkdir()
    (tmp_path / "written" / "index.html").touch()
    assert report(made.study, root=root, to=tmp_path / "written").page == tmp_path / "written" / "index.html"


def test_a_plan_has_the_rows_of_the_command(ran: tuple[Path, Report, str]) -> None:
    root, _, _ = ran
    made = plan("tiny", root=root)
    done = bench("plan", "tiny", "--json", "--root", str(root))
    rows = json.loads(done.stdout)["trials"]
    assert json.loads(json.dumps(made.plan.rows())) == rows
    assert list(made.frame.columns) == list(rows[0])
    assert list(made.frame.trainable) == [row["trainable"] for row in rows]
    assert len(made) == len(made.frame) == 3
    shown = made._repr_html_()
    assert all(f">{name}</td>" in shown for name in made.frame.recipe)


def test_a_comparison_has_the_numbers_and_sentences_of_the_command(ran: tuple[Path, Report, str]) -> None:
    root, made, _ = ran
    found = compare("lora", "mosld", study=str(root / "results" / "tiny"), root=root)
    assert isinstance(found, Comparison)
    words = ("compare", "lora", "mosld", "--study", str(root / "results" / "tiny"), "--root", str(root))
    content = json.loads(bench(*words, "--json").stdout)
    scores = [score for pair in content["pairs"] for score in pair["scores"]]
    for key in ("of", "metric", "difference", "low", "adjusted_p", "verdict"):
        assert [None if pd.isna(value) else value for value in found.frame[key]] == [score[key] for score in scores]
    assert set(found.frame.a_recipe) == {"lora"}
    assert len(found.items) == len(content["items"])
    printed = bench(*words).stdout
    assert found.sentences
    assert all(sentence in printed for sentence in found.sentences)
    again = compare("lora", "mosld", study=made.study, root=root, metrics="primary")
    assert set(again.frame.primary) == {True}
    assert "A − B" in found._repr_html_()


def test_what_is_wrong_is_an_error_of_the_package(tiny: Path) -> None:
    with pytest.raises(BenchError, match="no value of executor named 'inlin'"):
        run("tiny", root=tiny, executor="inlin")  # type: ignore[arg-type]
    with pytest.raises(BenchError, match="no study named 'tinny'"):
        plan("tinny", root=tiny)
    with pytest.raises(BenchError, match="no finished trial of the study 'tiny'"):
        report("tiny", root=tiny)
    with pytest.raises(BenchError, match="margin takes points"):
        compare("lora", "mosl", study="smollm2", root=REPOSITORY, margin=0)
    with pytest.raises(BenchError, match="no tracker for --report-to named 'tb'"):
        run("tiny", root=tiny, executor="inline", report_to="tb", progress=False)


def test_failures_are_told_and_a_run_of_nothing_else_is_an_error(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(trial: Trial, *words: Any) -> Outcome:
        return failed(trial, "Traceback\nValueError: no loss", {}) if trial.train_on else execute(trial, *words)

    monkeypatch.setattr("mosld_bench.scheduling.executor.execute", broken)
    monkeypatch.setattr(pipeline, "write", lambda analysis, folder: folder / "report.pdf")
    study = Study.of("tiny", root=tiny, recipes=["lora"])
    made = run(study, root=tiny, executor="inline", progress=False)
    assert capsys.readouterr().out == ""
    ((trial, error),) = made.failures.items()
    assert (made.missing, error) == ([trial], "ValueError: no loss")
    assert f"{trial} failed: ValueError: no loss" in made._repr_html_()
    alone = Study.of("tiny", root=tiny, recipes=["lora"], frozen_base=False, name="alone")
    with pytest.raises(BenchError, match=r"Every trial of 'alone' failed, the first with: ValueError: no loss"):
        run(alone, root=tiny, executor="inline", progress=False)


def test_text_is_escaped_and_keeps_its_lines() -> None:
    content = Table(title="<b>")
    content.add_column("a\nb", justify="right")
    content.add_row("<script>alert(1)</script>")
    shown = html.whole(html.table(content), html.heading("<i>"), html.bullets(["<u>"]), html.bullets([]))
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "a<br>b</th>" in shown
    assert not any(tag in shown for tag in ("<b>", "<i>", "<u>"))


def test_a_notebook_with_widgets_has_a_live_table_and_others_have_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Console(force_jupyter=True, file=io.StringIO())
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    assert ProgressDisplay({"trial": 1.0}, notebook)._live is None
    monkeypatch.setattr(progress, "find_spec", lambda name: object())
    assert ProgressDisplay({"trial": 1.0}, notebook)._live is not None
    assert ProgressDisplay({"trial": 1.0}, Console(force_jupyter=True, quiet=True))._live is None
