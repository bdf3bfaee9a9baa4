"""A trial becomes a record, in this process: load, attach, train, score. Knows nothing of Ray."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench.errors import BenchError, IntegrityError
from mosld_bench.inputs.items import sample
from mosld_bench.interruption import raise_if_interrupted
from mosld_bench.methods import author, registry
from mosld_bench.methods.base import Method
from mosld_bench.records.provenance import meta_info, now
from mosld_bench.records.record import Outcome, Parameters, Record, TrainInfo
from mosld_bench.records.redaction import without_secrets
from mosld_bench.scratch import scratch_folder
from mosld_bench.spec.trial import Domain, Fit, Load, TrainSpec, Trial
from mosld_bench.trial.checkpoint import Checkpoints, checkpoints_of, identity_of
from mosld_bench.trial.limits import LimitExceededError, Watchdog
from mosld_bench.trial.saved import saved_files
from mosld_bench.trial.session import LoadedModel, Progress, Session, TrainingItems, Watcher, WorkerConfig

if TYPE_CHECKING:
    from torch import nn

    from mosld_bench.methods.live import AttachedModel
    from mosld_bench.records.provenance import Integrity
    from mosld_bench.trial.router_log import RouterLog
    from mosld_bench.trial.scoring import Evaluation


def execute(trial: Trial, session: Session, fit: Fit, watch: Watcher = lambda progress: None) -> Outcome:
    """Run ``trial``, sized as ``fit``. Writes nothing: `Store.write` does.

    Every exception ends as a Record with status ``failed``, the reason and the traceback; so does an exit that a
    library or plug-in asks for, and what takes more than the limits of the session. None escapes but an interruption,
    after which nothing that the trial came to counts.
    """
    from mosld_bench.trial.device import may_pass, taken

    config, stopwatch, notes = session.config, _Stopwatch(), list[str]()
    watchdog = Watchdog(config.limits, partial(taken, config.device))
    try:
        with watchdog:
            outcome = _run(trial, session, fit, partial(_show, watch, notes), stopwatch, notes)
    except (Exception, SystemExit, LimitExceededError) as error:
        raise_if_interrupted(error)
        meta = stopwatch.meta_info(config, trial.model.load)
        if isinstance(error, LimitExceededError):
            outcome = failed(trial, f"{traceback.format_exc()}{watchdog.told}", meta, spent=True)
        else:
            outcome = failed(trial, _told(error), meta, may_pass=may_pass(error))
    finally:
        watchdog.close()
        _release(config.device)
    raise_if_interrupted()
    return replace(outcome, notes=tuple(notes))


def failed(trial: Trial, error: str, meta: dict[str, Any], *, may_pass: bool = False, spent: bool = False) -> Outcome:
    """The outcome of a trial that did not finish, with the traceback ``error`` and the record's ``meta_info``."""
    record = Record(trial=trial, trial_id=trial.id, status="failed", error=without_secrets(error), meta_info=meta)
    return Outcome(record, may_pass=may_pass, spent=spent)


def _told(error: BaseException) -> str:
    """The traceback of ``error``, which ends with the reason; of what a user can mend by itself the reason alone.

    Where that came of another error, as of a plug-in's, the traceback stands before it.
    """
    if not isinstance(error, BenchError):
        return traceback.format_exc()
    cause = error.__cause__
    if cause is None:
        return str(error)
    return f"{''.join(traceback.format_exception(cause))}\n{error}"


@dataclass(frozen=True)
class _Stopwatch:
    """When a trial started, and how long it takes since."""

    started: str = field(default_factory=now)
    _clock: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        return time.perf_counter() - self._clock

    def meta_info(self, config: WorkerConfig, load: Load | None) -> dict[str, Any]:
        gpus = len(config.devices)
        return meta_info(self.started, self.seconds(), config.device, config.command, gpus=gpus, load=load)


def _run(trial: Trial, session: Session, fit: Fit, watch: Watcher, stopwatch: _Stopwatch, notes: list[str]) -> Outcome:
    from mosld_bench.methods.live import attached_copy, stored
    from mosld_bench.trial.device import PeakMemory, trim
    from mosld_bench.trial.random_state import same_random_state
    from mosld_bench.trial.router_log import RouterLog
    from mosld_bench.trial.window import window

    config, spec = session.config, trial.train
    watch(Progress(trial.id, "loading"))
    if spec is None:
        return _counted(trial, fit, stopwatch.meta_info(config, None) | _code(trial, fit))
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
        train_info, routers, checkpoints = None, RouterLog.of(adapted.model), None
        found, written, keeps = dict[str, Any](), dict[str, bytes](), config.save_adapter and bool(trial.train_on)
        if trial.train_on:
            checkpoints = _checkpoints(trial, session, fit, code, items, notes)
            train_info = _train(adapted, method, items, trial=trial, spec=spec, fit=fit, base=base,
                                routers=routers, watch=watch, checkpoints=checkpoints)  # fmt: skip
            base.check(name, "training")
        stopped, evaluation = train_info is not None and train_info.stopped, None
        if not stopped:  # what a search has given up is scored on nothing
            trim(config.device)  # what training took is room for what is loaded again
            _cast(adapted, spec.dtype)
            if train_info:
                found["integrity"], written = _checked(adapted, method, items, base=base, fit=fit, keeps=keeps,
                                                       checkpoints=checkpoints)  # fmt: skip
                if not found["integrity"]["reloaded"]:
                    notes.append("what was trained is not compared with what is loaded of it, for want of room")
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
        meta_info=stopwatch.meta_info(config, trial.model.load)
        | code
        | _loading(trial, session, loading_seconds)
        | _gone_on(checkpoints)
        | found,
    )
    router = None if routers is None else routers.frame()
    if evaluation is None:
        return Outcome(record, router=router)
    # What was loaded again is what is kept; where there was no room for that, nothing was written yet.
    save = partial(_write, written) if written else partial(method.save, adapted.model, base.model, fit.params)
    adapter = saved_files(adapted.model, base.tokenizer, record, session, save) if keeps else None
    return Outcome(record, evaluation.items, adapter, router)


def _write(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _show(watch: Watcher, notes: list[str], progress: Progress) -> None:
    """Show ``progress`` with all that is to be known of the trial, since who looks now and then sees the last alone."""
    watch(replace(progress, notes=tuple(notes)))


def _checkpoints(
    trial: Trial, session: Session, fit: Fit, code: dict[str, Any], items: TrainingItems, notes: list[str]
) -> Checkpoints | None:
    """Where the training is left from time to time, if it is; what there is to say of it goes to ``notes``."""
    from mosld_bench.inputs.models import weights_source

    def identity() -> str:
        weights, every = weights_source(trial.model, session.model_root), chain(items.train, items.validation)
        return identity_of(trial, fit, code=code, weights=weights, device=session.config.device, items=every)

    return checkpoints_of(session.config.checkpoints, trial, identity, notes)


def _checked(
    adapted: AttachedModel,
    method: Method,
    items: TrainingItems,
    *,
    base: LoadedModel,
    fit: Fit,
    keeps: bool,
    checkpoints: Checkpoints | None,
) -> tuple[Integrity, dict[str, bytes]]:
    """What `check_trained` finds and, where it ``keeps`` that, file name -> content of what it saved.

    The folder is gone at once, since whoever ends this process while it scores would leave it behind. A training that
    is refused is not gone on with, but made anew.
    """
    from mosld_bench.trial.integrity import check_trained

    with scratch_folder() as folder:
        try:
            found = check_trained(method, adapted.model, base.model, fit.params, items.train, folder)
        except IntegrityError:
            if checkpoints:
                checkpoints.drop()
            raise
        return found, {file.name: file.read_bytes() for file in folder.iterdir() if keeps and file.is_file()}


def _gone_on(checkpoints: Checkpoints | None) -> dict[str, Any]:
    """What ``meta_info`` says of a trial that went on from a checkpoint."""
    return {"continued_from_step": checkpoints.from_step} if checkpoints and checkpoints.from_step else {}


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
    base: LoadedModel,
    routers: RouterLog | None,
    watch: Watcher,
    checkpoints: Checkpoints | None,
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
        pad=base.pad,
        optimizer=trial.recipe.optimizer,
        rivals=trial.rivals,
        ends_after=trial.ends_after,
        routers=routers,
        progress=lambda step, steps, loss: watch(Progress(trial.id, "training", step, steps, loss)),
        checkpoints=checkpoints,
        base=base.model,
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
    from mosld_bench.trial.integrity import check_answered
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
    limit, seed = trial.evaluate.limit, trial.evaluate.sample_seed
    check_answered(evaluation.items, {name: sample(task, limit, seed) for name, task in tasks.items()})
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
