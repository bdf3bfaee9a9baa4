"""Budgets: the paper's parameter counts to the digit, and the solver's promises on real shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, LlamaConfig, PreTrainedConfig

from mosld_bench.compat.peft import base_name
from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import BenchError, BudgetError, UnknownNameError
from mosld_bench.methods import Counts, Method, base_size, count_trainable, fit_budget, registry, target_of
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.tuners.mixture import MixtureLayer
from tests.conftest import REPOSITORY
from tests.support.models import build, config

RECIPES = load_recipes(REPOSITORY / "methods")
LLAMA2_7B = LlamaConfig(
    hidden_size=4096, num_hidden_layers=32, intermediate_size=11008, num_attention_heads=32, vocab_size=32000
)
SMOLLM2 = LlamaConfig(
    hidden_size=576, num_hidden_layers=30, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3,
    vocab_size=49152, tie_word_embeddings=True,
)  # fmt: skip
SHAPE = config(layers=2)
EMBEDDED = AutoConfig.from_pretrained(MODEL_DIR)
SIZED = [name for name, recipe in RECIPES.items() if recipe.method not in {"base", "full"} and not recipe.fixed_size]
#: What is larger than a million parameters on SmolLM2 at rank 1 -> how large.
LARGE = {"mixlora": 1_774_080, "mola-all-linear": 2_244_864, "mosld-all-linear": 1_655_808}
#: What has whole ranks alone, the same in all modules.
COARSE = ["adalora"]
SMALL = [name for name in SIZED if name not in LARGE and name not in COARSE]


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [("lora", 4_194_304), ("mola", 22_282_240), ("mosl", 13_893_632), ("mosld", 13_893_632)],
)
def test_the_papers_parameter_counts_on_llama2_7b(recipe: str, parameters: int) -> None:
    """Table 5 of arXiv 2412.08946: 0.419, 2.228 and 1.389, in units of ten million."""
    fit = fit_budget(RECIPES[recipe], LLAMA2_7B, "native")
    assert fit.trainable == parameters
    assert fit.total - fit.trainable == 6_738_415_616


def test_a_rank_as_budget_sets_the_rank_and_holds_the_scale() -> None:
    """Equal rank is no equal size: there is no target and no residual."""
    fit = fit_budget(RECIPES["mosld"], LLAMA2_7B, "r8")
    assert (fit.trainable, fit.target, fit.residual) == (13_893_632, None, None)
    four = fit_budget(RECIPES["lora"], LLAMA2_7B, "r4")
    assert (four.trainable, four.params["r"], four.params["lora_alpha"]) == (4_194_304 // 2, 4, 8)


@pytest.mark.parametrize(
    ("shape", "budget", "parameters"),
    [(LLAMA2_7B, "13893632", 13_893_632), (SMOLLM2, "1843200", 1_843_200), (EMBEDDED, "60k", 59_968)],
)
def test_mixlora_fits_though_a_block_is_many_times_an_attention_layer(
    shape: LlamaConfig, budget: str, parameters: int
) -> None:
    """A rank more on one block costs 44 (LLaMA-2) times what it costs on one attention layer."""
    fit = fit_budget(RECIPES["mixlora"], shape, budget)
    assert fit.params["r"] == 1
    assert fit.trainable == parameters


@pytest.mark.parametrize("recipe", SMALL)
@pytest.mark.parametrize("budget", ["1m", "0.5%", "lora-r8"])
def test_fits_within_one_percent_and_the_built_model_agrees(recipe: str, budget: str) -> None:
    fit = fit_budget(RECIPES[recipe], SMOLLM2, budget, recipes=RECIPES)
    assert fit.target == {"1m": 1_000_000, "0.5%": 672_575, "lora-r8": 460_800}[budget]
    assert fit.target is not None
    assert fit.residual == pytest.approx((fit.trainable - fit.target) / fit.target)
    assert fit.residual is not None
    assert abs(fit.residual) <= 0.01


@pytest.mark.parametrize(("recipe", "smallest"), LARGE.items())
def test_what_a_million_does_not_reach_is_told_with_its_smallest_size(recipe: str, smallest: int) -> None:
    with pytest.raises(BudgetError, match=f"the nearest reachable count is {smallest:,}"):
        fit_budget(RECIPES[recipe], SMOLLM2, "1m")
    assert abs(fit_budget(RECIPES[recipe], SMOLLM2, "3m").residual or 0) <= 0.01


@pytest.mark.parametrize("recipe", COARSE)
def test_what_has_one_rank_for_all_modules_is_refused_with_the_sizes_beside(recipe: str) -> None:
    with pytest.raises(BudgetError, match="the nearest reachable counts are 980,220 and 1,037,880"):
        fit_budget(RECIPES[recipe], SMOLLM2, "1m")
    assert fit_budget(RECIPES[recipe], SMOLLM2, "1m", tolerance=0.03).trainable == 980_220


@pytest.mark.parametrize("recipe", [name for name, recipe in RECIPES.items() if recipe.fixed_size])
def test_what_has_its_own_size_under_every_budget_is_counted_at_it(recipe: str) -> None:
    """The plan gives it the budget `native`, so that no other is asked of it."""
    assert fit_budget(RECIPES[recipe], SMOLLM2, "native").trainable > 0


@pytest.mark.parametrize("recipe", SIZED)
def test_count_on_meta_is_the_count_of_a_model_with_weights(recipe: str) -> None:
    shape = config(layers=4)
    budget = "20k" if recipe.endswith("-all-linear") else "6k" if recipe == "miss" else "9000"
    fit = fit_budget(RECIPES[recipe], shape, budget, tolerance=0.1)
    built = registry.get(RECIPES[recipe].method).attach(build(shape), fit.params)
    assert sum(p.numel() for p in built.parameters() if p.requires_grad) == fit.trainable
    assert sum(p.numel() for p in built.parameters()) == fit.total


@settings(max_examples=15, deadline=None)
@given(st.integers(4_000, 60_000), st.sampled_from(["lora", "mola", "mosld", "smora", "flylora"]))
def test_no_count_between_is_nearer_than_one_module(target: int, recipe: str) -> None:
    """The solver misses the target by at most half of what the largest single module costs a rank, or an expert."""
    shape = config(layers=4)
    fit = fit_budget(RECIPES[recipe], shape, str(target), tolerance=0.99)
    step = {"lora": 64, "mola": 8 * 64, "mosld": 32 + 8 * 32, "smora": 3 * 32, "flylora": 32}[recipe]
    assert abs(fit.trainable - target) <= step / 2 + 1


def test_rank_pattern_holds_the_scale_and_spreads_over_the_depth() -> None:
    fit = fit_budget(RECIPES["mosld"], SMOLLM2, "1m")
    ranks, alphas = fit.params["rank_pattern"], fit.params["alpha_pattern"]
    assert ranks.keys() == alphas.keys()
    assert set(ranks.values()) == {fit.params["r"] + 1}
    assert fit.params["lora_alpha"] / fit.params["r"] == 2
    assert {alphas[key] / ranks[key] for key in ranks} == {2}
    layers = sorted(int(key.split("\\.")[2]) for key in ranks)
    assert sum(layer < 15 for layer in layers) == pytest.approx(len(layers) / 2, abs=3)


def test_out_of_reach_names_the_nearest_counts() -> None:
    with pytest.raises(
        BudgetError, match=r"'mola' cannot meet the budget 1k .* nearest reachable counts? (is|are)"
    ) as error:
        fit_budget(RECIPES["mola"], SMOLLM2, "1k")
    smallest = count_trainable(registry.get("mixture"), SMOLLM2, registry.get("mixture").at(RECIPES["mola"].params, 1))
    assert f"{smallest:,}" in str(error.value)


def test_budget_words() -> None:
    assert target_of("250k", SMOLLM2, RECIPES) == 250_000
    assert target_of("1.5m", SMOLLM2, RECIPES) == 1_500_000
    assert target_of("1%", SMOLLM2, RECIPES) == round(base_size(SMOLLM2) / 100)
    assert base_size(SMOLLM2) == 134_515_008
    with pytest.raises(UnknownNameError, match="Did you mean 'lora'"):
        target_of("lorra-r8", SMOLLM2, RECIPES)
    with pytest.raises(BudgetError, match="no size to set"):
        target_of("full-r8", SMOLLM2, RECIPES)
    with pytest.raises(BudgetError, match="fixed size"):
        fit_budget(RECIPES["full"], SMOLLM2, "1m")


def test_a_recipes_own_knob_counts_in_budgets_and_in_words() -> None:
    """A budget can turn the number of experts; the rank and its scale then stay."""
    counted = RECIPES["moe-lora"].model_copy(update={"name": "counted", "knob": "experts"})
    shape, recipes = config(layers=4), {"counted": counted}
    target = target_of("counted-r3", shape, recipes)
    assert target == count_trainable(registry.get("mixture"), shape, counted.params | {"experts": 3})
    fit = fit_budget(counted, shape, "counted-r3", recipes=recipes)
    assert (fit.trainable, fit.params) == (target, counted.params | {"experts": 3})


LORA: dict[str, Any] = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}


class Built(NamedTuple):
    """An adapted module as it was built: its rank and the scale of its update."""

    rank: int
    scale: float


def built(recipe: Recipe, params: Mapping[str, Any], shape: PreTrainedConfig) -> tuple[int, dict[str, Built]]:
    """Trainable parameters of a model with weights, and what became of each module, by its name in the base model."""
    model = registry.get(recipe.method).attach(build(shape), params)
    modules = {}
    for name, module in model.named_modules():
        if isinstance(module, MixtureLayer):
            modules[base_name(name)] = Built(module.rank["default"], module.scale["default"])
        elif isinstance(getattr(module, "scaling", None), dict) and hasattr(module, "r"):
            modules[base_name(name)] = Built(module.r["default"], module.scaling["default"])
    return sum(p.numel() for p in model.parameters() if p.requires_grad), modules


def recipe_of(**params: Any) -> Recipe:
    """A recipe of PEFT where the params name a PEFT type, else of the mixture."""
    method = "peft" if "peft_type" in params else "mixture"
    return Recipe(name="mine", title="Own", method=method, params=params)


KEYS = [
    "q_proj",
    "v_proj",
    "layers.1.self_attn.v_proj",
    r"model\.layers\.0\.self_attn\.q_proj",
    r"layers\.[01]\.self_attn\.q_proj",
]


@settings(max_examples=20, deadline=None)
@given(
    rank=st.integers(1, 9),
    alpha=st.sampled_from([None, 1, 5, 16, 16.5]),
    rslora=st.booleans(),
    ranks=st.dictionaries(st.sampled_from(KEYS), st.integers(1, 12), max_size=2),
    alphas=st.dictionaries(st.sampled_from(KEYS), st.integers(1, 40), max_size=2),
    target=st.integers(600, 9_000),
)
def test_any_recipe_keeps_its_scales_and_ratios_at_any_size(
    rank: int, alpha: float | None, rslora: bool, ranks: dict[str, int], alphas: dict[str, int], target: int
) -> None:
    """The scale of every module is the recipe's to the last digits, its rank the recipe's times one number, or next."""
    recipe = recipe_of(**LORA | {"r": rank, "use_rslora": rslora, "rank_pattern": ranks, "alpha_pattern": alphas})
    recipe.params["lora_alpha"] = alpha
    if alpha is None:
        del recipe.params["lora_alpha"]
    try:
        _, native = built(recipe, recipe.params, SHAPE)
    except BenchError:  # a key that another one before it leaves nothing to
        assume(False)
    fit = fit_budget(recipe, SHAPE, str(target), tolerance=0.99)
    trainable, modules = built(recipe, fit.params, SHAPE)
    assert trainable == fit.trainable
    value = fit.params["r"]
    for name, module in modules.items():
        assert module.scale == pytest.approx(native[name].scale, rel=1e-12)
        whole = [max(1, int(native[name].rank * knob / rank + 0.5)) for knob in (value, value + 1)]
        assert module.rank in whole


@pytest.mark.parametrize("kind", [{"peft_type": "LORA"}, {"experts": 1}], ids=["peft", "mixture"])
def test_own_ranks_and_the_spread_of_a_budget_stand_side_by_side(kind: dict[str, Any]) -> None:
    sizes = {name: value for name, value in LORA.items() if name != "peft_type"}
    recipe = recipe_of(**kind, **sizes, rank_pattern={"q_proj": 16})
    fit = fit_budget(recipe, EMBEDDED, "60k")
    trainable, modules = built(recipe, fit.params, EMBEDDED)
    assert trainable == fit.trainable == 60_160
    assert sorted({(name.rsplit(".", 1)[1], *module) for name, module in modules.items()}) == [
        ("q_proj", 42, 1.0), ("q_proj", 44, 1.0), ("v_proj", 21, 2.0)
    ]  # fmt: skip


def test_rslora_has_its_scale_at_every_budget() -> None:
    recipe = recipe_of(**LORA, use_rslora=True)
    for budget in ("native", "r2", "r32", "45k", "60k"):
        _, modules = built(recipe, fit_budget(recipe, EMBEDDED, budget).params, EMBEDDED)
        assert {round(module.scale, 9) for module in modules.values()} == {round(16 / 8**0.5, 9)}


def test_a_rank_as_budget_is_the_rank_of_every_module_or_is_refused() -> None:
    with pytest.raises(
        BudgetError, match=r"ranks of their own .*'q_proj': 16.* would be another method under its name"
    ):
        fit_budget(recipe_of(**LORA, rank_pattern={"q_proj": 16}), SHAPE, "r4")
    recipe = recipe_of(**LORA, rank_pattern={"q_proj": 8}, alpha_pattern={"v_proj": 4})
    _, modules = built(recipe, fit_budget(recipe, SHAPE, "r4").params, SHAPE)
    assert sorted({(name.rsplit(".", 1)[1], *module) for name, module in modules.items()}) == [
        ("q_proj", 4, 2.0), ("v_proj", 4, 0.5)
    ]  # fmt: skip
    fourier = recipe_of(peft_type="FOURIERFT", n_frequency=8, target_modules=["q_proj"])
    with pytest.raises(BudgetError, match="an update of no rank that could be set"):
        fit_budget(fourier, SHAPE, "r4")


def test_what_the_recipe_leaves_out_is_at_pefts_default_at_every_size() -> None:
    """LoRA's r and lora_alpha are 8: the scale is 1, also where the budget sets another rank."""
    recipe = recipe_of(peft_type="LORA", target_modules=["q_proj", "v_proj"])
    _, modules = built(recipe, fit_budget(recipe, EMBEDDED, "60k").params, EMBEDDED)
    assert {module.scale for module in modules.values()} == {1.0}
    assert {module.rank for module in modules.values()} == {33, 34}


@pytest.mark.parametrize(("peft_type", "params", "scale"), [
    ("LOHA", {"r": 4, "alpha": 8}, 2.0),
    ("LOKR", {"r": 2, "alpha": 8}, 4.0),
    ("GRALORA", {"r": 4, "alpha": 8}, 2.0),
    ("PSOFT", {"r": 4, "psoft_alpha": 8}, 2.0),
])  # fmt: skip
def test_other_types_hold_their_scale_too(peft_type: str, params: dict[str, Any], scale: float) -> None:
    recipe = recipe_of(peft_type=peft_type, target_modules=["q_proj", "v_proj"], **params)
    for budget in ("r2", "r6"):
        fit = fit_budget(recipe, SHAPE, budget)
        _, modules = built(recipe, fit.params, SHAPE)
        assert {module.scale for module in modules.values()} == {scale}


def test_a_knob_may_be_too_large_for_the_model_on_the_way_to_a_size_that_is_not() -> None:
    """PSOFT grows with the square of its rank, up to 24 here: doubling leads from 16 past what lies between."""
    shape = config(layers=1, hidden_size=48)
    recipe = recipe_of(peft_type="PSOFT", target_modules=["v_proj"], r=4)
    sizes = {n: count_trainable(registry.get("peft"), shape, recipe.params | {"r": n}) for n in (9, 23)}
    for rank, size in sizes.items():
        assert fit_budget(recipe, shape, str(size)).params["r"] == rank
    with pytest.raises(BudgetError, match="nearest reachable "):
        fit_budget(recipe, shape, "1m")


def test_what_is_wrong_with_a_recipe_is_said_as_such_and_with_its_name() -> None:
    for budget in ("native", "r4", "5k"):
        with pytest.raises(
            BenchError, match=r"The recipe 'mine' cannot be run\. There is no field of LoraConfig named"
        ):
            fit_budget(recipe_of(**LORA, rank=4), SHAPE, budget)


@pytest.mark.parametrize("budget", ["native", "r4", "5k"])
@pytest.mark.parametrize(("params", "finding"), [
    ({"r": "8"}, "no integer 'r'|r is '8' in the recipe's params; it has to be a whole number above 0"),
    ({"r": 0}, "r is 0 in the recipe's params; it has to be a whole number above 0"),
    ({"lora_alpha": "16"}, "lora_alpha is '16' in the recipe's params; it has to be a number"),
    ({"rank_pattern": ["q_proj"]}, "rank_pattern is .'q_proj'. in the recipe's params; it has to be names with a"),
    ({"rank_pattern": {"q_proj": 2.5}}, "'q_proj' of rank_pattern is 2.5 .* a whole number above 0"),
    ({"alpha_pattern": {"q_proj": None}}, "'q_proj' of alpha_pattern is None .* a number"),
])  # fmt: skip
def test_what_is_no_number_is_a_sentence(params: dict[str, Any], finding: str, budget: str) -> None:
    recipe = recipe_of(**LORA | params)
    with pytest.raises(BenchError, match=finding):
        fit_budget(recipe, SHAPE, budget)


GROWTH: dict[str, Callable[[int], int]] = {
    "line": lambda n: 7 * n + 5,
    "square": lambda n: n * n,
    "stairs": lambda n: 10 * (-(-n // 3)),
    "flat": lambda n: 40 if n < 9 else 40 * n,
    "late": lambda n: 10 * n if n < 20 else 200 + 3 * n,
    "full": lambda n: min(10 * n, 35),
}


class Grows(Method):
    """A plug-in whose size is any function of its knob."""

    knob: ClassVar[str | None] = "n"

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        model.requires_grad_(False)
        model.register_parameter("grown", nn.Parameter(torch.empty(GROWTH[params["how"]](params["n"]))))
        return model


@pytest.mark.parametrize("how", [how for how in GROWTH if how != "full"])
@pytest.mark.parametrize("target", [40, 77, 163, 290, 901, 4400])
def test_a_plug_in_that_grows_in_no_straight_line_is_fitted_all_the_same(how: str, target: int) -> None:
    """Its size is foreseen wrongly, found out by the count, and searched for step by step."""
    recipe = Recipe(name="grows", title="Grows", method="tests.methods.test_fit:Grows", params={"n": 4, "how": how})
    fit = fit_budget(recipe, config(layers=1), str(target), tolerance=0.99)
    assert fit.trainable == GROWTH[how](fit.params["n"])
    assert abs(fit.trainable - target) == min(abs(GROWTH[how](n) - target) for n in range(1, 2000))


def test_the_nearest_counts_are_looked_for_before_a_budget_is_refused() -> None:
    """A size that stops growing: the line leads past it, to a count below that is true but not the nearest."""
    recipe = Recipe(name="grows", title="Grows", method="tests.methods.test_fit:Grows", params={"n": 4, "how": "full"})
    assert fit_budget(recipe, config(layers=1), "34", tolerance=0.04).trainable == 35
    with pytest.raises(BudgetError, match="counts are 30 and 35"):
        fit_budget(recipe, config(layers=1), "33")


def test_two_counts_foresee_the_others_and_none_is_made_twice(attached: list[nn.Module]) -> None:
    shape = config(layers=4)
    counts = Counts(shape)
    fits = [fit_budget(RECIPES["mosld"], shape, f"{n}k", tolerance=0.1, counts=counts) for n in (9, 12, 15, 90)]
    assert len(attached) == 2 + len(fits)
    assert fits == [fit_budget(RECIPES["mosld"], shape, f"{n}k", tolerance=0.1) for n in (9, 12, 15, 90)]
