"""The section and the figure of a study's search for learning rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mosld_bench.reporting.analysis import Verdict
from mosld_bench.reporting.figures import learning_rates
from mosld_bench.reporting.figures.style import report_style
from mosld_bench.reporting.sections.tuning import tuning_section
from mosld_bench.reporting.table import Table
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import ModelSpec, TrainSpec, Trial
from mosld_bench.spec.tuning import Run, TunedRecipe, Tuning
from tests.reporting.reading import MIXTURE, analysis_of, words
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials, write_records

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def a_run(name: str, factor: float, seed: int, loss: float | None) -> Run:
    """A run that ended at ``loss``, or one that was stopped half way."""
    at, losses = (40, 80, 120, 160, 200), (3.0, 2.5, 2.2, 2.1, loss or 0.0)
    ended = {} if loss is not None else {"ended": "stopped", "steps": 80, "at": at[:2], "losses": losses[:2]}
    whole: dict[str, Any] = {"ended": "finished", "steps": 200, "at": at, "losses": losses, **ended}
    return Run(trial=f"{name}-{factor:g}-{seed}", factor=factor, seed=seed, score=None if ended else 0.5, **whole)


def found(name: str, losses: dict[float, float | None], **changes: Any) -> TunedRecipe:
    """What a search found where a factor's runs end at its loss with seed 7, and 0.01 above with seed 8."""
    runs = tuple(
        a_run(name, factor, seed, None if loss is None else loss + 0.01 * (seed == 8))
        for factor, loss in losses.items()
        for seed in (7, 8)
    )
    best, second = sorted((factor for factor, loss in losses.items() if loss), key=lambda f: losses[f] or 0.0)[:2]
    margin = (losses[second] or 0.0) - (losses[best] or 0.0)
    content: dict[str, Any] = {"chosen": best, "runner_up": second, "margin": margin, "by_score": best, **changes}
    return TunedRecipe(recipe="0" * 8, runs=runs, **content)


def searched(study: Study) -> Study:
    """The study with a search in which LoRA's choice is clear and MoLA's is not; MoSLD's factor is written by hand."""
    tuning = Tuning.of(
        study=study.name, results=f"{study.name}-tuning", protocol="p", model=ModelSpec(name="embedded"), seeds=(7, 8),
        budget=MIXTURE.budget, in_domain={}, train=study.train or TrainSpec(steps=1), steps=200, noise=0.02,
        degrees_of_freedom=9, waves=((1.0,), (0.5, 2.0), (0.25, 4.0)),
        recipes={
            "lora": found("lora", {0.25: None, 0.5: 2.2, 1.0: 2.0, 2.0: 2.1, 4.0: None}),
            "mola": found("mola", {0.25: None, 0.5: 2.01, 1.0: 2.0, 2.0: 2.3, 4.0: None}, by_score=0.5, at_edge=True),
        },
    )  # fmt: skip
    return study.model_copy(update={"tuning": tuning, "learning_rate_scales": {"mosld": 2.0}})


def at_both_rates(root: Path) -> tuple[Study, list[Trial]]:
    """LoRA, MoLA and MoSLD at the chosen and the next best rates, where LoRA falls behind at the latter."""
    study = searched(make_study(reference="mosld", in_domain=("a", "b"), out_of_domain=()))
    chosen = make_trials(study, [RECIPES[name] for name in ("lora", "mola", "mosld")])
    trials = [*chosen, *(trial.model_copy(update={"rate": "runner_up"}) for trial in chosen)]
    level = {("lora", "runner_up"): 0.5}
    write_records(
        root,
        [
            make_record(
                t,
                study,
                values=dict.fromkeys(
                    "ab", level.get((t.recipe.name, t.rate), 0.6) + 0.0025 * (t.seed**2 * len(t.recipe.name) % 4)
                ),
            )
            for t in trials
        ],
        items=True,
    )
    return study, trials


def test_the_section_says_what_was_chosen_by_what_margin_and_what_was_not_searched_for(tmp_path: Path) -> None:
    study, trials = at_both_rates(tmp_path)
    section = tuning_section(analysis_of(tmp_path, study, trials))
    assert section is not None
    text = words(section)
    assert "the same five factors on the study's learning rate (0.25, 0.5, 1, 2 and 4) for every method" in text
    assert "20 runs, of which 8 were stopped early since they could not win, which saved 24% of the steps" in text
    assert "is above the noise of a pair (0.0200 nats, on 9 degrees of freedom) for 1 of 2 methods" in text
    assert "At an edge of the grid: MoLA." in text
    assert "would choose another factor for MoLA." in text
    assert "Not searched for: MoSLD." in text
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert [[cell.text for cell in line.cells] for line in table.rows] == [
        ["LoRA", "1", "2", "0.1000", "yes", "1", "4 of 10"],
        ["MoLA", "1 (edge)", "0.5", "0.0100", "no", "0.5", "4 of 10"],
    ]
    assert table.frame is not None
    assert len(table.frame) == 20
    assert table.frame[table.frame.chosen].factor.tolist() == [1.0] * 4


def test_the_comparison_is_repeated_at_the_next_best_rates(tmp_path: Path) -> None:
    study, trials = at_both_rates(tmp_path)
    analysis = analysis_of(tmp_path, study, trials)
    section = tuning_section(analysis)
    assert section is not None
    again = {c.row.recipe.name: c for c in analysis.against_reference(MIXTURE._replace(rate="runner_up"))}
    assert again["lora"].verdict is Verdict.WORSE
    assert "repeats the comparison with every method at its next best rate: 1 of 2 verdicts stay." in words(section)
    rates = next(block for block in section.blocks if isinstance(block, Table) and block.name == "rates")
    assert rates.frame is not None
    assert rates.frame.groupby("rates").difference.apply(list).to_dict() == {
        rate: pytest.approx([c.difference.mean for c in analysis.against_reference(MIXTURE._replace(rate=rate))])
        for rate in ("chosen", "runner_up")
    }


def test_a_comparison_at_one_rate_is_said_to_be_one(tmp_path: Path) -> None:
    study = searched(make_study(reference="mosld", in_domain=("a",), out_of_domain=()))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    write_records(tmp_path, [make_record(trial, study) for trial in trials])
    section = tuning_section(analysis_of(tmp_path, study, trials))
    assert "was not repeated at the next best rates" in words(section)


def test_the_figure_has_a_panel_a_method_with_the_noise_and_the_stopped_runs(tmp_path: Path) -> None:
    study, trials = at_both_rates(tmp_path)
    with report_style():
        plot = learning_rates.draw(analysis_of(tmp_path, study, trials))
    assert plot is not None
    panels = [axes for axes in plot.figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["LoRA", "MoLA"]
    for axes in panels:
        (band,) = axes.patches
        assert band.get_extents().transformed(axes.transData.inverted()).intervaly == pytest.approx([2.005, 2.025])
        crosses = [line.get_xydata() for line in axes.lines if line.get_marker() == "x"]
        points = [np.asarray(cross, dtype=float)[0].tolist() for cross in crosses]
        assert sorted(x for x, _ in points) == [0.25, 0.25, 4.0, 4.0]
        assert all(y <= axes.get_ylim()[1] for _, y in points)


def test_a_study_without_a_search_has_neither(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=())
    trials = make_trials(study, [RECIPES["lora"]])
    write_records(tmp_path, [make_record(trial, study) for trial in trials])
    analysis = analysis_of(tmp_path, study, trials)
    assert tuning_section(analysis) is None
    assert learning_rates.draw(analysis) is None
