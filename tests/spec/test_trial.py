"""Trials: what their ids follow, and that the ids of the shipped studies are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Domain, Trial
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY, write_text
from tests.spec.tiny import tiny_study

#: Study -> the ids of its trials. An id that changes makes every record of its trial one of another trial: only a
#: change of PROTOCOL_VERSION, of a recipe, a task or a study may change what stands here.
IDS: dict[str, list[str]] = json.loads(Path(__file__).with_name("trial_ids.json").read_text(encoding="utf-8"))
SHIPPED = Workspace(REPOSITORY, REPOSITORY)


def test_ids_of_every_shipped_study_are_kept() -> None:
    assert SHIPPED.studies().keys() == IDS.keys()


@pytest.mark.parametrize("name", IDS)
def test_a_shipped_study_has_the_trials_that_it_had(name: str) -> None:
    assert [trial.id for trial in Study.load(SHIPPED.study_file(name)).plan(SHIPPED)] == IDS[name]


def test_trial_ids_follow_what_changes_the_numbers_and_nothing_else(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)

    def last(**overrides: object) -> Trial:
        return tiny_study(tiny, **overrides).plan(workspace)[-1]

    reference = last()
    assert reference.id.startswith("mosld-mixture-6k-s0-")
    assert last(**{"resources.score_tokens": 17}).id == reference.id
    assert last(**{"train.micro_tokens": 17}).id != reference.id
    assert last(question="Another?").id == reference.id
    assert last(**{"train.steps": 5}).id != reference.id
    assert last(**{"evaluate.limit": 5}).protocol != reference.protocol
    assert last(budgets=["9k"]).protocol == reference.protocol
    rounded = {load: last(**{"model.load": load}) for load in ("nf4", "int8")}
    assert len({trial.id for trial in (reference, *rounded.values())}) == 3
    assert len({trial.protocol for trial in (reference, *rounded.values())}) == 3
    assert {trial.model.name for trial in rounded.values()} == {reference.model.name}
    assert rounded["nf4"].model.folder == reference.model.folder
    assert "load" not in reference.model_dump()["model"]
    assert rounded["nf4"].model_dump()["model"]["load"] == "nf4"
    assert rounded["nf4"].model != reference.model
    assert reference.text == ()
    assert "text" not in reference.model_dump()["evaluate"]
    write_text(tiny / "tasks", "prose", ["ab cd", "ef"])
    prose = last(**{"evaluate.text": "prose"})
    assert prose.text == ("prose",)
    assert {prose.id, prose.protocol}.isdisjoint({reference.id, reference.protocol})
    assert set(prose.task_digests) == {*reference.task_digests, "prose"}
    assert (prose.scored_on, prose.train_on) == (reference.scored_on, reference.train_on)
    write_text(tiny / "tasks", "prose", ["ab cd", "eg"])
    other = last(**{"evaluate.text": "prose"})
    assert {other.id, other.protocol}.isdisjoint({prose.id, prose.protocol})
    with (tiny / "tasks" / "copy.jsonl").open("a") as file:
        file.write(json.dumps({"id": "z", "question": "z", "options": ["z", "y"], "answer": 0}) + "\n")
    assert last().id != reference.id


def test_a_trial_comes_back_from_json_as_it_was(tiny: Path) -> None:
    trials = tiny_study(tiny, budgets=["6k", "0.5%", "lora-r2", "r2"]).plan(Workspace(tiny, tiny))
    for trial in trials:
        again = Trial.model_validate_json(trial.model_dump_json())
        assert again == trial
        assert type(again.budget) is type(trial.budget)
        assert again.id == trial.id


def test_domains_are_their_text() -> None:
    assert [str(domain) for domain in Domain] == ["in_domain", "out_of_domain"]
    assert [domain.label for domain in Domain] == ["In-domain", "Out-of-domain"]
