"""Tables: their numbers, what is printed of them, and their LaTeX."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mosld_bench.report import main_rows
from mosld_bench.report.labels import percent
from mosld_bench.report.sections.results import results
from mosld_bench.report.table import Column, column_groups, latex, tex_text
from mosld_bench.spec.trial import Domain, ModelSpec
from tests.report.conftest import FullReport
from tests.report.reading import (
    analysis_of,
    analysis_with,
    read_csv,
    records_of_two_metrics,
    tables_of,
    uneven_analysis,
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


def test_main_csv(full: FullReport) -> None:
    rows = read_csv(full.folder / "tables" / "main.csv")
    assert list(rows[0]) == [*COLUMNS, *IN_DOMAIN, *OUT_OF_DOMAIN]
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


def test_the_best_row_is_bold_and_what_is_tied_with_it_is_marked(tmp_path: Path) -> None:
    tex = latex(tables_of(results(uneven_analysis(tmp_path)))["main"])
    assert r"\textbf{MoSLD}" in tex
    assert r"\textbf{MoE-LoRA}" not in tex  # higher, by one seed
    assert [line.split(" &")[0] for line in tex.splitlines() if r"\dag" in line] == ["MoLA"]


def test_other_metrics_by_hand(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), seeds=(0, 1))
    records = records_of_two_metrics(study)
    tables_of(results(analysis_with(tmp_path, study, records)))["other-metrics"].write(tmp_path)
    (row,) = read_csv(tmp_path / "other-metrics.csv")
    assert (row["recipe"], row["seeds"]) == ("lora", "2")
    means = [row[f"{domain}_{name}"] for domain in ("in_domain", "out_of_domain") for name in ("acc", "acc_norm")]
    assert [float(value) for value in means] == pytest.approx([0.6, 0.55, 0.3, 0.5])
    assert float(row["in_domain_acc_norm_sd"]) == pytest.approx(0.2 / 2**0.5, abs=1e-6)


def test_rows_of_several_models_are_told_apart_in_every_table(tmp_path: Path) -> None:
    names = tuple(f"task_{i:02d}" for i in range(11))
    models = [ModelSpec(name="embedded"), ModelSpec(name="other")]
    study = make_study(in_domain=names[:10], out_of_domain=names[10:], seeds=(0,)).model_copy(update={"models": models})
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES["lora"]])]
    tables = tables_of(results(analysis_with(tmp_path, study, records, {})))
    for name in ("main", "tasks-1"):
        tables[name].write(tmp_path)
        assert [row["model"] for row in read_csv(tmp_path / f"{name}.csv")] == ["embedded", "other"]


def test_a_table_longer_than_a_page_goes_on_in_another(tmp_path: Path) -> None:
    budgets = ("30000", "60000", "90000", "120000", "150000", "180000")
    study, trials = make_records(tmp_path, seeds=(0,), budgets=budgets)
    tables = tables_of(results(analysis_of(tmp_path, study, trials)))
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
