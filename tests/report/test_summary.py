"""The summary: it says what the numbers bear, and no more."""

from __future__ import annotations

from pathlib import Path

from mosld_bench.report.sections.summary import summary
from tests.report.reading import analysis_of, analysis_with, uneven_analysis
from tests.support.synthetic import (
    RECIPES,
    make_failure,
    make_record,
    make_records,
    make_study,
    make_trials,
    write_records,
)


def test_the_best_row_is_told_with_its_margin_and_with_what_a_test_does_not_separate(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=())
    scores = {"lora": (0.60, 0.61, 0.605), "mola": (0.69, 0.72, 0.70), "mosld": (0.70, 0.71, 0.71)}
    trials = make_trials(study, [RECIPES[name] for name in ("full", *scores)])
    values = {**scores, "full": (0.9, 0.9, 0.9)}
    records = [make_record(t, study, values={"a": values[t.recipe.name][t.seed]}) for t in trials]
    text = " ".join(summary(analysis_with(tmp_path, study, records)))
    assert "MoSLD has the highest in-domain mean" in text
    assert "10.2 points above LoRA" in text
    assert "Three seeds do not separate it from MoLA" in text


def test_a_row_of_one_seed_is_told_apart(tmp_path: Path) -> None:
    text = " ".join(summary(uneven_analysis(tmp_path)))
    assert "MoSLD has the highest in-domain mean of those with three seeds, 70.7" in text
    assert (
        "Three seeds do not separate it from MoLA. Not tested, for want of a second seed in common: MoE-LoRA and"
        in text
    )
    assert "Higher on the seeds in common: MoE-LoRA (by 5.0 points, n = 1)." in text


def test_rows_without_a_common_seed_are_not_called_separated(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0, 1, 2))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mola"]])
    apart = [trial for trial in trials if (trial.recipe.name == "mola") == (trial.seed == 2)]
    write_records(tmp_path, [make_record(trial, study) for trial in apart])
    text = " ".join(summary(analysis_of(tmp_path, study, trials)))
    assert "separated from all" not in text
    assert "No other method" not in text


def test_missing_and_failed_trials_make_the_picture_partial(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mola", "mosld"), skip=1)
    assert summary(analysis_of(tmp_path, study, trials))[-1] == (
        "1 of 9 planned trials have no record, so the picture is partial."
    )
    write_records(tmp_path, [make_failure(trials[-1], "FloatingPointError: nan")])
    assert summary(analysis_of(tmp_path, study, trials))[-1].endswith(
        "the picture is partial; one trial of them failed (MoSLD; why is said under the table of results)."
    )
