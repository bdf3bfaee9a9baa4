"""Tables: their numbers, what is printed of them, and their LaTeX."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import t

from mosld_bench.display import results_table
from mosld_bench.records.store import Store
from mosld_bench.reporting import main_notes, main_rows
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.labels import percent
from mosld_bench.reporting.table import Column, Table, column_groups, latex, tex_text
from mosld_bench.spec.trial import Domain, ModelSpec
from tests.reporting.conftest import FullReport
from tests.reporting.reading import (
    analysis_of,
    analysis_with,
    read_csv,
    records_of_two_metrics,
    tables_of_results,
)
from tests.support.synthetic import (
    IN_DOMAIN,
    OUT_OF_DOMAIN,
    RECIPES,
    make_record,
    make_records,
    make_study,
    make_trials,
)

COLUMNS = ["recipe", "setting", "budget", "trainable_parameters", "in_domain_mean", "in_domain_sd"]
COLUMNS += ["out_of_domain_mean", "out_of_domain_sd", "seeds"]
STANDINGS = [f"{domain}_mean_{part}" for domain in Domain for part in ("verdict", "tied")]


def test_main_csv(full: FullReport) -> None:
    rows = read_csv(full.folder / "tables" / "main.csv")
    assert list(rows[0]) == [*COLUMNS, *IN_DOMAIN, *OUT_OF_DOMAIN, *STANDINGS]
    keys = {(row["recipe"], row["setting"], row["budget"]) for row in rows}
    assert ("base", "frozen", "native") in keys
    assert ("full", "single", "native") in keys
    assert len(keys) == len(rows) == 1 + 2 * (7 * 2 + 1)
    lora = next(row for row in rows if row["recipe"] == "lora" and row["setting"] == "mixture")
    assert re.fullmatch(r"0\.\d{4,9}", lora["in_domain_mean"])
    assert float(lora["in_domain_mean"]) == pytest.approx(sum(float(lora[task]) for task in IN_DOMAIN) / 6, abs=2e-6)


def test_missing_is_missing(full: FullReport) -> None:
    rows = read_csv(full.folder / "tables" / "main.csv")
    gap = next(row for row in rows if (row["recipe"], row["setting"], row["budget"]) == ("mosld", "single", "120000"))
    assert gap["in_domain_mean"] == gap["out_of_domain_mean"] == gap[IN_DOMAIN[-1]] == gap[OUT_OF_DOMAIN[0]] == ""
    assert gap[IN_DOMAIN[0]] != ""
    assert gap["seeds"] == "0"


def test_the_rows_for_a_terminal_are_those_of_the_csv(full: FullReport) -> None:
    lines = read_csv(full.folder / "tables" / "main.csv")
    rows = main_rows(full.analysis)
    assert [(row.recipe, row.setting, row.budget, str(row.seeds)) for row in rows] == [
        (line["recipe"], line["setting"], line["budget"], line["seeds"]) for line in lines
    ]
    for row, line in zip(rows, lines, strict=True):
        assert str(row.trainable) == line["trainable_parameters"]
        assert [score.title for score in row.scores] == ["in-domain", "out-of-domain"]
        for domain, score in zip(Domain, row.scores, strict=True):
            printed = [line[f"{domain}_mean"], line[f"{domain}_sd"]]
            assert ["" if value is None else f"{value:.9g}" for value in (score.mean, score.sd)] == printed


def marked(table: Table, column: str) -> dict[str, str]:
    """Row -> what stands above its cell in a column, ``bold`` before it where it is."""
    place = [f"{c.title}, {c.group}" for c in table.columns].index(column)
    rows = [line.cells for line in table.rows if len(line.cells) == len(table.columns)]
    return {cells[0].text: "bold" * cells[place].bold + cells[place].mark for cells in rows}


def of_scores(root: Path, scores: Mapping[str, tuple[float, ...]], **changes: Any) -> Analysis:
    """The analysis of recipes with these scores by seed on the tasks a and b, and on c, which is not trained on."""
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), **changes)
    trials = [t for t in make_trials(study, [RECIPES[n] for n in scores]) if t.seed < len(scores[t.recipe.name])]
    records = [make_record(t, study, values=dict.fromkeys("abc", scores[t.recipe.name][t.seed])) for t in trials]
    return analysis_with(root, study, records)


LEGEND = (
    "†: not told apart from the best of its block, corrected for all pairs. "
    "Beside LoRA: ↓ worse, ≈ equal within 1 point."
)
NEAR = {"lora": (0.700, 0.712, 0.705), "mola": (0.702, 0.709, 0.704), "mosl": (0.66, 0.668, 0.664)}
CLOSE = NEAR | {"mosld": (0.699, 0.713, 0.702)}


def test_the_best_row_is_bold_only_where_it_is_told_apart_from_all_others(tmp_path: Path) -> None:
    main = tables_of_results(of_scores(tmp_path, NEAR | {"mosld": (0.74, 0.75, 0.745)}))["main"]
    assert marked(main, "Mean, In-domain") == {
        "Chance": "", "LoRA": "", "MoLA": "≈", "MoSL": "↓", "MoSLD": "bold↑"
    }  # fmt: skip
    assert r"\textbf{MoSLD}" in latex(main)
    assert "Bold: the best of its block, told apart from all its other rows." in main.caption
    assert "†" not in main.caption


def test_rows_that_are_not_told_apart_from_the_best_are_marked_and_so_is_the_best(tmp_path: Path) -> None:
    analysis = of_scores(tmp_path, CLOSE)
    main = tables_of_results(analysis)["main"]
    assert marked(main, "Mean, In-domain") == {
        "Chance": "", "LoRA": "†", "MoLA": "†≈", "MoSL": "↓", "MoSLD": "†≈"
    }  # fmt: skip
    assert r"\textbf" not in latex(main)
    assert "Bold" not in main.caption
    assert main.caption.endswith(LEGEND)
    main.write(tmp_path)
    lines = {line["recipe"]: line for line in read_csv(tmp_path / "main.csv")}
    assert {name: line["in_domain_mean_verdict"] for name, line in lines.items()} == {
        "lora": "reference", "mola": "equal", "mosl": "worse", "mosld": "equal"
    }  # fmt: skip
    assert {name: line["in_domain_mean_tied"] for name, line in lines.items()} == {
        "lora": "True", "mola": "True", "mosl": "False", "mosld": "True"
    }  # fmt: skip


def test_the_terminal_shows_the_marks_and_what_they_mean(tmp_path: Path) -> None:
    analysis = of_scores(tmp_path, CLOSE)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(results_table(main_rows(analysis), main_notes(analysis)))
    text = console.export_text()
    assert re.search(r"mola .* 70\.5 ± 0\.4†≈", text)
    assert re.search(r"lora .* 70\.6 ± 0\.6† +│", text)
    assert LEGEND in " ".join(text.split())


def test_a_mark_is_explained_where_it_occurs_and_only_there(tmp_path: Path) -> None:
    """Of rows of several seeds and of one, of one that scatters, and without any seeds to judge by."""
    rows: tuple[Mapping[str, tuple[float, ...]], ...] = (
        {**CLOSE, "hydralora": (0.71,)},
        {**CLOSE, "hydralora": (0.71,), "moe-lora": (0.65, 0.80, 0.62)},
        {name: values[:1] for name, values in CLOSE.items()},
    )
    seen = set()
    for i, scores in enumerate(rows):
        analysis = of_scores(tmp_path / str(i), scores, settings=("mixture", "single"))
        for table in tables_of_results(analysis).values():
            shown = {mark for line in table.rows for cell in line.cells for mark in cell.mark}
            told = {mark for mark in "†↑↓≈‡§¶*" if re.search(rf"{re.escape(mark)}[: ]", table.caption)}
            assert shown == told, table.name
            seen |= shown
    assert seen >= {"†", "↓", "≈", "‡", "§"}


def test_other_metrics_by_hand(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), seeds=(0, 1))
    records = records_of_two_metrics(study)
    table = tables_of_results(analysis_with(tmp_path, study, records))["other-metrics"]
    table.write(tmp_path)
    inside, outside = read_csv(tmp_path / "other-metrics.csv")
    assert {row["metric"] for row in (inside, outside)} == {"acc_norm"}
    assert [(row["recipe"], row["of"], row["row_seeds"]) for row in (inside, outside)] == [
        ("lora", "in_domain", "2"),
        ("lora", "out_of_domain", "2"),
    ]
    assert [float(row["mean"]) for row in (inside, outside)] == pytest.approx([0.55, 0.5])
    assert float(inside["sd"]) == pytest.approx(0.2 / 2**0.5, abs=1e-6)
    assert table.caption.startswith("Beside acc, never in its place: acc_norm, which divides")


def test_the_probability_of_the_right_option_has_its_differences_from_items(tmp_path: Path) -> None:
    study, trials = make_records(
        tmp_path, ("lora", "mola", "mosld"), in_domain=("a", "b"), out_of_domain=("c",), items=True
    )
    analysis = analysis_of(tmp_path, study, trials)
    frame = tables_of_results(analysis)["other-metrics"].frame
    assert frame is not None
    lines = frame[frame["metric"] == "probability"]
    assert set(lines["of"]) == {"in_domain", "out_of_domain"}
    store = Store(tmp_path / "results")
    by_trial = {trial.id: store.items(trial) for trial in trials}
    for line in lines.to_dict("records"):
        tasks = ("a", "b") if line["of"] == "in_domain" else ("c",)

        def level(recipe: str, tasks: tuple[str, ...] = tasks) -> float:
            frames = [by_trial[trial.id] for trial in trials if trial.recipe.name == recipe]
            return fmean(
                float(frame[frame["task"] == task]["probability"].mean())
                for frame in frames
                for task in tasks
                if frame is not None
            )

        assert line["mean"] == pytest.approx(level(line["recipe"]))
        if line["recipe"] == "lora":
            assert pd.isna(line["verdict"])
        else:
            assert line["difference"] == pytest.approx(level(line["recipe"]) - level("lora"))
            assert line["of_items"]
            assert line["low"] < line["difference"] < line["high"]


def test_gains_on_the_untrained_model_and_on_single_tasks_by_hand(tmp_path: Path) -> None:
    """Without items the error is the standard deviation over seeds, by the root of their number."""
    recipes = ("base", "lora", "mosld")
    study = make_study(in_domain=("a", "b"), out_of_domain=(), settings=("mixture", "single"), recipes=recipes)
    shift = {"mixture": 0.0, "single": 0.1}
    wobble = {("mixture", 0): 0.0, ("mixture", 1): 0.02, ("mixture", 2): 0.04, ("single", 0): 0.01}
    records = []
    for trial in make_trials(study, [RECIPES[name] for name in recipes]):
        value = (
            0.3
            if trial.setting == "frozen"
            else 0.5 + shift[trial.setting] + wobble.get((trial.setting, trial.seed), 0)
        )
        records.append(make_record(trial, study, values=dict.fromkeys(trial.scored_on, value)))
    tables = tables_of_results(analysis_with(tmp_path, study, records))
    base, settings = tables["differences-to-base"].frame, tables["differences-of-settings"].frame
    assert base is not None
    assert settings is not None
    mixture = base[base["setting"] == "mixture"].set_index("recipe").loc["mosld"]
    assert mixture["difference"] == pytest.approx(0.22)
    error = 0.02 / 3**0.5
    assert (mixture["error"], mixture["freedom"], mixture["basis"]) == (pytest.approx(error), pytest.approx(2), "own")
    assert mixture["high"] - mixture["low"] == pytest.approx(2 * t.ppf(0.975, 2) * error)
    assert mixture["verdict"] == "better"
    assert (mixture["reference"], mixture["reference_setting"]) == ("base", "frozen")
    row = settings.set_index("recipe").loc["mosld"]
    assert row["difference"] == pytest.approx(-0.1 + 0.06 / 3 - 0.01 / 3)
    assert (row["reference"], row["reference_setting"], row["seeds"]) == ("mosld", "single", 3)
    assert row["error"] == pytest.approx(stdev((-0.11, -0.08, -0.06)) / 3**0.5)


def test_many_tasks_have_several_tables_by_task(tmp_path: Path) -> None:
    names = tuple(f"task_{i:02d}" for i in range(30))
    study = make_study(in_domain=names[:20], out_of_domain=names[20:])
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])]
    tables = tables_of_results(analysis_with(tmp_path, study, records, {}))
    of_tasks = [table for name, table in tables.items() if name.startswith("differences-by-task")]
    assert [len(table.columns) - 1 for table in of_tasks] == [8, 8, 8, 6]
    assert [table.frame is None for table in of_tasks] == [False, True, True, True]
    assert of_tasks[0].frame is not None
    assert len(of_tasks[0].frame) == 30


def test_rows_of_several_models_are_told_apart_in_every_table(tmp_path: Path) -> None:
    names = tuple(f"task_{i:02d}" for i in range(11))
    models = [ModelSpec(name="embedded"), ModelSpec(name="other")]
    study = make_study(in_domain=names[:10], out_of_domain=names[10:], seeds=(0,)).model_copy(update={"models": models})
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES["lora"]])]
    tables = tables_of_results(analysis_with(tmp_path, study, records, {}))
    for name in ("main", "tasks-1"):
        tables[name].write(tmp_path)
        assert [row["model"] for row in read_csv(tmp_path / f"{name}.csv")] == ["embedded", "other"]


def test_a_table_longer_than_a_page_goes_on_in_another(tmp_path: Path) -> None:
    budgets = ("30000", "60000", "90000", "120000", "150000", "180000")
    study, trials = make_records(tmp_path, seeds=(0,), budgets=budgets, evaluate={"limit": 400})
    tables = tables_of_results(analysis_of(tmp_path, study, trials))
    first, second = tables["main"], tables["main-continued-1"]
    assert max(len(first.rows), len(second.rows)) <= 34
    assert second.rows[0].ruled, "a page begins with the heading of a block"
    assert second.frame is None, "the first table's CSV has all rows"
    assert first.frame is not None
    assert len(first.frame) == 1 + 1 + 6 * 7
    assert first.notes == ()
    assert second.notes


def test_latex_is_well_formed(full: FullReport) -> None:
    for path in (full.folder / "tables").glob("*.tex"):
        lines = path.read_text(encoding="utf-8").splitlines()
        body = "\n".join(lines[1:])
        assert lines[0].startswith("%")
        assert body.count(r"\begin{tabular}") == body.count(r"\end{tabular}") == 1
        bare = re.sub(r"\\[{}%&#_$]", "", body)
        assert bare.count("{") == bare.count("}")
        assert "%" not in bare
        assert "_" not in bare
        assert body.isascii() or not set(body) & set("±†–−≥")
        alignment = re.search(r"tabular\}\{(.*)\}$", lines[1])
        assert alignment is not None
        columns = len(re.sub(r"p\{[^}]*\}", "p", alignment[1]))
        for line in lines[2:]:
            if line.endswith(r"\\"):
                spanned = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
                cells = len(re.findall(r"(?<!\\)&", line)) + 1
                assert cells + sum(spanned) - len(spanned) == columns, (path.name, line)


def test_columns_of_a_group_share_a_heading() -> None:
    columns = [Column("a"), Column("b", group="x"), Column("c", group="x"), Column("d"), Column("e", group="x")]
    assert column_groups(columns) == [(0, 1, ""), (1, 2, "x"), (3, 1, ""), (4, 1, "x")]


def test_printed_numbers() -> None:
    assert [percent(value, sign=True) for value in (0.685, -0.0123, -0.0004, None)] == [
        "+68.5",
        "−1.2",
        "0.0",
        "–",
    ]
    assert tex_text(r"50% of_a\b & −1 ± 2†") == r"50\% of\_a\textbackslash{}b \& $-$1 $\pm$ 2\dag{}"
