"""What is made sure of before anything starts, each problem in one sentence: devices, memory, tasks and weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mosld_bench.errors import ModelError, ResourceError
from mosld_bench.records.store import Store, check_place
from mosld_bench.scheduling.options import Options
from mosld_bench.scheduling.plan import Plan
from mosld_bench.scheduling.reuse import Weights
from mosld_bench.spec.task_files import ROLLING, not_rolling
from mosld_bench.spec.trial import ModelSpec, PlannedTrial

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from mosld_bench.inputs.audit import Checked, Vocabulary, Watcher
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


#: What a record takes with the outcomes of its items, one that only counts, and a report with its page and figures.
_RECORD_BYTES, _COUNT_BYTES, _REPORT_BYTES = 250_000, 10_000, 10_000_000


def check_places(plan: Plan, store: Store, report_folder: Path, options: Options) -> None:
    """Make sure, before anything is read, that what is going to be written can be, and that there is room for it.

    Raises BenchError where a folder cannot be written or its disk is full, that of temporary files among them.
    """
    absent = [fit for trial, fit in plan.planned if not (store.folder(trial) / "record.json").is_file()]
    needed = {report_folder: _REPORT_BYTES if plan.study.trains else 0}
    if absent:
        adapters = sum(4 * fit.trainable for fit in absent) if options.save_adapters else 0
        each = _RECORD_BYTES if plan.study.trains else _COUNT_BYTES
        needed[store.results / plan.study.name] = each * len(absent) + adapters
    for folder, bytes_ in needed.items():
        check_place(folder, bytes_)
    try:
        check_place(Path(tempfile.gettempdir()), needed[report_folder])
    except OSError as error:
        raise ResourceError(f"{error.strerror}: set TMPDIR to a folder that can be written.") from None


def check(plan: Plan, task_folders: Sequence[Path], options: Options) -> Inputs:
    """Make sure that ``plan`` can be run. Downloads weights that are missing, where there is a network.

    Raises ResourceError for GPUs that are not there or too small, DataError for a task that cannot be used,
    UnknownNameError for one that is not there, and ModelError for a model without weights.
    """
    study = plan.study
    local = options.inline(study) or options.address is None
    gpus = local_gpus(options.gpus) if local else 0
    if study.trains and study.resources.gpus > 1 and (gpus or not local):  # CPUs have all of a model in one memory
        _check_spread(plan, gpus, local=local)
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


def _check_spread(plan: Plan, gpus: int, *, local: bool) -> None:
    """Raises ResourceError where this machine has fewer ``gpus`` than a trial takes.

    Raises ModelError for a model that cannot lie on several, such as one that is rounded as it is loaded.
    """
    from mosld_bench.methods.count import check_layers

    each = plan.study.resources.gpus
    if local and gpus < each:
        raise ResourceError(
            f"A trial takes {each} GPUs (resources.gpus_per_trial), and there are {gpus} to use. Set --gpus-per-trial "
            f"{gpus} or lower, or join a cluster with --ray-address."
        )
    for model in plan.study.models:
        if model.load:
            raise ModelError(
                f"The model {model.name!r} cannot lie on several GPUs (resources.gpus_per_trial: {each}) with "
                f"model.load: {model.load}, whose weights are rounded on the one that they stay on. Take one GPU a "
                f"trial, or leave model.load out."
            )
    for config in plan.configs.values():
        check_layers(config)


def _check_memory(plan: Plan, gpus_per_trial: float) -> None:
    """Raises ResourceError where a trial is too large for its part of this machine's smallest GPU."""
    import torch

    sizes = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    refused = plan.refusals(min(sizes) * min(1.0, gpus_per_trial))
    if refused:
        raise ResourceError(" ".join(refused))


def check_items(
    plan: Plan, planned: Sequence[PlannedTrial], inputs: Inputs, options: Options, *, watch: Watcher,
    say: Callable[[str], None],
) -> list[Checked]:  # fmt: skip
    """Look at every item that ``planned`` will train on, score or show, before the first of them starts.

    ``watch`` and ``say``: told of the progress, and of what is out of the ordinary. Returns what is worth a note.
    Raises DataError for items that cannot be used, and for tasks whose items differ from process to process.
    """
    from mosld_bench.inputs.audit import audit, refuse, uses_of
    from mosld_bench.inputs.audit_cache import AuditCache
    from mosld_bench.inputs.steadiness import check_steady

    trials = [trial for trial, _ in planned]
    uses, cache = uses_of(trials), AuditCache(say)
    models = {trial.model.name for trial in trials}
    vocabularies = [
        vocabulary(model, plan.configs[model.name], options.model_root)
        for model in plan.study.models
        if model.name in models and uses
    ]
    found = audit(inputs.loader, uses, vocabularies, known=cache.known, keep=cache.keep, watch=watch)
    refuse(found)
    check_steady(inputs.loader, uses, found, known=cache.known, keep=cache.keep)
    return found


def vocabulary(model: ModelSpec, config: PreTrainedConfig, model_root: Path | None) -> Vocabulary:
    """The tokenizer of ``model`` and the tokens that it can read, by its ``config``, to look at items with."""
    from mosld_bench.inputs.audit import Vocabulary
    from mosld_bench.inputs.models import load_tokenizer

    positions = getattr(config, "max_position_embeddings", None)
    return Vocabulary(model.name, load_tokenizer(model, model_root), positions if isinstance(positions, int) else None)


def _load_tasks(plan: Plan, task_folders: Sequence[Path], options: Options) -> TaskLoader:
    """Load every task once, and look for what a worker would stumble over later.

    That is a task that trains without training items, and ``generation_kwargs`` that cannot be used.
    """
    from mosld_bench.inputs.items import training_docs
    from mosld_bench.inputs.tasks import TaskLoader
    from mosld_bench.trial.generation import Writing

    loader = TaskLoader(task_folders, options.data_root, plan.study.name)
    for name in plan.study.tasks:
        task = loader.get(name)
        if name in plan.study.training_tasks:
            training_docs(task)
        if name in plan.study.text and task.OUTPUT_TYPE != ROLLING:
            raise not_rolling(name, "built into lm-eval", task.OUTPUT_TYPE)
        if task.OUTPUT_TYPE == "generate_until":
            Writing.of(name, task.config.generation_kwargs or {}, most_tokens=1, end=None)
    return loader


def _find_weights(plan: Plan, options: Options) -> dict[str, Weights]:
    from mosld_bench.inputs.models import ensure_weights, weights_source

    for model in plan.study.models:
        ensure_weights(model, options.model_root)
    return {model.name: weights_source(model, options.model_root) for model in plan.study.models}
