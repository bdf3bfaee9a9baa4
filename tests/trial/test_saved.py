"""What a trial leaves of what it trained is for others: they load it, write with it, and read what it is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from mosld_bench.records.record import Record
from mosld_bench.records.store import Store
from tests.conftest import STUDY
from tests.support.runs import prepare, run_inline

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)

RECIPES = ("lora", "mosld", "mixlora", "ia3", "prefix-tuning", "full")
ADAPTERS = RECIPES[:-1]
PROMPT = "ab0?"


@pytest.fixture(scope="module")
def kept(tiny_template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recipe -> the folder of what it trained, below the workspace ``root``; its record is in the folder above."""
    root = tmp_path_factory.mktemp("kept") / "root"
    shutil.copytree(tiny_template, root)
    (root / "reports" / "tiny" / "study.yaml").write_text(STUDY.format(model=root / "model"))
    _, planned, config = prepare(root, recipes=list(RECIPES), budgets=["native"], frozen_base=False)
    outcomes = run_inline(planned, config, root / "results")
    assert [outcome.record.error for outcome in outcomes] == [None] * len(RECIPES)
    store = Store(root / "results")
    return {one.record.trial.recipe.name: store.folder(one.record.trial) / "adapter" for one in outcomes}


def _record(folder: Path) -> Record:
    return Record.model_validate_json((folder.parent / "record.json").read_bytes())


def _root(kept: dict[str, Path]) -> Path:
    return kept["lora"].parents[3]


def _loaded(folder: Path, root: Path) -> Any:
    if not (folder / "adapter_config.json").is_file():
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(root / "model"), folder).eval()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_folder_is_whole_and_names_no_path(recipe: str, kept: dict[str, Path]) -> None:
    names = {path.name for path in kept[recipe].iterdir()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    whole = {"config.json", "generation_config.json", "model.safetensors"}
    adapter = {"adapter_config.json", "adapter_model.safetensors"}
    assert names == {"README.md", *tokenizer, *(whole if recipe == "full" else adapter)}
    for path in kept[recipe].iterdir():
        assert str(_root(kept)).encode() not in path.read_bytes(), path
    if recipe != "full":
        config = json.loads((kept[recipe] / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == ("model", None)


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_writes_in_plain_python_and_in_a_pipeline(recipe: str, kept: dict[str, Path]) -> None:
    model, tokenizer = _loaded(kept[recipe], _root(kept)), AutoTokenizer.from_pretrained(kept[recipe])
    ids = tokenizer(PROMPT, return_tensors="pt")
    with torch.no_grad():
        written = model.generate(**ids, max_new_tokens=4, do_sample=False)
    text = tokenizer.decode(written[0, ids["input_ids"].shape[1] :])
    assert text
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    (answer,) = write(PROMPT, max_new_tokens=4, do_sample=False, return_tensors=True)
    assert tokenizer.decode(answer["generated_token_ids"][-4:]) == text


@pytest.mark.parametrize("recipe", ["lora", "mosld", "mixlora", "ia3"])
def test_the_folder_alone_is_enough_where_its_base_model_is_found(
    recipe: str, kept: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name in its configuration: of a model of the hub its id, here that of a folder."""
    monkeypatch.chdir(_root(kept))
    write = pipeline("text-generation", model=str(kept[recipe]))
    (answer,) = write(PROMPT, max_new_tokens=4, do_sample=False, return_tensors=True)
    auto = AutoPeftModelForCausalLM.from_pretrained(str(kept[recipe])).eval()
    tokenizer = AutoTokenizer.from_pretrained(kept[recipe])
    ids = tokenizer(PROMPT, return_tensors="pt")
    written = auto.generate(**ids, max_new_tokens=4, do_sample=False)
    assert answer["generated_token_ids"] == written[0].tolist()


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_card_says_what_it_is(recipe: str, kept: dict[str, Path]) -> None:
    card, record = ModelCard.load(kept[recipe] / "README.md"), _record(kept[recipe])
    assert card.data.library_name == ("transformers" if recipe == "full" else "peft")
    assert card.data.base_model == "model"
    assert {"mosld-bench", recipe} <= set(card.data.tags)
    assert {result.dataset_type: result.metric_value for result in card.data.eval_results} == {
        metric.task: metric.value for metric in record.metrics if metric.primary
    }
    assert record.size is not None
    for said in (record.trial_id, f"{record.size.trainable:,}", "Toy copy and Toy count", "seed 0", "Toy other"):
        assert said in card.text
    assert ("import mosld_bench" in card.text) == (recipe in {"mosld", "mixlora"})


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_lines_of_the_card_load_it(
    recipe: str, kept: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(kept[recipe], tmp_path / "adapter")
    (tmp_path / "adapter" / "model").symlink_to(_root(kept) / "model")
    monkeypatch.chdir(tmp_path / "adapter")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "adapter" / "README.md").read_text(), re.S)
    names: dict[str, Any] = {}
    exec(code, names)
    state = {name: value for name, value in names["model"].state_dict().items() if value.dtype.is_floating_point}
    same = _loaded(kept[recipe], _root(kept)).state_dict()
    assert state.keys() <= same.keys()
    assert all(torch.equal(value, same[name]) for name, value in state.items())


def test_the_same_trial_leaves_the_same_bytes(kept: dict[str, Path], tmp_path: Path) -> None:
    _, planned, config = prepare(_root(kept), recipes=["mosld"], budgets=["native"], frozen_base=False)
    (outcome,) = run_inline(planned, config, tmp_path / "results")
    assert outcome.adapter == {path.name: path.read_bytes() for path in kept["mosld"].iterdir()}
