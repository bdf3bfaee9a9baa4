"""What is refused before anything starts, of trials that take several GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from torch import nn

from mosld_bench.errors import ModelError, ResourceError
from mosld_bench.methods import count
from mosld_bench.scheduling import checks
from mosld_bench.scheduling.checks import check
from mosld_bench.scheduling.options import Options
from mosld_bench.scheduling.plan import Plan, make_plan
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Resources
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.session import WorkerConfig
from tests.support.models import build, config


def plan_of(root: Path, gpus_per_trial: float, **keys: object) -> Plan:
    keys["resources.gpus_per_trial"] = gpus_per_trial
    study = Study.load(root / "reports" / "tiny" / "study.yaml", keys)
    return make_plan(study, Workspace(root, root))


def test_more_gpus_a_trial_than_there_are_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "local_gpus", lambda asked: 2)
    with pytest.raises(ResourceError, match=r"A trial takes 3 GPUs .*, and there are 2 to use\. Set"):
        check(plan_of(tiny, 3), [tiny / "tasks"], Options())


def test_on_cpus_a_trial_has_no_gpus_however_many_are_asked_for(tiny: Path) -> None:
    found = check(plan_of(tiny, 3), [tiny / "tasks"], Options(gpus=0))
    assert found.gpus == 0


def test_a_model_that_cannot_be_spread_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cluster it is not known yet how many GPUs it has."""
    odd = build(config())
    odd.model.layers = nn.Sequential(*odd.model.layers)
    plan = plan_of(tiny, 2)
    monkeypatch.setattr(count, "empty_model", lambda configuration: odd)
    with pytest.raises(ModelError, match="LlamaForCausalLM cannot lie on several GPUs"):
        check(plan, [tiny / "tasks"], Options(address="auto"))


def test_a_model_that_is_rounded_lies_on_one_gpu(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "local_gpus", lambda asked: 2)
    with pytest.raises(ModelError, match=r"'model' cannot lie on several GPUs .* with model.load: nf4, whose"):
        check(plan_of(tiny, 2, **{"model.load": "nf4"}), [tiny / "tasks"], Options())
    prices = plan_of(tiny, 1, **{"model.load": "nf4"}).prices
    assert all(price is None or not price.needs.spreads for price in prices)


@pytest.mark.parametrize("value", [1.5, 2.25])
def test_above_one_gpus_are_whole(value: float) -> None:
    with pytest.raises(ValidationError, match="above 1 it has to be a whole number"):
        Resources(gpus_per_trial=value)


@pytest.mark.parametrize(
    ("device", "gpus_per_trial", "devices"),
    [
        ("cuda", 0.25, ("cuda",)),
        ("cuda", 1, ("cuda",)),
        ("cuda", 3, ("cuda:0", "cuda:1", "cuda:2")),
        ("cpu", 3, ("cpu",)),
    ],
)
def test_a_worker_puts_its_model_on_the_gpus_that_it_has(
    device: str, gpus_per_trial: float, devices: tuple[str, ...]
) -> None:
    assert WorkerConfig((), Resources(gpus_per_trial=gpus_per_trial), device=device).devices == devices
