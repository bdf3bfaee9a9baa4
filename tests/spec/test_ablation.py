"""Ablations: which recipes a study makes, what they are called, which files are taken, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from mosld_bench import display
from mosld_bench.errors import BadFileError, BenchError, UnknownNameError
from mosld_bench.scheduling.plan import make_plan
from mosld_bench.scheduling.search import make_search
from mosld_bench.spec.ablation import Ablate, Factorial, level_label, meaning
from mosld_bench.spec.design_space import Coordinates
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY

RECIPES = load_recipes(REPOSITORY / "methods")
DROPOUTS = [{"dropout": 0, "dropout_on": "none"}, {"dropout": 0.1, "dropout_on": "weight"}]


def names(vary: dict[str, Any], around: str = "mosld") -> list[str]:
    """The recipes of the values, in their order."""
    return [variant.recipe.name for variant in Ablate(around=around, vary=vary).variants(RECIPES)]


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        ({"top_k": [1, 2, None]}, ["mosld.top_k-1", "mosld", "mosld.top_k-none"]),
        ({"share": ["none", "down", "up"]}, ["mola-weight-dropout", "mosld", "mosld-b"]),
        ({"dropout": [0, 0.0, 0.05, 0.1, 0.2]}, ["mosl", "mosl", "mosld.dropout-0.05", "mosld", "mosld-dropout-0.2"]),
        ({"dropout_on": ["weight", "hidden", "none"]}, ["mosld", "mosld-hidden", "mosl"]),
        ({"place": [{"dropout": 0.1, "dropout_on": "gates"}]}, ["mosld.dropout_on-gates"]),
        ({"place": [{"dropout": {"weight": 0.1}, "dropout_on": "none"}]}, ["mosld"]),
        ({"experts": [4, 5, [5, 5, 5, 5], [8, 6, 4, 2]]},
         ["mosld.experts-4", "mosld-5-5-5-5", "mosld-5-5-5-5", "mosld-8-6-4-2"]),
        ({"experts": [6, [6, 6]]}, ["mosld.experts-6", "mosld.experts-6"]),
        ({"gates": {"top_k": 1, "renormalize": False}}, ["mosld.renormalize-false.top_k-1"]),
        ({"target_modules": [["v_proj", "q_proj"], ["q_proj", "o_proj"]]}, ["mosld", "mosld.target_modules-q-o"]),
        ({"balance_coef": [0.001, 1e-05]}, ["mosld", "mosld.balance_coef-1e-05"]),
    ],
)  # fmt: skip
def test_values_are_recipes_with_names_of_what_they_change(vary: dict[str, Any], expected: list[str]) -> None:
    assert names(vary) == expected


def test_a_made_recipe_is_the_one_it_is_around_with_one_thing_changed() -> None:
    around = RECIPES["mosld"]
    (variant,) = Ablate(around="mosld", vary={"top_k": [1]}).variants(RECIPES)
    assert variant.recipe.params == {**around.params, "top_k": 1}
    assert variant.recipe.title == "MoSLD, top-K 1"
    assert (variant.recipe.group, variant.recipe.deviations) == ("ablation", around.deviations)
    assert (variant.factor, variant.changes, variant.place) == ("top_k", {"top_k": 1}, "ablate.vary.top_k, value 1")


def test_what_no_name_can_hold_is_told_by_a_digest() -> None:
    one, other, again = names({"target_modules": [r"layers\.[01]\..*", r"layers\.[02]\..*", r"layers\.[01]\..*"]})
    assert one == again != other
    assert names({"target_modules": [["a" * 50 + str(i) for i in range(9)]]})[0].startswith("mosld.target_modules-aaa")
    long = names({"place": [{f"coordinate_{i}": i for i in range(20)}]})[0]
    assert len(long) == 100


@given(st.sampled_from(sorted(RECIPES)), st.permutations(range(3)))
def test_a_recipe_has_one_meaning_in_whatever_order_its_params_stand(name: str, order: list[int]) -> None:
    recipe = RECIPES[name]
    keys = list(recipe.params)
    turned = {key: recipe.params[key] for key in sorted(keys, key=lambda key: order[keys.index(key) % 3])}
    assert meaning(recipe) == meaning(recipe.model_copy(update={"params": turned, "name": "other", "title": "Other"}))


def test_recipes_of_methods_that_mean_different_things_are_told_apart() -> None:
    mixtures = [recipe for recipe in RECIPES.values() if recipe.learning_rate_scale == 1]
    assert len({meaning(recipe) for recipe in mixtures}) == len(mixtures)
    mosld = RECIPES["mosld"]
    assert meaning(mosld) != meaning(mosld.model_copy(update={"optimizer": "adafactor"}))
    assert meaning(mosld) == meaning(mosld.model_copy(update={"params": {**mosld.params, "capacity": None}}))
    assert meaning(mosld) == meaning(mosld.model_copy(update={"params": {**mosld.params, "dropout_matrix": "down"}}))
    one, true = ({**mosld.params, "renormalize": value} for value in (1, True))
    assert meaning(mosld.model_copy(update={"params": one})) != meaning(mosld.model_copy(update={"params": true}))


def test_cells_are_all_combinations_and_the_recipes_that_there_are() -> None:
    cross = {"share": ["none", "down"], "dropout": DROPOUTS}
    cells = Factorial(around="mosld", cross=cross).cells(RECIPES)
    assert [(cell.levels, cell.recipe.name) for cell in cells] == [
        ((0, 0), "mola-no-dropout"), ((0, 1), "mola-weight-dropout"), ((1, 0), "mosl"), ((1, 1), "mosld"),
    ]  # fmt: skip
    three = Factorial(around="mosld", cross={**cross, "top_k": [2, None]}).cells(RECIPES)
    assert len({cell.recipe.name for cell in three}) == 8
    assert three[1].recipe.params == {**RECIPES["mosld"].params, "share": "none", "dropout": 0,
                                      "dropout_on": "none", "top_k": None}  # fmt: skip


def study(tiny: Path, content: dict[str, Any], overrides: dict[str, Any] | None = None) -> Study:
    """A study that includes the tiny one."""
    path = tiny / "reports" / "ablating" / "study.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({"include": "../tiny/study.yaml", "budgets": ["6k"], **content}, sort_keys=False))
    return Study.load(path, overrides)


ABLATE = {"around": "mosld", "vary": {"top_k": [1, 2, None], "dropout": [0, 0.2]}}
FACTORIAL = {"around": "mosld", "cross": {"share": ["none", "down"], "dropout": DROPOUTS}}
VARIED = ["mosld.top_k-1", "mosld", "mosld.top_k-none", "mosl", "mosld-dropout-0.2"]
CROSSED = ["mola-no-dropout", "mola-weight-dropout", "mosl", "mosld"]


def planned(tiny: Path, content: dict[str, Any], overrides: dict[str, Any] | None = None) -> list[str]:
    """The recipes that are trained, each once."""
    trials = study(tiny, content, overrides).plan(Workspace(tiny, tiny))
    return list(dict.fromkeys(trial.recipe.name for trial in trials if trial.train_on))


def test_a_study_plans_its_ablations_in_place_of_included_recipes(tiny: Path) -> None:
    assert planned(tiny, {"ablate": ABLATE}) == VARIED
    assert planned(tiny, {"factorial": FACTORIAL}) == CROSSED
    both = {"ablate": ABLATE, "factorial": FACTORIAL}
    assert planned(tiny, both) == list(dict.fromkeys(VARIED + CROSSED))
    assert planned(tiny, both | {"recipes": ["lora", "factorial"]}) == ["lora", *CROSSED]
    assert study(tiny, both).reference == "mosld"
    assert study(tiny, both | {"reference": "lora"}).reference == "lora"
    loaded = study(tiny, both)
    assert Study.model_validate(loaded.model_dump(mode="json")) == loaded


def test_options_narrow_ablations(tiny: Path) -> None:
    parts = [
        {"recipes": ["ablate"], "seeds": [0]},
        {"recipes": "factorial", "seeds": [0, 1]},
        {"recipes": ["mosld"], "budgets": ["r2"], "seeds": [0]},
    ]
    content = {"ablate": ABLATE, "factorial": FACTORIAL, "parts": parts}
    assert planned(tiny, content) == list(dict.fromkeys(VARIED + CROSSED))

    def trials(**asked: Any) -> list[tuple[str, str, int]]:
        plan = study(tiny, content, asked).plan(Workspace(tiny, tiny))
        return [(trial.recipe.name, str(trial.budget), trial.seed) for trial in plan if trial.train_on]

    whole = trials()
    assert len(whole) == 5 + 2 * 4 - 2 + 1
    assert trials(recipes=["mosld.top_k-1"]) == [("mosld.top_k-1", "6k", 0)]
    assert sorted(trials(recipes=["mosld"])) == sorted(one for one in whole if one[0] == "mosld")
    assert trials(recipes=["mosl"]) == [("mosl", "6k", 0), ("mosl", "6k", 1)]
    assert {one[0] for one in trials(recipes=["factorial"])} == set(CROSSED)
    assert set(trials(recipes=["mosl", "lora"])) > {("lora", "6k", seed) for seed in study(tiny, content).seeds}
    assert sorted(trials(recipes=["ablate", "factorial"])) == sorted(whole)
    assert {one[2] for one in trials(seeds=[7])} == {7}
    with pytest.raises(UnknownNameError, match=r"named 'mosld\.top_k-3'.*Did you mean.*'mosld\.top_k-1'"):
        trials(recipes=["mosld.top_k-3"])
    plain = {"ablate": ABLATE}
    assert planned(tiny, plain, {"recipes": ["mosld.top_k-1", "lora"]}) == ["mosld.top_k-1", "lora"]


def test_trials_of_recipes_that_there_are_keep_their_ids(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)
    plain = study(tiny, {"recipes": CROSSED}).plan(workspace)
    assert [trial.id for trial in study(tiny, {"factorial": FACTORIAL}).plan(workspace)] == [t.id for t in plain]
    made = next(t for t in study(tiny, {"ablate": ABLATE}).plan(workspace) if t.recipe.name == "mosld.top_k-1")
    shutil.rmtree(tiny / "methods")
    assert made.recipe.params["top_k"] == 1, "the record holds the recipe, which has no file"


def test_an_ablation_trains_at_the_rate_of_what_it_is_around(tiny: Path) -> None:
    def scales(by_hand: dict[str, float]) -> dict[str, float]:
        content = {"factorial": FACTORIAL, "ablate": ABLATE, "learning_rate_scales": by_hand}
        plan = study(tiny, content).plan(Workspace(tiny, tiny))
        return {trial.recipe.name: trial.recipe.learning_rate_scale for trial in plan if trial.train_on}

    assert set(scales({"mosld": 2}).values()) == {2}
    assert {name: scale for name, scale in scales({"mosld": 2, "mosl": 3}).items() if scale != 2} == {"mosl": 3}


def test_a_plan_says_whose_rate_an_ablation_has(tiny: Path) -> None:
    plan = make_plan(study(tiny, {"factorial": FACTORIAL, "learning_rate_scales": {"mosld": 2}}), Workspace(tiny, tiny))
    assert plan.leaders == dict.fromkeys(["mola-no-dropout", "mola-weight-dropout", "mosl"], "mosld")
    sentences = " ".join(display.plan_sentences(plan, 8, 80e9))
    assert f"written by hand in the study for {', '.join(CROSSED[:-1])} and mosld." in sentences


def test_a_search_is_made_for_ablations_too(tiny: Path) -> None:
    search = make_search(study(tiny, {"ablate": ABLATE, "seeds": [0]}), Workspace(tiny, tiny), seeds=(5, 6))
    assert {trial.recipe.name for trial, _ in search.plan.planned} == set(VARIED)


def test_a_file_of_another_learning_rate_is_another_recipe(tiny: Path) -> None:
    path = tiny / "methods" / "mosl.yaml"
    path.write_text(path.read_text() + "learning_rate_scale: 2\n")
    assert "mosl" not in planned(tiny, {"factorial": FACTORIAL})
    assert "mosld.dropout-0.dropout_on-none" in planned(tiny, {"factorial": FACTORIAL})


def test_mistakes_are_named_by_their_key(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)

    def plan(**content: Any) -> None:
        make_plan(study(tiny, content), workspace)

    with pytest.raises(UnknownNameError, match=r"'mosdl'.*Did you mean.*'mosld'.*ablate\.around"):
        plan(ablate={"around": "mosdl", "vary": {"top_k": [1]}})
    with pytest.raises(BadFileError, match=r"'vari'.*Did you mean 'vary'"):
        plan(ablate={"around": "mosld", "vari": {"top_k": [1]}})
    with pytest.raises(BadFileError, match=r"ablate\.vary"):
        plan(ablate={"around": "mosld", "vary": {}})
    with pytest.raises(BadFileError, match=r"ablate\.vary.*empty mapping"):
        plan(ablate={"around": "mosld", "vary": {"top_k": [{}]}})
    with pytest.raises(BadFileError, match="dropout has one level"):
        plan(factorial={"around": "mosld", "cross": {"share": ["none", "down"], "dropout": [0.1]}})
    twice = {"dropout": [0, 0.1], "dropout_on": [{"dropout": 0.2, "dropout_on": "input"}, "weight"]}
    with pytest.raises(BadFileError, match="dropout_on and another factor change dropout"):
        plan(factorial={"around": "mosld", "cross": twice})
    with pytest.raises(BadFileError, match="two combinations of levels are the recipe"):
        plan(factorial={"around": "mosld", "cross": {"share": ["down", "down"], "top_k": [1, 2]}})
    with pytest.raises(BenchError, match=r"ablate\.vary\.top_kk, value 1: .*top_kk.*Did you mean 'top_k'"):
        plan(ablate={"around": "mosld", "vary": {"top_kk": [1]}})
    with pytest.raises(BenchError, match=r"ablate\.vary\.top_k, value 2: .*1 to 2, the fewest.*one mapping"):
        plan(ablate={"around": "mosld", "vary": {"top_k": [1, 3]}})
    place = r"factorial\.cross, share level 1, balance_coef level 1"
    crossed = {"share": ["none", "down"], "balance_coef": [{"balance_coef": 0, "top_k": 1}, 0.001]}
    with pytest.raises(BenchError, match=f"{place}: .*renormalize: false"):
        plan(factorial={"around": "mosld", "cross": crossed})
    with pytest.raises(BenchError, match=r"ablate\.vary\.r, value 1: It changes r, which the budget 6k sets"):
        plan(ablate={"around": "mosld", "vary": {"r": [4, 8]}})
    plan(ablate={"around": "mosld", "vary": {"r": [4, 8]}}, budgets=["native"])
    with pytest.raises(BenchError, match="write true or false"):
        plan(ablate={"around": "mosld", "vary": {"share": ["no"]}})
    (tiny / "methods" / "mosld.top_k-1.yaml").write_text("include: mosld.yaml\nparams: {top_k: 1, experts: 3}\n")
    with pytest.raises(BadFileError, match=r"ablate\.vary\.top_k, value 1 makes a recipe named 'mosld\.top_k-1'"):
        plan(ablate={"around": "mosld", "vary": {"top_k": [1]}})


@pytest.mark.parametrize(
    ("factor", "value", "label"),
    [
        ("top_k", None, "dense"), ("top_k", 1, "1"), ("share", "down", "A"), ("share", "none", "nothing"),
        ("experts", [2, 4, 6, 8], "2-4-6-8"), ("allocation", {"experts": [5, 5]}, "5-5"), ("dropout", 0, "0"),
        ("dropout", {"dropout": 0.1, "dropout_on": "hidden"}, "0.1 on hidden"), ("renormalize", False, "no"),
        ("dropout", {"dropout": 0, "dropout_on": "none"}, "0"), ("dropout_on", "hidden", "hidden"),
        ("target_modules", ["q_proj", "v_proj"], "q, v"), ("balance_coef", 0.001, "0.001"),
        ("top_k", {"top_k": 1, "renormalize": False}, "1, gates not renormalised"),
        ("dropout", {"dropout": {"input": 0.05, "weight": 0.1}, "dropout_on": "none"}, "0.05 on input, 0.1 on weight, "
         "dropout on none"),
    ],
)  # fmt: skip
def test_values_have_labels(factor: str, value: Any, label: str) -> None:
    assert level_label(factor, value) == label


def test_ablations_on_the_command_line_take_the_place_of_parts(tiny: Path) -> None:
    parts = {"recipes": ["lora"], "parts": [{"recipes": ["lora"], "seeds": [0]}]}
    assert planned(tiny, parts) == ["lora"]
    assert planned(tiny, parts, {"ablate": ABLATE}) == VARIED
    assert planned(tiny, parts | {"parts": [{"recipes": ["ablate"]}]}, {"ablate": ABLATE}) == VARIED


SCALARS = st.none() | st.booleans() | st.integers(-2, 9) | st.floats(-2, 2) | st.text(max_size=8)
ODD = st.recursive(SCALARS, lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(max_size=5), of, max_size=2))
COORDINATES = st.sampled_from([*(field.name for field in fields(Coordinates)), "target_modules", "unknown"])


@example({"dropout": [], "dropout_on": []}, "mosld")
@given(st.dictionaries(COORDINATES, ODD, min_size=1, max_size=3), st.sampled_from(["mosld", "mola", "lora", "mixlora"]))
def test_whatever_a_study_says_is_a_recipe_or_an_error_of_its_own(changes: dict[str, Any], around: str) -> None:
    ablate, problem = Ablate(around=around, vary={"factor": [changes]}), ""
    try:
        (variant,) = ablate.variants(RECIPES)
    except BenchError as error:
        problem = str(error)
    if problem:
        assert "ablate.vary.factor" in problem
        return
    assert ablate.variants(RECIPES) == [variant]
    if variant.recipe.name not in RECIPES:
        assert variant.recipe.name.startswith(f"{around}.")
        assert meaning(variant.recipe) not in {meaning(recipe) for recipe in RECIPES.values()}
    assert level_label("factor", changes) is not None


def test_a_recipe_is_found_again_among_the_rows_of_a_report() -> None:
    """Rows have recipes at the study's rates; what the records know of is enough to tell which is which."""
    ablate = Ablate.model_validate(ABLATE)
    made = {variant.recipe.name: variant.recipe for variant in ablate.variants(RECIPES)}
    tuned = {name: recipe.model_copy(update={"learning_rate_scale": 2.0}) for name, recipe in made.items()}
    assert [variant.recipe for variant in ablate.variants(tuned)] == [tuned[name] for name in VARIED]
    assert isinstance(next(iter(tuned.values())), Recipe)
