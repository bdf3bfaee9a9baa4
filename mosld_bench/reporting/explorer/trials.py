"""The trials behind the rows: their whole configuration, the commands that repeat them, and those that failed."""

from __future__ import annotations

import shlex
from itertools import pairwise
from typing import Any

from mosld_bench.records.record import Record
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.explorer.plain import Exact
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial

#: Numbers of all trials together; where they are more, a page has those of its rows alone: it has to be opened.
_MOST_METRICS = 60_000

#: Options of `run` that say which trials, with a value each; those of one trial take their place.
_WHICH = frozenset({"--methods", "--budget", "--seeds", "--settings", "--overwrite"})


def records(analysis: Analysis, places: Places) -> list[dict[str, Any]]:
    """The key ``records``."""
    rows = {record.trial_id: places.rows[row.key] for row in analysis.rows for record in row.records}
    with_metrics = sum(len(record.metrics) for record in analysis.records) <= _MOST_METRICS
    return [_record(analysis, record, rows[record.trial_id], with_metrics) for record in analysis.records]


def _record(analysis: Analysis, record: Record, row: int, with_metrics: bool) -> dict[str, Any]:
    trial, meta = record.trial, record.meta_info
    documents = {"document_tokens", "document_nats"}  # of a held-out text: a thousand numbers that nobody looks up
    train, scoring = record.train_info, record.eval_info
    return {
        "trial": record.trial_id,
        "row": row,
        "seed": trial.seed,
        "trained_on": trial.train_on,
        "started": meta.get("started"),
        "seconds": meta.get("seconds"),
        "commit": meta.get("commit"),
        "dirty": meta.get("dirty"),
        "taken_from": meta.get("taken_from"),
        "outdated": record.trial_id in analysis.outdated,
        "command": meta.get("command"),
        "repeat": repeat(trial, analysis.study, command=meta.get("command"), commit=meta.get("commit")),
        "config": Exact(trial.model_dump(mode="json")),
        "size": Exact(record.size.model_dump(mode="json")) if record.size else None,
        "train": train.model_dump(mode="json", exclude={"curve"}) if train else None,
        "evaluation": scoring.model_dump(mode="json", exclude={"text": documents}) if scoring else None,
        "peak_memory_bytes": record.peak_memory_bytes,
        "metrics": [
            {
                "task": metric.task,
                "metric": metric.metric,
                "value": metric.value,
                "stderr": metric.stderr,
                "items": metric.items,
                "chance": metric.chance,
                "primary": metric.primary,
            }
            for metric in (record.metrics if with_metrics else ())
        ],
        "meta": meta,
    }


def repeat(trial: Trial, study: Study, *, command: Any = None, commit: Any = None) -> list[str]:
    """The commands that make a trial again: its commit, and the command that made it, narrowed to this trial.

    Of the setting ``single`` with those of the same seed on the other tasks, since `run` has no option for one of
    them. Where no command of ours is recorded it is that of the whole study.
    """
    words = _run_of(command) or ["mosld-bench", "run", study.name]
    which = ["--methods", trial.recipe.name, "--seeds", str(trial.seed)]
    if trial.setting in {"mixture", "single"}:
        which += ["--settings", trial.setting]
    if trial.setting != "frozen":
        which += ["--budget", trial.budget]
    given = {word.partition("=")[0] for option, word in pairwise(words) if option == "--set"}
    amounts = {
        "rates": f"[{trial.rate}]" if trial.rate != "chosen" else "",
        "general.items": f"[{trial.general.items if trial.general else 0}]" if study.general else "",
        "task_items": f"[{trial.train.task_items}]" if trial.sweeps_items and trial.train else "",
    }
    for key, value in amounts.items():
        if value and key not in given:
            which += ["--set", f"{key}={value}"]
    checkout = [f"git checkout {commit[:12]}"] if isinstance(commit, str) else []
    return [*checkout, shlex.join([*words, *which, "--overwrite", "always"])]


def _run_of(command: Any) -> list[str]:
    """A recorded command of ours without the options that say which trials it runs; empty of any other."""
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        return []
    if "run" not in words[1:4]:
        return []
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in _WHICH:
            skip = True
        elif word.partition("=")[0] not in _WHICH:
            kept.append(word)
    return kept


def failures(analysis: Analysis, places: Places) -> list[dict[str, Any]]:
    """The key ``failures``."""
    return [
        {
            **_asked(trial, places),
            "error": error,
            "traceback": analysis.tracebacks.get(trial.id) or None,
            "repeat": repeat(trial, analysis.study),
        }
        for trial, error in analysis.failures
    ]


def missing(analysis: Analysis, places: Places) -> list[dict[str, Any]]:
    """The key ``missing``."""
    return [_asked(trial, places) for trial in analysis.missing]


def _asked(trial: Trial, places: Places) -> dict[str, Any]:
    return {
        "trial": trial.id,
        "recipe": places.recipes.get(trial.recipe.name),
        "title": trial.recipe.title,
        "setting": trial.setting,
        "budget": trial.budget,
        "budget_label": trial.budget.label,
        "model": trial.model.name,
        "seed": trial.seed,
        "trained_on": trial.train_on,
    }
