"""lm-eval tasks by name: found in the task folders or in lm-eval, built with their data; their metric and chance.

`items.py` makes training items and evaluation requests of them: one wording for both.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from mosld_bench.compat.datasets import guard_json
from mosld_bench.compat.lm_eval import (
    BuildError,
    FilterError,
    build_task,
    data_path,
    decode_once,
    draw_examples_by_item,
    filter_names,
    function_of,
    limit_filters,
    metric_names,
    read_whole_numbers,
    reading,
    sandbox_templates,
    task_config,
    try_filters,
)
from mosld_bench.errors import BenchError, DataError, UnknownNameError, fetch_hint
from mosld_bench.inputs.configuration import configuration
from mosld_bench.inputs.json_rows import problem_of
from mosld_bench.inputs.source_note import check_revision
from mosld_bench.inputs.why_not_built import why_not_built
from mosld_bench.spec.plain_file import is_folder, is_regular
from mosld_bench.spec.task_files import TaskFiles, data_dir, data_files, data_set_folder, files_in, leaves

#: For ``pandas``, which takes words such as "NA", "null" and "None" for nothing: in the text of a task they are words.
#: An empty field is nothing still. A definition that says otherwise is followed.
_CSV_WORDS = {"keep_default_na": False, "na_values": [""]}
#: Answers on which patterns take long that repeat a repetition.
_ANSWERS = [piece * 64 + "!" for piece in ("a", "1", "a ", "1,", " ", "\n", "A.")]
_FILTER_SECONDS = 5.0  # of a core, for all of them
_NO_PATTERN = str.maketrans("*?[]", "____")


class TaskLoader:
    """Builds lm-eval tasks by name, from our folders, the user's and lm-eval's own; each once a process."""

    def __init__(self, folders: Sequence[Path], data_root: Path | None = None, study: str = "STUDY") -> None:
        """``folders``: of task files, a later one wins. ``data_root``: has the data sets as ORGANISATION/DATASET.

        ``study``: the one whose data it loads, named in the command that an error suggests.
        """
        self.folders, self.data_root, self.study = tuple(folders), data_root, study
        self.files = TaskFiles.scan(self.folders)
        self._built: dict[str, Any] = {}
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        sandbox_templates()

    def get(self, name: str) -> Any:
        """The lm-eval task ``name``. Raises UnknownNameError, or DataError where it or its data cannot be read."""
        if name not in self._built:
            self._built[name] = self._build(name)
        return self._built[name]

    def check_names(self, names: Iterable[str]) -> None:
        """Make sure that there are tasks of these ``names``, without their data. Raises UnknownNameError."""
        for name in names:
            self._manager(name)

    def title(self, name: str) -> str:
        """What tables call the task: ``metadata.title`` of its definition, else its name."""
        metadata = self.definition(name).get("metadata")
        return str((metadata.get("title") if isinstance(metadata, dict) else None) or name)

    def hub_data(self, name: str) -> str | None:
        """The data set on the hub that the task reads, wherever it is read from here; None where it reads files."""
        definition = self.definition(name)
        path, _ = data_path(definition)
        local = Path(path).is_absolute() or data_set_folder(definition, self._folder(name)) is not None
        return path if "/" in path and not local else None

    def data_set(self, name: str) -> str | None:
        """The data set that the task reads below --data-root, by its name there; None for a task that reads none there.

        Where --data-root is left out, the one that it would read there. Raises UnknownNameError, and DataError for a
        class that cannot be had.
        """
        manager = self._manager(name)
        if name not in self.files.paths:
            return self._named_below(task_config(manager, name))
        config = self.files.config(name) or {}
        if data_set_folder(config, self._folder(name)) is not None:
            return None
        return self._named_below(self._definition(name) if "class" in config else config)

    def definition(self, name: str) -> dict[str, Any]:
        """The task's definition with its includes resolved, as it stands in its file. Raises UnknownNameError."""
        manager = self._manager(name)
        return (self.files.config(name) or {}) if name in self.files.paths else task_config(manager, name)

    def _folder(self, name: str) -> Path:
        return self.files.paths[name].parent if name in self.files.paths else Path()

    def _manager(self, name: str) -> Any:
        """That of the task folders if it knows the name, else that of lm-eval's own tasks."""
        self.files.check_named(name)
        if name in self.files.paths:
            return _no_tasks()
        built_in = _built_in_tasks()
        if name in built_in.all_subtasks:
            return built_in
        known = {*self.files.paths, *built_in.all_subtasks}
        if name in self.files.groups or name in built_in.all_groups:  # near names would be of no help
            known = set(self.files.paths)
        hint = (
            "Tasks are lm-eval definitions in tasks/, in --include-path, or built into lm-eval; a group must be named "
            "by its members."
        )
        if lost := [str(file.path) for file in self.files.unreadable if file.task is None]:
            hint += f" Files that cannot be read: {', '.join(lost)}."
        raise UnknownNameError("task", name, known, hint)

    def _build(self, name: str) -> Any:
        manager = self._manager(name)
        config = self._config(name, manager)
        task = self._with_data(name, manager, config)
        decode_once(task)
        read_whole_numbers(task)
        draw_examples_by_item(task)
        self._check_filters(name, task)
        return task

    def _check_metrics(self, name: str, config: dict[str, Any]) -> None:
        """Raises DataError for metrics that are no function and not lm-eval's, which would run what the hub has."""
        metrics, aggregations = metric_names()
        where = f"The task {name!r} ({self.files.paths[name]})"
        for entry in [] if "class" in config else config.get("metric_list") or []:
            metric, aggregation = entry.get("metric"), entry.get("aggregation")
            named = not callable(metric) and not callable(config.get("process_results"))  # which gives them otherwise
            if named and (str(metric) not in metrics or entry.get("hf_evaluate")):
                raise DataError(
                    f"{where} names the metric {str(metric)[:60]!r}, which is none of lm-eval's own. Known: "
                    f"{', '.join(sorted(metrics))}. Another is a !function of the task's Python."
                )
            if aggregation is not None and not callable(aggregation) and str(aggregation) not in aggregations:
                raise DataError(
                    f"{where} names the aggregation {str(aggregation)[:60]!r} for {str(metric)[:60]!r}. Known: "
                    f"{', '.join(sorted(aggregations))}."
                )

    def _check_filters(self, name: str, task: Any) -> None:
        """Raises DataError for a filter of answers that fails, or does not come to an end on some long answers."""
        if task.OUTPUT_TYPE != "generate_until":
            return
        try:
            try_filters(task, _ANSWERS, _FILTER_SECONDS)
        except FilterError as error:
            where = self.files.paths.get(name, "built into lm-eval")
            raise DataError(f"The task {name!r} ({where}) has a filter {error.name!r} that {error}.") from error
        limit_filters(task, _FILTER_SECONDS + len(task.eval_docs) / 10)

    def _config(self, name: str, manager: Any) -> dict[str, Any]:
        """The definition with its includes resolved, and with paths to the data on this machine.

        Of our own reader for task files of the folders: lm-eval's takes 1e-3 for text and no for false.
        """
        definition = self._definition(name) if name in self.files.paths else task_config(manager, name)
        config = {**definition, "task": name}
        if name in self.files.paths:
            self.files.check(name)
            self._check_metrics(name, config)
            config |= self._local_data(name, config)
        if str(config.get("dataset_path")) == "csv":
            config["dataset_kwargs"] = _CSV_WORDS | (config.get("dataset_kwargs") or {})
        if definition and "class" not in config and not config.get("num_fewshot"):
            # lm-eval lists a whole split to draw the prompt's examples from, even where it shows none: millions of
            # rows, or a training split that the local copy of a data set lacks.
            config |= {"fewshot_split": None, "fewshot_config": {"samples": []}}
        return config if self.data_root is None else config | self._below_data_root(name, config)

    def _definition(self, name: str) -> dict[str, Any]:
        """The definition in the task folders, with its functions. Raises DataError for a function that is not there."""
        try:
            return self.files.config(name, function_of) or {}
        except BenchError:
            raise
        except Exception as error:  # of the module that is imported: anything
            raise DataError(
                f"The task {name!r} ({self.files.paths[name]}) names a !function that cannot be had "
                f"({type(error).__name__}: {error})."
            ) from error

    def _local_data(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        """What ``datasets`` is told of files beside the definition: found from there, literally, and as they are now.

        Raises DataError for a path that names nothing, or an empty file.
        """
        file = self.files.paths[name]
        options = dict(config.get("dataset_kwargs") or {})
        if folder := data_set_folder(config, file.parent):
            folder = _plainly_named(folder)
            return {"dataset_path": str(folder), "dataset_kwargs": {**options, "cache_dir": _cache(folder)}}
        if folder := data_dir(config, file.parent):
            options["data_dir"] = glob.escape(str(folder))
            read = files_in(folder)
        if named := data_files(config, file.parent):
            if "/" not in str(config.get("dataset_path")):  # a format; of a data set these may be files in it
                _check_found(name, file, options, named)
            options["data_files"] = _literal(named)
            read = [Path(leaf) for leaf in leaves(named) if is_regular(Path(leaf))]
        elif not folder:
            return {}
        for path in read:
            if path.stat().st_size == 0:
                raise DataError(f"The data file {path} of the task {name!r} is empty.")
            if path.suffix in {".json", ".jsonl"} and (problem := problem_of(path)):
                raise DataError(f"The data file {path} of the task {name!r} {problem}.")
        return {"dataset_kwargs": {"cache_dir": _cache_of(read, file.parent), **options} if read else options}

    def _with_data(self, name: str, manager: Any, config: dict[str, Any]) -> Any:
        """The task of the definition ``config``, its data read. Raises DataError that says why it cannot be built."""
        import datasets

        guard_json()
        datasets.disable_progress_bars()
        datasets.logging.set_verbosity(logging.CRITICAL)  # what it says of a bad file is told once, below
        try:
            return build_task(manager, config)
        except BuildError as error:
            _check_cache(name)
            where = str(self.files.paths.get(name, "built into lm-eval"))
            raise why_not_built(name, where, config, error, fetch_hint(self.study, "--data-root")) from error.__cause__

    def _below_data_root(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        """``dataset_path`` in --data-root. Raises DataError where it is not there, or is of another revision."""
        path, options = self._named_below(config), config.get("dataset_kwargs") or {}
        if path is None:
            return {}
        _, name_of_part = data_path(config)
        folder = self.data_root / path  # type: ignore[operator]
        if not is_folder(folder):
            raise DataError(
                f"The data set {path!r} of the task {name!r} is not below --data-root {self.data_root} "
                f"(looked for {folder}). {fetch_hint(self.study, '--data-root')}"
            )
        check_revision(folder, options.get("revision"), DataError)
        folder, part = configuration(folder, name_of_part)
        folder = _plainly_named(folder)
        return reading(config, str(folder), part, {**options, "cache_dir": _cache(folder)})

    def _named_below(self, config: dict[str, Any]) -> str | None:
        """The ``dataset_path`` of a definition that is looked for below --data-root; None for one that is not."""
        path, _ = data_path(config)
        if not path or Path(path).is_absolute() or config.get("custom_dataset") is not None:
            return None
        if "/" not in path:  # a loader such as json or parquet, or a data set that lies there by just this name
            there = self.data_root is not None and is_folder(self.data_root / path)
            return path if there and "data_files" not in (config.get("dataset_kwargs") or {}) else None
        return path


@cache
def _no_tasks() -> Any:
    """What makes tasks of definitions and has none itself: lm-eval's index of a folder reads files without bounds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=False)


@cache
def _built_in_tasks() -> Any:
    """lm-eval's index of its own tasks: it takes seconds, so it is read when it is needed, and once a process."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=True)


def _check_cache(name: str) -> None:
    """Raises DataError where ``datasets`` cannot write what it has read, which it does not say."""
    from datasets.config import HF_DATASETS_CACHE

    try:
        Path(HF_DATASETS_CACHE).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=HF_DATASETS_CACHE):
            pass
    except OSError as error:
        raise DataError(
            f"The task {name!r} cannot be loaded, since the cache of data sets {HF_DATASETS_CACHE} cannot be written "
            f"({error.strerror}). Set HF_DATASETS_CACHE or HF_HOME to a folder that can."
        ) from None


def _cache(folder: Path) -> str:
    """Where ``datasets`` keeps what it read of ``folder`` as the folder is now.

    It tells local folders apart by their last name and README alone: from one cache it would hand out the rows of
    another data root, or those that the files held before they changed.
    """

    return _cache_of(sorted(path for path in folder.rglob("*") if is_regular(path)), folder)


def _cache_of(files: Iterable[Path], folder: Path) -> str:
    """The same for single ``files``, by their place from ``folder`` on, their size and times.

    ``datasets`` goes by the time of change alone, which a copy may keep.
    """
    from datasets.config import HF_DATASETS_CACHE

    state = hashlib.sha256(str(folder.resolve()).encode())
    for file in files:
        status = file.stat()
        state.update(f"\0{os.path.relpath(file, folder)}\0{status.st_size}\0{status.st_mtime_ns}".encode())
        state.update(f"\0{status.st_ctime_ns}".encode())
    return str(Path(HF_DATASETS_CACHE) / "mosld-bench" / state.hexdigest()[:16])


def _plainly_named(folder: Path) -> Path:
    """``folder``, or where its path has brackets, which ``datasets`` would take for a pattern, a folder of links."""
    if not glob.has_magic(str(folder.absolute())):
        return folder
    links = Path(f"{_cache(folder)}-links") / folder.name.translate(_NO_PATTERN)
    for file in files_in(folder):  # links to files: one to the folder would be followed to where the brackets are
        link = links / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            link.symlink_to(file.absolute())
    return links


def _literal(named: Any) -> Any:
    """The paths of `data_files` as patterns that match nothing but them."""
    if isinstance(named, dict):
        return {split: _literal(paths) for split, paths in named.items()}
    if isinstance(named, list):
        return [_literal(path) for path in named]
    return glob.escape(str(named)) if is_regular(Path(str(named))) else named


def _check_found(name: str, definition: Path, options: dict[str, Any], named: Any) -> None:
    """Raises DataError for a path of ``data_files`` that names no file."""
    lost = [leaf for leaf in leaves(named) if "://" not in leaf and not is_regular(Path(leaf))]
    if lost:
        inside = f", in data_dir {options['data_dir']}" if "data_dir" in options else ""
        raise DataError(
            f"The task {name!r} ({definition}) reads {lost[0]!r} (data_files), but no file is there: looked for from "
            f"the folder of the definition on{inside}, and from {Path.cwd()}. Correct the path or the pattern."
        )


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
