"""The built-in methods beyond the small Llama on which every test run holds the recipes to the contract."""

from __future__ import annotations

import pytest
from transformers import PreTrainedConfig

from mosld_bench.errors import BenchError, BudgetError, UnknownNameError
from mosld_bench.methods import MixLoraMethod, MixtureMethod, check_method, fit_budget, registry
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.trial import TrainSpec
from tests.conftest import REPOSITORY
from tests.support.models import build, config

RECIPES = load_recipes(REPOSITORY / "methods")

#: What else a base model may be, all at once: biases at q, k and v, no shared key and value heads, tied embeddings.
OTHER = config("qwen2", num_key_value_heads=4, tie_word_embeddings=True)

#: One thing of it at a time.
ARCHITECTURES = {
    "qwen2": config("qwen2"),
    "mistral": config("mistral", num_key_value_heads=4),
    "tied": config("llama", tie_word_embeddings=True),
}


def check(name: str, shape: PreTrainedConfig) -> None:
    recipe = RECIPES[name]
    method, fixed = registry.get(recipe.method), recipe.fixed_size
    lines = check_method(method, recipe.params, knob=recipe.knob, fixed_size=fixed, config=shape)
    assert len(lines) >= 12
    assert all(line.startswith("holds: ") for line in lines)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Could not find a config file")
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_keeps_the_contract_on_another_architecture(name: str) -> None:
    check(name, OTHER)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Could not find a config file")
@pytest.mark.parametrize("shape", ARCHITECTURES)
@pytest.mark.parametrize("name", ["lora", "mosld", "mixlora", "prefix-tuning", "full"])
def test_methods_keep_the_contract_on_each_architecture(name: str, shape: str) -> None:
    check(name, ARCHITECTURES[shape])


@pytest.mark.parametrize("name", ["base", "full"])
def test_a_method_without_params_refuses_them(name: str) -> None:
    with pytest.raises(BenchError, match=f"The method '{name}' takes no params, but the recipe gives r, alpha"):
        registry.get(name).attach(build(config()), {"r": 8, "alpha": 16})


def test_fields_and_types_that_peft_lacks_are_refused_by_name() -> None:
    peft, model = registry.get("peft"), build(config())
    with pytest.raises(UnknownNameError, match=r"There is no PEFT type named 'LORRA'\. Did you mean 'LORA'"):
        peft.attach(model, {"peft_type": "lorra"})
    with pytest.raises(UnknownNameError, match=r"There is no field of LoraConfig named 'rank'"):
        peft.attach(model, {"peft_type": "LORA", "rank": 8})
    with pytest.raises(BenchError, match="PEFT refuses these settings of LoraConfig"):
        peft.attach(model, {"peft_type": "LORA", "target_modules": ["no_such_module"]})


def test_the_size_of_a_method_is_set_by_the_first_knob_that_its_params_have() -> None:
    peft = registry.get("peft")
    assert peft.knob_of({"peft_type": "LORA", "r": 8}) == "r"
    assert peft.knob_of({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}) == "num_virtual_tokens"
    assert peft.knob_of({"peft_type": "IA3"}) is None
    lora = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}
    assert peft.at(lora, 4) == {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    assert registry.get("mixture").at({"r": 8, "lora_alpha": 16, "experts": 4}, 2, "experts") == {
        "r": 8, "lora_alpha": 16, "experts": 2
    }  # fmt: skip


@pytest.mark.parametrize("peft_type", ["PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "CARTRIDGE"])
def test_virtual_tokens_leave_positions_for_a_text(peft_type: str) -> None:
    peft, shape = registry.get("peft"), config(layers=1, max_position_embeddings=16)
    peft.attach(build(shape), {"peft_type": peft_type, "num_virtual_tokens": 15})
    with pytest.raises(BenchError, match="16 virtual tokens stand before every text, and the model has 16 positions"):
        peft.attach(build(shape), {"peft_type": peft_type, "num_virtual_tokens": 16})
    recipe = Recipe(name="prompt", title="Prompt", method="peft", params={"peft_type": peft_type})
    with pytest.raises(BudgetError, match="A higher num_virtual_tokens is refused: 16 virtual tokens"):
        fit_budget(recipe, shape, "200k")


def test_what_peft_lacks_is_named_with_the_field_that_the_recipe_left_out() -> None:
    peft, model = registry.get("peft"), build(config())
    with pytest.raises(
        BenchError, match=r"`vector_length` 256\. The recipe leaves PEFT's default of vector_length 256"
    ):
        peft.attach(model, {"peft_type": "VBLORA", "target_modules": ["q_proj"]})
    with pytest.raises(BenchError, match="PEFT has no value of its own for num_virtual_tokens"):
        peft.attach(model, {"peft_type": "PROMPT_TUNING"})
    with pytest.raises(BenchError, match="HIRA and builds every module at r"):
        peft.attach(model, {"peft_type": "HIRA", "target_modules": ["q_proj"], "rank_pattern": {"q_proj": 4}})


@pytest.mark.parametrize("method", [MixtureMethod(), MixLoraMethod()])
def test_routed_methods_are_of_another_version_where_their_routers_changed(method: MixtureMethod) -> None:
    """In bfloat16 router logits became float32; in float32 nothing changed, nor where nothing trains."""
    assert method.version(TrainSpec(steps=1, dtype="float32")) == 1
    assert method.version(TrainSpec(steps=1, dtype="bfloat16")) == 2
    assert method.version(None) == 1
