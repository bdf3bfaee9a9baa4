"""What the page has beside numbers: trials, items, rates; and what is missing is null."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mosld_bench.cli.options import StudyOptions
from mosld_bench.records.store import Store
from mosld_bench.reporting.analysis import Analysis, analyse
from mosld_bench.reporting.explorer.data import explorer_data
from mosld_bench.reporting.explorer.items import item_files
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.explorer.plain import encoded
from mosld_bench.reporting.explorer.study import GROUP_TITLES
from mosld_bench.reporting.explorer.trials import repeat
from mosld_bench.spec.recipe import GROUPS
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Domain, Trial
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY
from tests.reporting.explorer.conftest import Explored, explored
from tests.reporting.reading import analysis_of
from tests.support.explorer import SCRIPT, TRACEBACK
from tests.support.synthetic import RECIPES, make_record, make_records, make_study, make_trials, write_records


def test_a_record_has_its_whole_configuration(hostile: Explored) -> None:
    data = hostile.data
    for record, told in zip(hostile.analysis.records, data["records"], strict=True):
        assert Trial.model_validate(told["config"]).id == told["trial"] == record.trial_id
        assert data["rows"][told["row"]]["trials"].count(told["trial"]) == 1
        assert {metric["task"] for metric in told["metrics"]} == set(record.trial.scored_on)
        assert told["meta"]["versions"]["torch"] == "2.9.1"
        assert "curve" not in (told["train"] or {})
    assert sum(told["outdated"] for told in data["records"]) == 1


def test_what_failed_and_what_is_missing_is_there_with_its_error(hostile: Explored) -> None:
    (failure,) = hostile.data["failures"]
    assert failure["error"] == TRACEBACK.splitlines()[-1]
    assert failure["traceback"] == TRACEBACK
    assert [of["trial"] for of in hostile.data["missing"]] == [failure["trial"]]
    assert hostile.data["study"]["counts"] == {"planned": 49, "finished": 48, "missing": 1, "failed": 1}
    row = next(row for row in hostile.data["rows"] if row["missing"])
    assert row["scores"][0]["by_seed"][-1][0] == 1, "a seed without all its tasks has no mean"


def options_of(command: str) -> dict[str, Any]:
    """What the options of a command change in a study."""
    words = shlex.split(command)[3:]
    named: dict[str, Any] = {"set_": []}
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option == "--set":
            named["set_"].append(value)
        elif option != "--overwrite":
            named[option.removeprefix("--")] = value
    return StudyOptions(**named).overrides()


@pytest.mark.parametrize("name", ["smollm2", "scarce", "general-data", "ablation", "embedded"])
def test_a_command_that_repeats_a_trial_asks_for_that_trial(name: str) -> None:
    workspace = Workspace(REPOSITORY, REPOSITORY)
    file = workspace.study_file(name)
    study = Study.load(file)
    plan = study.plan(workspace)
    chosen = {trial.condition: trial for trial in reversed(plan)}
    for trial in chosen.values():
        (command,) = repeat(trial, study)
        assert command.startswith(f"mosld-bench run {name} ")
        ids = {other.id for other in Study.load(file, options_of(command)).plan(workspace)}
        assert trial.id in ids
        models = len(study.in_domain) if trial.setting == "single" else 1
        assert len({i for i in ids if not i.startswith("base-frozen")}) == (trial.setting != "frozen") * models


def test_a_recorded_command_is_narrowed_to_its_trial() -> None:
    study = make_study()
    trial = make_trials(study, [RECIPES["lora"]])[1]
    made = "mosld-bench run synthetic --methods all --seeds=0,1,2 --data-root mirror --overwrite always"
    checkout, command = repeat(trial, study, command=made, commit="8c1f0de5a7b94b5e8a3f6a1c2d3e4f5061728394")
    assert checkout == "git checkout 8c1f0de5a7b9"
    assert command == (
        "mosld-bench run synthetic --data-root mirror --methods lora --seeds 1 --settings mixture --budget 60000 "
        "--overwrite always"
    )
    assert repeat(trial, study, command="python notebook.py")[0].startswith("mosld-bench run synthetic --methods lora")
    assert repeat(trial, study, command="'")[0].startswith("mosld-bench run synthetic --methods lora")


def test_items_give_the_numbers_of_the_rows(hostile: Explored) -> None:
    data, items = hostile.data, hostile.items
    assert list(items) == ["commonsense", "science", "people"]
    for task in items.values():
        assert len(task["doc"]) == len(task["item"]) == len(task["hash"]) == len(task["target"]) == 400
        assert sorted(task["order"]) == list(range(400))
        hardest, easiest = task["order"][0], task["order"][-1]
        assert task["mean"][hardest] == min(task["mean"])
        assert task["mean"][easiest] == max(task["mean"])
        for place, row in enumerate(task["rows"]):
            assert len(task["score"][place]) == len(task["logliks"][place]) == len(task["predictions"][place]) == 400
            assert len(task["predictions"][place][0]) == len(task["runs"][place])
            told = data["rows"][row]["scores"][task["measure"]]["mean"]
            values = task["score"][place]
            if told is not None and None not in values:
                assert np.mean(values) == pytest.approx(told, abs=1e-4)
    first = items["commonsense"]
    row = first["rows"].index(data["rows"].index(next(r for r in data["rows"] if r["id"].startswith("lora/mixture"))))
    item = first["order"][200]
    right = [answer == first["target"][item] for answer in first["predictions"][row][item]]
    assert first["score"][row][item] == pytest.approx(np.mean(right), abs=1e-4)
    expected = np.mean([[-1.0, -2.0] if yes else [-2.0, -1.0] for yes in right], axis=0)
    assert first["logliks"][row][item] == pytest.approx(expected, abs=1e-4)


def test_a_prompt_is_there_where_it_was_noted(hostile: Explored) -> None:
    assert [file["prompts"] for file in hostile.data["items"]["files"]] == [True, True, False]
    assert hostile.items["people"]["prompt"] is hostile.items["people"]["options"] is None
    told = hostile.items["science"]
    assert told["prompt"][7].startswith(f"Question 7: {SCRIPT}")
    assert len(told["options"][7]) == len(told["logliks"][0][7]) == 2


def test_learning_rates_come_from_the_search_or_from_a_table_beside_the_study(
    hostile: Explored, tmp_path: Path
) -> None:
    rates = hostile.data["learning_rates"]
    assert rates["source"] == "search"
    assert [recipe["name"] for recipe in rates["recipes"]] == ["lora", "mosld"]
    lora = rates["recipes"][0]
    assert (lora["chosen"], lora["above_noise"], len(lora["runs"])) == (1, True, 6)
    assert lora["points"][0] == {"factor": 0.5, "rate": 0.0025, "loss": pytest.approx(2.105), "score": 0.6}
    assert lora["points"][2]["loss"] is None
    study, trials = make_records(tmp_path, ("base", "lora"))
    file = tmp_path / "learning_rates.csv"
    file.write_text("recipe,learning_rate,validation_loss\nlora,0.01,2.5\nlora,0.005,2.25\nother,0.005,x\n")
    table = explorer_data(analysis_of(tmp_path, study, trials), tmp_path)["learning_rates"]
    assert table is not None
    assert [(point["factor"], point["loss"]) for point in table["recipes"][0]["points"]] == [(1.0, 2.25), (2.0, 2.5)]
    for text in ("a,b\n1,2\n", "\x00", "recipe,learning_rate,validation_loss\n"):
        file.write_text(text)
        assert explorer_data(analysis_of(tmp_path, study, trials), tmp_path)["learning_rates"] is None


def test_a_study_of_one_seed_without_items_or_routers(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("base", "full", "lora", "mola"), seeds=(0,))
    told = explored(analysis_of(tmp_path, study, trials), tmp_path)
    assert told.items == {}
    assert told.data["items"] is told.data["learning_rates"] is None
    assert told.data["routers"] == told.data["failures"] == told.data["missing"] == []
    comparisons = told.data["comparisons"]
    assert {comparisons["verdicts"][of]["key"] for of in comparisons["verdict"]} == {"untested"}
    assert set(comparisons["low"]) == set(comparisons["p_holm"]) == {None}
    assert {score["sd"] for row in told.data["rows"] for score in row["scores"]} == {None}


def test_rows_without_a_record_are_there_without_numbers(tmp_path: Path) -> None:
    study = make_study(recipes=("base", "lora", "mola"), seeds=(0, 1))
    trials = make_trials(study, [RECIPES[name] for name in study.recipes])
    write_records(tmp_path, [make_record(trial, study) for trial in trials if trial.recipe.name != "mola"])
    told = explored(analysis_of(tmp_path, study, trials), tmp_path)
    row = next(row for row in told.data["rows"] if row["id"].startswith("mola"))
    assert (row["planned"], row["missing"], row["trainable"], row["n"]) == (2, 2, None, 0)
    assert all(score["mean"] is score["rank"] is None for score in row["scores"])
    assert all(cost is None for cost in row["costs"].values())


def test_a_study_that_trains_nothing_has_its_sizes(tmp_path: Path) -> None:
    workspace = Workspace(REPOSITORY, REPOSITORY)
    study = Study.load(workspace.study_file("parameters"))
    sources = Store(workspace.results).sources(study, {})
    data = explored(analyse(study, study.plan(workspace), sources), tmp_path).data
    assert data["measures"] == []
    assert data["study"]["trains"] is False
    assert all(row["trainable"] and row["scores"] == [] for row in data["rows"])


def test_a_page_of_fifty_trials_is_well_below_five_megabytes(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, seeds=tuple(range(6)))
    assert len(trials) == 49
    assert len(encoded(explorer_data(analysis_of(tmp_path, study, trials), tmp_path))) < 2e6


def test_unlike_scales_have_no_mean(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), recipes=("lora", "mola"), frozen_base=False)
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mola"]])
    records = []
    for trial in trials:
        record = make_record(trial, study)
        metrics = [
            m.model_copy(update={"metric": "perplexity,none", "value": 30.5, "higher_is_better": False, "chance": None})
            if m.task == "b" and m.primary
            else m
            for m in record.metrics
        ]
        records.append(record.model_copy(update={"metrics": tuple(metrics)}))
    write_records(tmp_path, records)
    data = explored(analysis_of(tmp_path, study, trials), tmp_path).data
    assert [of["key"] for of in data["measures"]] == [Domain.OUT, "a", "b", "c"]
    scale = data["measures"][2]["scale"]
    assert (scale["range"], scale["higher_is_better"], scale["decimals"], scale["factor"]) == ("number", False, None, 1)
    assert data["measures"][2]["margin"] is None


def test_damaged_texts_are_no_texts(hostile: Explored, tmp_path: Path) -> None:
    (tmp_path / "results" / "synthetic").mkdir(parents=True)
    (tmp_path / "results" / "synthetic" / "texts.parquet").write_text("no parquet")
    analysis: Analysis = replace(hostile.analysis, texts=lambda: Store(tmp_path / "results").texts("synthetic"))
    (first, *_) = item_files(analysis, Places.of(analysis))
    assert first.entry["prompts"] is False


def test_the_same_records_give_the_same_data(hostile: Explored, tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("base", "lora", "mola"), items=True)
    tasks: dict[str, dict[str, Any]] = {task: {} for task in study.tasks}
    made = set()
    for _ in range(2):
        analysis = analyse(study, trials, Store(tmp_path / "results").sources(study, tasks))
        files = list(item_files(analysis, Places.of(analysis)))
        made.add(encoded(explorer_data(analysis, tmp_path, files)) + "".join(file.text for file in files))
    assert len(made) == 1


def keys_of(value: Any, free: frozenset[str]) -> set[str]:
    """Every key of the objects in ``value``; what lies below the ``free`` ones is not ours to name."""
    if isinstance(value, dict):
        inner = [keys_of(of, free) for key, of in value.items() if key not in free]
        return set(value).union(*inner)
    return set().union(*(keys_of(of, free) for of in value)) if isinstance(value, list) else set()


def test_the_page_beside_the_code_describes_every_key(hostile: Explored) -> None:
    text = (REPOSITORY / "mosld_bench" / "reporting" / "explorer" / "README.md").read_text(encoding="utf-8")
    free = frozenset({"config", "size", "train", "evaluation", "meta", "params"})
    keys = keys_of(hostile.data, free) | keys_of(list(hostile.items.values()), free)
    assert len(keys) > 150
    assert keys <= set(re.findall(r"`(\w+)`", text)), "each is named there"


def test_every_group_of_recipes_has_a_title() -> None:
    """Those of users and plug-ins too: a page of their recipes is made as any other."""
    assert set(GROUP_TITLES) == set(GROUPS)
