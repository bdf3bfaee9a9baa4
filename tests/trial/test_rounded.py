"""Trials on a base model that is rounded: whole, with what their records say, and what they leave for others."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from mosld_bench.inputs.models import load_base
from mosld_bench.inputs.rounding import options_of
from mosld_bench.methods import registry
from mosld_bench.methods.subject import Subject
from mosld_bench.methods.training_state import put_back, taken
from mosld_bench.records.store import Store
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.trial import Load
from mosld_bench.trial.execute import execute
from mosld_bench.trial.session import Session
from tests.conftest import REPOSITORY, bench
from tests.support.rounded import LOADS, SHAPE, needs_bitsandbytes, rounded
from tests.support.runs import prepare, run_inline, timeless
from tests.trial.test_execute import losses

pytestmark = [
    needs_bitsandbytes,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]


@pytest.mark.parametrize("load", LOADS)
def test_trials_on_a_rounded_model(tiny: Path, load: Load) -> None:
    """As planned: the sizes are those of the model that is not rounded, items are packed, adapters come back."""
    recipes = ["lora", "mosld", "hydralora", "mixlora"]
    study, planned, config = prepare(tiny, recipes=recipes, budget_tolerance=0.6, **{"model.load": load})
    as_is = prepare(tiny, recipes=recipes, budget_tolerance=0.6).planned
    assert [fit for _, fit in planned] == [fit for _, fit in as_is]
    assert {trial.id for trial, _ in planned}.isdisjoint(trial.id for trial, _ in as_is)
    outcomes = run_inline(planned, config, tiny / "results")
    for (trial, fit), outcome in zip(planned, outcomes, strict=True):
        record = outcome.record
        assert record.status == "finished", record.error
        assert (record.trial.model.load, record.size) == (load, fit)
        assert record.eval_info is not None
        assert record.eval_info.packed
        assert record.meta_info["versions"]["bitsandbytes"] == version("bitsandbytes")
        if trial.train_on:
            integrity = record.meta_info["integrity"]
            assert integrity["reloaded"]
            assert integrity["logit_gap"] < 1e-5
            assert record.parameters is not None
            assert record.parameters.stored == fit.trainable
    assert {record.trial.id for record in Store(tiny / "results").records(study.name)} == {t.id for t, _ in planned}


@pytest.mark.parametrize("load", LOADS)
def test_a_trial_comes_to_the_same_beside_others_and_says_nothing_to_them(tiny: Path, load: Load) -> None:
    """A base model is shared and not changed; one that is not rounded is another, after it and before it."""
    _, first, config = prepare(tiny, recipes=["mosld"], frozen_base=False, **{"model.load": load})
    _, other, _ = prepare(tiny, recipes=["lora"], frozen_base=False)
    session = Session(config)
    records = [execute(trial, session, fit).record for trial, fit in (*first, *other, *first, *first)]
    alone = execute(*_of(first[0], Session(config))).record
    contents = [timeless(record.model_dump(mode="json")) for record in (records[0], records[2], records[3], alone)]
    assert all(content == contents[0] for content in contents)
    assert "bitsandbytes" not in records[1].meta_info["versions"]


@pytest.mark.parametrize("load", LOADS)
def test_layers_computed_again_give_the_same_numbers(tiny: Path, load: Load) -> None:
    outcomes = []
    for again in (False, True):
        keys = {"model.load": load, "train.gradient_checkpointing": again, "train.dtype": "bfloat16"}
        _, planned, config = prepare(tiny, recipes=["lora", "mosld"], frozen_base=False, **keys)
        session = Session(config)
        outcomes.append([execute(trial, session, fit).record for trial, fit in planned])
    for plain, checkpointed in zip(*outcomes, strict=True):
        assert (plain.status, checkpointed.status) == ("finished", "finished"), (plain.error, checkpointed.error)
        assert losses(checkpointed) == pytest.approx(losses(plain), rel=1e-3)


@pytest.mark.parametrize("load", LOADS)
def test_a_training_goes_on_from_a_checkpoint_that_holds_nothing_of_the_base(load: Load) -> None:
    base, recipe = rounded(load), load_recipes(REPOSITORY / "methods")["mosld"]
    method, subject = registry.get(recipe.method), Subject(registry.get(recipe.method), recipe.params, SHAPE)
    subject.base = base

    def begun() -> tuple[Any, torch.optim.Optimizer]:
        model = subject.attach()
        return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    def steps(model: Any, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            subject.step(model)
            optimizer.step()

    model, optimizer = begun()
    steps(model, optimizer, 2)
    state = taken(model, base, method, optimizer)
    assert state is not None
    assert not [name for name in state.tensors if "absmax" in name or "SCB" in name or name.endswith("proj.weight")]
    steps(model, optimizer, 2)
    again, fresh = begun()
    put_back(state, again, base, method, fresh)
    steps(again, fresh, 2)
    assert torch.equal(subject.logits(again), subject.logits(model))


def _of(planned: Any, session: Session) -> tuple[Any, Session, Any]:
    return planned.trial, session, planned.fit


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_peft_loads_the_adapter_on_the_model_as_transformers_rounds_it(tiny: Path, dtype: str) -> None:
    """Without anything of ours, as a model card says: nf4 then gives the logits that were scored."""
    from transformers import AutoModelForCausalLM

    overrides = {"model.load": "nf4", "train.dtype": dtype}
    _, planned, config = prepare(tiny, recipes=["lora"], frozen_base=False, **overrides)
    run_inline(planned, config, tiny / "results")
    folder = Store(tiny / "results").folder(planned[0].trial) / "adapter"
    kind = getattr(torch, dtype)
    theirs = AutoModelForCausalLM.from_pretrained(str(tiny / "model"), dtype=kind, **options_of("nf4", kind, "cpu"))
    for layer in theirs.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):  # where a CPU has that, layers as narrow as these do not work
            layer.support_avx512bf16_for_cpu = False
    ours = load_base(planned[0].trial.model, kind, "cpu")
    ids = torch.randint(3, 40, (2, 9))
    with torch.no_grad():
        found, wanted = (
            PeftModel.from_pretrained(it, str(folder)).get_base_model()(ids).logits for it in (theirs, ours)
        )
    assert torch.allclose(found, wanted, atol=1e-5)
    card = (folder / "README.md").read_text()
    assert 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"' in card
    assert f'bnb_4bit_compute_dtype="{dtype}")' in card
    assert "--load nf4 --adapter ." in card


def test_score_loads_an_adapter_on_the_rounded_model(tiny: Path) -> None:
    """To the scores of its trial; a method that cannot be there, and a name of no rounding, are refused."""
    _, planned, config = prepare(tiny, recipes=["mosld", "loha"], frozen_base=False, **{"model.load": "int8"})
    outcomes = run_inline(planned, config, tiny / "results")
    folder = Store(tiny / "results").folder(planned[0].trial) / "adapter"
    words = ["score", str(tiny / "model"), "--tasks", "copy,other", "--root", str(tiny)]
    done = bench(*words, "--load", "int8", "--adapter", str(folder))
    assert done.returncode == 0, done.stderr
    assert f"all params: {planned[0].fit.total:,}" in done.stdout
    scored = json.loads(next((tiny / "results" / "scored").glob("*/scored.json")).read_text())
    assert scored["model"]["load"] == "int8"
    assert scored["meta_info"]["versions"]["bitsandbytes"] == version("bitsandbytes")
    found = {(metric["task"], metric["metric"]): metric["value"] for metric in scored["metrics"]}
    trained = {(metric.task, metric.metric): metric.value for metric in outcomes[0].record.metrics}
    assert found == {key: value for key, value in trained.items() if key[0] in {"copy", "other"}}
    loha = Store(tiny / "results").folder(planned[1].trial) / "adapter"
    refused = bench(*words, "--load", "nf4", "--adapter", str(loha))
    assert refused.returncode == 2
    assert "LOHA computes with the base model's weights themselves" in refused.stderr
    unknown = bench(*words, "--load", "nf3")
    assert (unknown.returncode, "Known: int8, nf4." in unknown.stderr) == (2, True)
