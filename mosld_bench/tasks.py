"""lm-eval task definitions as training examples and evaluation requests: one wording for both."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mosld_bench.errors import DataError, UnknownNameError, fetch_hint
from mosld_bench.taskfiles import TaskFiles, data_files, leaves


@dataclass(frozen=True)
class Example:
    """A prompt and the answer that follows it, as lm-eval would concatenate them."""

    context: str
    answer: str


class TaskLoader:
    """Builds lm-eval tasks by name, from our folders, the user's and lm-eval's own; each once a process."""

    def __init__(self, folders: Sequence[Path], data_root: Path | None = None) -> None:
        self.folders, self.data_root = tuple(folders), data_root
        self.files = TaskFiles.scan(self.folders)
        self._built: dict[str, Any] = {}
        self._managers: dict[bool, Any] = {}
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        _compile_templates_once()

    def get(self, name: str) -> Any:
        """The lm-eval task ``name``. Raises UnknownNameError or DataError."""
        if name not in self._built:
            self._built[name] = self._build(name)
        return self._built[name]

    def _manager(self, name: str) -> Any:
        """Ours if it knows the name; lm-eval's index of all its tasks takes seconds and is read only when needed."""
        from lm_eval.tasks import TaskManager

        for built_in in (False, True):
            if built_in not in self._managers:
                self._managers[built_in] = TaskManager(
                    include_path=[str(folder) for folder in self.folders], include_defaults=built_in
                )
            if name in self._managers[built_in].all_subtasks:
                return self._managers[built_in]
        known = self._managers[True].all_subtasks
        raise UnknownNameError("task", name, known if name not in self._managers[True].all_groups else self.files.paths,
                               "Tasks are lm-eval definitions in tasks/, in --include-path, or built into lm-eval; a "
                               "group must be named by its members.")  # fmt: skip

    def _build(self, name: str) -> Any:
        import datasets
        from lm_eval.tasks._yaml_loader import load_yaml

        manager = self._manager(name)
        yaml_path = manager.task_index[name].yaml_path
        config = load_yaml(yaml_path, resolve_func=True) if yaml_path else {}
        config["task"] = name
        if name in self.files.paths and (local := data_files(config, self.files.paths[name].parent)):
            config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": local}
            for file in map(Path, leaves(local)):
                if file.is_file() and file.stat().st_size == 0:
                    raise DataError(f"The data file {file} of the task {name!r} is empty.")
        if self.data_root is not None:
            config |= self._below_data_root(name, config)
        datasets.disable_progress_bars()
        try:
            (task,) = manager.load([config])["tasks"].values()
        except (IndexError, StopIteration) as error:
            raise DataError(
                f"The data of the task {name!r} is empty; there is nothing to train on or score."
            ) from error
        except Exception as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else ""
            raise DataError(
                f"The task {name!r} cannot be loaded ({type(error).__name__}: {first}). If it is its data that "
                f"cannot be reached: {fetch_hint('STUDY', '--data-root')}"
            ) from error
        return task

    def _below_data_root(self, name: str, config: dict[str, Any]) -> dict[str, str]:
        """``dataset_path`` in --data-root. Raises DataError where the data set is not there."""
        path = str(config.get("dataset_path", ""))
        if "/" not in path or config.get("custom_dataset") is not None:  # a loader such as json or parquet
            return {}
        folder = self.data_root / path  # type: ignore[operator]
        if not folder.is_dir():
            raise DataError(
                f"The data set {path!r} of the task {name!r} is not below --data-root {self.data_root} "
                f"(looked for {folder}). {fetch_hint('STUDY', '--data-root')}"
            )
        return {"dataset_path": str(folder)}


def _compile_templates_once() -> None:
    """lm-eval compiles a task's templates anew for every document: minutes for 20,000 of them, seconds if kept."""
    from lm_eval.utils import env

    if not hasattr(env.from_string, "cache_info"):
        env.from_string = lru_cache(maxsize=1024)(env.from_string)


def examples(task: Any, first: int | None = None) -> list[Example]:
    """The training split (or its ``first`` items) as prompt and answer.

    Raises DataError where the task has no training split, or an empty one.
    """
    name = task.config.task
    if not task.has_training_docs():
        raise DataError(
            f"The task {name!r} has no training split, so nothing can be trained on it; name it under out_of_domain."
        )
    docs = task.training_docs()
    if len(docs) == 0:
        raise DataError(f"The training split of the task {name!r} is empty.")
    return [_example(task, docs[index]) for index in range(len(docs) if first is None else first)]


def _example(task: Any, doc: dict[str, Any]) -> Example:
    """What lm-eval would score as the right answer of ``doc``: description, prompt, delimiter, answer."""
    description = task.config.description or ""
    text, target = task.doc_to_text(doc), task.doc_to_target(doc)
    if task.multiple_input:  # the options are prompts and the target is what follows each (Winogrande)
        context = task.doc_to_choice(doc)[text]
    else:
        context = text
        if isinstance(target, list):
            target = target[0]
        if task.config.doc_to_choice is not None and isinstance(target, int):
            target = task.doc_to_choice(doc)[target]
    return Example(f"{description}{context}", f"{task.config.target_delimiter}{target}")


def split(items: Sequence[Any], fraction: float, seed: int, name: str) -> tuple[list[int], list[int]]:
    """Indices (train, validation) of a training split; the same for every trial of a study."""
    order = list(range(len(items)))
    random.Random(f"{seed}-{name}").shuffle(order)
    held = round(fraction * len(order))
    return sorted(order[held:]), sorted(order[:held])


def sample(task: Any, limit: int | None, seed: int) -> list[int]:
    """Indices of the evaluation documents to score: all, or ``limit`` of them drawn with ``seed``."""
    count = len(task.eval_docs)
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(random.Random(f"{seed}-{task.config.task}").sample(range(count), limit))


def primary_metric(task: Any) -> str:
    """The metric that tables show: the first of the definition, under lm-eval's name (``acc,none``)."""
    metrics = list(task.aggregation())
    filters = [f.name for f in getattr(task, "_filters", [])] or ["none"]
    return f"{metrics[0]},{filters[0]}"


def chance(task: Any, docs: Iterable[dict[str, Any]]) -> float | None:
    """Expected accuracy of a uniform guess over the options, None for tasks without options."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    shares = [1 / (task.multiple_input or len(task.doc_to_choice(doc))) for doc in docs]
    return sum(shares) / len(shares) if shares else None
