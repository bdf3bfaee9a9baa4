"""What is used of lm-eval beyond its documentation: its reader of task files and of the functions that they name, its
templates, its filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any


def compile_templates_once() -> None:
    """Make lm-eval keep compiled templates. It compiles a task's anew for every document: minutes for 20,000."""
    from lm_eval.utils import env

    if not hasattr(env.from_string, "cache_info"):
        env.from_string = lru_cache(maxsize=1024)(env.from_string)


def task_config(manager: Any, task: str) -> dict[str, Any]:
    """The definition of ``task`` with its includes resolved; empty for one that is no file.

    ``manager``: an lm-eval ``TaskManager`` that knows the task.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    path = manager.task_index[task].yaml_path
    return load_yaml(path, resolve_func=True) if path else {}


def function_of(name: str, folder: Path) -> Any:
    """The function that ``!function name`` means in a task file in ``folder``: of the Python there, or of a module.

    Raises ImportError, AttributeError or ValueError where there is none; and whatever its module raises.
    """
    from lm_eval.tasks._yaml_loader import _import_func_in_yml

    return _import_func_in_yml(name, folder.resolve())


def decode_once(task: Any) -> None:
    """Make ``task`` keep its documents: ``datasets`` decodes a row whenever it is asked for, and lm-eval asks for all
    of them five times a trial.
    """
    splits = {"test_docs": task.has_test_docs(), "validation_docs": task.has_validation_docs()}
    for name, is_there in splits.items():
        if is_there:
            setattr(task, name, cache(partial(_rows, getattr(task, name))))


def _rows(docs: Callable[[], Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    return list(docs())


def filter_names(task: Any) -> list[str]:
    """The names of the filters that a task's answers go through, ``none`` where it has none."""
    return [answers.name for answers in getattr(task, "_filters", [])] or ["none"]
