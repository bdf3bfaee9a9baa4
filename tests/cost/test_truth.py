"""Estimates beside the kept records: memory within 15 %, hours within 30 %, where a record can tell."""

from __future__ import annotations

import pytest

from tests.conftest import REPOSITORY
from tests.support import truth
from tests.support.truth import STUDIES, Truth, truths

#: Of each reason why a record tells nothing of an estimate, how many records of the studies it holds of: that no more
#: are set aside than are known to be.
BUSY = {"smollm2": 7, "smollm2-budget": 3, "ablation-smollm2": 13}
FIRST = {"smollm2": 11, "smollm2-budget": 3, "ablation-smollm2": 7}


def ours(study: str) -> list[Truth]:
    """The records but for MixLoRA's: it works element by element on the feed-forward block, which no formula counts."""
    return [each for each in truths(study) if each.record.trial.recipe.method != "mixlora"]


@pytest.mark.parametrize("study", STUDIES)
def test_hours_are_within_30_percent_of_what_trials_took(study: str) -> None:
    """At the FLOP/s of the study's trials. A record made beside other work tells the hours of both."""
    apart = [each for each in truths(study) if each.busy]
    assert len(apart) == BUSY[study]
    ratios = {each.record.trial_id: each.hours_ratio for each in ours(study) if not each.busy}
    assert {name: ratio for name, ratio in ratios.items() if not 0.7 <= ratio <= 1.3} == {}


@pytest.mark.parametrize("study", STUDIES)
def test_memory_is_within_15_percent_of_what_processes_took(study: str) -> None:
    """Of a worker's later trials. In its first one fewer kernels are compiled, of those that are in bfloat16."""
    apart = [each for each in truths(study) if each.first]
    assert len(apart) == FIRST[study]
    ratios = {each.record.trial_id: each.memory_ratio for each in ours(study) if not each.first}
    assert {name: ratio for name, ratio in ratios.items() if not 0.85 <= ratio <= 1.15} == {}
    most = {each.record.trial_id: 1.35 if each.record.size.trainable else 1.45 for each in apart if each.record.size}
    assert all(0.95 <= each.memory_ratio <= most[each.record.trial_id] for each in apart if not each.in_float32)
    assert all(0.95 <= each.memory_ratio <= 1.05 for each in apart if each.in_float32)


def test_the_table_in_the_readme_is_what_the_records_say() -> None:
    text = (REPOSITORY / "mosld_bench" / "README.md").read_text(encoding="utf-8")
    assert "\n".join(truth.table()) in text


def test_embedded_processes_take_what_is_estimated() -> None:
    """The mean peak of each recipe as the kept report of `embedded` has it; its records are not kept."""
    import csv

    from mosld_bench import plan

    with (REPOSITORY / "reports/embedded/tables/cost.csv").open(encoding="utf-8") as file:
        recorded = {row["recipe"]: float(row["peak_memory_mib"]) * 2**20 for row in csv.DictReader(file)}
    made = plan("embedded", root=REPOSITORY).plan
    estimated = {
        planned.trial.recipe.name: price.process
        for planned, price in zip(made.planned, made.prices, strict=True)
        if price
    }
    assert estimated.keys() == recorded.keys()
    assert {name: bytes_ / recorded[name] for name, bytes_ in estimated.items()} == {
        name: pytest.approx(1, abs=0.15) for name in recorded
    }
