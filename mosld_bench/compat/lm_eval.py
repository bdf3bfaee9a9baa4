"""What is used of lm-eval beyond its documentation: its reader of task files and of the functions that they name, its
templates, its filters."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cache, lru_cache, partial
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal

from mosld_bench.spec.foreign_code import demand, foreign_function
from mosld_bench.time_limit import TookTooLongError, cpu_limit

#: What makes a task's number of the items' values.
Aggregation = Callable[[Sequence[Any]], Any]


def sandbox_templates() -> None:
    """Make lm-eval render templates in the sandbox of `templates`, and keep compiled ones.

    Its own environment lets a template reach Python, and compiles a task's anew for every document: minutes for 20,000.
    """
    from lm_eval import utils

    from mosld_bench.compat.templates import Sandbox

    if not isinstance(utils.env, Sandbox):
        utils.env = Sandbox({"regex_replace": utils.regex_replace})


def metric_names() -> tuple[frozenset[str], frozenset[str]]:
    """The metrics and the aggregations that lm-eval has itself.

    It looks for a metric of any other name in the hub's, and runs the code that it finds.
    """
    import lm_eval.api.metrics  # noqa: F401  # registers them
    from lm_eval.api.registry import aggregation_registry, metric_registry

    return frozenset(metric_registry.keys()), frozenset(aggregation_registry.keys())


class FilterError(ValueError):
    """A filter of a task that cannot be used, by its ``name`` in filter_list; the message says why, as a clause."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


def limit_filters(task: Any, seconds: float) -> None:
    """Make each chain of filters of ``task`` take at most ``seconds`` of a core: TookTooLongError beyond."""
    for chain in getattr(task, "_filters", []):
        chain.apply = partial(_apply_within, seconds, chain.apply)


def _apply_within(seconds: float, apply: Callable[[Any], None], instances: Any) -> None:
    with cpu_limit(seconds):
        apply(instances)


def try_filters(task: Any, answers: Sequence[str], seconds: float) -> None:
    """Send ``answers`` through every chain of filters of ``task``.

    Raises FilterError for a filter that cannot be made of its settings, or takes too long. What it raises otherwise is
    of answers that no model may give.
    """
    doc: Any = next(iter(task.eval_docs), {})
    for chain in getattr(task, "_filters", []):
        try:
            filters = [make() for make in chain.filters]
        except Exception as error:  # whatever its settings lead to
            raise FilterError(chain.name, f"cannot be made ({type(error).__name__}: {error})") from error
        given: Any = [[answer] for answer in answers]
        try:
            with cpu_limit(seconds):
                for one in filters:
                    given = list(one.apply(given, [doc] * len(answers)))
        except TookTooLongError as error:
            raise FilterError(chain.name, str(error)) from error
        except Exception:  # see above
            continue


def task_config(manager: Any, task: str) -> dict[str, Any]:
    """The definition of ``task`` with its includes resolved; empty for one that is no file.

    ``manager``: an lm-eval ``TaskManager`` that knows the task.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    path = manager.task_index[task].yaml_path
    return load_yaml(path, resolve_func=True) if path else {}


def function_of(name: str, folder: Path) -> Any:
    """The function that ``!function name`` means in a task file in ``folder``: of the Python there, or of a module.

    Raises ForeignCodeError where it is foreign code that is not allowed; ImportError, AttributeError or ValueError
    where there is none; and whatever its module raises.
    """
    from lm_eval.tasks._yaml_loader import _import_func_in_yml

    if what := foreign_function(name, folder):
        demand(what)
    return _import_func_in_yml(name, folder.resolve())


class BuildError(Exception):
    """A task that lm-eval did not build, by the ``stage`` that it had come to; the reason is the ``__cause__``.

    ``definition``: nothing was read; ``data``: while the data sets were; ``splits``: while the documents of the splits
    were made of them; ``items``: while the first document was rendered to see what kind of task it is. ``task`` is
    what was built by then, in the last two stages.
    """

    def __init__(self, stage: Literal["definition", "data", "splits", "items"], task: Any = None) -> None:
        super().__init__(stage)
        self.stage, self.task = stage, task


def build_task(manager: Any, config: dict[str, Any]) -> Any:
    """The lm-eval task of the definition ``config``, with its data read. Raises BuildError."""
    try:
        (task,) = manager.load([config])["tasks"].values()
    except Exception as error:
        raise _build_error(error) from error
    return task


def data_path(config: Mapping[str, Any]) -> tuple[str, str | None]:
    """The data set that the definition ``config`` reads and its configuration; a class of Python names its own."""
    made = config.get("class")
    if made is None:
        return str(config.get("dataset_path") or ""), config.get("dataset_name")
    return str(getattr(made, "DATASET_PATH", None) or ""), getattr(made, "DATASET_NAME", None)


def reading(config: Mapping[str, Any], path: str, name: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the task of the definition ``config`` read the data set ``path``, with ``options`` for its loading."""
    made: Any = config.get("class")
    if made is None:
        return {"dataset_path": path, "dataset_name": name, "dataset_kwargs": dict(options)}

    def download(self: Any, dataset_kwargs: dict[str, Any] | None = None, **more: Any) -> None:
        made.download(self, {**(dataset_kwargs or {}), **options}, **more)

    return {"class": type(made.__name__, (made,), {"DATASET_PATH": path, "DATASET_NAME": name, "download": download})}


def _build_error(error: Exception) -> BuildError:
    from lm_eval.api.task import ConfigurableTask

    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    functions = {frame.f_code.co_name for frame in frames}
    for frame in frames:
        if frame.f_code is not ConfigurableTask.__init__.__code__:
            continue
        task = frame.f_locals["self"]
        if "download" in functions:
            return BuildError("data")
        if hasattr(task, "features"):
            _finish(task)
            return BuildError("items", task)
        return BuildError("splits", task) if hasattr(task, "dataset") else BuildError("definition")
    return BuildError("definition")


def _finish(task: Any) -> None:
    """Set what lm-eval has not come to set, by the first document that can be rendered."""
    for doc in task.task_docs:
        try:
            options = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else []
            if isinstance(task.doc_to_text(doc), int):
                task.multiple_input = len(options)
        except TookTooLongError:  # as it will for the others
            return
        except Exception:  # whatever a definition raises; the items are looked at one by one later
            continue
        return


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


def scored_on(task: Any, docs: Sequence[dict[str, Any]]) -> Any:
    """A copy of ``task`` that scores ``docs`` in place of the documents of its test split; ``task`` stays as it is."""
    other = copy(task)
    other.has_test_docs, other.test_docs = lambda: True, lambda: docs
    return other


def draw_examples_by_item(task: Any) -> None:
    """Make the solved examples in a prompt of ``task`` depend on its item alone, and never show the item itself.

    lm-eval draws them from one generator for all items, so that a prompt would depend on which items were rendered
    before it, and on the process. It leaves the item itself out only where the examples come from the test split.
    """
    sampler = getattr(task, "sampler", None)
    if sampler is None or not task.config.num_fewshot:
        return
    make_context, draw = task.fewshot_context, sampler.sample
    item: dict[str, Any] = {}

    def fewshot_context(doc: dict[str, Any], *args: Any, **options: Any) -> Any:
        item["doc"] = doc
        item["seed"] = f"{task.config.task}-{json.dumps(doc, sort_keys=True, default=str)}"
        return make_context(doc, *args, **options)

    def sample(n: int, eval_doc: dict[str, Any] | None = None, **options: Any) -> Any:
        sampler.set_rnd(item["seed"])
        drawn = draw(n=n, eval_doc=eval_doc, **options)
        if all(doc != item["doc"] for doc in drawn):
            return drawn
        sampler.set_rnd(item["seed"])
        return draw(n=n, eval_doc=item["doc"], **options)

    task.fewshot_context, sampler.sample = fewshot_context, sample


def read_whole_numbers(task: Any) -> None:
    """Make ``task`` take 1.0 for the option 1, which lm-eval's scoring raises a TypeError at.

    A column of a CSV that has a gap holds such numbers.
    """
    read = task.doc_to_target

    def doc_to_target(doc: Any, *args: Any, **options: Any) -> Any:
        target = read(doc, *args, **options)
        return int(target) if isinstance(target, float) and target.is_integer() else target

    if task.config.doc_to_choice is not None:
        task.doc_to_target = doc_to_target


def template_value(template: str, doc: Mapping[str, Any]) -> Any:
    """What ``template`` comes to on ``doc`` before it becomes text: of ``{{expression}}`` the value, else the text."""
    from lm_eval.utils import apply_template, env

    inner = template.strip()
    if inner.startswith("{{") and inner.endswith("}}") and not {"{{", "}}", "{%"} & _marks(inner[2:-2]):
        return _expression(env, inner[2:-2].strip("-+ "))(**doc)
    return apply_template(template, dict(doc))


def _marks(text: str) -> set[str]:
    return {mark for mark in ("{{", "}}", "{%") if mark in text}


@lru_cache(maxsize=1024)
def _expression(env: Any, source: str) -> Callable[..., Any]:
    compiled: Callable[..., Any] = env.compile_expression(source, undefined_to_none=False)
    return compiled


def document_hash(doc: Any) -> str:
    """lm-eval's hash of an item, as a scored one notes it (``doc_hash``)."""
    from lm_eval.utils import handle_non_serializable, hash_string

    text = json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return str(hash_string(text))


def filter_names(task: Any) -> list[str]:
    """The names of the filters that a task's answers go through, ``none`` where it has none."""
    return [answers.name for answers in getattr(task, "_filters", [])] or ["none"]


@contextmanager
def without_bars() -> Iterator[None]:
    """Have lm-eval draw no bar for every task whose requests it makes: a run has a display of its own."""
    from lm_eval.api import task

    drawn = task.tqdm
    task.tqdm = lambda docs, **options: docs
    try:
        yield
    finally:
        task.tqdm = drawn


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
