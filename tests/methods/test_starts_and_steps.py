"""PEFT methods with more to them than a forward: a start drawn or computed, and work to be done after every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from mosld_bench.compat.peft import save_model
from mosld_bench.errors import BenchError
from mosld_bench.inputs.items import Encoded
from mosld_bench.methods import check_method, registry
from mosld_bench.methods.live import attached_copy, copy_sharing_weights, own_if_written, stored
from mosld_bench.spec.trial import TrainSpec
from mosld_bench.trial.train import train
from tests.support import intruders
from tests.support.models import build, config

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match"),  # of AdaLoRA's own, on loading
]

LORA: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
ADALORA: dict[str, Any] = {
    "peft_type": "ADALORA", "init_r": 6, "target_r": 2, "tinit": 1, "tfinal": 2, "lora_alpha": 12,
    "target_modules": ["q_proj", "v_proj"],
}  # fmt: skip

STARTS: dict[str, dict[str, Any]] = {
    "olora": LORA | {"init_lora_weights": "olora"},
    "pissa": LORA | {"init_lora_weights": "pissa"},
    "pissa-fast": LORA | {"init_lora_weights": "pissa_niter_2"},
    "pissa-fast-patterns": LORA
    | {
        "init_lora_weights": "pissa_niter_2", "use_rslora": True, "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"v_proj": 5},
    },
    "pissa-fast-dora": LORA | {"init_lora_weights": "pissa_niter_0", "use_dora": True},
    "mica": LORA | {"init_lora_weights": "mica"},
    "orthogonal": LORA | {"init_lora_weights": "orthogonal"},
    "adalora": ADALORA,
}  # fmt: skip

IDS = torch.arange(3, 35).view(2, 16)


def trained(params: dict[str, Any], base: Any, steps: int = 8) -> Any:
    """``base`` with the adapter of ``params`` after ``steps`` steps."""
    method = registry.get("peft")
    model = attached_copy(method, base, params, seed=0).model
    texts = [Encoded("letters", row, 4) for row in IDS.tolist()]
    spec = TrainSpec(steps=steps, batch_size=2)
    train(model, method, examples=texts, validation=[], spec=spec, learning_rate=1e-2, seed=0, pad=0)
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model.eval()(input_ids=IDS).logits
    return result


@pytest.mark.parametrize("name", STARTS)
def test_a_saved_adapter_gives_the_trained_model_on_the_untouched_base(name: str, tmp_path: Path) -> None:
    base = build(config(layers=1))
    before = {key: value.clone() for key, value in base.state_dict().items()}
    model = trained(STARTS[name], base)
    expected = logits(model)
    save_model(model, tmp_path)
    assert torch.equal(logits(model), expected), "saving leaves the model as it is"
    assert stored(model) == sum(tensor.numel() for tensor in load_file(tmp_path / "adapter_model.safetensors").values())
    torch.manual_seed(12345)
    with own_if_written(base):
        loaded = PeftModel.from_pretrained(copy_sharing_weights(base), tmp_path)
    assert (logits(loaded) - expected).abs().max() < 1e-5
    assert (logits(base) - expected).abs().max() > 1e-3
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())


@pytest.mark.parametrize("name", ["olora", "pissa-fast", "adalora"])
def test_such_a_recipe_keeps_the_contract(name: str) -> None:
    assert check_method(registry.get("peft"), STARTS[name])


@pytest.mark.parametrize(
    ("intruder", "said"),
    [
        (intruders.WritesBehindTorch, "the weight model.layers.0.mlp.up_proj.weight of the shared base model"),
        (intruders.SetsDefaultDtype, r"torch's default dtype \(torch.float32 became torch.float64\)"),
    ],
)
def test_the_contract_is_that_what_trials_share_stays_as_it_was(intruder: type[intruders.Intruder], said: str) -> None:
    with pytest.raises(BenchError, match=f"this changed, which all trials of a process share: {said}"):
        check_method(intruder(), intruders.PARAMS)
    assert torch.get_default_dtype() == torch.float32


def ranks(model: Any) -> list[int]:
    """How many of each module's directions AdaLoRA has left."""
    return [int((value != 0).sum()) for name, value in model.named_parameters() if ".lora_E." in name]


def test_adalora_takes_rank_away_until_the_target_is_reached() -> None:
    base = build(config(layers=2))
    model = trained(ADALORA, base, steps=10)
    assert sum(ranks(model)) == 4 * ADALORA["target_r"]
    assert len(set(ranks(model))) > 1, "some modules keep more than others"
    assert model.active_peft_config.total_step == 10
    assert [sum(row) for row in model.active_peft_config.rank_pattern.values()] == ranks(model)
    counted = sum(p.numel() for p in model.parameters() if p.requires_grad)
    widths = 2 * (32 + 32) + 2 * (32 + 16)
    assert counted == 6 * (widths + 4), "counted is what trains from the first step on: init_r"


def test_adalora_s_own_loss_is_what_peft_adds_where_it_is_given_labels() -> None:
    method, params = registry.get("peft"), {**ADALORA, "orth_reg_weight": 0.7}
    model: Any = attached_copy(method, build(config(layers=1)), params, seed=0).model
    added = model(input_ids=IDS, labels=IDS).loss - model.get_base_model()(input_ids=IDS, labels=IDS).loss
    own = method.aux_loss(model)
    assert own is not None
    assert own.item() == pytest.approx(added.item(), rel=1e-4)
    assert own.requires_grad
    assert method.aux_loss(attached_copy(method, build(config(layers=1)), LORA, seed=0).model) is None


@pytest.mark.parametrize(
    ("params", "steps", "said"),
    [
        ({"tinit": 6, "tfinal": 2}, 8, r"tinit is 6, tfinal 2, and the trial has 8 steps"),
        ({"tinit": 0, "tfinal": 7}, 8, r"tinit is 0, tfinal 7, and the trial has 8 steps"),
        ({"init_r": 2}, 8, r"goes from init_r down to target_r, but init_r is 2 and target_r 2\. Raise init_r"),
        ({"total_step": 100}, 8, r"total_step is the number of steps of the trial, which the study sets\. Leave it"),
    ],
)
def test_a_schedule_of_adalora_that_does_not_end_is_refused(params: dict[str, Any], steps: int, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        trained({**ADALORA, **params}, build(config(layers=1)), steps)


def test_adamss_narrows_to_its_subspaces_under_asa_and_is_refused_where_it_would_not() -> None:
    params = {
        "peft_type": "ADAMSS", "r": 8, "num_subspaces": 4, "subspace_rank": 1, "use_asa": True,
        "asa_target_subspaces": 3, "init_warmup": 1, "final_warmup": 6, "mask_interval": 1,
        "target_modules": ["q_proj", "v_proj"],
    }  # fmt: skip
    base = build(config(layers=1))
    model = trained(params, base, steps=8)
    subspaces = [p.requires_grad for name, p in model.named_parameters() if "adamss_A" in name]
    assert 0 < sum(subspaces) <= 3 < len(subspaces)
    with pytest.raises(BenchError, match=r"at step final_warmup, which is 6, but the trial has 5 steps\. Lower"):
        trained(params, base, steps=5)
