"""What compat/peft.py, and what the tuners override, assume of PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    FourierFTConfig,
    HiraConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from mosld_bench.compat import peft as compat
from mosld_bench.tuners.mixlora import MixLoraConfig, MixLoraModel
from mosld_bench.tuners.mixture import MixtureConfig, MixtureLayer, MixtureModel
from tests.compat.assumption import assumed
from tests.support.models import build, config


def adapted(settings: Any) -> Any:
    """A small Llama with the adapter of ``settings``; a ``PeftModel``."""
    return get_peft_model(build(config()), settings)


def lora(**settings: Any) -> Any:
    return adapted(LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], **settings))


def test_a_method_becomes_known_by_an_entry_in_the_enum_and_a_registration() -> None:
    with assumed("peft", "PeftType takes new members, and register_peft_method fills the mappings of peft.mapping"):
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
        from peft.utils.peft_types import PeftType

        for name, settings, model in (
            ("LORA_MIXTURE", MixtureConfig, MixtureModel),
            ("MIXLORA", MixLoraConfig, MixLoraModel),
        ):
            member = PeftType[name]
            assert PEFT_TYPE_TO_CONFIG_MAPPING[member] is settings
            assert PEFT_TYPE_TO_TUNER_MAPPING[member] is model
            assert PEFT_TYPE_TO_PREFIX_MAPPING[member] == "mixture_"  # PEFT lets two methods share a prefix


def test_a_method_outside_the_enum_is_refused() -> None:
    with assumed("peft", "register_peft_method raises ValueError for a name that PeftType lacks"):
        from peft.utils import register_peft_method

        with pytest.raises(ValueError, match="Unknown PEFT type"):
            register_peft_method(name="no_such_method", config_cls=MixtureConfig, model_cls=MixtureModel)


def test_configuration_classes_by_their_types_as_words() -> None:
    with assumed("peft", "PEFT_TYPE_TO_CONFIG_MAPPING has every configuration class under its member of PeftType"):
        classes = compat.config_classes()
        assert classes["LORA"] is LoraConfig
        assert classes["PREFIX_TUNING"] is PrefixTuningConfig
        assert classes["LORA_MIXTURE"] is MixtureConfig


def test_default_target_modules_are_lists_by_model_type() -> None:
    with assumed("peft", "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING names LoRA's modules by model type"):
        assert compat.default_target_modules()["llama"] == ["q_proj", "v_proj"]
        model = adapted(MixtureConfig(task_type="CAUSAL_LM", r=2))
        names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, MixtureLayer)}
        assert names == {"q_proj", "v_proj"}


def test_a_pattern_matches_the_end_of_a_name_from_a_dot_on() -> None:
    with assumed("peft", "get_pattern_key gives the first pattern that matches the end of a name, else the name"):
        patterns = {r"layers\.1\.self_attn\.q_proj": 5, "q_proj": 3, "proj": 9}
        assert compat.of_module(patterns, "model.layers.1.self_attn.q_proj", 2) == 5
        assert compat.of_module(patterns, "model.layers.11.self_attn.q_proj", 2) == 3
        assert compat.of_module(patterns, "model.layers.1.mlp.up_proj", 2) == 2
        assert compat.of_module({}, "q_proj", 2) == 2


def test_a_tuner_is_asked_module_by_module_and_replaces_what_it_names() -> None:
    """The hooks that MixtureModel and MixLoraModel override."""
    asked: list[str] = []
    replaced: list[tuple[str, str, str]] = []

    class Watched(MixtureModel):
        @staticmethod
        def _check_target_module_exists(peft_config: MixtureConfig, key: str) -> Any:
            asked.append(key)
            return key == "layer.inner"

        def _create_and_replace(
            self,
            peft_config: MixtureConfig,
            adapter_name: str,
            target: nn.Module,
            target_name: str,
            parent: nn.Module,
            current_key: str,
            **kwargs: Any,
        ) -> None:
            replaced.append((adapter_name, target_name, current_key))
            assert target is getattr(parent, target_name)

    with assumed(
        "peft", "BaseTuner asks _check_target_module_exists of every module and calls _create_and_replace for targets"
    ):
        model = nn.ModuleDict({"layer": nn.ModuleDict({"inner": nn.Linear(2, 2)}), "other": nn.Linear(2, 2)})
        Watched(model, MixtureConfig(target_modules=["inner"], r=2), "mine")
        assert set(asked) >= {"layer", "layer.inner", "other"}
        assert replaced == [("mine", "inner", "layer.inner")]


def test_a_module_is_a_target_no_target_or_excluded() -> None:
    with assumed("peft", "_check_target_module_exists answers true, a match, False, None, or a third falsy thing"):

        def answer(module: str, targets: Any, excluded: Any = None) -> Any:
            settings = MixtureConfig(target_modules=targets, exclude_modules=excluded)
            return BaseTuner._check_target_module_exists(settings, module)

        assert answer("a.q_proj", ["q_proj"])
        assert answer("a.q_proj", r".*\.q_proj")
        for settings in (["v_proj"], r".*\.v_proj"):
            assert not answer("a.q_proj", settings)
            assert not compat.is_excluded(answer("a.q_proj", settings))
        for target, excluded in ((["q_proj"], ["q_proj"]), (["v_proj"], ["a.q_proj"]), (["q_proj"], r"a\..*")):
            assert compat.is_excluded(answer("a.q_proj", target, excluded))


def test_a_replaced_module_stands_in_its_parent() -> None:
    with assumed("peft", "BaseTuner._replace_module(parent, name, new, old) sets the child"):
        model = adapted(MixtureConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
        parent, linear = nn.ModuleDict({"inner": nn.Linear(3, 2)}), nn.Linear(3, 2)
        wrapper = MixtureLayer(linear, "default", MixtureConfig(r=2, experts=2), experts=2, rank=2, alpha=4)
        compat.replace_module(model.base_model, parent=parent, name="inner", adapted=wrapper, original=parent["inner"])
        assert parent["inner"] is wrapper
        assert wrapper.base_layer is linear


class Holder(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """The least of a tuner's layer."""

    adapter_layer_names = ("matrix",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.matrix = nn.ParameterDict({"mine": nn.Parameter(torch.zeros(2, 2))})


def test_an_adapter_goes_to_the_device_and_dtype_of_its_base() -> None:
    with assumed("peft", "BaseTunerLayer._move_adapter_to_device_of_base_layer moves what adapter_layer_names names"):
        layer = Holder(nn.Linear(2, 2).to(torch.float16))
        compat.to_base_device(layer, "mine", torch.device("cpu"))
        assert layer.matrix["mine"].dtype == torch.float16


def test_an_input_is_cast_unless_that_is_switched_off() -> None:
    with assumed("peft", "BaseTunerLayer._cast_input_dtype casts, but under disable_input_dtype_casting"):
        from peft.helpers import disable_input_dtype_casting

        layer = MixtureLayer(nn.Linear(2, 2), "mine", MixtureConfig(r=2, experts=2), experts=2, rank=2, alpha=4)
        x = torch.zeros(2, dtype=torch.bfloat16)
        assert compat.cast_input(layer, x, torch.float32).dtype == torch.float32
        with disable_input_dtype_casting(layer):
            assert compat.cast_input(layer, x, torch.float32).dtype == torch.bfloat16


def test_names_in_a_model_with_an_adapter_begin_alike() -> None:
    with assumed("peft", "a PeftModel's modules are named base_model.model. and their names in the base model"):
        base = {name for name, _ in build(config()).named_parameters()}
        model = lora()
        names = {compat.base_name(name).replace(".base_layer.", ".") for name, p in model.named_parameters()}
        assert base <= names
        assert all(".lora_" in name for name in names - base)


def test_plain_lora_is_told_from_its_variants() -> None:
    with assumed("peft", "a lora.Linear keeps its variant in lora_variant, and its matrices in lora_A and lora_B"):
        for settings, is_plain in (({}, True), ({"use_dora": True}, False)):
            layer = lora(**settings).get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
            assert compat.is_plain_lora(layer) is is_plain
            assert layer.lora_A["default"].weight.shape == (2, 32)
            assert layer.lora_B["default"].weight.shape == (32, 2)
        assert not compat.is_plain_lora(nn.Linear(2, 2))


def test_virtual_tokens_are_made_by_the_prompt_encoder() -> None:
    with assumed(
        "peft", "what makes virtual tokens is named prompt_encoder, and get_prompt(1) gives them for one text"
    ):
        prefix = adapted(PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
        assert sum(p.numel() for p in compat.prompt_parameters(prefix)) == 3 * 4 * 2 * 16
        cache = compat.learned_prompt(prefix)
        assert [tuple(part.shape) for part in (cache.layers[0].keys, cache.layers[3].values)] == [(1, 2, 3, 8)] * 2
        prompt = adapted(PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
        embeddings = compat.learned_prompt(prompt)
        assert isinstance(embeddings, Tensor)
        assert embeddings.shape == (1, 3, 32)
        assert prompt.active_peft_config.num_virtual_tokens == 3
        assert compat.learned_prompt(lora()) is None
        assert compat.learned_prompt(build(config())) is None
        assert compat.prompt_parameters(lora()) == []


def test_layers_of_a_tuner_keep_adapters_by_their_names() -> None:
    """What RoutedLayer sets itself, as a subclass of BaseTunerLayer."""
    with assumed("peft", "BaseTunerLayer reads _active_adapter, adapter_layer_names and merged_adapters"):
        layer = MixtureLayer(nn.Linear(3, 2), "mine", MixtureConfig(r=2, experts=2), experts=2, rank=2, alpha=4)
        assert list(layer.active_adapters) == ["mine"]  # type: ignore[arg-type]
        assert not layer.merged
        assert not layer.disable_adapters
        layer.enable_adapters(False)  # type: ignore[operator]
        assert layer.disable_adapters
        assert not any(p.requires_grad for p in layer.mixture_down.values())


@pytest.mark.filterwarnings("ignore:Could not find a config file")
def test_an_adapter_is_saved_by_the_prefix_of_its_parameters(tmp_path: Path) -> None:
    with assumed("peft", "save_pretrained writes the parameters whose names hold the tuner's prefix, no more"):
        from safetensors.torch import load_file

        model = adapted(MixtureConfig(task_type="CAUSAL_LM", r=2, experts=2, target_modules=["q_proj"]))
        model.save_pretrained(tmp_path)
        names = load_file(tmp_path / "adapter_model.safetensors")
        assert len(names) == 3 * 4
        assert all(".mixture_" in name and "default" not in name for name in names)
        assert isinstance(PeftModel.from_pretrained(build(config()), tmp_path), PeftModel)


def test_the_first_pattern_that_matches_decides() -> None:
    with assumed("peft", "a pattern matches the end of a module's name from a dot on, and the first that does counts"):
        patterns = ["v_proj", r"layers\.0\.self_attn\.q_proj", "q_proj"]
        assert compat.pattern_of(patterns, "model.layers.0.self_attn.q_proj") == patterns[1]
        assert compat.pattern_of(patterns, "model.layers.1.self_attn.q_proj") == "q_proj"
        assert compat.pattern_of(patterns, "model.layers.1.self_attn.k_proj") is None
        assert compat.pattern_of(["^q_proj"], "model.layers.1.self_attn.q_proj") is None


@pytest.mark.parametrize("inside", [False, True])
def test_fourierft_wants_something_before_a_pattern(inside: bool) -> None:
    with assumed("peft", "FourierFT passes over a pattern that is a module's whole name"):
        settings = {"n_frequency": 4, "target_modules": ["q_proj"]}
        name = r"model\.layers\.0\.self_attn\.q_proj"
        key = name.removeprefix(r"model\.") if inside else name
        model = adapted(FourierFTConfig(task_type="CAUSAL_LM", n_frequency_pattern={key: 9}, **settings))
        sizes = {p.numel() for p in model.parameters() if p.requires_grad}
        assert sizes == ({4, 9} if inside else {4})
        assert (compat.pattern_of([key], "model.layers.0.self_attn.q_proj", inside=True) is not None) is inside


def test_hira_builds_every_module_at_one_rank() -> None:
    """The table of PEFT's types refuses its rank_pattern for this; where it is read, the entry is to go."""
    with assumed("peft", "HiRA takes a rank_pattern and does not apply it"):
        settings: dict[str, Any] = {"task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"]}
        plain, own = (adapted(HiraConfig(**settings, rank_pattern=each)) for each in ({}, {"q_proj": 5}))
        assert plain.get_nb_trainable_parameters() == own.get_nb_trainable_parameters()


def test_adapted_and_saved_modules_by_the_base_models_names() -> None:
    with assumed("peft", "an adapted module is a BaseTunerLayer, one of modules_to_save a ModulesToSaveWrapper"):
        model = lora(modules_to_save=["lm_head"])
        assert compat.adapted_modules(model) == [f"model.layers.{layer}.self_attn.q_proj" for layer in range(4)]
        assert compat.saved_modules(model) == ["lm_head"]
        assert compat.adapted_modules(adapted(PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))) == []


def test_what_does_not_train_in_16_bits_does_not_train_in_float32_either() -> None:
    """PEFT alone lets AdaLoRA's numbers of ranks train, once it has taken them to float32."""
    settings = {"total_step": 10, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}

    def trains() -> set[str]:
        model = get_peft_model(build(config()).bfloat16(), AdaLoraConfig(**settings))
        return {name.split(".")[-2] for name, parameter in model.named_parameters() if parameter.requires_grad}

    with assumed("peft", "it puts adapters that it takes to another dtype into their ParameterDict as plain tensors"):
        with compat.frozen_stays_frozen():
            kept = trains()
        assert kept == {"lora_A", "lora_B", "lora_E"}
    assert trains() >= kept, "outside of the block PEFT does as ever"
