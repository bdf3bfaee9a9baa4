"""Names of tasks, studies and recipes: each is refused, or its trial is written inside its study and found again."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mosld_bench.errors import BadFileError, BenchError
from mosld_bench.records.record import Outcome, Record
from mosld_bench.records.store import Store
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.names import MAX_NAME, MAX_TASK_NAME, problem_of_study, problem_of_task
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import PlannedTrial, Trial
from tests.conftest import write_task
from tests.spec.tiny import tiny_study
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials

STUDY = make_study(seeds=(0,))
TRIAL = make_trials(STUDY, [RECIPES["lora"]])[0]

#: Names that mean something to a file system or a shell, and some that mean nothing.
ODD = (
    "mine/kinds", "two words", "a:b", "..", "../../out", "/abs", ".hidden", "-x", "--help", "a\\b", "*", "[ab]", "a|b",
    "naïve", "猫", "e\u0301", "\u00e9", "a\nb", "a\tb", "", " ", " a", "a\0b", "\u202eabc", "con", "x" * 300, "é" * 200,
    "a" * MAX_TASK_NAME, "$HOME", "~", "a;b", "{a,b}", "%s", "A", "a", "published", "record.json", "\ud800",
)  # fmt: skip

NAMES = st.sampled_from(ODD) | st.text(max_size=40) | st.text("abAB/.\\: -~*[]é\n", max_size=12)


def of(task: str, study: str = "mine", recipe: str = "lora") -> Trial:
    """A trial on one task."""
    changes = {"study": study, "setting": "single", "train_on": (task,), "in_domain": (task,), "out_of_domain": ()}
    return TRIAL.model_copy(update={**changes, "recipe": TRIAL.recipe.model_copy(update={"name": recipe})})


def record_of(trial: Trial) -> Record:
    return make_record(TRIAL, STUDY).model_copy(update={"trial": trial, "trial_id": trial.id})


@settings(max_examples=60, deadline=None)
@given(NAMES, NAMES)
def test_a_name_is_refused_or_its_record_lies_in_its_study_and_is_found(
    tmp_path_factory: pytest.TempPathFactory, task: str, study: str
) -> None:
    if problem_of_task(task) or problem_of_study(study):
        return
    root = tmp_path_factory.mktemp("any")
    store, trial = Store(root / "results"), of(task, study)
    record = record_of(trial)
    folder = store.write(Outcome(record))
    assert folder.resolve().parent == (root / "results" / study).resolve()
    assert {path.parent for path in root.rglob("*") if path.is_file()} == {folder}
    assert list(store.records(study)) == [record]
    assert record.size is not None
    assert store.finished(PlannedTrial(trial, record.size)) is not None
    assert [offer.trial for offer in store.elsewhere(PlannedTrial(of(task, "other"), record.size))] == [trial]
    store.write(Outcome(Record(trial=trial, trial_id=trial.id, status="failed", error="ValueError: no luck")))
    assert store.failures(study) == {trial.id: "ValueError: no luck"}


@settings(max_examples=200, deadline=None)
@given(NAMES, st.text("abz0._-", min_size=1, max_size=MAX_NAME), st.integers(0, 2**32 - 1))
def test_an_id_is_one_part_of_a_path_whatever_the_names_are(task: str, recipe: str, seed: int) -> None:
    if "\ud800" in task:  # which no file can hold
        return
    trial = of(task, recipe=f"r{recipe}"[:MAX_NAME]).model_copy(
        update={"budget": Budget.parse(f"{'r' * 100}-r100000"), "seed": seed}
    )
    assert set(trial.id) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")
    assert len(trial.id) <= 255 - len(".tmp12345678")
    assert trial.id[0].isalnum()


def test_names_that_look_alike_in_a_path_are_trials_of_their_own() -> None:
    alike = ["a b", "a/b", "a:b", "A b", "a_b"]
    assert len({of(name).id.lower() for name in alike}) == len(alike)


def test_names_that_no_task_or_study_can_have() -> None:
    refused = {name for name in ODD if problem_of_task(name)}
    assert refused == {"a\nb", "a\tb", "", " ", " a", "a\0b", "\u202eabc", "x" * 300, "\ud800"}
    allowed = {name for name in ODD if not problem_of_study(name)}
    assert allowed == {"two words", "naïve", "猫", "\u00e9", "con", "$HOME", "A", "a", "record.json"} - {"$HOME"}


@pytest.mark.parametrize("name", ["", "..", "/abs", "a/b", "x" * 5000, ".hidden", "published", "-x", "a\nb"])
def test_a_study_by_another_name_is_refused_with_the_rule(name: str, tiny: Path) -> None:
    with pytest.raises(BadFileError, match=r"name: the name of a study is .*--name NAME") as error:
        tiny_study(tiny, name=name)
    assert len(str(error.value)) < 600
    assert tiny_study(tiny, name="Mine, 2".replace(",", "")).name == "Mine 2"


@pytest.mark.parametrize("name", ["x" * 200, "Upper", "two words", "é"])
def test_a_recipe_by_another_name_is_refused_with_the_rule(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text("title: Mine\nmethod: peft\n")
    with pytest.raises(BadFileError, match=r"name: a recipe is named by its file: a-z"):
        Recipe.load(path)


@pytest.mark.parametrize("name", ["x" * 300, "'a\n\n  b'", '"a\\u0007"', "' a'"])
def test_a_task_by_another_name_is_refused_with_the_rule(name: str, tmp_path: Path) -> None:
    write_task(tmp_path, "copy", [{"x": 1}])
    path = tmp_path / "copy.yaml"
    path.write_text(path.read_text().replace("task: copy", f"task: {name}"))
    files = TaskFiles.scan((tmp_path,))
    assert files.paths == {}
    (unreadable,) = files.unreadable
    assert unreadable.task == yaml.safe_load(name)
    with pytest.raises(BadFileError, match=r"copy\.yaml, task: the name of a task is one line of 1 to 200 printable"):
        files.config(yaml.safe_load(name))


def test_a_study_that_names_no_task_is_refused(tiny: Path) -> None:
    with pytest.raises(BenchError, match="in_domain: the name of a task is one line"):
        tiny_study(tiny, in_domain=["copy", "a\nb"])


def test_a_name_too_long_for_a_path_is_the_name_of_no_study(tiny: Path) -> None:
    from mosld_bench.spec.workspace import Workspace

    for name in ("x" * 5000, "a\0b", "/" + "x" * 300 + "/study.yaml"):
        with pytest.raises(BenchError, match="no study named"):
            Workspace(tiny, tiny).study_file(name)
    assert Study.load(Workspace(tiny, tiny).study_file("tiny")).name == "tiny"
