"""Recipes: those of the repository, includes, selection by name, and what identifies one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosld_bench.errors import BadFileError, UnknownNameError
from mosld_bench.spec.recipe import Recipe, load_recipes, select
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
