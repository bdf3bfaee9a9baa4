"""Every built-in recipe keeps the contract of a method."""

from __future__ import annotations

import pytest

from mosld_bench.methods import check_method, registry
from mosld_bench.spec.recipe import load_recipes
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


RECIPES = load_recipes(REPOSITORY / "methods")
#: The main ones, an ablation for every setting of the design space that no main one has, controls and newer methods.
NAMES = [
    "lora", "prefix-tuning", "dora", "moe-lora", "sira", "mola", "mixlora", "hydralora", "mosl", "mosld", "full",
    "mola-weight-dropout", "mosld-input-dropout", "mosld-hidden", "mosld-update", "mosld-drop-b", "mosld-balance-sum",
    *(name for name, recipe in RECIPES.items() if recipe.group in {"controls", "since"}),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_recipe_keeps_the_contract(name: str) -> None:
    recipe = RECIPES[name]
    assert len(check_method(registry.get(recipe.method), recipe.params, knob=recipe.knob)) == 12
