"""Recipes: those of the repository, includes, selection by name, and what identifies one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from mosld_bench.errors import BadFileError, UnknownNameError
from mosld_bench.spec.design_space import Coordinates
from mosld_bench.spec.recipe import GROUPS, SELECTORS, Recipe, load_recipes, select
from tests.conftest import REPOSITORY


def test_the_recipes_of_the_repository_in_the_order_of_the_tables() -> None:
    recipes = load_recipes(REPOSITORY / "methods")
    assert [recipe.name for recipe in select(recipes, ["all"])] == [
        "full", "prefix-tuning", "lora", "moe-lora", "sira", "mola", "mixlora", "hydralora", "mosl", "mosld",
    ]  # fmt: skip
    keys = [(recipe.order, recipe.name) for recipe in recipes.values()]
    assert keys == sorted(keys)


def test_recipes_are_selected_in_the_order_given_and_each_once() -> None:
    recipes = load_recipes(REPOSITORY / "methods")
    assert [recipe.name for recipe in select(recipes, ["mosld", "lora", "mosld"])] == ["mosld", "lora"]
    assert [recipe.name for recipe in select(recipes, ["base", "all"])][:2] == ["base", "full"]
    with pytest.raises(UnknownNameError, match="no recipe named 'moslt'\\. Did you mean"):
        select(recipes, ["moslt"])


def test_recipes_are_selected_by_their_group() -> None:
    recipes = load_recipes(REPOSITORY / "methods")
    for group in GROUPS:
        of_group = [recipe for recipe in recipes.values() if recipe.group == group]
        assert select(recipes, [group]) == of_group
    assert select(recipes, ["all"]) == select(recipes, ["main"])
    assert select(recipes, ["everything"]) == list(recipes.values())
    assert [recipe.name for recipe in select(recipes, ["mosld", "peft", "dora"])][:2] == ["mosld", "dora"]
    peft = {recipe.name for recipe in select(recipes, ["peft"])}
    assert peft == {
        "dora", "rslora", "pissa", "olora", "adalora", "loha", "lokr", "miss", "vera", "ia3", "oft", "prompt-tuning",
    }  # fmt: skip


def test_a_file_that_is_no_recipe_stops_what_asks_for_it_alone(tmp_path: Path) -> None:
    """By its name, by a word for its group, or by a word for all; where its group cannot be told, by its name alone."""
    good, bad = "title: Good\nmethod: peft\ngroup: since\n", "title: Bad\nmethod: peft\ngroup: peft\nparms: {}\n"
    for name, text in (("good", good), ("bad", bad), ("torn", "title: [\n")):
        (tmp_path / f"{name}.yaml").write_text(text)
    recipes = load_recipes(tmp_path)
    assert (list(recipes), sorted(recipes.unreadable)) == (["good"], ["bad", "torn"])
    assert {name: file.group for name, file in recipes.unreadable.items()} == {"bad": "peft", "torn": None}
    for words in (["good"], ["since"], ["controls", "good"]):
        assert [recipe.name for recipe in select(recipes, words)] == ["good"]
    for word in ("bad", "peft", "everything"):
        with pytest.raises(BadFileError, match=r"(?s)The recipe 'bad' .*no key named 'parms'\. Did you mean 'params'"):
            select(recipes, [word])
    with pytest.raises(BadFileError, match=r"The recipe 'torn' cannot be used: .*torn\.yaml is not YAML"):
        select(recipes, ["torn"])
    with pytest.raises(UnknownNameError, match="no recipe named 'baad'"):
        select(recipes, ["baad"])


def test_every_recipe_of_ours_can_be_read() -> None:
    assert load_recipes(REPOSITORY / "methods").unreadable == {}


@pytest.mark.parametrize("word", SELECTORS)
def test_no_recipe_has_the_name_of_a_group(word: str, tmp_path: Path) -> None:
    (tmp_path / f"{word}.yaml").write_text("title: Mine\nmethod: peft\n")
    with pytest.raises(BadFileError, match=f"'{word}' selects recipes by their group"):
        Recipe.load(tmp_path / f"{word}.yaml")


def test_include_merges_params_one_level(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("title: A\nmethod: mixture\nparams: {r: 8, experts: 4}\n")
    (tmp_path / "b.yaml").write_text("include: a.yaml\ntitle: B\nparams: {experts: 2}\n")
    (tmp_path / "c.yaml").write_text("include: b.yaml\ntitle: C\n")
    b = Recipe.load(tmp_path / "b.yaml")
    assert (b.name, b.title, b.method, b.params) == ("b", "B", "mixture", {"r": 8, "experts": 2})
    with pytest.raises(BadFileError, match="one level is allowed"):
        Recipe.load(tmp_path / "c.yaml")


def test_identities_leave_out_what_is_at_its_default() -> None:
    recipe = Recipe(name="a", title="A", method="peft", params={"r": 8})
    assert recipe.identity == {"name": "a", "method": "peft", "params": {"r": 8}}
    assert "optimizer" in recipe.model_copy(update={"optimizer": "adafactor"}).identity
    assert recipe.model_copy(update={"title": "B", "order": 3, "deviations": ("x",)}).identity == recipe.identity


def test_recipes_do_not_share_a_default() -> None:
    first, second = (Recipe(name=name, title=name, method="peft") for name in "ab")
    first.params["r"] = 8
    assert second.params == {}


@pytest.mark.parametrize("word", ["no", "off", "Yes", "'true'"])
def test_a_word_in_the_place_of_a_truth_value_is_refused(word: str, tmp_path: Path) -> None:
    """To a library of methods the text "no" is as true as any other."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"title: Mine\nmethod: peft\nparams: {{runtime: {{use_dora: {word}}}}}\n")
    with pytest.raises(BadFileError, match=r"params: runtime\.use_dora is the word .*; write true or false"):
        Recipe.load(path)


def test_numbers_of_a_recipe_are_those_of_version_1_2_of_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("title: Mine\nmethod: peft\nparams: {r: 010, lora_alpha: 1e1, lora_dropout: 1e-1}\n")
    assert Recipe.load(path).params == {"r": 10, "lora_alpha": 10.0, "lora_dropout": 0.1}


def test_deviations_of_an_included_file_stay(tmp_path: Path) -> None:
    """A child's follow its parent's, whether either is a list or a mapping; null takes the one of its name away."""
    (tmp_path / "named.yaml").write_text("title: A\nmethod: m\ndeviations:\n  rank: Rank 8.\n  loss: Mean of layers.\n")
    (tmp_path / "listed.yaml").write_text("title: A\nmethod: m\ndeviations: [Rank 8., Mean of layers.]\n")
    for parent in ("named", "listed"):
        for own, expected in {
            "": ["Rank 8.", "Mean of layers."],
            "deviations: []": ["Rank 8.", "Mean of layers."],
            "deviations: [Odd., Rank 8.]": ["Rank 8.", "Mean of layers.", "Odd."],
            "deviations: {odd: Odd.}": ["Rank 8.", "Mean of layers.", "Odd."],
        }.items():
            (tmp_path / "child.yaml").write_text(f"include: {parent}.yaml\ntitle: B\n{own}\n")
            assert list(Recipe.load(tmp_path / "child.yaml").deviations) == expected, (parent, own)
    (tmp_path / "child.yaml").write_text("include: named.yaml\ndeviations: {loss: null, rank: Rank 4., odd: Odd.}\n")
    child = Recipe.load(tmp_path / "child.yaml")
    assert child.deviations == ("Rank 4.", "Odd.")
    assert child.identity == Recipe.load(tmp_path / "named.yaml").identity | {"name": "child"}
    (tmp_path / "plain.yaml").write_text("title: A\nmethod: m\n")
    (tmp_path / "child.yaml").write_text("include: plain.yaml\ndeviations: [Odd.]\n")
    assert Recipe.load(tmp_path / "child.yaml").deviations == ("Odd.",)


def test_only_a_deviation_that_is_inherited_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("title: A\nmethod: m\ndeviations: {rank: Rank 8.}\n")
    (tmp_path / "b.yaml").write_text("include: a.yaml\ndeviations: {rnak: null}\n")
    with pytest.raises(BadFileError, match=r"b\.yaml, deviations: leaves out rnak; those inherited are rank\."):
        Recipe.load(tmp_path / "b.yaml")
    for wrong in ("deviations: Odd.", "deviations: {odd: 3}", "deviations: {odd: [a]}", "deviations: null"):
        (tmp_path / "b.yaml").write_text(f"include: a.yaml\n{wrong}\n")
        with pytest.raises(BadFileError, match="deviations"):
            Recipe.load(tmp_path / "b.yaml")


def test_what_the_recipes_of_the_repository_declare() -> None:
    """No sentence twice, none of a parent lost; and none of a setting that an ablation changes."""
    recipes = load_recipes(REPOSITORY / "methods")
    for recipe in recipes.values():
        assert len(set(recipe.deviations)) == len(recipe.deviations), recipe.name
        assert all(sentence.endswith(".") for sentence in recipe.deviations), recipe.name
    for name in ("mosl", "mosld", "mosld-b", "mosld-5-5-5-5", "mosld-8-6-4-2", "mosld-dropout-0.5", "mosld-hidden"):
        told = " ".join(recipes[name].deviations)
        assert "initial values for the router" in told, name
        assert "1/32" in told, name
        assert ("8-6-4-2 in one place" in told) == (name not in {"mosld-5-5-5-5", "mosld-8-6-4-2"}), name
        assert ("91 %" in told) == (name not in {"mosl", "mosld-hidden"}), name
    assert not recipes["dora"].deviations
    for name in ("mola-no-dropout", "hydralora-no-dropout"):
        assert not any("mask" in sentence for sentence in recipes[name].deviations)


@pytest.mark.parametrize(
    ("first", "second", "changed"),
    [
        ("mola", "mosl-input-dropout", {"share"}),
        ("mola-no-dropout", "mosl", {"share"}),
        ("mola-weight-dropout", "mosld", {"share"}),
        ("moe-lora", "hydralora-no-dropout", {"share"}),
        ("mosl", "mosld", {"dropout", "dropout_on"}),
        ("mola-no-dropout", "mola-weight-dropout", {"dropout", "dropout_on"}),
        ("mola-no-dropout", "mola", {"dropout", "dropout_on"}),
        ("mosl", "mosl-input-dropout", {"dropout", "dropout_on"}),
        ("mosld", "mosld-input-dropout", {"dropout", "dropout_on"}),
        ("hydralora-no-dropout", "hydralora", {"dropout", "dropout_on"}),
        ("mosl-input-dropout", "mosld-input-dropout", {"dropout", "dropout_on"}),
        ("mosld", "mosld-hidden", {"dropout_on"}),
        ("mosld", "mosld-update", {"dropout_on"}),
        ("mosld", "mosld-drop-b", {"dropout_matrix"}),
        ("mosld", "mosld-b", {"share"}),
        ("mosld", "mosld-balance-sum", {"balance_reduce"}),
        ("mosld", "mosld-uniform", {"router", "top_k", "balance_coef"}),
        ("mosld", "mosld-frozen-router", {"frozen", "balance_coef"}),
        ("mosld", "mosld-frozen-a", {"frozen"}),
        ("mosld", "mosld-noise-router", {"router_input"}),
        ("mosld", "mosld-one-expert", {"experts", "top_k", "balance_coef"}),
        ("mola", "mola-balance-sum", {"balance_reduce"}),
        ("mola", "mosl", {"share", "dropout", "dropout_on"}),
        ("moe-lora", "hydralora", {"share", "dropout", "dropout_on"}),
    ],
)
def test_what_sets_two_recipes_apart(first: str, second: str, changed: set[str]) -> None:
    """Controls differ in one setting from what they are read against; the main recipes of a family in several."""
    recipes = load_recipes(REPOSITORY / "methods")
    one, other = (asdict(Coordinates.of(recipes[name].params)) for name in (first, second))
    assert {key for key in one if one[key] != other[key]} == changed
    settings = [recipes[name] for name in (first, second)]
    assert len({(recipe.learning_rate_scale, recipe.optimizer, recipe.knob) for recipe in settings}) == 1
    assert len({str(recipe.params["target_modules"]) for recipe in settings}) == 1
