"""Studies made of given answers: what each row scored on each item of each task, as records and items would have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from mosld_bench.records.record import Record
from mosld_bench.records.store import Sources
from mosld_bench.reporting.analysis import Analysis, analyse
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition, Trial
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials, task_configs

#: Of a row, task -> seeds × items. Rows may have fewer seeds than others: those of its lines.
Scores: TypeAlias = Mapping[str, npt.NDArray[Any]]
BLOCK = Condition("mixture", Budget.parse("60000"))  # of all rows


def named(name: str) -> Recipe:
    """The recipe of that name; of another, the twin of MoLA under it."""
    return RECIPES.get(name) or RECIPES["mola"].model_copy(update={"name": name, "title": name.capitalize()})


def analysis_of_answers(
    rows: Mapping[str, Scores],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    outside: Sequence[str] = (),
    **changes: Any,
) -> Analysis:
    """The analysis of ``rows`` (recipe -> its answers); the first one is the reference.

    ``groups``: task -> the passage of each item. ``outside``: the tasks that are out of domain. ``changes`` are fields
    of the study.
    """
    tasks = tuple(next(iter(rows.values())))
    seeds = {name: len(next(iter(scores.values()))) for name, scores in rows.items()}
    study = make_study(
        recipes=tuple(rows),
        reference=next(iter(rows)),
        in_domain=tuple(task for task in tasks if task not in outside),
        out_of_domain=tuple(outside),
        **{"seeds": tuple(range(max(seeds.values()))), **changes},
    )
    trials = [t for t in _trials(study, tuple(rows)) if t.setting == "frozen" or t.seed < seeds[t.recipe.name]]
    answers = {trial.id: {task: rows[trial.recipe.name][task][trial.seed] for task in tasks} for trial in trials}
    records = tuple(scored(trial, study, answers[trial.id]) for trial in trials)
    frames = {trial_id: items_frame(of_trial, groups or {}) for trial_id, of_trial in answers.items()}
    sources = Sources(records, task_configs(tasks), items=lambda trial: frames.get(trial.id))
    return analyse(study, trials, sources)


@lru_cache(maxsize=8)
def _planned(key: str, names: tuple[str, ...]) -> tuple[Trial, ...]:
    return tuple(make_trials(Study.model_validate_json(key), [named(name) for name in names]))


def _trials(study: Study, names: tuple[str, ...]) -> tuple[Trial, ...]:
    """The plan, made once for many studies of one design."""
    return _planned(study.model_dump_json(), names)


def scored(trial: Trial, study: Study, answers: Mapping[str, npt.NDArray[Any]]) -> Record:
    """A record of the trial, whose primary metric is the mean over these answers."""
    record = _blank(trial, study)
    metrics = tuple(
        metric.model_copy(update={"value": float(answers[metric.task].mean()), "items": len(answers[metric.task])})
        for metric in record.metrics
        if metric.primary
    )
    return record.model_copy(update={"metrics": metrics})


_BLANK: dict[str, Record] = {}


def _blank(trial: Trial, study: Study) -> Record:
    if trial.id not in _BLANK:
        _BLANK[trial.id] = make_record(trial, study)
    return _BLANK[trial.id]


def items_frame(answers: Mapping[str, npt.NDArray[Any]], groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The columns of items that tests read, of one trial."""
    scores = np.concatenate([*answers.values()]).astype(float)
    return pd.DataFrame(
        {
            "task": np.repeat([*answers], [len(of_task) for of_task in answers.values()]),
            "doc": np.concatenate([np.arange(len(of_task)) for of_task in answers.values()]),
            "group": [group for task, of_task in answers.items() for group in groups.get(task, [None] * len(of_task))],
            "score": scores,
            "acc,none": scores,
        }
    )
