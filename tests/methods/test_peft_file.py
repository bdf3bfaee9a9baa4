"""`methods add`: a recipe of any configuration that PEFT saves, of what is the method's and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import AdaLoraConfig, IA3Config, LoraConfig, PromptTuningConfig, VeraConfig

from mosld_bench.errors import BadFileError, BenchError
from mosld_bench.methods import count_trainable, registry
from mosld_bench.methods.peft_file import name_of, read_config, take
from mosld_bench.spec.recipe import write_recipe
from tests.support.models import config

SHAPE = config(layers=2)
TARGETS = {"target_modules": ["v_proj", "q_proj"]}


def saved(made: Any, folder: Path, **more: object) -> dict[str, Any]:
    """What PEFT writes of a configuration, with what it notes of the model."""
    made.base_model_name_or_path, made.inference_mode, made.revision = "/home/me/llama", True, "abc"
    made.save_pretrained(folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    return read_config(file)


#: Configurations -> the params of the recipe, what a budget turns, and words of what was left out.
CONFIGS: dict[str, tuple[Any, dict[str, Any], str | None, str]] = {
    "lora": (
        LoraConfig(r=16, lora_alpha=32, use_rslora=True, task_type="CAUSAL_LM", **TARGETS),
        {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]},
        "r",
        "base_model_name_or_path",
    ),
    "at its defaults": (
        LoraConfig(**TARGETS),
        {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        "r",
        "revision",
    ),
    "adalora": (
        AdaLoraConfig(init_r=6, target_r=2, tinit=1, tfinal=2, total_step=50, rank_pattern={"q_proj": 1}, **TARGETS),
        {
            "peft_type": "ADALORA", "target_modules": ["q_proj", "v_proj"], "target_r": 2, "init_r": 6, "tinit": 1,
            "tfinal": 2, "lora_alpha": 8,
        },
        "init_r",
        "rank_pattern: PEFT fills it in while it trains",
    ),
    "prompt": (
        PromptTuningConfig(num_virtual_tokens=5, token_dim=32, num_layers=2, task_type="CAUSAL_LM"),
        {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5},
        "num_virtual_tokens",
        "token_dim",
    ),
    "fixed": (
        IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        {"peft_type": "IA3", "target_modules": ["down_proj", "k_proj"], "feedforward_modules": ["down_proj"]},
        None,
        "inference_mode",
    ),
    "vera": (
        VeraConfig(r=4, **TARGETS), {"peft_type": "VERA", "r": 4, "target_modules": ["q_proj", "v_proj"]}, "r", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_a_recipe_has_what_is_the_method_s_and_can_be_run(case: str, tmp_path: Path) -> None:
    made, params, knob, words = CONFIGS[case]
    taken = take(saved(made, tmp_path))
    assert (taken.params, taken.knob, taken.method) == (params, knob, "peft")
    assert words in " ".join(taken.remarks)
    recipe = write_recipe(tmp_path / "methods", "theirs", taken.yaml("theirs", "adapter_config.json"))
    assert (recipe.params, recipe.fixed_size, recipe.group) == (params, knob is None, "own")
    assert "llama" not in (tmp_path / "methods" / "theirs.yaml").read_text()
    method = registry.get(recipe.method)
    assert count_trainable(method, SHAPE, recipe.params) > 0
    if knob is not None:
        assert count_trainable(method, SHAPE, method.at(params, 2 * params[knob])) > 0


def test_a_tuner_of_ours_is_run_by_its_own_method(tmp_path: Path) -> None:
    from mosld_bench import MixtureConfig

    taken = take(saved(MixtureConfig(r=4, experts=3, target_modules=["q_proj"]), tmp_path))
    assert (taken.method, taken.knob) == ("mixture", "r")
    assert taken.params == {"r": 4, "experts": 3, "target_modules": ["q_proj"], "lora_alpha": 16}


#: Contents that cannot be taken -> the words that say why.
REFUSED: dict[str, tuple[str, str]] = {
    "no json": ("{", "is not JSON"),
    "no mapping": ("[]", "has no peft_type"),
    "no type": ('{"r": 8}', "has no peft_type"),
    "unknown type": ('{"peft_type": "LORRA"}', "no PEFT type named 'LORRA'. Did you mean 'LORA'"),
    "unknown field": ('{"peft_type": "LORA", "ranks": 8}', "sets ranks to 8, which LoraConfig of the installed PEFT"),
    "refused": ('{"peft_type": "XLORA"}', "starts from the base model"),
    "refused setting": ('{"peft_type": "LORA", "init_lora_weights": "eva"}', "EVA starts from activations"),
    "no number": ('{"peft_type": "LORA", "r": "many"}', "it has to be a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_is_a_sentence(case: str, tmp_path: Path) -> None:
    content, words = REFUSED[case]
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(BenchError) as told:
        take(read_config(tmp_path))
    assert words in str(told.value)


def test_a_field_that_is_off_and_unknown_is_left_out_and_said(tmp_path: Path) -> None:
    taken = take(saved(LoraConfig(**TARGETS), tmp_path, later=None, new=False))
    assert any("off and unknown to PEFT" in remark and remark.endswith("later, new.") for remark in taken.remarks)
    assert yaml.safe_load(taken.yaml("theirs", "here"))["params"].keys().isdisjoint({"later", "new"})


def test_a_file_that_is_not_there_and_the_names_of_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"adapter_config\.json does not exist"):
        read_config(tmp_path)
    (tmp_path / "My LoRA, no. 2").mkdir()
    assert name_of(tmp_path / "My LoRA, no. 2") == "my-lora-no.-2"
    assert name_of(tmp_path / "My LoRA, no. 2" / "adapter_config.json") == "my-lora-no.-2"
    assert name_of(tmp_path / "Theirs.json") == "theirs"
