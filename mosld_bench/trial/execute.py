"""A trial becomes a record, in this process: load, attach, train, score. Knows nothing of Ray."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from mosld_bench.errors import BenchError
from mosld_bench.inputs.items import sample
from mosld_bench.interruption import raise_if_interrupted
from mosld_bench.methods import author, registry
from mosld_bench.methods.base import Method
from mosld_bench.records.provenance import meta_info, now
from mosld_bench.records.record import Outcome, Parameters, Record, TrainInfo
from mosld_bench.records.redaction import without_secrets
from mosld_bench.spec.trial import Domain, Fit, TrainSpec, Trial
from mosld_bench.trial.saved import saved_files
from mosld_bench.trial.session import Progress, Session, TrainingItems, Watcher, WorkerConfig

if TYPE_CHECKING:
    from torch import nn

    from mosld_bench.methods.live import AttachedModel
    from mosld_bench.trial.router_log import RouterLog
    from mosld_bench.trial.scoring import Evaluation


def execute(trial: Trial, session: Session, fit: Fit, watch: Watcher = lambda progress: None) -> Outcome:
    """Run ``trial``, sized as ``fit``. Writes nothing: `Store.write` does.

    Every exception ends as a Record with status ``failed`` and the traceback; none escapes but an interruption, after
    which nothing that the trial came to counts.
    """
    stopwatch = _Stopwatch()
    try:
        outcome = _run(trial, session, fit, watch, stopwatch)
    except Exception as error:
        raise_if_interrupted(error)
        text = str(error) if isinstance(error, BenchError) else traceback.format_exc()
        return failed(trial, text, stopwatch.meta_info(session.config))
    finally:
        _release(session.config.device)
    raise_if_interrupted()
    return outcome


def failed(trial: Trial, error: str, meta: dict[str, Any]) -> Outcome:
    """The outcome of a trial that did not finish, with the traceback ``error`` and the record's ``meta_info``."""
    told = without_secrets(error)
    return Outcome(Record(trial=trial, trial_id=trial.id, status="failed", error=told, meta_info=meta))


@dataclass(frozen=True)
class _Stopwatch:
    """When a trial started, and how long it takes since."""

    started: str = field(default_factory=now)
    _clock: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        return time.perf_counter() - self._clock

    def meta_info(self, config: WorkerConfig) -> dict[str, Any]:
        return meta_info(self.started, self.seconds(), config.device, config.command)


def _run(trial: Trial, session: Session, fit: Fit, watch: Watcher, stopwatch: _Stopwatch) -> Outcome:
    from mosld_bench.methods.live import attached_copy, stored
    from mosld_bench.trial.device import PeakMemory, trim
    from mosld_bench.trial.random_state import same_random_state
    from mosld_bench.trial.router_log import RouterLog
    from mosld_bench.trial.window import window

    config, spec = session.config, trial.train
    watch(Progress(trial.id, "loading"))
    if spec is None:
        return _counted(trial, fit, stopwatch.meta_info(config) | _code(trial, fit))
    name = trial.recipe.method
    with session.lent(trial.model, spec.dtype, name) as base, PeakMemory(config.device) as memory:
        method = registry.get(name)
        code = _code(trial, fit)  # as it is loaded: files may change meanwhile
        adapted = attached_copy(method, base.model, fit.params, seed=trial.seed)
        base.check(name, "attaching")
        _check_size(trial, method, adapted.model, fit)
        active = method.active(adapted.model)
        length = min(spec.max_length, window(adapted.model))
        with same_random_state():  # whether an earlier trial encoded the items already or not
            items = _training_items(trial, spec, session, base.tokenizer, length)
        loading_seconds = stopwatch.seconds()
        train_info, routers = None, RouterLog.of(adapted.model)
        if trial.train_on:
            train_info = _train(adapted, method, items, trial=trial, spec=spec, fit=fit,
                                pad=base.pad, routers=routers, watch=watch)  # fmt: skip
            base.check(name, "training")
        stopped, evaluation = train_info is not None and train_info.stopped, None
        if not stopped:  # what a search has given up is scored on nothing
            _cast(adapted, spec.dtype)
            steps = train_info.steps if train_info else 0
            watch(Progress(trial.id, "scoring", steps, steps))
            trim(config.device)
            evaluation = _score(adapted.model, base.tokenizer, trial, session, length, routers, steps)
    record = Record(
        trial=trial,
        trial_id=trial.id,
        status="stopped" if stopped else "finished",
        size=fit,
        parameters=Parameters(active=active, stored=stored(adapted.model, base.model)),
        train_info=train_info,
        eval_info=evaluation.info if evaluation else None,
        metrics=tuple(evaluation.metrics) if evaluation else (),
        peak_memory_bytes=memory.peak,
        meta_info=stopwatch.meta_info(config) | code | _loading(trial, session, loading_seconds),
    )
    router = None if routers is None else routers.frame()
    if evaluation is None:
        return Outcome(record, router=router)
    keeps = config.save_adapter and trial.train_on
    save = partial(method.save, adapted.model, base.model, fit.params)
    adapter = saved_files(adapted.model, base.tokenizer, record, session, save) if keeps else None
    return Outcome(record, evaluation.items, adapter, router)


def _code(trial: Trial, fit: Fit) -> dict[str, Any]:
    """What ``meta_info`` says of the method's code."""
    return {"method": registry.code_of(trial.recipe, fit.params, trial.train)}


def _counted(trial: Trial, fit: Fit, meta: dict[str, Any]) -> Outcome:
    """The outcome of a trial that counts parameters: no weights are read, nothing is trained or scored."""
    return Outcome(Record(trial=trial, trial_id=trial.id, status="finished", size=fit, meta_info=meta))


def _check_size(trial: Trial, method: Method, model: nn.Module, fit: Fit) -> None:
    """The count on the meta device was a promise; the built model must keep it. Raises BenchError where it does not."""
    built = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if built != fit.trainable:
        raise BenchError(
            f"The trial {trial.id} was fitted to {fit.trainable:,} trainable parameters, but the built model has "
            f"{built:,}. The method {author.named(type(method))} attaches another way where there are weights."
        )


def _training_items(trial: Trial, spec: TrainSpec, session: Session, tokenizer: Any, length: int) -> TrainingItems:
    """The items of all tasks that ``trial`` trains on, in their order, and the general data behind them.

    They have at most ``length`` tokens.
    """
    tasks = [session.examples(task, spec, tokenizer, length) for task in trial.train_on]
    general = session.general(trial.general, spec, tokenizer, length) if trial.general else []
    return TrainingItems(
        [item for task in tasks for item in task.train] + general,
        [item for task in tasks for item in task.validation],
    )


def _train(
    adapted: AttachedModel,
    method: Method,
    items: TrainingItems,
    *,
    trial: Trial,
    spec: TrainSpec,
    fit: Fit,
    pad: int,
    routers: RouterLog | None,
    watch: Watcher,
) -> TrainInfo:
    """Train the model in place, with gradient checkpointing while it lasts where study and method have it."""
    from mosld_bench.methods.live import checkpoint_layers
    from mosld_bench.trial.train import train

    checkpointed = spec.gradient_checkpointing and method.checkpoints(fit.params)
    if checkpointed:
        checkpoint_layers(adapted.model, True)
    info = train(
        adapted.model,
        method,
        examples=items.train,
        validation=items.validation,
        spec=spec,
        learning_rate=spec.learning_rate * trial.recipe.learning_rate_scale,
        seed=trial.seed,
        pad=pad,
        optimizer=trial.recipe.optimizer,
        rivals=trial.rivals,
        routers=routers,
        progress=lambda step, steps, loss: watch(Progress(trial.id, "training", step, steps, loss)),
    )
    if checkpointed:
        checkpoint_layers(adapted.model, False)
    return info


def _cast(adapted: AttachedModel, dtype: str) -> None:
    """What was trained in float32 beside its base is scored in the study's dtype, as everything else is."""
    import torch

    for parameter in adapted.unshared:
        parameter.data = parameter.data.to(getattr(torch, dtype))


def _score(
    model: nn.Module,
    tokenizer: Any,
    trial: Trial,
    session: Session,
    length: int,
    routers: RouterLog | None,
    steps: int,
) -> Evaluation:
    """Score the model, after ``steps`` steps, on the test items of the trial's tasks, or on the held-out ones.

    The loss of the held-out text, where the trial has one, is taken in windows of ``length`` tokens.
    """
    from mosld_bench.trial.packed_lm import PackedLM
    from mosld_bench.trial.scoring import evaluate
    from mosld_bench.trial.text_loss import text_loss

    resources, validation = session.config.resources, trial.evaluate.split == "validation"
    tasks = {task: session.scored(task, trial.train if validation else None) for task in trial.scored_on}
    lm = PackedLM(
        model,
        tokenizer,
        tokens=resources.score_tokens,
        width=resources.score_width,
        encoded=session.encoded_requests(tokenizer),
        routers=None if routers is None else routers.moment(steps, "test", tasks),
        tasks=tasks,
        shared=session.shared_tokens(tokenizer),
    )
    evaluation = evaluate(
        lm,
        tasks,
        {task: Domain.IN if task in trial.in_domain else Domain.OUT for task in trial.scored_on},
        limit=trial.evaluate.limit,
        sample_seed=trial.evaluate.sample_seed,
    )
    if not trial.evaluate.text:
        return evaluation
    task = session.tasks.get(trial.evaluate.text)
    indices = sample(task, trial.evaluate.limit, trial.evaluate.sample_seed)
    loss = text_loss(model, tokenizer, task, indices, length=length, tokens=resources.score_tokens)
    return evaluation._replace(info=evaluation.info.model_copy(update={"text": loss}))


def _loading(trial: Trial, session: Session, seconds: float) -> dict[str, Any]:
    """What ``meta_info`` says besides of a trial that loaded a model."""
    from mosld_bench.inputs.models import weights_source

    return {"loading_seconds": seconds, "weights": weights_source(trial.model, session.model_root)}


def _release(device: str) -> None:
    """Give the trial's memory back, so that the next trial of this process starts from nothing."""
    from mosld_bench.trial.device import release

    with suppress(RuntimeError):  # after an error of the device, of which the record tells already
        release(device)
