"""Base models that are rounded as they are loaded: which layers are, and what stands in the way."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from mosld_bench.compat.bitsandbytes import rounded_layers
from mosld_bench.compat.transformers import linear_layers
from mosld_bench.errors import ModelError
from mosld_bench.inputs.models import ensure_weights, load_base, load_config
from mosld_bench.methods.count import empty_model
from mosld_bench.spec.trial import Load, ModelSpec
from tests.support.models import build, config
from tests.support.rounded import LOADS, SHAPE, needs_bitsandbytes, read, rounded

IDS = torch.randint(3, SHAPE.vocab_size, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build(SHAPE).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def spec(folder: Path, load: Load) -> ModelSpec:
    return ModelSpec(name="model", folder=str(folder), load=load)


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("load", LOADS)
def test_a_loaded_model_is_the_one_that_is_rounded_in_memory(folder: Path, load: Load, dtype: torch.dtype) -> None:
    loaded: Any = load_base(spec(folder, load), dtype, "cpu")
    made = rounded(load, dtype)
    assert [name for name, _ in rounded_layers(loaded)] == [name for name, _ in rounded_layers(made)]
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, made(IDS).logits)
    assert loaded(IDS).logits.dtype == dtype
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    marks = "is_loaded_in_4bit", "is_loaded_in_8bit"  # by which PEFT picks the layers of an adapter
    of_both = [[getattr(model, mark, False) for mark in marks] for model in (loaded, made)]
    assert of_both == [[load == "nf4", load == "int8"]] * 2


@needs_bitsandbytes
@pytest.mark.parametrize("load", LOADS)
def test_linear_layers_are_rounded_and_nothing_else(folder: Path, load: Load) -> None:
    loaded, exact = load_base(spec(folder, load), torch.float32, "cpu"), build(SHAPE)
    names = [name for name, _ in rounded_layers(loaded)]
    assert names == linear_layers(empty_model(SHAPE)) == linear_layers(exact)
    weights = {f"{name}.weight" for name in names}
    kept = dict(exact.named_parameters())
    assert all(torch.equal(p, kept[name]) for name, p in loaded.named_parameters() if name not in weights)
    worst = {"nf4": 1 / 5, "int8": 1 / 200}[load]  # of the largest number of a block, of a row
    for name, layer in rounded_layers(loaded):
        weight = kept[f"{name}.weight"]
        assert 0 < (read(layer) - weight).abs().max() < worst * weight.abs().max()


@pytest.mark.parametrize("load", LOADS)
def test_without_the_library_it_is_said_before_any_work(
    folder: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name == "bitsandbytes":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr("mosld_bench.inputs.rounding.version", version)
    wanted = (
        rf"model.load: {load} rounds the weights of 'model' by bitsandbytes, which is not installed. Install it: pip "
        r"install 'mosld-bench\[quantised\]'; or leave model.load out."
    )
    for call in (ensure_weights, lambda it: load_base(it, torch.float32, "cpu")):
        with pytest.raises(ModelError, match=wanted):
            call(spec(folder, load))
    ensure_weights(ModelSpec(name="model", folder=str(folder)))


def test_a_version_that_is_not_tested_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mosld_bench.inputs.rounding.version", lambda name: "0.41.0")
    monkeypatch.setattr(
        "mosld_bench.compat.requirements.requires", lambda name: ["bitsandbytes<0.51,>=0.50; extra == 'quantised'"]
    )
    with pytest.raises(ModelError, match=r"by bitsandbytes<0.51,>=0.50, and 0.41.0 is installed. Install it: pip"):
        ensure_weights(spec(folder, "nf4"))


def test_what_somebody_has_rounded_before_is_not_rounded_again(folder: Path) -> None:
    file = folder / "config.json"
    content = json.loads(file.read_text()) | {
        "quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}
    }
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"are rounded already, as its configuration says .*, or leave model.load out"):
        load_config(spec(folder, "nf4"))
    load_config(ModelSpec(name="model", folder=str(folder)))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neo", "mamba"])
def test_linear_layers_of_a_model_are_all_but_the_output_s(kind: str) -> None:
    names = linear_layers(empty_model(config(kind)))
    assert names
    assert not {"lm_head", "embed_out"} & set(names)
