"""Ablations in a report: which rows are which values, the effects of a factorial, and the tables of both."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mosld_bench.reporting.ablation import cells, effects, effects_by_task, factors, ranks
from mosld_bench.reporting.analysis import Analysis, Verdict
from mosld_bench.reporting.build import write_report
from mosld_bench.reporting.figures.ablation import draw as draw_forest
from mosld_bench.reporting.figures.factorial import draw as draw_factorial
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import MARKERS, report_style
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.sections.ablation import ablation, task_effect_tables
from mosld_bench.reporting.sections.protocol import origin_of_rates
from mosld_bench.reporting.stats import Basis
from mosld_bench.reporting.table import Table
from mosld_bench.reporting.verdicts import numbers
from mosld_bench.spec.ablation import Ablate, Factorial
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.trial import Domain, Trial
from tests.reporting.answering import answered
from tests.reporting.reading import analysis_with, document_of, pages_of, tables_of, words
from tests.support import plain_statistics as plain
from tests.support.answers import BLOCK, Scores, analysis_of_answers
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials

CROSS = {
    "share": ["none", "down"],
    "dropout": [{"dropout": 0, "dropout_on": "none"}, {"dropout": 0.1, "dropout_on": "weight"}],
}
FACTORIAL = Factorial(around="mosld", cross=CROSS)
NEITHER = "mosld.dropout-0.dropout_on-none.share-none"
#: The cells, in the order of the levels.
CELLS = (NEITHER, "mosld.share-none", "mosl", "mosld")
ABLATE = Ablate(
    around="mosld",
    vary={"top_k": [1, 2, None], "dropout": [0, 0.1, 0.3], "place": [{"dropout_on": "hidden"}, {"dropout": 0.1}]},
)


def drawn(levels: dict[str, float], seeds: dict[str, int], items: int = 60) -> dict[str, Scores]:
    """Recipe -> right and wrong answers around its level, harder items being missed by all."""
    draw = np.random.default_rng(0)
    ease = {task: draw.normal(size=items) for task in ("a", "b")}
    rows: dict[str, Scores] = {}
    for name, level in levels.items():
        rows[name] = {
            task: np.array(
                [of + 0.5 * draw.normal(size=items) > -level for _ in range(seeds.get(name, 3))], dtype=float
            )
            for task, of in ease.items()
        }
    return rows


def crossed(seeds: dict[str, int] | None = None) -> tuple[Analysis, dict[str, Scores]]:
    """A study of the four cells; MoSLD, the reference, stands first among the rows."""
    of_cells = dict(zip(CELLS, (0.2, 0.3, 0.4, 2.5), strict=True))
    rows = drawn({"mosld": of_cells["mosld"], **of_cells}, seeds or {})
    return analysis_of_answers(rows, factorial=FACTORIAL), rows


def tasks_of(scores: Scores, seeds: int) -> list[plain.Task]:
    return [plain.Task([list(map(float, line)) for line in of_task[:seeds]]) for of_task in scores.values()]


def row_means(scores: Scores) -> plain.Row:
    return dict(enumerate(plain.by_seed(tasks_of(scores, len(next(iter(scores.values())))))))


def test_effects_are_the_contrasts_of_the_cells_by_the_plain_formulas() -> None:
    analysis, rows = crossed()
    assert [(cell.labels, cell.row.recipe.name) for cell in cells(analysis, BLOCK)] == list(
        zip(product(("nothing", "A"), ("0", "0.1 on weight")), CELLS, strict=True)
    )
    found = effects(analysis, BLOCK)
    assert [effect.title for effect in found] == [
        "sharing: A minus nothing", "dropout: 0.1 on weight minus 0", "sharing × dropout",
    ]  # fmt: skip
    table = [row_means(rows[name]) for name in rows]
    noise = plain.seed_noise(table)
    assert noise is not None
    scatter = {name: plain.scatter_p(table, i) or 1 for i, name in enumerate(rows)}
    half = Fraction(1, 2)
    weights = [(-half, -half, half, half), (-half, half, -half, half), tuple(map(Fraction, (1, -1, -1, 1)))]
    expected = [
        plain.contrast([tasks_of(rows[name], 3) for name in CELLS], c, noise, noisy=min(scatter.values()) < 0.05)
        for c in weights
    ]
    for effect, plainly in zip(found, expected, strict=True):
        assert effect.difference.mean == pytest.approx(plainly.mean)
        assert effect.difference.error == pytest.approx(plainly.error)
        assert effect.difference.freedom == pytest.approx(plainly.freedom)
        assert effect.equal_p == pytest.approx(plainly.equal_p(0.01))
    assert [effect.adjusted for effect in found] == pytest.approx(plain.holm([each.p for each in expected]))
    assert [effect.word for effect in found] == ["better", "better", "more together"]


def test_effects_on_tasks_are_one_family_and_their_mean_is_the_effect() -> None:
    analysis, _ = crossed()
    both = [effect for effect in effects(analysis, BLOCK) if effect.main]
    found = effects_by_task(analysis, BLOCK)
    assert [(effect.of, effect.title) for effect in found] == [(task, of.title) for task in "ab" for of in both]
    alone = {(task, e.title): e.difference for task in "ab" for e in effects(analysis, BLOCK, task)}
    assert [effect.difference for effect in found] == [alone[effect.of, effect.title] for effect in found]
    assert [e.adjusted for e in found] == pytest.approx(plain.holm([e.difference.p or 0 for e in found]))
    for of in both:
        means = [effect.difference.mean for effect in found if effect.title == of.title]
        assert sum(means) / 2 == pytest.approx(of.difference.mean)
    (table,) = task_effect_tables(analysis)
    assert [line.cells[0].text for line in table.rows] == [table.rows[0].cells[0].text, "A", "B"]
    assert table.frame is not None
    assert table.frame["difference"].tolist() == pytest.approx([effect.difference.mean for effect in found])


def test_a_cell_of_one_seed_borrows_for_every_effect_that_has_it() -> None:
    analysis, _ = crossed({NEITHER: 1})
    assert {effect.difference.basis for effect in effects(analysis, BLOCK)} == {Basis.BORROWED}
    assert {effect.difference.seeds for effect in effects(analysis, BLOCK)} == {1}


def test_without_a_cell_there_are_no_effects() -> None:
    analysis, rows = crossed()
    del rows[NEITHER]
    without = analysis_of_answers(rows, factorial=FACTORIAL)
    assert not cells(without, BLOCK)
    assert not effects(without, BLOCK)
    assert ablation(without) is None
    section = tables_of(ablation(analysis))
    assert list(section) == ["factorial-cells", "factorial", "factorial-by-task"]
    numbers = section["factorial"].frame
    assert numbers is not None
    assert list(numbers["factors"]) == ["sharing", "dropout", "sharing x dropout"]
    assert list(numbers["verdict"]) == ["better"] * 3


def varied(root: Path, **changes: Any) -> Analysis:
    """A study of the factors at two sizes, of ranks, with made-up scores; dropout 0.3 is much worse."""
    study = make_study(
        **{"ablate": ABLATE, "factorial": FACTORIAL, "budgets": ("60000", "r8"), "reference": "mosld", **changes}
    )
    known = study.catalogue(RECIPES)
    names = dict.fromkeys(name for of_word in known.words.values() for name in of_word)
    trials = make_trials(study, [known.recipes[name] for name in names])
    ranked = study.model_copy(update={"budgets": make_study(budgets=("r4", "r16")).budgets})
    trials += make_trials(ranked, [RECIPES["mosld"]]) if study.ablate else []
    records = [make_record(t, study, values=values(t)) for t in trials]
    return analysis_with(root, study, records)


def values(trial: Trial) -> dict[str, float]:
    level = 0.5 if trial.recipe.params.get("dropout") == 0.3 else 0.7
    draw = np.random.default_rng([trial.seed, len(trial.recipe.name), len(trial.budget)])
    return {task: round((level + draw.normal(0, 0.01)) * 400) / 400 for task in trial.scored_on}


def test_factors_have_their_rows_beside_the_one_they_are_around(tmp_path: Path) -> None:
    analysis = varied(tmp_path)
    found = {factor.name: factor for factor in factors(analysis, BLOCK)}
    told = {name: [(level.label, level.row.recipe.name, level.own) for level in f.levels] for name, f in found.items()}
    assert told == {
        "top_k": [("1", "mosld.top_k-1", False), ("2", "mosld", True), ("dense", "mosld.top_k-none", False)],
        "dropout": [("0", "mosl", False), ("0.1", "mosld", True), ("0.3", "mosld.dropout-0.3", False)],
        "place": [("hidden", "mosld.dropout_on-hidden", False), ("0.1", "mosld", True)],
    }
    pool = analysis.pool(BLOCK)
    for factor in found.values():
        p_values = []
        for level in factor.levels:
            if level.own:
                assert level.comparison is None
                continue
            assert level.comparison is not None
            mosld = next(row for row in pool if row.recipe.name == "mosld")
            estimate = analysis.evidence.difference(level.row, mosld, Domain.IN, pool)
            assert level.comparison.difference == estimate
            p_values.append(level.comparison.difference.p or 0)
        adjusted = [level.comparison.adjusted for level in factor.levels if level.comparison]
        assert adjusted == pytest.approx(plain.holm(p_values)), "a factor is a family of its own"
    worse = found["dropout"].levels[2].comparison
    assert worse is not None
    assert worse.verdict is Verdict.WORSE


def test_ranks_are_a_factor_across_blocks(tmp_path: Path) -> None:
    analysis = varied(tmp_path)
    ((block, factor),) = ranks(analysis)
    assert str(block.budget) == "r8"
    assert [(level.label, str(level.row.budget), level.own) for level in factor.levels] == [
        ("4", "r4", False), ("8", "r8", True), ("16", "r16", False),
    ]  # fmt: skip
    rows: list[Row] = [level.row for level in factor.levels]
    noise = plain.seed_noise([row.by_seed() for row in rows])
    assert noise is not None
    for comparison in factor.comparisons:
        own, other = comparison.row.by_seed(), comparison.other.by_seed()
        assert comparison.difference.mean == pytest.approx(np.mean([own[seed] - other[seed] for seed in own]))
        assert comparison.difference.freedom == pytest.approx(noise.freedom)


def test_the_section_has_two_blocks_beside_each_other_and_says_what_they_mean(tmp_path: Path) -> None:
    analysis = varied(tmp_path)
    section = ablation(analysis)
    tables = tables_of(section)
    assert list(tables) == [
        "ablation", "ablation-out-of-domain", "ablation-rank", "factorial-cells", "factorial",
        "factorial-by-task",
    ]  # fmt: skip
    assert [column.group for column in tables["ablation"].columns] == [
        "", *["Mixture, 60,000 parameters"] * 3, *["Mixture, rank 8"] * 3,
    ]  # fmt: skip
    assert [line.cells[0].text for line in tables["ablation"].rows] == [
        "Top-K", "1", "2", "dense", "Dropout", "0", "0.1", "0.3", "Place", "hidden", "0.1",
    ]  # fmt: skip
    own = tables["ablation"].rows[2]
    assert own.cells[3].text == own.cells[6].text == "reference"
    worse = tables["ablation"].rows[7]
    assert "↓" in worse.cells[3].mark
    frame = tables["ablation"].frame
    assert frame is not None
    assert len(frame) == 2 * (2 * 8 + 3)
    assert set(frame["factor"]) == {"top_k", "dropout", "place", "rank"}
    assert frame[frame["own"]]["difference"].isna().all()
    assert frame[~frame["own"]]["difference"].notna().all()
    text = words(section)
    assert "At equal size a value that needs fewer parameters gets a higher rank" in text
    assert "around MoSLD, in-domain" in text
    one = varied(tmp_path / "one", budgets=("60000",))
    assert "At equal size a value" not in words(ablation(one))


def test_lines_of_every_table_say_of_which_block_they_are(tmp_path: Path) -> None:
    """Where a study has tasks' items in several amounts, two lines would differ by nothing but their numbers."""
    analysis = varied(tmp_path, ablate=None, budgets=("60000",), task_items=(32, 64))
    document = document_of(analysis)
    frames = {b.name: b.frame for part in document.sections for b in part.blocks
              if isinstance(b, Table) and b.frame is not None and "budget" in b.frame}  # fmt: skip
    assert {"main", "differences", "factorial", "factorial-cells", "factorial-by-task", "cost"} <= frames.keys()
    lacking = {name for name, frame in frames.items() if "task_items" not in frame}
    assert lacking <= {"audit"}, "sizes are the same for any amount"


def test_a_study_without_ablations_has_no_section(tmp_path: Path) -> None:
    study = make_study(recipes=("lora", "mosld"))
    records = [make_record(t, study) for t in make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])]
    analysis = analysis_with(tmp_path, study, records)
    assert ablation(analysis) is None
    assert factors(analysis, BLOCK) == []


def test_the_opening_answers_block_by_block_what_each_factor_does(tmp_path: Path) -> None:
    analysis = varied(tmp_path)
    told = answered(analysis)
    at_size, at_rank = told["One factor at a time (60,000 parameters)."], told["One factor at a time (rank 8)."]
    for block, text in ((BLOCK, at_size), (BLOCK._replace(budget=Budget.parse("r8")), at_rank)):
        for factor in factors(analysis, block):
            for level in factor.levels:
                if level.comparison and level.comparison.verdict is Verdict.WORSE:
                    assert re.search(rf"{factor.title}: .*{re.escape(numbers(level.comparison))}", text, re.IGNORECASE)
                if level.comparison and level.comparison.verdict is Verdict.OPEN:
                    assert f"{level.label} (" in text.split("Neither told apart nor shown equal: ")[1]
    assert "Dropout: 0.3 (" in at_size
    assert "worse than 0.1." in at_size
    assert "Equal size against equal rank." in told
    ((_, rank),) = ranks(analysis)
    assert rank.title in told["Rank."].lower()
    assert not [question for question in told if question.startswith(("Ablations.", "Across"))]


def test_the_opening_tells_the_effects_of_the_factorial() -> None:
    analysis, _ = crossed()
    text = answered(analysis)["Factorial."]
    sharing, dropout, both = effects(analysis, BLOCK)
    first, second, third, fourth = effects_by_task(analysis, BLOCK)
    assert text == (
        f"Sharing A minus nothing: {numbers(sharing)}, better. Dropout 0.1 on weight minus 0: "
        f"{numbers(dropout, full=False)}, better. Interaction of sharing and dropout: {numbers(both, full=False)}, "
        "they do more together than their effects add up to. Task by task (Holm over 4 tests): Sharing A minus nothing "
        f"is better on A ({numbers(first)}) and B ({numbers(third, full=False)}); Dropout 0.1 on weight minus 0 is "
        f"better on A ({numbers(second, full=False)}) and B ({numbers(fourth, full=False)})."
    )


def test_verdicts_at_equal_size_and_at_equal_rank_are_set_beside_each_other(tmp_path: Path) -> None:
    analysis = varied(tmp_path)
    text = answered(analysis)["Equal size against equal rank."]
    both: list[dict[str, Verdict]] = [
        {f"{f.title} {lv.label}": lv.comparison.verdict for f in factors(analysis, block) for lv in f.levels
         if lv.comparison} for block in (BLOCK, BLOCK._replace(budget=Budget.parse("r8")))
    ]  # fmt: skip
    differing = [name for name, verdict in both[0].items() if both[1][name] is not verdict]
    assert all(name in text for name in differing)
    assert ("Every verdict is the same" in text) == (not differing)


def test_figures_show_every_value_and_every_cell(tmp_path: Path) -> None:
    analysis = varied(tmp_path)
    with report_style():
        forest, cells_plot = draw_forest(analysis), draw_factorial(analysis)
    assert isinstance(forest, Plot)
    assert isinstance(cells_plot, Plot)
    first, second = forest.figure.axes
    titles = [text.get_text() for text in first.get_yticklabels()]
    assert titles == ["Top-K", "1", "2", "dense", "Dropout", "0", "0.1", "0.3", "Place", "hidden", "0.1"]
    for axes, block in ((first, BLOCK), (second, BLOCK._replace(budget=Budget.parse("r8")))):
        points = {
            (round(float(line.get_ydata()[0])), round(float(line.get_xdata()[0]), 9))  # type: ignore[index, arg-type]
            for line in axes.lines
            if line.get_marker() == "o"
        }
        levels = [None] + [level for factor in factors(analysis, block) for level in (*factor.levels, None)]
        expected = {
            (y, round(level.comparison.difference.mean, 9))
            for y, level in enumerate(levels)
            if level and level.comparison
        }
        assert points == expected
        assert sum(line.get_marker() == "D" for line in axes.lines) == 3
    assert len(cells_plot.figure.axes) == 4
    lines = [line for line in cells_plot.figure.axes[0].lines if line.get_marker() in MARKERS]
    drawn = [float(y) for line in lines for y in np.asarray(line.get_ydata())]
    assert drawn == pytest.approx([cell.row.mean_sd()[0] for cell in cells(analysis, BLOCK)])
    (legend,) = cells_plot.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["nothing", "A"]


def test_without_rows_a_sentence_stands_in_place_of_a_figure(tmp_path: Path) -> None:
    study = make_study(recipes=("lora", "mosld"), ablate=ABLATE, factorial=FACTORIAL)
    records = [make_record(t, study) for t in make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])]
    analysis = analysis_with(tmp_path, study, records)
    assert "No block has mosld beside its ablations" in str(draw_forest(analysis))
    assert "No block has all cells" in str(draw_factorial(analysis))
    plain_study = make_study(recipes=("lora", "mosld"))
    assert draw_forest(replace(analysis, study=plain_study)) is None
    assert draw_factorial(replace(analysis, study=plain_study)) is None


def test_a_report_with_ablations_is_set_whole(tmp_path: Path) -> None:
    analysis = varied(tmp_path)
    folder = write_report(analysis, tmp_path / "out").parent
    assert {"ablation.csv", "ablation.tex", "factorial.csv", "factorial.tex", "factorial-cells.csv"} <= {
        path.name for path in (folder / "tables").iterdir()
    }
    assert {"ablation-forest.pdf", "ablation-forest.png", "factorial-lines.pdf"} <= {
        path.name for path in (folder / "figures").iterdir()
    }
    text = " ".join(" ".join(pages_of(folder / "report.pdf")).split())
    assert "One factor at a time around MoSLD" in text
    assert "Ablations" in text
    again = write_report(analysis, tmp_path / "again").parent
    for path in (folder / "tables").iterdir():
        assert path.read_bytes() == (again / "tables" / path.name).read_bytes()


def test_the_rate_of_an_ablation_is_said_to_be_that_of_what_it_is_around(tmp_path: Path) -> None:
    analysis = varied(tmp_path, learning_rate_scales={"mosld": 2.0})
    assert set(analysis.leaders.values()) == {"mosld"}
    assert analysis.leaders.keys() == {row.recipe.name for row in analysis.trained} - {"mosld"}
    text = origin_of_rates(analysis)
    assert text.startswith("The factors of all methods are written in the study by hand")
    assert text.endswith("those of ablations are that of MoSLD")
    own = replace(analysis, study=analysis.study.model_copy(update={"learning_rate_scales": {}}))
    assert "each is its recipe's own" in origin_of_rates(own)


def test_the_figures_of_the_ablations_stand_before_their_tables(tmp_path: Path) -> None:
    analysis = varied(tmp_path)
    (found,) = [part for part in document_of(analysis).sections if part.title == "Ablations"]
    kinds = [type(block).__name__ for block in found.blocks]
    assert kinds == ["Paragraph", "FigureBlock", "FigureBlock", *["Table"] * 6]


def test_of_one_seed_everywhere_the_opening_speaks_of_trained_models() -> None:
    analysis, _ = crossed(dict.fromkeys(CELLS, 1))
    text = answered(analysis)["Factorial."]
    sharing, *_ = effects(analysis, BLOCK)
    assert sharing.verdict is Verdict.UNTESTED
    assert f"Sharing A minus nothing: {numbers(sharing, over='over items ')}, of the trained models." in text
    rows = drawn(
        {"mosld": 0.5, "mosl": 0.4, "mosld.top_k-1": 0.3}, dict.fromkeys(("mosld", "mosl", "mosld.top_k-1"), 1)
    )
    varied_once = analysis_of_answers(rows, ablate=ABLATE)
    told = answered(varied_once)["One factor at a time."]
    (top_k, _) = factors(varied_once, BLOCK)
    (comparison,) = top_k.comparisons
    assert f"top-K 1 ({numbers(comparison, over='over items ')}); dropout 0 (" in told


def test_more_than_two_blocks_go_on_in_a_further_table(tmp_path: Path) -> None:
    analysis = varied(tmp_path, budgets=("60000", "90000", "r8"), out_of_domain=())
    tables = tables_of(ablation(analysis))
    assert list(tables) == [
        "ablation",
        "ablation-2",
        "ablation-rank",
        "factorial-cells",
        "factorial",
        "factorial-by-task",
    ]
    assert [len(tables[name].columns) for name in ("ablation", "ablation-2")] == [7, 4]
    assert tables["ablation-2"].frame is None
    with report_style():
        forest = draw_forest(analysis)
    assert isinstance(forest, Plot)
    assert len(forest.figure.axes) == 3


def test_a_factorial_of_three_factors_has_all_interactions(tmp_path: Path) -> None:
    three = Factorial(around="mosld", cross={"top_k": [2, None], **CROSS})
    analysis = varied(tmp_path, ablate=None, factorial=three, budgets=("60000",), out_of_domain=())
    found = effects(analysis, BLOCK)
    assert [effect.title for effect in found if not effect.main] == [
        "top-K × sharing", "top-K × dropout", "sharing × dropout", "top-K × sharing × dropout",
    ]  # fmt: skip
    means = {cell.labels: cell.row.mean_sd()[0] or 0.0 for cell in cells(analysis, BLOCK)}
    places = {labels: tuple(level) for labels, level in zip(means, product(range(2), repeat=3), strict=True)}
    expected = plain.effects({places[labels]: mean for labels, mean in means.items()})
    assert [effect.difference.mean for effect in found] == pytest.approx(list(map(float, expected.values())))
    tables = tables_of(ablation(analysis))
    assert list(tables) == ["factorial-cells", "factorial", "factorial-by-task"]
    assert [line.cells[0].text for line in tables["factorial-cells"].rows[1:]] == [
        "2, nothing", "2, A", "dense, nothing", "dense, A",
    ]  # fmt: skip
    with report_style():
        plot = draw_factorial(analysis)
    assert isinstance(plot, Plot)
    (legend,) = plot.figure.legends
    assert len(legend.get_texts()) == 4
    assert "Equal size against equal rank." not in answered(analysis)


def test_levels_are_named_where_a_factor_has_several(tmp_path: Path) -> None:
    several = Factorial(around="mosld", cross={"share": ["none", "down", "up"], "top_k": [2, None]})
    analysis = varied(tmp_path, ablate=None, factorial=several, budgets=("60000",), out_of_domain=())
    assert [effect.title for effect in effects(analysis, BLOCK) if effect.main] == [
        "sharing: A minus nothing", "sharing: B minus nothing", "top-K: dense minus 2",
    ]  # fmt: skip
    table = tables_of(ablation(analysis))["factorial"]
    assert table.rows[-1].cells[0].text == "Sharing × top-K (B minus nothing, by dense minus 2)"
    assert "Interaction of sharing and top-K (A minus nothing, by dense minus 2)" in answered(analysis)["Factorial."]


def test_what_is_shown_equal_is_told_with_the_range_of_its_differences(tmp_path: Path) -> None:
    analysis = varied(tmp_path, margin=4.0)
    found = factors(analysis, BLOCK)
    equal = [c for factor in found for c in factor.comparisons if c.verdict is Verdict.EQUAL]
    assert equal
    low, high = min(c.difference.low or 0 for c in equal), max(c.difference.high or 0 for c in equal)
    text = answered(analysis)["One factor at a time (60,000 parameters)."]
    assert f"95 % within {equal[0].scale.interval(low, high)}): " in text
    for factor in found:
        if all(c.verdict is Verdict.EQUAL for c in factor.comparisons) and len(factor.comparisons) > 1:
            assert f"every value of {factor.title}" in text
