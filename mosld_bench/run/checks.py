"""What is made sure of before anything starts, each problem in one sentence: devices, memory, tasks and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mosld_bench.errors import ResourceError
from mosld_bench.run.options import Options
from mosld_bench.run.plan import Plan
from mosld_bench.run.reuse import Weights

if TYPE_CHECKING:
    from mosld_bench.inputs.tasks import TaskLoader


@dataclass(frozen=True)
class Inputs:
    """What the checks have found, for the steps that need it again."""

    gpus: int
    """GPUs of this machine to use; 0 where trials run on a cluster, which is asked when it is joined."""
    loader: TaskLoader
    """With every task of the study loaded."""
    weights: dict[str, Weights]
    """Model -> where its weights are from; empty where nothing is trained."""


def check(plan: Plan, task_folders: Sequence[Path], options: Options) -> Inputs:
    """Make sure that ``plan`` can be run. Downloads weights that are missing, where there is a network.

    Raises ResourceError for GPUs that are not there or too small, DataError for a task that cannot be used,
    UnknownNameError for one that is not there, and ModelError for a model without weights.
    """
    study = plan.study
    local = options.inline(study) or options.address is None
    gpus = local_gpus(options.gpus) if local else 0
    if gpus and study.trains:
        _check_memory(plan, study.resources.gpus_per_trial)
    loader = _load_tasks(plan, task_folders, options)
    return Inputs(gpus, loader, _find_weights(plan, options) if study.trains else {})


def local_gpus(asked: int | None) -> int:
    """GPUs of this machine to use: ``asked``, or all for None. Raises ResourceError where there are fewer."""
    import torch

    present = torch.cuda.device_count()
    if asked is not None and asked > present:
        raise ResourceError(
            f"--gpus {asked} was asked for, but this machine has {present} CUDA device(s). Ask for at most {present}, "
            f"or join a cluster with --ray-address."
        )
    return present if asked is None else asked


def _check_memory(plan: Plan, gpus_per_trial: float) -> None:
    """Raises ResourceError where a trial is too large for its part of this machine's smallest GPU."""
    import torch

    sizes = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    refused = plan.refusals(min(sizes) * min(1.0, gpus_per_trial))
    if refused:
        raise ResourceError(" ".join(refused))


def _load_tasks(plan: Plan, task_folders: Sequence[Path], options: Options) -> TaskLoader:
    """Load every task once, and of each that trains an item, which a worker would stumble over later."""
    from mosld_bench.inputs.items import examples
    from mosld_bench.inputs.tasks import TaskLoader

    loader = TaskLoader(task_folders, options.data_root, plan.study.name)
    for name in plan.study.tasks:
        task = loader.get(name)
        if name not in plan.study.out_of_domain:
            examples(task, [0])
    return loader


def _find_weights(plan: Plan, options: Options) -> dict[str, Weights]:
    from mosld_bench.inputs.models import ensure_weights, weights_source

    for model in plan.study.models:
        ensure_weights(model, options.model_root)
    return {model.name: weights_source(model, options.model_root) for model in plan.study.models}
