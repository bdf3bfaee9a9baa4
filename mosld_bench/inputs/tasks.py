"""lm-eval task definitions as training examples and evaluation requests: one wording for both."""

from __future__ import annotations

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from mosld_bench.errors import DataError, UnknownNameError, fetch_hint
from mosld_bench.inputs.source_note import check_revision
from mosld_bench.spec.task_files import TaskFiles, data_files, leaves


@dataclass(frozen=True)
class Example:
    """A prompt and the answer that follows it, as lm-eval would concatenate them."""

    context: str
    answer: str


class TaskLoader:
    """Builds lm-eval tasks by name, from our folders, the user's and lm-eval's own; each once a process."""

    def __init__(self, folders: Sequence[Path], data_root: Path | None = None, study: str = "STUDY") -> None:
        """``study``: whose data it loads, for the command that an error names."""
        self.folders, self.data_root, self.study = tuple(folders), data_root, study
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
        if yaml_path and "class" not in config and not config.get("num_fewshot"):
            # lm-eval lists a whole split to draw the prompt's examples from, even where it shows none: millions of
            # rows, or a training split that the local copy of a data set lacks.
            config |= {"fewshot_split": None, "fewshot_config": {"samples": []}}
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
                f"cannot be reached: {fetch_hint(self.study, '--data-root')}"
            ) from error
        _decode_once(task)
        return task

    def _below_data_root(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        """``dataset_path`` in --data-root. Raises DataError where it is not there, or is of another revision."""
        path = str(config.get("dataset_path", ""))
        if "/" not in path or config.get("custom_dataset") is not None:  # a loader such as json or parquet
            return {}
        folder = self.data_root / path  # type: ignore[operator]
        if not folder.is_dir():
            raise DataError(
                f"The data set {path!r} of the task {name!r} is not below --data-root {self.data_root} "
                f"(looked for {folder}). {fetch_hint(self.study, '--data-root')}"
            )
        options = config.get("dataset_kwargs") or {}
        check_revision(folder, options.get("revision"), DataError)
        own = {**options, "cache_dir": _cache(folder)}
        return {"dataset_path": str(folder), "dataset_kwargs": own}


def _cache(folder: Path) -> str:
    """Where ``datasets`` keeps what it read of ``folder`` as the folder is now.

    It tells local folders apart by their last name and README alone: from one cache it would hand out the rows of
    another data root, or those that the files held before they changed.
    """
    from datasets.config import HF_DATASETS_CACHE

    state = hashlib.sha256(str(folder.resolve()).encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        about = file.stat()
        state.update(f"\0{file.relative_to(folder)}\0{about.st_size}\0{about.st_mtime_ns}".encode())
    return str(Path(HF_DATASETS_CACHE) / "mosld-bench" / state.hexdigest()[:16])


def _compile_templates_once() -> None:
    """lm-eval compiles a task's templates anew for every document: minutes for 20,000 of them, seconds if kept."""
    from lm_eval.utils import env

    if not hasattr(env.from_string, "cache_info"):
        env.from_string = lru_cache(maxsize=1024)(env.from_string)


def _decode_once(task: Any) -> None:
    """``datasets`` decodes a row whenever it is asked for it, and lm-eval asks for all of them five times a trial."""
    splits = {"test_docs": task.has_test_docs(), "validation_docs": task.has_validation_docs()}
    for name, there in splits.items():
        if there:
            setattr(task, name, cache(partial(_rows, getattr(task, name))))


def _rows(docs: Callable[[], Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    return list(docs())


def training_docs(task: Any) -> Any:
    """The documents of the training split. Raises DataError where the task or its data has none."""
    name, wanted, splits = task.config.task, task.config.training_split, getattr(task, "dataset", None)
    if not task.has_training_docs():
        raise DataError(
            f"The task {name!r} has no training split, so nothing can be trained on it; name it under out_of_domain."
        )
    if wanted is not None and isinstance(splits, dict) and wanted not in splits:
        raise DataError(
            f"The data of the task {name!r} has no split {wanted!r}, only {' and '.join(splits)}, so nothing can be "
            f"trained on it. Get the whole data set, or name the task under out_of_domain."
        )
    docs = task.training_docs()
    if len(docs) == 0:
        raise DataError(f"The training split of the task {name!r} is empty.")
    return docs


def examples(task: Any, indices: Sequence[int] | None = None) -> list[Example]:
    """The training split (or its items at ``indices``, and only those are rendered) as prompt and answer.

    Raises DataError where there is no training split, or an empty one.
    """
    docs = training_docs(task)
    return [example(task, docs[index]) for index in (range(len(docs)) if indices is None else indices)]


def example(task: Any, doc: dict[str, Any]) -> Example:
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


def draw(task: Any, most: int | None, seed: int) -> list[int] | None:
    """Indices of ``most`` training items drawn with ``seed``, each larger draw holding the smaller; None for all."""
    count = len(training_docs(task))
    if most is None or most >= count:
        return None
    order = list(range(count))
    random.Random(f"{seed}-{task.config.task}-items").shuffle(order)
    return sorted(order[:most])


def passages(task: Any, indices: Sequence[int] | None = None) -> list[Any] | None:
    """What several training items have in common, item by item: the field that ``metadata: {group: FIELD}`` names.

    None for a task without such a field. Raises DataError where its data has no column of that name.
    """
    field = (task.config.metadata or {}).get("group")
    if field is None:
        return None
    docs = training_docs(task)
    if field not in docs[0]:
        raise DataError(
            f"The task {task.config.task!r} groups its items by {field!r} (metadata.group), but its data has only the "
            f"columns {', '.join(docs[0])}."
        )
    return [docs[index][field] for index in (range(len(docs)) if indices is None else indices)]


def split(
    count: int, fraction: float, seed: int, name: str, groups: Sequence[Any] | None = None
) -> tuple[list[int], list[int]]:
    """Indices (train in their order, validation shuffled) of a training split; the same for every trial of a study.

    Items of one of the ``groups`` stay together, as questions on one story do, so that none is seen from both sides.
    """
    order = list(range(count))
    random.Random(f"{seed}-{name}").shuffle(order)
    wanted = round(fraction * count)
    of = list(range(count)) if groups is None else list(groups)
    sizes, held, together = Counter(of), set(), 0
    for index in order:
        if together >= wanted:
            break
        together += sizes[of[index]] if of[index] not in held else 0
        held.add(of[index])
    return [i for i in range(count) if of[i] not in held], [i for i in order if of[i] in held]


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
