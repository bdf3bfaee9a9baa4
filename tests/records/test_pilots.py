"""Which records tell the noise of a study before it has run, and that few of them are read to know it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.records.pilots import Pilot, find_pilots
from mosld_bench.records.record import Record
from mosld_bench.records.store import Store
from mosld_bench.spec.plain_file import read_text_file
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import EvaluateSpec, GeneralData, ModelSpec, TrainSpec, Trial
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials, write_records

NAMES = ("lora", "mola", "mosld")


def record_study(
    root: Path, name: str, protocol: str = "00c0ffee", recipes: tuple[str, ...] = NAMES, **changes: Any
) -> list[Trial]:
    """Write every record of a study of that name; its trials."""
    study = make_study(name=name, recipes=recipes, **changes)
    trials = make_trials(study, [RECIPES[recipe] for recipe in recipes], protocol=protocol)
    write_records(root, (make_record(trial, study) for trial in trials))
    return trials


def planned(**changes: Any) -> tuple[Study, list[Trial]]:
    study = make_study(name="mine", recipes=NAMES, **changes)
    return study, make_trials(study, [RECIPES[recipe] for recipe in NAMES])


def nearest(root: Path, **changes: Any) -> list[Pilot]:
    study, trials = planned(**changes)
    return sorted(find_pilots(study, trials, Store(root / "results")), key=lambda pilot: pilot.distance(trials[0]))


def test_nothing_tells_where_there_are_no_records(tmp_path: Path) -> None:
    assert nearest(tmp_path) == []


def test_the_study_itself_comes_before_others(tmp_path: Path) -> None:
    record_study(tmp_path, "aaa")
    record_study(tmp_path, "mine", seeds=(0, 1))
    own, other = nearest(tmp_path)
    assert (own.study, own.own, own.freedom) == ("mine", True, 2)
    assert (other.study, other.own, other.freedom) == ("aaa", False, 4)
    assert own.differences(planned()[1][0]) == other.differences(planned()[1][0]) == {}


def test_a_search_for_learning_rates_is_no_pilot(tmp_path: Path) -> None:
    """It has every recipe at many rates, and scores no test item."""
    record_study(tmp_path, "mine-tuning", "9", out_of_domain=(), evaluate=EvaluateSpec(split="validation"))
    assert nearest(tmp_path) == []


def test_what_differs_is_named_and_the_nearest_is_first(tmp_path: Path) -> None:
    """By the model, then by how they were trained, then by setting, general data and budget, then by whose they are."""
    other_model = [ModelSpec(name="embedded", revision="fedcba987654")]
    record_study(tmp_path, "same")
    record_study(tmp_path, "items", evaluate=EvaluateSpec(limit=100))
    record_study(tmp_path, "size", budgets=("120000",))
    record_study(tmp_path, "setting", settings=("single",))
    record_study(tmp_path, "length", "1", train=TrainSpec(steps=400, learning_rate=5e-3))
    record_study(tmp_path, "epochs", "2", train=TrainSpec(epochs=2, learning_rate=1e-3))
    record_study(tmp_path, "model", "3", models=other_model)
    record_study(tmp_path, "far", "4", models=[ModelSpec(name="far")], budgets=("120000",))
    asked = planned()[1][0]
    assert [(pilot.study, pilot.differences(asked)) for pilot in nearest(tmp_path)] == [
        ("same", {}),
        ("items", {}),
        ("size", {"budget": "120000"}),
        ("setting", {"setting": "single"}),
        ("length", {"train.steps": "400"}),
        ("epochs", {"train.epochs": "2.0", "train.learning_rate": "0.001"}),
        ("model", {"model": "revision fedcba987654"}),
        ("far", {"model": "far", "budget": "120000"}),
    ]


def test_general_data_and_other_items_are_named(tmp_path: Path) -> None:
    trial = planned()[1][0]
    there = trial.model_copy(
        update={"general": GeneralData(task="openorca", items=40), "evaluate": EvaluateSpec(sample_seed=5)}
    )
    assert Pilot((there,), True, True).differences(trial) == {"evaluate.sample_seed": "5", "general.items": "40"}
    limited = trial.model_copy(update={"train": TrainSpec(steps=200, learning_rate=5e-3, task_items=100)})
    assert Pilot((trial,), True, True).differences(limited) == {"train.task_items": "none"}


def test_other_tasks_tell_nothing(tmp_path: Path) -> None:
    """Fewer tasks, more, or one of another definition; in the setting single the tasks of all models count."""
    tasks = make_study().in_domain
    record_study(tmp_path, "fewer", in_domain=tasks[1:])
    record_study(tmp_path, "more", in_domain=(*tasks, "another"))
    for trial in record_study(tmp_path / "aside", "changed"):
        changed = trial.model_copy(update={"task_digests": trial.task_digests | {tasks[0]: "11111111"}})
        write_records(tmp_path, [make_record(changed, make_study())])
    assert nearest(tmp_path) == []
    record_study(tmp_path, "single", settings=("single",))
    assert [pilot.study for pilot in nearest(tmp_path)] == ["single"]


def test_other_tasks_out_of_domain_tell_of_those_in_domain(tmp_path: Path) -> None:
    record_study(tmp_path, "none", out_of_domain=())
    record_study(tmp_path, "more", out_of_domain=(*make_study().out_of_domain, "another"))
    assert {pilot.study: pilot.outside for pilot in nearest(tmp_path)} == {"none": False, "more": True}


@pytest.mark.parametrize(("recipes", "seeds"), [(NAMES, (0,)), (("lora",), (0, 1, 2)), (("lora", "mosld"), (0, 1))])
def test_too_few_seeds_tell_nothing(tmp_path: Path, recipes: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    record_study(tmp_path, "few", recipes=recipes, seeds=seeds)
    assert nearest(tmp_path) == []


def test_rows_of_one_seed_and_untrained_models_are_no_part_of_it(tmp_path: Path) -> None:
    record_study(tmp_path, "mine", recipes=("base", "lora", "mosld"))
    record_study(tmp_path, "mine", recipes=("mola", "full"), seeds=(0,))
    (pilot,) = nearest(tmp_path)
    assert {trial.recipe.name for trial in pilot.trials} == {"lora", "mosld"}


def test_of_a_recipe_that_was_changed_the_version_with_most_seeds_counts(tmp_path: Path) -> None:
    record_study(tmp_path, "mine")
    study, trials = planned(seeds=(0, 1))
    faster = RECIPES["lora"].model_copy(update={"learning_rate_scale": 2.0})
    changed = [trial.model_copy(update={"recipe": faster}) for trial in trials if trial.recipe.name == "lora"]
    write_records(tmp_path, [make_record(trial, study) for trial in changed])
    (pilot,) = nearest(tmp_path)
    of_lora = [trial for trial in pilot.trials if trial.recipe.name == "lora"]
    assert len(of_lora) == 3
    assert {trial.recipe.learning_rate_scale for trial in of_lora} == {1.0}


def test_few_files_are_opened_to_find_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record is read whole, and none at all of a study without two recipes of several seeds."""
    record_study(tmp_path, "mine")
    record_study(tmp_path, "wide", seeds=(0,), budgets=tuple(str(60_000 + i) for i in range(30)))
    opened: list[Path] = []
    monkeypatch.setattr(Record, "model_validate_json", None)

    def noted(path: Path, **options: Any) -> str:
        opened.append(path)
        return read_text_file(path, **options)

    monkeypatch.setattr("mosld_bench.records.store.read_text_file", noted)
    (pilot,) = nearest(tmp_path)
    assert sorted(path.parts[-2] for path in opened) == sorted(trial.id for trial in pilot.trials)


def test_a_trial_is_read_as_its_record_has_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    trials = record_study(tmp_path, "mine")
    assert store.trial_ids() == {"mine": sorted(trial.id for trial in trials)}
    for trial in trials:
        record = store.record(trial)
        assert record is not None
        assert store.trial("mine", trial.id) == trial == record.trial


def test_damaged_records_are_left_out(tmp_path: Path) -> None:
    trials = record_study(tmp_path, "mine")
    store = Store(tmp_path / "results")
    (store.folder(trials[0]) / "record.json").write_text("{")
    (store.folder(trials[1]) / "record.json").write_text('{"trial": {"study": "mine"}}')
    kept = store.folder(trials[3])
    shutil.copytree(kept, kept.with_name(f"{kept.name[:-8]}00000000"))  # by hand: not the folder of this trial
    (pilot,) = nearest(tmp_path)
    assert [trial.id for trial in pilot.trials] == [trial.id for trial in trials[3:]]
    record = kept / "record.json"
    record.write_text(record.read_text().replace('"status"', '"state"'))
    assert len(pilot.records(store)) == len(pilot.trials) - 1
