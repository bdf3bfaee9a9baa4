"""What a trial left in a folder is read again, from safetensors alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mosld_bench import load_adapter
from mosld_bench.errors import BenchError
from mosld_bench.methods import registry, saved
from tests.support.models import build, config

LORA = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]}


def logits(model: nn.Module) -> torch.Tensor:
    result: torch.Tensor = model(torch.arange(6)[None]).logits
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter that is not zero, as a trial saves it."""
    base = build(config(layers=2))
    method = registry.get("peft")
    model = method.attach(base, LORA)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
    saved.write(method, model, build(config(layers=2)), LORA, tmp_path)
    torch.save(logits(model.eval()), tmp_path / "expected")
    return tmp_path


def test_what_was_saved_gives_the_same_logits(folder: Path) -> None:
    model = load_adapter(build(config(layers=2)), folder)
    torch.testing.assert_close(logits(model), torch.load(folder / "expected"), rtol=0, atol=0)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_pickle_in_place_of_the_weights_is_not_read(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    torch.save({"opened": 1}, folder / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(BenchError, match=r"holds adapter_config.json and no adapter_model.safetensors"):
        load_adapter(build(config(layers=2)), folder)


def test_a_pickle_in_place_of_a_whole_model_is_not_read(tmp_path: Path) -> None:
    build(config(layers=2)).save_pretrained(tmp_path)
    whole = load_adapter(build(config(layers=2)), tmp_path)
    torch.save(whole.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BenchError, match=r"holds config.json and no safetensors"):
        load_adapter(build(config(layers=2)), tmp_path)


def test_an_adapter_of_another_depth_does_not_leave_layers_as_they_were(folder: Path) -> None:
    with pytest.raises(BenchError, match=r"does not fit the model: 8 of its numbers are on one side only, the first "):
        load_adapter(build(config(layers=4)), folder)


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({}))
    with pytest.raises(BenchError, match=r"holds no adapter"):
        load_adapter(build(config(layers=2)), tmp_path)
