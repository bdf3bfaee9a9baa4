"""A trial becomes a record, in this process. Knows nothing of Ray.

A :class:`Session` is what a process keeps between trials: base models, tasks and their token ids.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mosld_bench.errors import BenchError, DataError
from mosld_bench.methods import registry
from mosld_bench.records.provenance import code_state, meta_info, now
from mosld_bench.records.record import Outcome, Record
from mosld_bench.spec.trial import Fit, GeneralData, ModelSpec, Resources, TrainSpec, Trial

if TYPE_CHECKING:
    from torch import nn

    from mosld_bench.trial.packed_scoring import PackingCheck
    from mosld_bench.trial.train import Encoded


@dataclass(frozen=True)
class Progress:
    """What a running trial tells whoever watches it."""

    trial: str
    phase: Literal["loading", "training", "scoring"]
    step: int = 0
    steps: int = 0
    loss: float | None = None


@dataclass(frozen=True)
class WorkerConfig:
    """Where a process finds and leaves things: plain data, the same on every node. Part of no identity."""

    task_folders: tuple[str, ...]
    resources: Resources
    data_root: str | None = None
    model_root: str | None = None
    plugins: tuple[str, ...] = ()
    device: str = "cpu"
    save_adapter: bool = False
    command: str | None = None


Watcher = Callable[[Progress], None]


class Session:
    """Base models, tasks and encoded items of one process, each loaded once."""

    def __init__(self, around: WorkerConfig) -> None:
        from mosld_bench.inputs.tasks import TaskLoader

        code_state()  # of the code as it is loaded: the checkout may move on while this process runs
        for plugin in around.plugins:
            registry.load_plugin(plugin)
        self.around = around
        self.tasks = TaskLoader(
            [Path(folder) for folder in around.task_folders],
            Path(around.data_root) if around.data_root else None,
        )
        self._models: dict[str, tuple[nn.Module, Any]] = {}
        self._examples: dict[tuple[Any, ...], tuple[list[Encoded], list[Encoded]]] = {}
        self.encoded: dict[str, dict[Any, Any]] = {}
        self.proofs: dict[tuple[str, str], PackingCheck] = {}  # by model and recipe: its trials are models of one kind

    def model(self, spec: ModelSpec, dtype: str) -> tuple[nn.Module, Any]:
        """(pristine frozen base model, tokenizer)."""
        import torch

        from mosld_bench.inputs.models import load_base, load_tokenizer

        key = f"{spec.name}@{spec.revision}:{dtype}"
        if key not in self._models:
            self._models.clear()  # one base model at a time: studies over several models run them one after another
            root = Path(self.around.model_root) if self.around.model_root else None
            tokenizer = load_tokenizer(spec, root)
            base = load_base(spec, getattr(torch, dtype), self.around.device, root)
            if tokenizer.pad_token_id >= base.get_input_embeddings().num_embeddings:  # type: ignore[operator]
                tokenizer.pad_token = tokenizer.eos_token  # added to the tokenizer, unknown to the model
            self._models[key] = base, tokenizer
        return self._models[key]

    def examples(self, task: str, spec: TrainSpec, tokenizer: Any) -> tuple[list[Encoded], list[Encoded]]:
        """(training, validation) items of a task as token ids. Raises DataError where none is left to train on."""
        from mosld_bench.inputs.tasks import draw, passages, split

        key = (
            task,
            tokenizer.name_or_path,
            spec.max_length,
            spec.validation_fraction,
            spec.split_seed,
            spec.task_items,
        )
        if key not in self._examples:
            loaded = self.tasks.get(task)
            items = _encode(loaded, spec, tokenizer, spec.task_items)
            groups = passages(loaded, draw(loaded, spec.task_items, spec.split_seed))
            train, held = split(len(items), spec.validation_fraction, spec.split_seed, task, groups)
            if not train:
                raise DataError(
                    f"Of the {len(items)} training items of the task {task!r} all are held out for validation "
                    f"(train.validation_fraction {spec.validation_fraction:g}"
                    f"{', items of one passage together' if groups else ''}). Lower it, or give more items."
                )
            self._examples[key] = [items[i] for i in train], [items[i] for i in held]
        train_items, held_items = self._examples[key]
        return train_items, held_items[: spec.validation_items]

    def general(self, data: GeneralData, spec: TrainSpec, tokenizer: Any) -> list[Encoded]:
        """The items of general data that a trial mixes in; a smaller amount is a part of a larger one."""
        key = ("general", data.task, data.items, tokenizer.name_or_path, spec.max_length, spec.split_seed)
        if key not in self._examples:
            self._examples[key] = _encode(self.tasks.get(data.task), spec, tokenizer, data.items), []
        return self._examples[key][0]


def _encode(task: Any, spec: TrainSpec, tokenizer: Any, most: int | None) -> list[Encoded]:
    """The training split of a task, or ``most`` items of it drawn with the study's split seed, as token ids."""
    from mosld_bench.inputs.tasks import draw, examples
    from mosld_bench.trial.scoring import encode_pairs
    from mosld_bench.trial.train import Encoded

    name = task.config.task
    items = examples(task, draw(task, most, spec.split_seed))
    pairs = encode_pairs(tokenizer, [(item.context, item.answer) for item in items])
    # An answer that is generated must learn to end; an option that is scored must not, since scoring adds no end.
    end = [tokenizer.eos_token_id] if task.OUTPUT_TYPE == "generate_until" else []
    encoded = []
    for context, answer in pairs:
        answer = (answer + end)[: spec.max_length - 1]
        ids = context + answer
        begin = ids[:1] if len(ids) > spec.max_length and ids[0] == tokenizer.bos_token_id else []  # cuts keep it
        encoded.append(Encoded(name, begin + ids[len(begin) - spec.max_length :], len(answer)))
    return encoded


def execute(trial: Trial, session: Session, fit: Fit, watch: Watcher = lambda progress: None) -> Outcome:
    """Run ``trial``, sized as ``fit``. Writes nothing: the outcome's ``write`` does.

    Every exception ends as a Record with status ``failed`` and the traceback; none escapes.
    """
    started, clock = now(), time.perf_counter()
    try:
        return _run(trial, session, fit, watch, started, clock)
    except Exception as error:
        text = str(error) if isinstance(error, BenchError) else traceback.format_exc()
        meta = meta_info(started, time.perf_counter() - clock, session.around.device, session.around.command)
        return failed(trial, text, meta)
    finally:
        _release(session.around.device)


def failed(trial: Trial, error: str, meta: dict[str, Any]) -> Outcome:
    """The outcome of a trial that did not finish."""
    return Outcome(Record(trial=trial, trial_id=trial.id, status="failed", error=error, meta_info=meta))


def _release(device: str) -> None:
    """Give the trial's memory back, so that the next trial of this process starts from nothing."""
    from mosld_bench.trial.device import release

    with suppress(RuntimeError):  # after an error of the device, of which the record tells already
        release(device)


def _run(trial: Trial, session: Session, fit: Fit, watch: Watcher, started: str, clock: float) -> Outcome:
    import torch

    from mosld_bench.inputs.models import weights_source
    from mosld_bench.methods.live import checkpoint_layers, copy_sharing_weights, unshare_trainable
    from mosld_bench.trial.device import PeakMemory, trim
    from mosld_bench.trial.packed_scoring import PackingCheck
    from mosld_bench.trial.scoring import PackedLM, evaluate
    from mosld_bench.trial.train import train

    around, spec = session.around, trial.train
    watch(Progress(trial.id, "loading"))
    if spec is None:
        return Outcome(_counted(trial, around, fit, started, clock))
    base, tokenizer = session.model(trial.model, spec.dtype)
    method = registry.get(trial.recipe.method)
    with PeakMemory(around.device) as memory:
        torch.manual_seed(trial.seed)
        model = method.attach(copy_sharing_weights(base), fit.params)
        owned = unshare_trainable(model, base)
        model.to(around.device)
        _check_size(trial, model, fit)
        checkpointed = spec.gradient_checkpointing and method.checkpoints(fit.params)
        if checkpointed:
            checkpoint_layers(model, True)
        train_info = None
        parts = [session.examples(task, spec, tokenizer) for task in trial.train_on]
        general = session.general(trial.general, spec, tokenizer) if trial.general else []
        loading = time.perf_counter() - clock
        if trial.train_on:
            train_info = train(
                model,
                method,
                examples=[item for part, _ in parts for item in part] + general,
                validation=[item for _, part in parts for item in part],
                spec=spec,
                learning_rate=spec.learning_rate * trial.recipe.learning_rate_scale,
                seed=trial.seed,
                pad=tokenizer.pad_token_id,
                optimizer=trial.recipe.optimizer,
                progress=lambda step, steps, loss: watch(Progress(trial.id, "training", step, steps, loss)),
            )
        for parameter in owned:  # scored in the study's dtype, as everything else is
            parameter.data = parameter.data.to(getattr(torch, spec.dtype))
        steps = train_info.steps if train_info else 0
        watch(Progress(trial.id, "scoring", steps, steps))
        trim(around.device)
        if checkpointed:
            checkpoint_layers(model, False)
        lm = PackedLM(
            model,
            tokenizer,
            tokens=around.resources.score_tokens,
            width=around.resources.score_width,
            proof=session.proofs.setdefault((trial.model.name, trial.recipe.name), PackingCheck()),
            encoded=session.encoded.setdefault(tokenizer.name_or_path, {}),
        )
        metrics, items, eval_info = evaluate(
            lm,
            {task: session.tasks.get(task) for task in trial.scored_on},
            {task: "in_domain" if task in trial.in_domain else "out_of_domain" for task in trial.scored_on},
            trial.evaluate.limit,
            trial.evaluate.sample_seed,
        )
    record = Record(
        trial=trial,
        trial_id=trial.id,
        status="finished",
        size=fit,
        train_info=train_info,
        eval_info=eval_info,
        metrics=tuple(metrics),
        peak_memory_bytes=memory.peak,
        meta_info={
            **meta_info(started, time.perf_counter() - clock, around.device, around.command),
            "loading_seconds": loading,
            "weights": weights_source(trial.model, Path(around.model_root) if around.model_root else None),
        },
    )
    return Outcome(record, items, _saved(model) if around.save_adapter and trial.train_on else None)


def _counted(trial: Trial, around: WorkerConfig, fit: Fit, started: str, clock: float) -> Record:
    """The record of a trial that counts parameters: no weights are read, nothing is trained or scored."""
    meta = meta_info(started, time.perf_counter() - clock, around.device, around.command)
    return Record(trial=trial, trial_id=trial.id, status="finished", size=fit, meta_info=meta)


def _check_size(trial: Trial, model: nn.Module, fit: Fit) -> None:
    """The count on the meta device was a promise; the built model must keep it."""
    built = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if built != fit.trainable:
        raise BenchError(
            f"The trial {trial.id} was fitted to {fit.trainable:,} trainable parameters, but the built model has "
            f"{built:,}. The method {trial.recipe.method!r} attaches differently on the meta device; that is a defect."
        )


def _saved(model: nn.Module) -> dict[str, bytes]:
    """The files of ``save_pretrained``: for an adapter, what PeftModel.from_pretrained reads."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # type: ignore[operator]
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
