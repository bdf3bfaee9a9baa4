"""What a process keeps between its trials: the base model, the tasks, and their token ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mosld_bench.errors import DataError
from mosld_bench.inputs.encoding import Request, pad_token
from mosld_bench.inputs.items import Encoded, draw, encode, passages, split
from mosld_bench.methods import registry
from mosld_bench.records.provenance import code_state
from mosld_bench.spec.trial import GeneralData, ModelSpec, Resources, TrainSpec, Trial

if TYPE_CHECKING:
    from torch import nn

    from mosld_bench.trial.generation import GenerationCheck
    from mosld_bench.trial.packing_check import PackingCheck


@dataclass(frozen=True)
class Progress:
    """Where a running trial is, for whoever watches it."""

    trial: str
    phase: Literal["loading", "training", "scoring"]
    step: int = 0
    steps: int = 0
    loss: float | None = None  # nats an answer token


Watcher = Callable[[Progress], None]


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


class LoadedModel(NamedTuple):
    """A base model, frozen and never changed, its tokenizer, and the token id that fills its batches."""

    model: nn.Module
    tokenizer: Any
    pad: int


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

        code_state()  # of the code as it is loaded: the checkout may move on while this process runs
        for plugin in config.plugins:
            registry.load_plugin(plugin)
        self.config = config
        self.tasks = TaskLoader(
            [Path(folder) for folder in config.task_folders],
            Path(config.data_root) if config.data_root else None,
        )
        self._models: dict[str, LoadedModel] = {}
        self._examples: dict[_ItemsKey, TrainingItems] = {}
        self._general: dict[_ItemsKey, list[Encoded]] = {}
        self._requests: dict[str, dict[tuple[str, str], Request]] = {}
        self._packing_checks: dict[tuple[str, str], PackingCheck] = {}
        self._generation_checks: dict[tuple[str, str], GenerationCheck] = {}

    @property
    def model_root(self) -> Path | None:
        """The folder of --model-root."""
        return Path(self.config.model_root) if self.config.model_root else None

    def model(self, spec: ModelSpec, dtype: str) -> LoadedModel:
        """The base model of ``spec`` in ``dtype``, with its tokenizer. Raises ModelError where it cannot be loaded."""
        import torch

        from mosld_bench.inputs.models import load_base, load_tokenizer

        key = f"{spec.name}@{spec.revision}:{dtype}"
        if key not in self._models:
            self._models.clear()  # one base model at a time: studies over several models run them one after another
            tokenizer = load_tokenizer(spec, self.model_root)
            base = load_base(spec, getattr(torch, dtype), self.config.device, self.model_root)
            vocabulary = base.get_input_embeddings().num_embeddings  # type: ignore[operator]
            if (tokenizer.pad_token_id or 0) >= vocabulary:
                tokenizer.pad_token = tokenizer.eos_token  # added to the tokenizer, unknown to the model
            self._models[key] = LoadedModel(base, tokenizer, pad_token(tokenizer, vocabulary))
        return self._models[key]

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
            drawn=spec.task_items,
            validation_fraction=spec.validation_fraction,
        )
        if key not in self._examples:
            self._examples[key] = self._split(task, spec, tokenizer, length)
        items = self._examples[key]
        return TrainingItems(items.train, items.validation[: spec.validation_items])

    def _split(self, name: str, spec: TrainSpec, tokenizer: Any, length: int) -> TrainingItems:
        task = self.tasks.get(name)
        items = encode(task, tokenizer, spec, spec.task_items, length)
        groups = passages(task, draw(task, spec.task_items, spec.split_seed))
        indices = split(len(items), name, fraction=spec.validation_fraction, seed=spec.split_seed, groups=groups)
        if not indices.train:
            raise DataError(
                f"Of the {len(items)} training items of the task {name!r} all are held out for validation "
                f"(train.validation_fraction {spec.validation_fraction:g}"
                f"{', items of one passage together' if groups else ''}). Lower it, or give more items."
            )
        return TrainingItems([items[i] for i in indices.train], [items[i] for i in indices.validation])

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

    def packing_check(self, trial: Trial) -> PackingCheck:
        """What is known of packed scoring for a base model with a recipe: its trials are models of one kind."""
        from mosld_bench.trial.packing_check import PackingCheck

        return self._packing_checks.setdefault((trial.model.name, trial.recipe.name), PackingCheck())

    def generation_check(self, trial: Trial) -> GenerationCheck:
        """What is known of answers written with a cache, for a base model with a recipe."""
        from mosld_bench.trial.generation import GenerationCheck

        return self._generation_checks.setdefault((trial.model.name, trial.recipe.name), GenerationCheck())
