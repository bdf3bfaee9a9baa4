"""lm-eval tasks by name: found in the task folders or in lm-eval, built with their data; their metric and chance.

`items.py` makes training items and evaluation requests of them: one wording for both.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mosld_bench.compat.lm_eval import compile_templates_once, decode_once, filter_names, task_config
from mosld_bench.errors import DataError, UnknownNameError, fetch_hint
from mosld_bench.inputs.source_note import check_revision
from mosld_bench.spec.task_files import TaskFiles, data_files, leaves


class TaskLoader:
    """Builds lm-eval tasks by name, from our folders, the user's and lm-eval's own; each once a process."""

    def __init__(self, folders: Sequence[Path], data_root: Path | None = None, study: str = "STUDY") -> None:
        """``folders``: of task files, a later one wins. ``data_root``: has the data sets as ORGANISATION/DATASET.

        ``study``: the one whose data it loads, named in the command that an error suggests.
        """
        self.folders, self.data_root, self.study = tuple(folders), data_root, study
        self.files = TaskFiles.scan(self.folders)
        self._built: dict[str, Any] = {}
        self._managers: dict[bool, Any] = {}  # without and with lm-eval's own tasks
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        compile_templates_once()

    def get(self, name: str) -> Any:
        """The lm-eval task ``name``. Raises UnknownNameError, or DataError where it or its data cannot be read."""
        if name not in self._built:
            self._built[name] = self._build(name)
        return self._built[name]

    def check_names(self, names: Iterable[str]) -> None:
        """Make sure that there are tasks of these ``names``, without their data. Raises UnknownNameError."""
        for name in names:
            self._manager(name)

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
        manager = self._manager(name)
        config = self._config(name, manager)
        task = self._with_data(name, manager, config)
        decode_once(task)
        return task

    def _config(self, name: str, manager: Any) -> dict[str, Any]:
        """The definition with its includes resolved, and with paths to the data on this machine."""
        definition = task_config(manager, name)
        config = {**definition, "task": name}
        if name in self.files.paths and (local := data_files(config, self.files.paths[name].parent)):
            config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": local}
            for file in map(Path, leaves(local)):
                if file.is_file() and file.stat().st_size == 0:
                    raise DataError(f"The data file {file} of the task {name!r} is empty.")
        if definition and "class" not in config and not config.get("num_fewshot"):
            # lm-eval lists a whole split to draw the prompt's examples from, even where it shows none: millions of
            # rows, or a training split that the local copy of a data set lacks.
            config |= {"fewshot_split": None, "fewshot_config": {"samples": []}}
        return config if self.data_root is None else config | self._below_data_root(name, config)

    def _with_data(self, name: str, manager: Any, config: dict[str, Any]) -> Any:
        """The task of the definition ``config``, its data read. Raises DataError where there are none."""
        import datasets

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
        return {"dataset_path": str(folder), "dataset_kwargs": {**options, "cache_dir": _cache(folder)}}


def _cache(folder: Path) -> str:
    """Where ``datasets`` keeps what it read of ``folder`` as the folder is now.

    It tells local folders apart by their last name and README alone: from one cache it would hand out the rows of
    another data root, or those that the files held before they changed.
    """
    from datasets.config import HF_DATASETS_CACHE

    state = hashlib.sha256(str(folder.resolve()).encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        status = file.stat()
        state.update(f"\0{file.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return str(Path(HF_DATASETS_CACHE) / "mosld-bench" / state.hexdigest()[:16])


def primary_metric(task: Any) -> str:
    """The metric that tables show: the first of the definition, under lm-eval's name (``acc,none``)."""
    metrics = list(task.aggregation())
    return f"{metrics[0]},{filter_names(task)[0]}"


def chance(task: Any, docs: Iterable[dict[str, Any]]) -> float | None:
    """Expected accuracy (0 to 1) of a uniform guess over the options of ``docs``, None for tasks without options."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    shares = [1 / (task.multiple_input or len(task.doc_to_choice(doc))) for doc in docs]
    return sum(shares) / len(shares) if shares else None
