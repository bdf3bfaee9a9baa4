"""Studies: which trials they ask for, what includes and parts come to, and which mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mosld_bench.errors import BadFileError, DataError, UnknownNameError
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY, write_text
from tests.spec.tiny import tiny_study


def test_mistakes_in_a_study_are_named(tiny: Path) -> None:
    wrong = r"1 problem.*\n  budgets: 'lots' is not a budget; allowed are a count"
    with pytest.raises(BadFileError, match=r"study\.yaml, with .*budgets.* given by options, has " + wrong):
        tiny_study(tiny, budgets=["lots"])
    bad = tiny / "reports/tiny/bad.yaml"
    bad.write_text("include: study.yaml\nbudgets: lots\n")
    with pytest.raises(BadFileError, match=r"bad\.yaml has " + wrong):
        Study.load(bad)
    with pytest.raises(BadFileError, match=r"train\.learnin_rate.*Did you mean|Did you mean 'learning_rate'"):
        tiny_study(tiny, **{"train.learnin_rate": 1})
    with pytest.raises(BadFileError, match="exactly one of steps and epochs"):
        Study.load(tiny / "reports/tiny/study.yaml", {"train": {"batch_size": 3}})
    with pytest.raises(BadFileError, match="twice"):
        tiny_study(tiny, seeds=[1, 1])
    workspace = Workspace(tiny, tiny)
    with pytest.raises(UnknownNameError, match="no recipe named 'moslt'\\. Did you mean"):
        tiny_study(tiny, recipes=["moslt"]).plan(workspace)
    with pytest.raises(DataError, match=r"'other' .* has no training_split"):
        tiny_study(tiny, in_domain=["copy", "other"], out_of_domain=[]).plan(workspace)
    with pytest.raises(DataError, match="either in-domain or out-of-domain"):
        tiny_study(tiny, out_of_domain=["copy"]).plan(workspace)


def test_a_held_out_text_is_a_task_of_whole_texts_that_is_not_trained_on(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)
    for task, problem in (
        ("other", r"evaluate\.text: the task 'other' .* has the output_type multiple_choice"),
        ("copy", r"evaluate\.text: copy is trained on"),
    ):
        with pytest.raises(DataError, match=problem):
            tiny_study(tiny, **{"evaluate.text": task}).plan(workspace)
    with pytest.raises(BadFileError, match=r"evaluate\.text: the name of a task"):
        tiny_study(tiny, **{"evaluate.text": "two\nlines"})
    write_text(tiny / "tasks", "prose", ["ab"])
    study = tiny_study(tiny, **{"evaluate.text": "prose"})
    assert study.tasks == ("copy", "count", "other", "prose")
    assert study.training_tasks == ("copy", "count")
    assert all("prose" not in trial.scored_on for trial in study.plan(workspace))


def test_a_study_trains_or_counts_parameters(tiny: Path) -> None:
    assert tiny_study(tiny).trains
    counting = tiny_study(tiny, train=None, in_domain=[], out_of_domain=[])
    assert not counting.trains
    trials = counting.plan(Workspace(tiny, tiny))
    assert [(trial.recipe.name, trial.setting, trial.train_on) for trial in trials] == [
        ("lora", "counted", ()),
        ("mosld", "counted", ()),
    ]
    for key, value in (("train", None), ("in_domain", [])):
        with pytest.raises(BadFileError, match="give train and in_domain, or neither"):
            tiny_study(tiny, **{key: value})


def test_a_model_is_named_once(tiny: Path) -> None:
    with pytest.raises(BadFileError, match="lists a model twice"):
        tiny_study(tiny, models=[{"name": "a"}, {"name": "a", "revision": "main"}])


def test_plan_is_pure_ordered_and_complete(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)
    study = tiny_study(
        tiny, settings=["mixture", "single"], seeds=[0, 1], budgets=["6k", "9k"], recipes=["full", "lora"]
    )
    trials = study.plan(workspace)
    assert trials == study.plan(workspace)
    assert len({trial.id for trial in trials}) == len(trials)
    # base once; full at its own size once a setting; lora at two budgets. single: one trial a task.
    assert len(trials) == 1 + 2 * (1 + 2) + 2 * 2 * (1 + 2)
    single = [trial for trial in trials if trial.setting == "single"]
    assert all(trial.train_on == trial.in_domain and len(trial.train_on) == 1 for trial in single)
    assert {trial.budget for trial in trials if trial.recipe.name == "full"} == {"native"}
    assert len({trial.protocol for trial in trials}) == 1


def test_a_study_of_parts_is_their_union(tiny: Path) -> None:
    """All recipes with one seed, one with more, another alone on every task: none twice, the base once."""
    path = tiny / "reports" / "parts" / "study.yaml"
    path.parent.mkdir()
    parts = "[{seeds: 0}, {recipes: [lora], seeds: [0, 1]}, {recipes: [mola], settings: [single], seeds: [1]}]"
    path.write_text(
        f"include: ../tiny/study.yaml\nrecipes: [mola, lora]\nbudgets: [6k]\nseeds: [3, 4]\nparts: {parts}\n"
    )
    workspace, whole = Workspace(tiny, tiny), Study.load(path)
    planned = [(trial.recipe.name, trial.setting, trial.seed, trial.train_on) for trial in whole.plan(workspace)]
    tasks = whole.in_domain
    assert planned == [
        ("base", "frozen", 0, ()),
        ("mola", "mixture", 0, tasks), ("lora", "mixture", 0, tasks), ("lora", "mixture", 1, tasks),
        *(("mola", "single", 1, (task,)) for task in tasks),
    ]  # fmt: skip
    path.write_text(path.read_text().replace("seeds: 0}", "sedes: 0}"))
    with pytest.raises(BadFileError, match=r"Did you mean 'seeds'"):
        Study.load(path)


def test_options_narrow_the_parts_of_a_study(tiny: Path) -> None:
    """Every part stays a part: with the seeds that are asked for, and of its recipes those that are."""
    path = tiny / "reports" / "parts" / "study.yaml"
    path.parent.mkdir()
    parts = "[{seeds: 0}, {recipes: [lora], seeds: [0, 1]}, {recipes: [mola], settings: [single], seeds: [1]}]"
    path.write_text(f"include: ../tiny/study.yaml\nrecipes: [mola, lora]\nbudgets: [6k]\nparts: {parts}\n")
    workspace = Workspace(tiny, tiny)

    def planned(**asked: list[object]) -> list[tuple[object, ...]]:
        trials = Study.load(path, asked).plan(workspace)
        return [(t.recipe.name, t.setting, t.seed, len(t.train_on)) for t in trials if t.train_on]

    whole, tasks = planned(), 2
    single = [("mola", "single", 1, 1)] * tasks
    assert whole == [("mola", "mixture", 0, 2), ("lora", "mixture", 0, 2), ("lora", "mixture", 1, 2), *single]
    assert planned(recipes=["lora"]) == [row for row in whole if row[0] == "lora"]
    assert planned(recipes=["mola"]) == [row for row in whole if row[0] == "mola"]
    assert set(whole) < set(planned(recipes=["all"]))  # the part without recipes of its own has them all
    assert planned(seeds=[5]) == [
        ("mola", "mixture", 5, 2), ("lora", "mixture", 5, 2), *(("mola", "single", 5, 1) for _ in range(tasks)),
    ]  # fmt: skip
    assert planned(recipes=["dora"]) == [("dora", "mixture", 0, 2)]
    assert planned(parts=[{"seeds": [7]}]) == [("mola", "mixture", 7, 2), ("lora", "mixture", 7, 2)]
    parts = "[{recipes: [all], seeds: [3]}, {recipes: [lora, dora], seeds: [4, 5]}]"
    path.write_text(f"include: ../tiny/study.yaml\nbudgets: [6k]\nseeds: [9]\nparts: {parts}\n")
    words = planned(recipes=["peft"])  # narrow as names do; those that are in no part make one of their own
    assert words[:2] == [("dora", "mixture", seed, 2) for seed in (4, 5)]
    assert {seed for name, _, seed, _ in words[2:]} == {9}
    assert planned(recipes=["all", "dora"]) == planned(
        parts=[{"recipes": ["all"], "seeds": [3]}, {"recipes": ["lora", "dora"], "seeds": [4, 5]}]
    )
    assert planned(recipes=["mosld", "dora"])[-1] == ("dora", "mixture", 5, 2)


def test_a_key_replaces_an_included_key_that_excludes_it(tiny: Path) -> None:
    """Seeds of its own take the place of included parts; epochs that of steps."""
    parent = tiny / "reports" / "tiny" / "study.yaml"
    parent.write_text(parent.read_text() + "parts: [{seeds: 0}, {recipes: [lora], seeds: [0, 1]}]\n")
    path = tiny / "reports" / "other" / "study.yaml"
    path.parent.mkdir()
    path.write_text("include: ../tiny/study.yaml\nquestion: Another?\ntrain: {batch_size: 2}\n")
    inherited = Study.load(path)
    assert len(inherited.parts) == 2
    assert inherited.train
    assert inherited.train.steps == 4
    path.write_text("include: ../tiny/study.yaml\nseeds: [5]\ntrain: {epochs: 1}\n")
    replacing = Study.load(path)
    assert (replacing.parts, replacing.seeds) == ((), (5,))
    assert replacing.train
    assert (replacing.train.epochs, replacing.train.steps, replacing.train.batch_size) == (1, None, 4)
    path.write_text("include: ../tiny/study.yaml\ntrain.epochs: 1\n")
    with pytest.raises(BadFileError, match=r"train\.epochs"):  # dots are the command line's spelling, not a file's
        Study.load(path)
    path.write_text("include: ../tiny/study.yaml\nseeds: [5]\nparts: [{seeds: 6}]\n")
    assert [part.seeds for part in Study.load(path).parts] == [(6,)]


def test_a_study_tunes_learning_rates_in_place_of_the_recipes(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)
    plain = tiny_study(tiny, recipes=["lora", "mola"]).plan(workspace)
    tuned = tiny_study(tiny, recipes=["lora", "mola"], learning_rate_scales={"mola": 2.5}).plan(workspace)
    scales = {trial.recipe.name: trial.recipe.learning_rate_scale for trial in tuned}
    assert scales == {"base": 1, "lora": 1, "mola": 2.5}
    changed = {trial.recipe.name for trial, other in zip(plain, tuned, strict=True) if trial.id != other.id}
    assert changed == {"mola"}  # and all are of one protocol still
    assert {trial.protocol for trial in plain} == {trial.protocol for trial in tuned}
    with pytest.raises(UnknownNameError, match=r"named 'moal'.*'mola'.*learning_rate_scales"):
        tiny_study(tiny, learning_rate_scales={"moal": 2}).plan(workspace)
    with pytest.raises(BadFileError, match="greater than 0"):
        tiny_study(tiny, learning_rate_scales={"mola": 0})


def test_a_study_over_ranks_models_and_amounts_of_general_data(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)
    study = tiny_study(
        tiny,
        models=[{"name": "a/one"}, {"name": "b/two"}],
        budgets=["r2", "r4", "6k"],
        recipes=["full", "prefix-tuning", "lora"],
        general={"task": "count", "items": [0, 5]},
        in_domain=["copy"],
    )
    trials = study.plan(workspace)
    assert len({trial.id for trial in trials}) == len(trials)
    conditions = [(trial.recipe.name, trial.condition[:4]) for trial in trials if trial.model.name == "a/one"]
    # A recipe without a rank is run once as it is, not once a rank; the frozen base takes no general data.
    assert conditions == [
        ("base", ("frozen", "native", "a/one", 0)),
        ("full", ("mixture", "native", "a/one", 0)),
        ("prefix-tuning", ("mixture", "native", "a/one", 0)),
        ("lora", ("mixture", "r2", "a/one", 0)),
        ("lora", ("mixture", "r4", "a/one", 0)),
        ("prefix-tuning", ("mixture", "6k", "a/one", 0)),
        ("lora", ("mixture", "6k", "a/one", 0)),
        ("full", ("mixture", "native", "a/one", 5)),
        ("prefix-tuning", ("mixture", "native", "a/one", 5)),
        ("lora", ("mixture", "r2", "a/one", 5)),
        ("lora", ("mixture", "r4", "a/one", 5)),
        ("prefix-tuning", ("mixture", "6k", "a/one", 5)),
        ("lora", ("mixture", "6k", "a/one", 5)),
    ]
    assert len({trial.protocol for trial in trials}) == 4  # of each model, one with and one without general data
    with_general = next(trial for trial in trials if trial.general)
    assert with_general.task_digests.keys() == {"copy", "other", "count"}
    assert "-g5-" in with_general.id
    with pytest.raises(ValidationError, match="give model or models, not both"):
        Study.model_validate({**study.model_dump(), "model": {"name": "c"}})
    with pytest.raises(UnknownNameError, match="named as the study's reference"):
        tiny_study(tiny, reference="lorra").plan(workspace)


def test_a_study_includes_another_and_a_noted_study_is_the_same_study(tmp_path: Path) -> None:
    workspace = Workspace(REPOSITORY, REPOSITORY)
    paper, uncommon = (Study.load(workspace.study_file(name)) for name in ("paper", "uncommon"))
    assert paper.train
    assert uncommon.train == paper.train
    assert uncommon.recipes == ("lora", "mosld")
    assert Study.load(workspace.study_file("diverse")).train == paper.train.model_copy(update={"max_length": 512})
    scaling = Study.load(workspace.study_file("scaling"))
    assert [model.name.split("/")[1] for model in scaling.models] == ["Llama-2-7b-hf", "Llama-2-13b-hf", "llama-30b"]
    noted = tmp_path / "scaling" / "study.yaml"
    noted.parent.mkdir()
    noted.write_text(yaml.safe_dump(scaling.model_dump(mode="json"), sort_keys=False))
    again = Study.load(noted)
    assert again == scaling
    assert [trial.id for trial in again.plan(workspace)] == [trial.id for trial in scaling.plan(workspace)]
    including = tmp_path / "including.yaml"
    including.write_text("include: scaling/study.yaml\nmodel: {name: embedded}\n")
    assert [model.name for model in Study.load(including).models] == ["embedded"]  # the included models give way


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds", [-1]), ("seeds", [2**32]), ("train.batch_size", 10**9), ("train.epochs", 1e12),
        ("train.steps", 10**12), ("train.learning_rate", float("inf")), ("train.learning_rate", float("nan")),
        ("train.max_length", 10**12), ("resources.gpus_per_trial", float("inf")), ("train.micro_tokens", 10**12),
    ],
)  # fmt: skip
def test_a_number_without_reason_is_refused_by_its_key(key: str, value: object, tiny: Path) -> None:
    changes = {key: value} if key != "train.epochs" else {key: value, "train.steps": None}
    with pytest.raises(BadFileError, match=rf"has 1 problem\(s\):\n  {key}(\.\d)?: Input should be (less|greater)"):
        tiny_study(tiny, **changes)


def test_several_amounts_of_training_items_are_blocks_of_their_own(tiny: Path) -> None:
    """Each is the trial that a study with this one amount has; the untrained model is scored once."""
    workspace, path = Workspace(tiny, tiny), tiny / "reports" / "tiny" / "study.yaml"
    asked = {"recipes": ["lora"], "seeds": [0], "budgets": ["6k"]}
    trials = Study.load(path, {**asked, "task_items": [4, 8]}).plan(workspace)
    assert [(t.recipe.name, t.condition.items) for t in trials] == [("base", 0), ("lora", 4), ("lora", 8)]
    alone = [t for n in (4, 8) for t in Study.load(path, {**asked, "train.task_items": n}).plan(workspace)]
    assert [t.id for t in trials if t.train_on] == [t.id for t in alone if t.train_on]
    assert [t.protocol for t in trials if t.train_on] == [t.protocol for t in alone if t.train_on]
    assert {t.condition.items for t in alone} == {0}
    whole = Study.load(path, asked).plan(workspace)
    assert trials[0].id == whole[0].id
    assert trials[0].protocol == whole[0].protocol
    with pytest.raises(BadFileError, match="give task_items, or train"):
        Study.load(path, {**asked, "task_items": [4, 8], "train.task_items": 4})
    with pytest.raises(BadFileError, match="lists an entry twice"):
        Study.load(path, {**asked, "task_items": [4, 4]})


def test_each_task_may_have_an_amount_of_its_own(tiny: Path) -> None:
    path = tiny / "reports" / "tiny" / "study.yaml"
    first, second, *_ = Study.load(path).in_domain
    spec = Study.load(path, {"train.task_items": {first: 3}}).train
    assert spec is not None
    assert (spec.items_of(first), spec.items_of(second)) == (3, None)
    with pytest.raises(BadFileError, match=r"train\.task_items names elsewhere, which is not trained on"):
        Study.load(path, {"train.task_items": {"elsewhere": 3}})
    with pytest.raises(BadFileError, match=r"train\.task_items"):
        Study.load(path, {"train.task_items": {first: 0}})
