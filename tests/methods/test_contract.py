"""Every built-in recipe keeps the contract of a method."""

from __future__ import annotations

import pytest

from mosld_bench.methods import check_method, registry
from mosld_bench.spec.recipe import load_recipes
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize(
    "name",
    ["lora", "prefix-tuning", "dora", "moe-lora", "sira", "mola", "mixlora", "hydralora", "mosl", "mosld", "full"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_recipe_keeps_the_contract(name: str) -> None:
    recipe = load_recipes(REPOSITORY / "methods")[name]
    assert len(check_method(registry.get(recipe.method), recipe.params, knob=recipe.knob)) == 8
