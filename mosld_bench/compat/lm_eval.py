"""What is used of lm-eval beyond its documentation: its reader of task files, its templates, its filters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import Any

#: What makes a task's number of the items' values.
Aggregation = Callable[[Sequence[Any]], Any]


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


@contextmanager
def aggregations_of(task: Any, wrapped: Callable[[str, Aggregation], Aggregation]) -> Iterator[None]:
    """While it lasts, lm-eval takes each aggregation of ``task`` as ``wrapped(metric, aggregation)`` gives it.

    That of a metric which has none is the mean, as lm-eval has it.
    """
    original = task.aggregation
    task.aggregation = lambda: _Wrapped(original(), wrapped)
    try:
        yield
    finally:
        del task.aggregation


class _Wrapped(dict[str, Aggregation]):
    def __init__(self, aggregations: dict[str, Aggregation], wrapped: Callable[[str, Aggregation], Aggregation]):
        super().__init__({metric: wrapped(metric, function) for metric, function in aggregations.items()})
        self._wrapped = wrapped

    def __missing__(self, metric: str) -> Aggregation:
        from lm_eval.api.metrics import mean

        return self._wrapped(metric, mean)


def standard_error(aggregation: Aggregation | None, values: Sequence[Any], *, draws: int) -> float | None:
    """lm-eval's standard error of a task's number over its items' ``values``; None where it knows none.

    ``aggregation`` is None of a metric without one, of which lm-eval takes the mean. ``draws``: at most 1,000, of a
    bootstrap; 100 where each is slow, which lm-eval does for metrics of whole texts, but not for classes, where 1,000
    take longer than the model. lm-eval's own bootstrap starts a process a core, which all print, and of which one is
    used for so few draws; the numbers are the same.
    """
    from lm_eval.api import metrics

    aggregation = aggregation or metrics.mean
    known = metrics.stderr_for_metric(aggregation, draws)
    if known is None or len(values) < 2:
        return None
    if known in (metrics.mean_stderr, metrics.acc_all_stderr):
        return float(known(values))
    slow = (
        metrics.matthews_corrcoef, metrics.f1_score, metrics.bleu, metrics.chrf, metrics.chrfpp, metrics.ter
    )  # fmt: skip
    draws = min(draws, 100) if aggregation in slow else draws
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a drawn sample has one class only
        drawn = metrics._bootstrap_internal(aggregation, draws)((0, values))
    return float(metrics.sample_stddev(drawn))
