"""Which records a report counts, and what it says where none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosld_bench.errors import BenchError
from tests.reporting.reading import analysis_of
from tests.support.synthetic import (
    RECIPES,
    make_failure,
    make_record,
    make_records,
    make_study,
    make_trials,
    write_records,
)


def test_only_what_was_asked_for_counts(tmp_path: Path) -> None:
    """Other seeds, recipes and sizes that lie beside the planned trials are counted, and are no rows."""
    study, trials = make_records(tmp_path, recipes=("lora", "mosld"))
    changed = RECIPES["mosld"].model_copy(update={"params": {**RECIPES["mosld"].params, "dropout": 0.5}})
    others = [
        *make_trials(make_study(seeds=(0, 1, 2, 3)), [RECIPES["lora"], RECIPES["mola"]]),
        *make_trials(study, [changed]),
        *make_trials(study, [RECIPES["mosl"]], protocol="0ther000"),
    ]
    write_records(tmp_path, [make_record(trial, study) for trial in others])
    analysis = analysis_of(tmp_path, study, trials)
    seeds = {row.recipe.name: len(row.by_seed()) for row in analysis.rows}
    assert seeds == {"lora": 3, "mosld": 3}
    assert (analysis.unasked, analysis.other_protocol, analysis.superseded, analysis.missing) == (5, 3, 3, ())
    lora = analysis_of(tmp_path, study, [trial for trial in trials if trial.recipe.name == "lora"])
    assert [row.recipe.name for row in lora.rows] == ["lora"]


def test_of_a_block_the_latest_target_counts(tmp_path: Path) -> None:
    """A budget named after a recipe moves with it; rows of the old and the new size are not set side by side."""
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0,))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mola"]])
    for trial, target, day in zip(trials, (50_000, 60_000), (1, 2), strict=True):
        record = make_record(trial, study)
        assert record.size is not None
        size = record.size.model_copy(update={"target": target})
        meta = record.meta_info | {"started": f"2026-01-0{day}T10:00:00+00:00"}
        write_records(tmp_path, [record.model_copy(update={"size": size, "meta_info": meta})])
    analysis = analysis_of(tmp_path, study, trials)
    assert {row.recipe.name: len(row.records) for row in analysis.trained} == {"lora": 0, "mola": 1}
    assert [trial.recipe.name for trial in analysis.missing] == ["lora"]


def test_a_failure_counts_until_the_trial_has_a_record(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mosld"), skip=1)
    write_records(tmp_path, [make_failure(trials[0], "Boom: once"), make_failure(trials[-1], "Traceback\nBoom: again")])
    analysis = analysis_of(tmp_path, study, trials)
    assert analysis.missing == (trials[-1],)  # what is there may be of another size, so its failure stays noted
    assert analysis.failures == ((trials[-1], "Boom: again"),)


@pytest.mark.parametrize("foreign", [False, True])
def test_nothing_to_report(tmp_path: Path, foreign: bool) -> None:
    study = make_study()
    trials = make_trials(study, [RECIPES["lora"]])
    hint = "; run `mosld-bench run synthetic`"
    if foreign:
        others = make_trials(study, [RECIPES["lora"]], protocol="0ther000")
        write_records(tmp_path, [make_record(trial, study) for trial in others])
        hint = "; there are 3 of other conditions. Give the options of the run"
    with pytest.raises(BenchError, match=f"no finished trial of the study 'synthetic' as it is asked for{hint}"):
        analysis_of(tmp_path, study, trials)
