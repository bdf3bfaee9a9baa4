"""What a process keeps between its trials: the base model, the tasks, and their token ids."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mosld_bench import collector
from mosld_bench.compat.lm_eval import scored_on
from mosld_bench.errors import BenchError, DataError
from mosld_bench.inputs.encoding import Request, pad_token
from mosld_bench.inputs.items import Encoded, divided, encode, held_out, passages, training_docs
from mosld_bench.methods import registry
from mosld_bench.records.provenance import code_state, source_digest
from mosld_bench.spec.trial import GeneralData, ModelSpec, Resources, TrainSpec, canonical
from mosld_bench.trial.checkpoint import CheckpointPlace
from mosld_bench.trial.limits import NO_LIMITS, Limits

if TYPE_CHECKING:
    from torch import nn

    from mosld_bench.methods.shared_state import SharedState


@dataclass(frozen=True)
class Progress:
    """Where a running trial is, for whoever watches it."""

    trial: str
    phase: Literal["loading", "training", "scoring"]
    step: int = 0
    steps: int = 0
    loss: float | None = None  # nats an answer token
    notes: tuple[str, ...] = ()  # what the user should know, out of the ordinary


Watcher = Callable[[Progress], None]


@dataclass(frozen=True)
class WorkerConfig:
    """Where a process finds and leaves things: plain data, the same on every node. Part of no identity.

    ``import_from``: folders that modules of plug-ins and recipes are looked for in, after all other places.
    """

    task_folders: tuple[str, ...]
    resources: Resources
    data_root: str | None = None
    model_root: str | None = None
    plugins: tuple[str, ...] = ()
    import_from: tuple[str, ...] = ()
    device: str = "cpu"
    save_adapter: bool = False
    command: str | None = None
    checkpoints: CheckpointPlace | None = None
    limits: Limits = NO_LIMITS

    @property
    def devices(self) -> tuple[str, ...]:
        """What a base model lies on, in the order of its layers: the device, or each of the GPUs that a trial has."""
        gpus = self.resources.gpus if self.device == "cuda" else 1
        return (self.device,) if gpus == 1 else tuple(f"cuda:{gpu}" for gpu in range(gpus))


class LoadedModel(NamedTuple):
    """A base model, frozen and never changed, its tokenizer, and the token id that fills its batches.

    ``shared`` is what all trials of the process find as the first one did.
    """

    model: nn.Module
    tokenizer: Any
    pad: int
    shared: SharedState

    def check(self, method: str, deed: str) -> None:
        """Raise BenchError where ``method`` changed by ``deed`` what it shares with other trials."""
        if changes := self.shared.changes():
            raise _changed(method, changes, deed)


def _changed(method: str, changes: list[str], deed: str) -> BenchError:
    return BenchError(
        f"The method {method!r} changed {', '.join(changes)} by {deed}. Every trial of this process shares that, so "
        f"this trial does not count, and the next one starts from a model that is loaded anew. A method may write with "
        f"operations of torch into the weights of the model that it attaches to, while it attaches; whatever else is "
        f"not its own must stay as it is."
    )


class TrainingItems(NamedTuple):
    """Items of a task that are trained on, and items that are held out for the validation loss."""

    train: list[Encoded]
    validation: list[Encoded]


class _ItemsKey(NamedTuple):
    """All that the token ids and the split of a task's training items depend on."""

    task: str
    tokenizer: str
    max_length: int
    split_seed: int
    drawn: int | None
    validation_fraction: float = 0.0


class Session:
    """Base models, tasks and encoded items of one process, each loaded once.

    ``tasks``: the loader of lm-eval tasks. Raises BenchError for a plug-in or a task folder that cannot be read.
    """

    def __init__(self, config: WorkerConfig) -> None:
        from mosld_bench.inputs.tasks import TaskLoader
        from mosld_bench.methods.shared_state import TorchSettings

        code_state()  # of the code as it is loaded: the checkout may move on while this process runs
        if config.checkpoints:
            source_digest()
        self._settings = TorchSettings()
        sys.path += [folder for folder in config.import_from if folder not in sys.path]
        for plugin in config.plugins:
            registry.load_plugin(plugin)
        self.config = config
        self.tasks = TaskLoader(
            [Path(folder) for folder in config.task_folders],
            Path(config.data_root) if config.data_root else None,
        )
        self._models: dict[str, LoadedModel] = {}
        self._examples: dict[_ItemsKey, TrainingItems] = {}
        self._held_out: dict[tuple[str, str], Any] = {}
        self._general: dict[_ItemsKey, list[Encoded]] = {}
        self._requests: dict[str, dict[tuple[str, str], Request]] = {}
        self._shared: dict[str, dict[tuple[str, str], int]] = {}

    @property
    def model_root(self) -> Path | None:
        """The folder of --model-root."""
        return Path(self.config.model_root) if self.config.model_root else None

    def model(self, spec: ModelSpec, dtype: str) -> LoadedModel:
        """The base model of ``spec`` in ``dtype``, with its tokenizer. Raises ModelError where it cannot be loaded.

        On several devices its layers lie one after another, and it is loaded to this machine's memory first.
        """
        import torch

        from mosld_bench.inputs.models import load_base, load_tokenizer
        from mosld_bench.methods.shared_state import SharedState
        from mosld_bench.methods.stages import spread

        key = f"{spec.name}@{spec.revision}:{spec.load}:{dtype}"
        if key not in self._models:
            self._models.clear()  # one base model at a time: studies over several models run them one after another
            collector.search_all()  # a worker may pass over the one before
            tokenizer = load_tokenizer(spec, self.model_root)
            devices = self.config.devices
            first = devices[0] if len(devices) == 1 else "cpu"
            base = load_base(spec, getattr(torch, dtype), first, self.model_root)
            if len(devices) > 1:
                spread(base, [torch.device(device) for device in devices])
            vocabulary = base.get_input_embeddings().num_embeddings  # type: ignore[operator]
            if (tokenizer.pad_token_id or 0) >= vocabulary:
                tokenizer.pad_token = tokenizer.eos_token  # added to the tokenizer, unknown to the model
            self._models[key] = LoadedModel(
                base, tokenizer, pad_token(tokenizer, vocabulary), SharedState(base, self._settings)
            )
        return self._models[key]

    @contextmanager
    def lent(self, spec: ModelSpec, dtype: str, method: str) -> Iterator[LoadedModel]:
        """The base model of :meth:`model` for one trial of ``method``, which gives it back as it was.

        Whatever the trial came to, one that changed the model or torch's settings leaves neither to the next trial.
        Raises BenchError for it, unless it failed by itself.
        """
        from mosld_bench.compat.torch import bfloat16_products

        loaded = self.model(spec, dtype)
        try:
            with bfloat16_products(dtype, self.config.device):
                yield loaded
        finally:
            try:
                changes = self._mend(loaded)
            except BaseException:  # of a limit or an interruption: what is not mended is not lent again
                self._models.clear()
                raise
        if changes:
            raise _changed(method, changes, "scoring")

    def _mend(self, loaded: LoadedModel) -> list[str]:
        """What the last trial changed, in words; it is undone."""
        try:
            changes = loaded.shared.changes()
        except RuntimeError:  # of a device that does not answer any more
            changes = ["the state of the device"]
        if changes:
            loaded.shared.restore()
            self._models.clear()
        return changes

    def examples(self, task: str, spec: TrainSpec, tokenizer: Any, length: int | None = None) -> TrainingItems:
        """The training and validation items of ``task`` as token ids, at most ``length`` or ``spec.max_length`` each.

        Raises DataError where none is left to train on.
        """
        length = length or spec.max_length
        key = _ItemsKey(
            task=task,
            tokenizer=tokenizer.name_or_path,
            max_length=length,
            split_seed=spec.split_seed,
            drawn=spec.items_of(task),
            validation_fraction=spec.validation_fraction,
        )
        if key not in self._examples:
            self._examples[key] = self._split(task, spec, tokenizer, length)
        items = self._examples[key]
        return TrainingItems(items.train, items.validation[: spec.validation_items])

    def _split(self, name: str, spec: TrainSpec, tokenizer: Any, length: int) -> TrainingItems:
        task = self.tasks.get(name)
        items = encode(task, tokenizer, spec, spec.items_of(name), length)
        indices = divided(task, spec.items_of(name), fraction=spec.validation_fraction, seed=spec.split_seed)
        if not indices.train:
            raise DataError(
                f"Of the {len(items)} training items of the task {name!r} all are held out for validation "
                f"(train.validation_fraction {spec.validation_fraction:g}"
                f"{', items of one passage together' if passages(task, [0]) else ''}). Lower it, or give more items."
            )
        return TrainingItems([items[i] for i in indices.train], [items[i] for i in indices.validation])

    def scored(self, name: str, validation: TrainSpec | None = None) -> Any:
        """The lm-eval task as it is scored: on its test items, or on those that ``validation`` holds out of training.

        Raises DataError where it holds out none.
        """
        if validation is None:
            return self.tasks.get(name)
        key = name, canonical(validation.model_dump())
        if key not in self._held_out:
            self._held_out[key] = self._on_held_out(self.tasks.get(name), validation)
        return self._held_out[key]

    def _on_held_out(self, task: Any, spec: TrainSpec) -> Any:
        indices = held_out(
            task,
            spec.items_of(task.config.task),
            fraction=spec.validation_fraction,
            seed=spec.split_seed,
            most=spec.validation_items,
        )
        if not indices:
            raise DataError(
                f"No training item of the task {task.config.task!r} is held out (train.validation_fraction "
                f"{spec.validation_fraction:g}), so that there is none to score it on. Raise it, or leave the task out."
            )
        docs = training_docs(task)
        return scored_on(task, [docs[index] for index in indices])

    def general(self, data: GeneralData, spec: TrainSpec, tokenizer: Any, length: int | None = None) -> list[Encoded]:
        """The items of general data that a trial mixes in; a smaller amount is a part of a larger one."""
        length = length or spec.max_length
        key = _ItemsKey(
            task=data.task,
            tokenizer=tokenizer.name_or_path,
            max_length=length,
            split_seed=spec.split_seed,
            drawn=data.items,
        )
        if key not in self._general:
            self._general[key] = encode(self.tasks.get(data.task), tokenizer, spec, data.items, length)
        return self._general[key]

    def encoded_requests(self, tokenizer: Any) -> dict[tuple[str, str], Request]:
        """(context, continuation) -> token ids, of all that was scored so far; to be added to."""
        return self._requests.setdefault(tokenizer.name_or_path, {})

    def shared_tokens(self, tokenizer: Any) -> dict[tuple[str, str], int]:
        """(task, prompt) -> tokens that are not the item's own, of all that was scored so far; to be added to."""
        return self._shared.setdefault(tokenizer.name_or_path, {})
