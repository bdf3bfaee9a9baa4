"""What a training keeps for its backward: as seen without weights, and by the formula, beside what autograd keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedConfig

from mosld_bench.cost import Shape, memory_of
from mosld_bench.cost.activations import Activations, activations, activations_of
from mosld_bench.inputs import Encoded
from mosld_bench.methods import Counts, Method, fit_budget, registry
from mosld_bench.methods.live import copy_sharing_weights, unshare_trainable
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.trial import Fit, TrainSpec
from mosld_bench.trial import train
from tests.conftest import REPOSITORY
from tests.support.models import build, config

RECIPES = load_recipes(REPOSITORY / "methods")
LLAMA = LlamaConfig(hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=8, vocab_size=100)
TEXTS, TOKENS = 8, 64
#: Methods of PEFT that ask their tensors for a number in every forward.
WITHOUT = {"loha", "lokr"}
#: Virtual tokens stand before every text, so that what is kept of a token hangs on the length of the texts.
VIRTUAL = {"prefix-tuning", "prompt-tuning"}

pytestmark = pytest.mark.filterwarnings("ignore")


def kept_by_autograd(method: Method, base: nn.Module, fit: Fit, dtype: str) -> int:
    """Bytes that autograd keeps of a batch, storage by storage, casts of weights included and weights not."""
    model = method.attach(copy_sharing_weights(base), fit.params)
    unshare_trainable(model, base)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.train()
    method.before_step(model)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    batch = [Encoded("a", ids, 1) for ids in torch.randint(0, 100, (TEXTS, TOKENS)).tolist()]
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        train.answer_loss(model, batch, 0)
    return sum(n_bytes for n_bytes, _ in kept.values())


def foretold(fit: Fit, dtype: str, kept: Activations | None) -> int:
    settings = {"steps": 1, "batch_size": TEXTS, "max_length": TOKENS, "dtype": dtype}
    spec = TrainSpec.model_validate(settings)
    memory = memory_of(fit, Shape.of(LLAMA), spec, optimizer="adamw", kept=kept)
    return memory.activations + memory.casts


def seen(recipe: Recipe, model: PreTrainedConfig, dtype: str) -> tuple[Fit, Activations | None]:
    counts = Counts(model)
    fit = fit_budget(recipe, model, "native", counts=counts)
    return fit, activations_of(recipe, fit, model, dtype, counts)


@pytest.mark.parametrize(
    ("recipe", "dtype"),
    [(name, "bfloat16") for name in sorted(RECIPES.keys() - WITHOUT - {"base"})]
    + [(name, "float32") for name in ("lora", "mosld", "mixlora", "lora-all-linear", "full", "prefix-tuning")],
)
def test_what_is_seen_without_weights_is_what_autograd_keeps(recipe: str, dtype: str) -> None:
    """Within 4 %: the angles of the positions are taken as each layer's own, and the loss as nobody's."""
    fit, kept = seen(RECIPES[recipe], LLAMA, dtype)
    assert kept is not None
    base = build(LLAMA).to(getattr(torch, dtype))
    measured = kept_by_autograd(registry.get(RECIPES[recipe].method), base, fit, dtype)
    assert foretold(fit, dtype, kept) == pytest.approx(measured, rel=0.15 if recipe in VIRTUAL else 0.04)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("recipe", ["lora", "mosld", "full"])
def test_the_formula_agrees_with_autograd(recipe: str, dtype: str) -> None:
    """Of adapters on queries and values, which it is of."""
    fit = fit_budget(RECIPES[recipe], LLAMA, "native")
    base = build(LLAMA).to(getattr(torch, dtype))
    measured = kept_by_autograd(registry.get(RECIPES[recipe].method), base, fit, dtype)
    assert measured == pytest.approx(foretold(fit, dtype, None), rel=0.15)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "mistral"])
def test_other_models_are_seen_as_well(kind: str) -> None:
    targets = {"target_modules": ["c_attn"]} if kind == "gpt2" else {}
    recipe = RECIPES["lora"].model_copy(update={"params": RECIPES["lora"].params | targets})
    kept = seen(recipe, config(kind), "float32")[1]
    assert kept is not None
    assert 3 * kept.largest < kept.total < 4 * kept.largest, "of four layers the first keeps a little less"


def test_layers_below_the_first_that_trains_keep_nothing_and_those_above_do() -> None:
    """Gradients pass through what lies above. What is named of layers that are left out is no mistake there."""
    lora = RECIPES["lora"]

    def on(*layers: int) -> float:
        params = dict(lora.params) | {"layers_to_transform": list(layers)}
        _, kept = seen(lora.model_copy(update={"params": params}), LLAMA, "float32")
        assert kept is not None
        return kept.total

    assert on(3) < on(2, 3) < on(0) < on(*range(4))
    assert on(3) < on(*range(4)) / 3
    assert on(0) > on(*range(4)) * 0.6, "layers without an adapter of their own keep what the gradient passes through"


def test_what_cannot_be_seen_has_no_number() -> None:
    """A method that asks for numbers, and one that trains nothing."""
    assert {seen(RECIPES[name], LLAMA, "float32")[1] for name in (*WITHOUT, "base")} == {None}


class Broken(Method):
    """Attaches LoRA, and fails in every step."""

    def attach(self, model: nn.Module, params: Any) -> nn.Module:
        return registry.get("peft").attach(model, params)

    def before_step(self, model: nn.Module) -> None:
        raise KeyError("nobody knows")


def test_a_method_that_fails_there_leaves_the_formula() -> None:
    params = RECIPES["lora"].params
    modules = Counts(LLAMA).by_module(Broken(), params)
    assert activations(Broken(), LLAMA, params, modules, "float32") is None


def test_adapters_on_all_linear_layers_of_7b_take_more_than_those_on_queries_and_values() -> None:
    """What a formula of layers alone cannot know: 512 tokens, no checkpointing."""
    large = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000
    )
    spec = TrainSpec(steps=1, batch_size=8, max_length=512, micro_tokens=512, dtype="bfloat16")
    taken = {}
    for name in ("lora", "lora-all-linear", "mixlora"):
        fit, kept = seen(RECIPES[name], large, "bfloat16")
        taken[name] = memory_of(fit, Shape.of(large), spec, optimizer="adamw", kept=kept).activations
        assert kept is not None
        assert kept.total * 512 == pytest.approx(taken[name], abs=1)
    assert 1.8 < taken["lora-all-linear"] / taken["lora"] < 2.6
    assert 2.5 < taken["mixlora"] / taken["lora"] < 4.5
