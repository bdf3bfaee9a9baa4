"""Why lm-eval could not build a task, in one sentence: what is wrong, where, and what to do about it."""

from __future__ import annotations

import errno
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mosld_bench.compat.lm_eval import BuildError
from mosld_bench.errors import DataError
from mosld_bench.inputs.hub import chain, in_words, why_nothing_came
from mosld_bench.time_limit import TookTooLongError

_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def why_not_built(name: str, where: str, config: dict[str, Any], error: BuildError, fetch: str) -> DataError:
    """The error to raise for the task ``name``. ``where``: its file; ``fetch``: how to get data that is missing."""
    task = f"The task {name!r} ({where})"
    cause = error.__cause__
    assert isinstance(cause, Exception)
    match error.stage:
        case "data":
            return DataError(_of_data(name, task, config, cause, fetch))
        case "splits":
            return DataError(_of_splits(task, error.task, cause))
        case "items":
            return DataError(_of_items(task, error.task, cause))
    return DataError(_of_definition(task, cause))


def _of_definition(task: str, error: Exception) -> str:
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown and "TaskConfig" in str(error):
        from dataclasses import fields

        from lm_eval.config.task import TaskConfig

        near = get_close_matches(unknown[1], [field.name for field in fields(TaskConfig)], n=2)
        guess = f" Did you mean {' or '.join(near)}?" if near else ""
        return f"{task} has the key {unknown[1]!r}, which lm-eval does not know.{guess}"
    return f"{task} cannot be used: lm-eval does not take its definition ({in_words(error)})."


def _of_data(name: str, task: str, config: dict[str, Any], error: Exception, fetch: str) -> str:
    from datasets.config import HF_DATASETS_CACHE
    from datasets.table import CastError

    for cause in chain(error):
        if isinstance(cause, OSError) and cause.errno in _NOT_WRITABLE:
            what = "is full" if cause.errno in _FULL else "cannot be written or read"
            return (
                f"The data of the task {name!r} cannot be kept: {cause.filename or HF_DATASETS_CACHE} {what} "
                f"({cause.strerror}). Let the environment variable HF_HOME or HF_DATASETS_CACHE name another folder."
            )
    if callable(config.get("custom_dataset")):
        return f"{task} makes its own data (custom_dataset), which failed with {in_words(error)}."
    here = Path(str(config.get("dataset_path"))).is_dir()
    if not here and any(_is_unreachable(cause) for cause in chain(error)):
        of_which = f"of {config['dataset_path']}, " if config.get("dataset_path") else ""
        return f"The data of the task {name!r} cannot be reached: {of_which}{why_nothing_came(error)}. {fetch}"
    if isinstance(error, StopIteration):
        return f"The data of the task {name!r} is empty; there is nothing to train on or score."
    *_, root = chain(error)
    if isinstance(root, CastError):
        unlike = sorted(set(root.table_column_names) ^ set(root.requested_column_names))
        return (
            f"{task} reads files with unlike columns or kinds of value ({', '.join(unlike) or 'of one name'}), which "
            f"must be the same in all files of all splits."
        )
    options = ", ".join(f"{key} {config[key]!r}" for key in ("dataset_path", "dataset_name") if config.get(key))
    return f"{task} has data that cannot be read ({options}): {in_words(root)}."


def _is_unreachable(error: BaseException) -> bool:
    """Whether ``error`` says that a data set is not on this machine and cannot be had from elsewhere."""
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    gone = (DataFilesNotFoundError, DatasetNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled)
    of_network = type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3", "aiohttp"))
    return of_network or isinstance(error, (*gone, ConnectionError, TimeoutError))


def _of_splits(task: str, built: Any, error: Exception) -> str:
    config, splits = built.config, built.dataset
    named = {key: getattr(config, key) for key in ("training_split", "validation_split", "test_split")}
    if isinstance(splits, dict):
        lost = {key: split for key, split in named.items() if split is not None and split not in splits}
        if lost and isinstance(error, KeyError):
            key, split = next(iter(lost.items()))
            return f"{task} names the split {split!r} ({key}), but its data has only {' and '.join(splits)}."
    if not built.has_test_docs() and not built.has_validation_docs():
        return f"{task} names no test_split and no validation_split, so there is nothing to score it on."
    if isinstance(error, AttributeError) and "features" in str(error):
        return (
            f"{task} has a process_docs that returns a {type(built.task_docs).__name__}; lm-eval needs a Dataset, as "
            f"Dataset.map and Dataset.filter return it."
        )
    if config.process_docs is not None:
        return f"{task} has a process_docs that failed with {in_words(error)}."
    return f"{task} cannot be used: {in_words(error)}."


def _of_items(task: str, built: Any, error: Exception) -> str:
    if isinstance(error, TookTooLongError):
        return f"{task} cannot be used: a template of one item {error}. Look for a loop or a pattern without an end."
    if len(built.task_docs) == 0:
        split = built.config.test_split or built.config.validation_split
        return f"{task} has no item to score: its split {split!r} is empty."
    from mosld_bench.inputs.audit import problems_of_scored

    problems = [problem.sentence for problem in problems_of_scored(built) if problem.refused]
    return "\n  ".join([f"{task} has items that cannot be used.", *(problems or [f"The first: {in_words(error)}."])])
