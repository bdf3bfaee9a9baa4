"""What was scored and not trained here has a section of its own, and changes nothing else of a report."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosld_bench.errors import BadFileError
from mosld_bench.records.scored import ScoredOutcome, ScoredParameters
from mosld_bench.records.store import Store
from mosld_bench.reporting.compose import compose
from mosld_bench.reporting.sections.scored import scored_section
from mosld_bench.spec.trial import Domain, EvaluateSpec, ModelSpec
from tests.reporting.reading import analysis_of, tables_of, words
from tests.support.synthetic import IN_DOMAIN, OUT_OF_DOMAIN, items_of, make_records, make_scored

RECIPES = ("lora", "mosld")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def test_it_stands_apart_and_changes_nothing_else(root: Path) -> None:
    study, trials = make_records(root, RECIPES)
    store, before = Store(root / "results"), compose(analysis_of(root, study, trials), [])
    assert scored_section(analysis_of(root, study, trials)) is None
    record = next(record for record in store.records(study.name) if record.trial.recipe.name == "lora")
    store.write_scored(ScoredOutcome(make_scored(record, "scored-a"), items_of(record)))
    analysis = analysis_of(root, study, trials)
    after = compose(analysis, [])
    others = [section.data() for section in after.sections if section.title != "Scored, not trained here"]
    assert others == [section.data() for section in before.sections]
    assert (after.answers, after.summary) == (before.answers, before.summary)
    section = scored_section(analysis)
    assert "not trained under this study" in words(section)
    table = tables_of(section)["scored"]
    assert table.frame is not None
    (row,) = table.frame.to_dict("records")
    assert (row["title"], row["trainable_parameters"], row["peft_type"]) == ("Somebody's LoRA", 12_345, "LORA")
    values = {metric.task: metric.value for metric in record.metrics if metric.primary}
    assert {task: row[task] for task in values} == values
    for domain, tasks in ((Domain.IN, IN_DOMAIN), (Domain.OUT, OUT_OF_DOMAIN)):
        mean = sum(values[task] for task in tasks) / len(tasks)
        assert row[f"{domain}_mean"] == pytest.approx(mean)
        # Independent items of right and wrong answers: the variances of the tasks' means add up.
        variance = sum(values[task] * (1 - values[task]) / 399 for task in tasks) / len(tasks) ** 2
        assert row[f"{domain}_high"] - row[f"{domain}_low"] == pytest.approx(2 * 1.96 * variance**0.5, rel=0.02)


def test_what_is_not_the_same_is_said_and_other_items_are_no_score(root: Path) -> None:
    study, trials = make_records(root, RECIPES)
    store = Store(root / "results")
    record = next(record for record in store.records(study.name) if record.trial.recipe.name == "lora")
    other = make_scored(
        record, "scored-b", title="Another", model=ModelSpec(name="org/other"), dtype="bfloat16", adapter=None,
        parameters=ScoredParameters(trainable=None, stored=None, total=7),
        task_digests={**record.trial.task_digests, "science": "changed0"},
        metrics=tuple(metric for metric in record.metrics if metric.task != "people"),
        tasks=tuple(task for task in record.trial.scored_on if task != "people"),
        notes=("Where it is from cannot be told.",),
    )  # fmt: skip
    store.write_scored(ScoredOutcome(other, items_of(record)))
    store.write_scored(
        ScoredOutcome(make_scored(record, "scored-c", title="Fewer", evaluate=EvaluateSpec(limit=20)), items_of(record))
    )
    store.write_scored(ScoredOutcome(make_scored(record, "scored-d", title="None", tasks=("else",)), items_of(record)))
    section = scored_section(analysis_of(root, study, trials))
    text = words(section)
    for said in (
        "Another: Where it is from cannot be told.",
        "Another: its base model is org/other.",
        "Another: it was computed in bfloat16, the study in float32.",
        "Another: its scores on science are left out, since they are of other items than the study's.",
        "None: it was scored on none of the study's tasks.",
    ):
        assert said.lower() in text.lower(), text
    frame = tables_of(section)["scored"].frame
    assert frame is not None
    rows = {row["title"]: row for row in frame.to_dict("records")}
    assert "Fewer" not in rows, "of other items on every task"
    another = rows["Another"]
    assert all(another[key] != another[key] or another[key] is None for key in ("science", "people", "in_domain_mean"))
    assert another["trainable_parameters"] != another["trainable_parameters"] or another["trainable_parameters"] is None


def test_a_damaged_file_is_named(root: Path) -> None:
    study, trials = make_records(root, RECIPES)
    folder = root / "results" / study.name / "scored-a"
    folder.mkdir()
    (folder / "scored.json").write_text("{}")
    with pytest.raises(BadFileError, match=r"scored-a/scored.json is no scored record of this version"):
        analysis_of(root, study, trials)
