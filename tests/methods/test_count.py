"""Parameters counted without weights: the papers' counts by their formulas, and each setting counted once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, PreTrainedConfig

from mosld_bench.errors import BenchError
from mosld_bench.methods import Counts, Method, base_size, count, count_trainable, registry
from mosld_bench.methods.attaching import attach
from mosld_bench.methods.count import adapted_module, empty_model
from mosld_bench.spec.recipe import load_recipes
from tests.conftest import REPOSITORY
from tests.support.models import build, config

RECIPES = load_recipes(REPOSITORY / "methods")
LLAMA2_7B = LlamaConfig(
    hidden_size=4096, num_hidden_layers=32, intermediate_size=11008, num_attention_heads=32, vocab_size=32000
)


def test_molas_own_counts_on_all_linears() -> None:
    """arXiv 2402.08562: all seven linears at r 8 with five experts on average, and with eight everywhere."""
    linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for experts, parameters in ([2, 4, 6, 8], 105_635_840), (8, 169_017_344):
        params = RECIPES["mola"].params | {"experts": experts, "target_modules": linears}
        assert count_trainable(registry.get("mixture"), LLAMA2_7B, params) == parameters


def test_mixloras_count_by_its_formula() -> None:
    """A layer has 4 r 2d (attention), N r 3 (d + d_ff) (experts) and N d (router)."""
    trainable = count_trainable(registry.get("mixlora"), LLAMA2_7B, RECIPES["mixlora"].params | {"r": 16})
    assert trainable == 32 * (4 * 16 * 2 * 4096 + 8 * 16 * 3 * (4096 + 11008) + 8 * 4096) == 203_423_744


def test_tied_weights_count_once() -> None:
    assert base_size(config(tie_word_embeddings=False)) - base_size(config(tie_word_embeddings=True)) == 32 * 47


def test_a_parameter_belongs_to_the_module_that_it_adapts() -> None:
    model = registry.get("peft").attach(build(config()), RECIPES["lora"].params)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    modules = {f"model.layers.{layer}.self_attn.{name}" for layer in range(4) for name in ("q_proj", "v_proj")}
    assert {adapted_module(model, name) for name in trained} == modules
    counts = Counts(config())
    assert counts.by_module(registry.get("peft"), RECIPES["lora"].params).keys() == modules
    whole = Counts(config()).by_module(registry.get("full"), {})
    assert sum(whole.values()) == base_size(config())


def test_a_setting_is_built_once(attached: list[nn.Module]) -> None:
    counts, method, params = Counts(config()), registry.get("peft"), RECIPES["lora"].params
    assert counts.trainable(method, params) == counts.trainable(method, dict(params)) < counts.total(method, params)
    assert len(attached) == 1
    counts.trainable(method, {**params, "r": 3})
    assert len(attached) == 2


def test_the_model_of_a_configuration_is_built_once_and_nothing_is_left_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[PreTrainedConfig] = []

    def watched(shape: PreTrainedConfig) -> nn.Module:
        built.append(shape)
        return empty_model(shape)

    monkeypatch.setattr(count, "empty_model", watched)
    shape = config()
    names = ("full", "lora", "mosld", "prefix-tuning", "lora", "full")
    counted = [Counts(shape).trainable(registry.get(RECIPES[n].method), RECIPES[n].params) for n in names]
    assert built == [shape]
    assert counted[0] == counted[-1] == sum(p.numel() for p in empty_model(shape).parameters())
    assert counted[1] == counted[-2]
    Counts(config()).trainable(registry.get("peft"), RECIPES["lora"].params)  # of an equal configuration, another
    assert len(built) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_what_trains_on_weights_is_what_was_counted_without(recipe: str, dtype: torch.dtype) -> None:
    """PEFT makes what is in 16 bits anew in float32, and trainable, whatever it was."""
    method, llama = registry.get(RECIPES[recipe].method), config()
    counts = Counts(llama)
    attached = attach(method, build(llama).to(dtype).requires_grad_(False), RECIPES[recipe].params)
    trained: dict[str, int] = {}
    layers = {name for name, _ in build(llama).named_modules()}
    for name, parameter in attached.named_parameters():
        if parameter.requires_grad:
            module = adapted_module(attached, name, layers)
            trained[module] = trained.get(module, 0) + parameter.numel()
    assert trained == counts.by_module(method, RECIPES[recipe].params)


def test_a_model_that_is_counted_shares_no_container_with_the_model_that_it_is_copied_from() -> None:
    """What a method registers on one, a hook or a module, must not be on the next."""

    def containers(model: nn.Module) -> list[Any]:
        return [v for module in model.modules() for v in vars(module).values() if isinstance(v, dict | set | list)]

    whole = empty_model(config())
    kept = {id(container): container for container in containers(whole)}
    assert len(kept) > 10 * len(list(whole.modules())), "a module has a dozen for its hooks alone"
    for counts in (None, {f"model.layers.{layer}.self_attn.q_proj": 1 for layer in range(4)}):
        copied = containers(count._copied(whole, counts))
        assert copied
        assert not {id(container) for container in copied} & kept.keys()
        assert len({id(container) for container in copied}) == len(copied), "each has its own"


@pytest.mark.parametrize("recipe", ["lora", "mola", "mosld", "mixlora", "hydralora", "prefix-tuning", "full"])
def test_one_layer_of_each_kind_tells_the_counts_of_all(recipe: str) -> None:
    """MoLA's experts grow with the depth: its layers are of four kinds."""
    shape, method, params = config(layers=8), registry.get(RECIPES[recipe].method), RECIPES[recipe].params
    knob = method.knob_of(params)
    other = params if knob is None else method.at(params, 1, knob)
    counts = Counts(shape)
    foreseen = counts.foreseen(method, other, counts.by_module(method, params))
    assert foreseen == Counts(shape).by_module(method, other)


def test_of_layers_that_are_alike_one_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    attached: list[set[str]] = []

    def watched(method: Method, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        attached.append(set(dict(model.named_modules())))
        return attach(method, model, params)

    monkeypatch.setattr(count, "attach", watched)
    counts, method = Counts(config(layers=8)), registry.get("mixture")
    params = RECIPES["mola"].params
    counts.foreseen(method, method.at(params, 1, "r"), counts.by_module(method, params))
    layers = [[number for number in range(8) if f"model.layers.{number}" in names] for names in attached]
    assert layers == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 2, 4, 6]]


def test_a_method_that_needs_all_layers_is_counted_on_all() -> None:
    counts, method = Counts(config(layers=3)), Reaches()
    assert counts.foreseen(method, {"n": 2}, counts.by_module(method, {"n": 5})) == {"model.layers.2": 2}


class Reaches(Method):
    """A plug-in that goes through the layers by their number."""

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        for number in range(3):
            layer = model.get_submodule(f"model.layers.{number}")
        layer.register_parameter("own", nn.Parameter(torch.empty(params["n"])))
        return model


@pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension", "ignore:Setting boft_n_butterfly_factor")
@pytest.mark.parametrize("peft_type", ["BOFT", "SHIRA", "UNILORA"])
def test_what_reads_values_while_it_attaches_is_counted_without_the_memory_of_weights(peft_type: str) -> None:
    """The meta device has no values; weights that are one zero each, seen in the weights' shapes, have some."""
    peft = registry.get("peft")
    params: dict[str, Any] = {"peft_type": peft_type, "target_modules": ["q_proj", "o_proj"]}
    params |= {"r": 2} if peft_type == "SHIRA" else {}
    shape = config(tie_word_embeddings=True)
    counts = Counts(shape)
    built = peft.attach(build(shape), params)
    assert counts.trainable(peft, params) == sum(p.numel() for p in built.parameters() if p.requires_grad)
    assert counts.total(peft, params) == sum(p.numel() for p in built.parameters())
    zeros = count._zeros_in_the_shapes_of(_on_meta(LLAMA2_7B))
    assert {parameter.untyped_storage().nbytes() for parameter in zeros.parameters()} == {4}


def test_what_cannot_be_counted_without_weights_is_said() -> None:
    with pytest.raises(BenchError, match=r"attach of the method .*:Reads .* raises LookupError: no such weight"):
        Counts(config()).trainable(Reads(), {})


class Reads(Method):
    """A plug-in that looks for a value in the weights."""

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        if not next(model.parameters()).sum().item() > 0:
            raise LookupError("no such weight")
        return model


def _on_meta(shape: PreTrainedConfig) -> nn.Module:
    with torch.device("meta"):
        return empty_model(shape)
