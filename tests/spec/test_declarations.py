"""Recipes, studies, tasks' files and the registry: what is read, and how mistakes are said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mosld_bench.errors import BadFileError, BenchError, DataError, UnknownNameError
from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.spec.recipe import Recipe, load_recipes, select
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import Trial
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY, write_task


def study(root: Path, **overrides: object) -> Study:
    return Study.load(root / "reports" / "tiny" / "study.yaml", overrides)


def test_every_recipe_and_study_of_the_repository_is_valid() -> None:
    workspace = Workspace(REPOSITORY, REPOSITORY)
    recipes = load_recipes(workspace.methods)
    assert [r.name for r in select(recipes, ["all"])] == [
        "full", "prefix-tuning", "lora", "moe-lora", "sira", "mola", "mixlora", "hydralora", "mosl", "mosld",
    ]  # fmt: skip
    for recipe in recipes.values():
        registry.get(recipe.method)
    for name, path in workspace.studies().items():
        assert Study.load(path).plan(workspace), name


def test_include_merges_params_one_level(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("title: A\nmethod: mixture\nparams: {r: 8, experts: 4}\n")
    (tmp_path / "b.yaml").write_text("include: a.yaml\ntitle: B\nparams: {experts: 2}\n")
    (tmp_path / "c.yaml").write_text("include: b.yaml\ntitle: C\n")
    b = Recipe.load(tmp_path / "b.yaml")
    assert (b.name, b.title, b.method, b.params) == ("b", "B", "mixture", {"r": 8, "experts": 2})
    with pytest.raises(BadFileError, match="one level is allowed"):
        Recipe.load(tmp_path / "c.yaml")


def test_all_problems_of_a_file_are_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("titel: Bad\ngroup: minor\nlearning_rate_scale: 0\n")
    with pytest.raises(BadFileError) as error:
        Recipe.load(path)
    said = str(error.value)
    assert str(path) in said
    for part in (
        "5 problem(s)",
        "Did you mean 'title'?",
        "title: Field required",
        "method: Field required",
        "group",
        "learning_rate_scale",
    ):
        assert part in said


def test_study_problems(tiny: Path) -> None:
    wrong = r"1 problem.*\n  budgets: 'lots' is not a budget; allowed are a count"
    with pytest.raises(BadFileError, match=r"study\.yaml, with .*budgets.* given by options, has " + wrong):
        study(tiny, budgets=["lots"])
    bad = tiny / "reports/tiny/bad.yaml"
    bad.write_text("include: study.yaml\nbudgets: lots\n")
    with pytest.raises(BadFileError, match=r"bad\.yaml has " + wrong):
        Study.load(bad)
    with pytest.raises(BadFileError, match=r"train\.learnin_rate.*Did you mean|Did you mean 'learning_rate'"):
        study(tiny, **{"train.learnin_rate": 1})
    with pytest.raises(BadFileError, match="exactly one of steps and epochs"):
        Study.load(tiny / "reports/tiny/study.yaml", {"train": {"batch_size": 3}})
    with pytest.raises(BadFileError, match="twice"):
        study(tiny, seeds=[1, 1])
    workspace = Workspace(tiny, tiny)
    with pytest.raises(UnknownNameError, match="no recipe named 'moslt'\\. Did you mean"):
        study(tiny, recipes=["moslt"]).plan(workspace)
    with pytest.raises(DataError, match=r"'other' .* has no training_split"):
        study(tiny, in_domain=["copy", "other"], out_of_domain=[]).plan(workspace)
    with pytest.raises(DataError, match="either in-domain or out-of-domain"):
        study(tiny, out_of_domain=["copy"]).plan(workspace)
    with pytest.raises(UnknownNameError, match="no study named 'tinny'\\. Did you mean 'tiny'"):
        workspace.study_file("tinny")


def test_plan_is_pure_ordered_and_complete(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)
    one = study(tiny, settings=["mixture", "single"], seeds=[0, 1], budgets=["6k", "9k"], recipes=["full", "lora"])
    trials = one.plan(workspace)
    assert trials == one.plan(workspace)
    assert len({trial.id for trial in trials}) == len(trials)
    # base once; full at its own size once a setting; lora at two budgets. single: one trial a task.
    assert len(trials) == 1 + 2 * (1 + 2) + 2 * 2 * (1 + 2)
    single = [t for t in trials if t.setting == "single"]
    assert all(t.train_on == t.in_domain and len(t.train_on) == 1 for t in single)
    assert {t.budget for t in trials if t.recipe.name == "full"} == {"native"}
    assert len({t.protocol for t in trials}) == 1


def test_a_study_of_parts_is_their_union(tiny: Path) -> None:
    """All recipes with one seed, one with more, another alone on every task: none twice, the base once."""
    path = tiny / "reports" / "parts" / "study.yaml"
    path.parent.mkdir()
    parts = "[{seeds: 0}, {recipes: [lora], seeds: [0, 1]}, {recipes: [mola], settings: [single], seeds: [1]}]"
    path.write_text(
        f"include: ../tiny/study.yaml\nrecipes: [mola, lora]\nbudgets: [6k]\nseeds: [3, 4]\nparts: {parts}\n"
    )
    workspace, whole = Workspace(tiny, tiny), Study.load(path)
    cells = [(t.recipe.name, t.setting, t.seed, t.train_on) for t in whole.plan(workspace)]
    tasks = whole.in_domain
    assert cells == [
        ("base", "frozen", 0, ()),
        ("mola", "mixture", 0, tasks), ("lora", "mixture", 0, tasks), ("lora", "mixture", 1, tasks),
        *(("mola", "single", 1, (task,)) for task in tasks),
    ]  # fmt: skip
    # Cells asked for on the command line take the parts' place, and are the same trials.
    asked = Study.load(path, {"recipes": ["lora"], "seeds": [1]})
    assert [t.recipe.name for t in asked.plan(workspace)] == ["base", "lora"]
    assert asked.plan(workspace)[1].id in {t.id for t in whole.plan(workspace)}
    path.write_text(path.read_text().replace("seeds: 0}", "sedes: 0}"))
    with pytest.raises(BadFileError, match=r"Did you mean 'seeds'"):
        Study.load(path)


def test_what_a_file_says_itself_replaces_what_excludes_it(tiny: Path) -> None:
    """Seeds of its own take the place of included parts, as on the command line; epochs that of steps."""
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
    own = Study.load(path)
    assert (own.parts, own.seeds) == ((), (5,))
    assert own.train
    assert (own.train.epochs, own.train.steps, own.train.batch_size) == (1, None, 4)
    path.write_text("include: ../tiny/study.yaml\ntrain.epochs: 1\n")
    with pytest.raises(BadFileError, match=r"train\.epochs"):  # dots are the command line's spelling, not a file's
        Study.load(path)
    path.write_text("include: ../tiny/study.yaml\nseeds: [5]\nparts: [{seeds: 6}]\n")
    assert [part.seeds for part in Study.load(path).parts] == [(6,)]


def test_a_study_tunes_learning_rates_in_place_of_the_recipes(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)
    plain = study(tiny, recipes=["lora", "mola"]).plan(workspace)
    tuned = study(tiny, recipes=["lora", "mola"], learning_rate_scales={"mola": 2.5}).plan(workspace)
    scales = {trial.recipe.name: trial.recipe.learning_rate_scale for trial in tuned}
    assert scales == {"base": 1, "lora": 1, "mola": 2.5}
    changed = {a.recipe.name for a, b in zip(plain, tuned, strict=True) if a.id != b.id}
    assert changed == {"mola"}  # and all are of one protocol still
    assert {trial.protocol for trial in plain} == {trial.protocol for trial in tuned}
    with pytest.raises(UnknownNameError, match=r"named 'moal'.*'mola'.*learning_rate_scales"):
        study(tiny, learning_rate_scales={"moal": 2}).plan(workspace)
    with pytest.raises(BadFileError, match="greater than 0"):
        study(tiny, learning_rate_scales={"mola": 0})


def test_a_study_over_ranks_models_and_amounts_of_general_data(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)
    one = study(
        tiny,
        models=[{"name": "a/one"}, {"name": "b/two"}],
        budgets=["r2", "r4", "6k"],
        recipes=["full", "prefix-tuning", "lora"],
        general={"task": "count", "items": [0, 5]},
        in_domain=["copy"],
    )
    trials = one.plan(workspace)
    assert len({trial.id for trial in trials}) == len(trials)
    conditions = [(t.recipe.name, t.condition) for t in trials if t.model.name == "a/one"]
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
    assert len({t.protocol for t in trials}) == 4  # of each model, one with and one without general data
    with_general = next(t for t in trials if t.general)
    assert with_general.task_digests.keys() == {"copy", "other", "count"}
    assert "-g5-" in with_general.id
    with pytest.raises(ValidationError, match="give model or models, not both"):
        Study.model_validate({**one.model_dump(), "model": {"name": "c"}})
    with pytest.raises(UnknownNameError, match="named as the study's reference"):
        study(tiny, reference="lorra").plan(workspace)


def test_a_study_includes_another_and_a_noted_study_is_the_same_study(tmp_path: Path) -> None:
    workspace = Workspace(REPOSITORY, REPOSITORY)
    paper, uncommon = (Study.load(workspace.study_file(name)) for name in ("paper", "uncommon"))
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
    assert [t.id for t in again.plan(workspace)] == [t.id for t in scaling.plan(workspace)]
    own = tmp_path / "own.yaml"
    own.write_text("include: scaling/study.yaml\nmodel: {name: embedded}\n")
    assert [model.name for model in Study.load(own).models] == ["embedded"]  # the included models give way


def test_identities_leave_out_what_is_at_its_default() -> None:
    recipe = Recipe(name="a", title="A", method="peft", params={"r": 8})
    assert recipe.identity == {"name": "a", "method": "peft", "params": {"r": 8}}
    assert "optimizer" in recipe.model_copy(update={"optimizer": "adafactor"}).identity
    assert recipe.model_copy(update={"title": "B", "order": 3, "deviations": ("x",)}).identity == recipe.identity


def test_trial_ids_follow_what_changes_the_numbers_and_nothing_else(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)

    def first(**overrides: object) -> Trial:
        return study(tiny, **overrides).plan(workspace)[-1]

    reference = first()
    assert reference.id.startswith("mosld-mixture-6k-s0-")
    assert first(**{"resources.score_tokens": 17}).id == reference.id
    assert first(**{"train.micro_tokens": 17}).id != reference.id
    assert first(question="Another?").id == reference.id
    assert first(**{"train.steps": 5}).id != reference.id
    assert first(**{"evaluate.limit": 5}).protocol != reference.protocol
    assert first(budgets=["9k"]).protocol == reference.protocol
    with (tiny / "tasks" / "copy.jsonl").open("a") as file:
        file.write(json.dumps({"id": "z", "question": "z", "options": ["z", "y"], "answer": 0}) + "\n")
    assert first().id != reference.id
    assert Trial.model_validate_json(reference.model_dump_json()) == reference


def test_task_files_follow_includes_and_the_later_folder_wins(tmp_path: Path) -> None:
    write_task(tmp_path / "a", "copy", [{"x": 1}])
    write_task(tmp_path / "b", "copy", [{"x": 2}])
    (tmp_path / "a" / "child.yaml").write_text("include: copy.yaml\ntask: child\ndoc_to_text: !function helper.text\n")
    files = TaskFiles.scan((tmp_path / "a", tmp_path / "b"))
    assert files.paths["copy"].parent.name == "b"
    child = files.config("child")
    assert child is not None
    assert (child["task"], child["training_split"], child["doc_to_text"]) == (
        "child",
        "train",
        "!function helper.text",
    )
    before = files.digest("child")
    (tmp_path / "a" / "helper.py").write_text("def text(doc): return doc['x']\n")
    assert files.digest("child") != before
    assert files.digest("hellaswag") == f"lm-eval {version('lm-eval')}"


class Loud(Method):
    def attach(self, model, params):  # type: ignore[no-untyped-def]
        return model


def test_registry_says_what_is_wrong() -> None:
    assert set(registry.names()) >= {"base", "full", "peft", "mixture", "mixlora"}
    with pytest.raises(UnknownNameError, match="no method named 'mixtur'\\. Did you mean 'mixture'"):
        registry.get("mixtur")
    with pytest.raises(BenchError, match="cannot be loaded"):
        registry.get("no.such.module:Class")
    with pytest.raises(BenchError, match="not a subclass"):
        registry.get("pathlib:Path")
    with pytest.raises(BenchError, match="cannot be imported"):
        registry.load_plugin("no_such_plugin")
    assert isinstance(registry.get("tests.spec.test_declarations:Loud"), Loud)
    registry.register("loud")(Loud)
    registry.register("loud")(Loud)
    try:
        with pytest.raises(BenchError, match="Two methods want the name 'loud'"):
            registry.register("loud")(type("Other", (Loud,), {}))
    finally:
        registry._registered.pop("loud")


IMPORTS = """
import sys
{first}
heavy = [m for m in {banned} if m in sys.modules]
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("first", "banned"),
    [
        ("import mosld_bench", ["torch", "ray", "transformers", "peft", "pandas"]),
        ("import mosld_bench.cli", ["torch", "ray", "transformers", "peft", "lm_eval"]),
        (
            "from mosld_bench.spec import study, task_files; from mosld_bench.methods import registry",
            ["torch", "ray", "transformers"],
        ),
        (
            "from mosld_bench.report import build; from mosld_bench.records import record",
            ["torch", "ray", "transformers", "lm_eval"],
        ),
        ("from mosld_bench.trial import train, scoring, execute; from mosld_bench.inputs import tasks", ["ray"]),
    ],
)
def test_import_rule(first: str, banned: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS.format(first=first, banned=banned)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_only_launch_imports_ray() -> None:
    users = [
        p.name
        for p in (REPOSITORY / "mosld_bench").rglob("*.py")
        if re.search(r"^\s*import ray\b", p.read_text(), re.M)
    ]
    assert users == ["ray_executor.py"]


@pytest.mark.parametrize(
    "order",
    [
        "import mosld_bench; import peft",
        "import peft; import mosld_bench",
        "from mosld_bench.tuners.mixture import MixtureConfig",
        "from mosld_bench.tuners.mixlora import MixLoraConfig",
    ],
)
def test_peft_knows_our_tuners_after_importing_us(order: str) -> None:
    code = f"{order}; from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING as m; m['LORA_MIXTURE'], m['MIXLORA']"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
