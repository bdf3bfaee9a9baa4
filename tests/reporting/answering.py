"""Studies made up for what their report answers: scores by hand, with items behind them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mosld_bench.records.record import Record
from mosld_bench.reporting.analysis import Analysis, Verdict
from mosld_bench.reporting.document import Answer
from mosld_bench.reporting.sections.summary import summary
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial
from tests.reporting.reading import TASKS, analysis_of
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials, write_records

#: Recipe -> the scores of its seeds, on every task alike, or task -> these.
Scores = Mapping[str, Sequence[float] | Mapping[str, Sequence[float]]]


def analysis_from(
    root: Path,
    scores: Scores,
    *,
    items: bool = True,
    acc_norm: bool = False,
    recipes: Iterable[Recipe] = (),
    tasks: Mapping[str, Mapping[str, Any]] = TASKS,
    **changes: Any,
) -> Analysis:
    """The analysis of a study of tasks a and b, with c out of domain, in which each recipe has the ``scores``.

    A seed without a score has no trial. ``recipes``: others than those of `synthetic`; ``items``: whether they are at
    hand; ``acc_norm``: whether that is measured too, as the same of all; ``changes``: fields of the study.
    """
    study = make_study(**{"in_domain": ("a", "b"), "out_of_domain": ("c",), "reference": "lora", **changes})
    named = RECIPES | {recipe.name: recipe for recipe in recipes}
    records = []
    for trial in make_trials(study, [named[name] for name in scores]):
        if (values := _values(trial, scores[trial.recipe.name])) is not None:
            record = make_record(trial, study, values=values)
            metrics = tuple(metric for metric in record.metrics if metric.primary or acc_norm)
            records.append(record.model_copy(update={"metrics": metrics}))
    return analysis_from_records(root, study, records, items=items, tasks=tasks)


def _values(trial: Trial, scores: Sequence[float] | Mapping[str, Sequence[float]]) -> dict[str, float] | None:
    by_task = scores if isinstance(scores, Mapping) else dict.fromkeys(trial.scored_on, scores)
    if any(trial.seed >= len(by_task[task]) for task in trial.scored_on):
        return None
    return {task: by_task[task][trial.seed] for task in trial.scored_on}


def analysis_from_records(
    root: Path,
    study: Study,
    records: Sequence[Record],
    *,
    items: bool = True,
    tasks: Mapping[str, Mapping[str, Any]] = TASKS,
) -> Analysis:
    """The analysis of these records, in a study that planned no other trial."""
    write_records(root, records, items=items)
    return analysis_of(root, study, [record.trial for record in records], tasks)


def answered(analysis: Analysis) -> dict[str, str]:
    """Question -> answer, as the report opens with them."""
    answers = (part for part in summary(analysis) if isinstance(part, Answer))
    return {answer.question: "".join(run.text for run in answer.runs) for answer in answers}


def opening(analysis: Analysis) -> str:
    """Everything that a report opens with, in one line."""
    parts = [part if isinstance(part, str) else f"{part.question} {part.runs[0].text}" for part in summary(analysis)]
    return " ".join(parts)


def claims(text: str, rows: Iterable[str], other: str) -> dict[str, list[Verdict]]:
    """Title -> what the clauses of ``text`` say of each of the ``rows`` beside ``other``.

    An independent reading: the words of a clause give the verdict, the titles in it the rows. Clauses on how rows were
    trained and tested say nothing of the kind.
    """
    found: dict[str, list[Verdict]] = {row: [] for row in rows}
    for clause in re.split(r"[;.] |\.$", text):
        if (verdict := _verdict(clause)) is None or "every other row" in clause:
            continue
        subject = clause.replace(f"{other}'s", "").replace(f"than {other}", "").replace(f"from {other}", "")
        whole = re.match(r"(In-domain |Out of domain |On \S+ )?(all|both|none|neither)\b", clause, re.IGNORECASE)
        for row in found:
            if whole or (row != other and re.search(rf"(?<![\w-]){re.escape(row)}(?![\w-])", subject)):
                found[row].append(verdict)
    return found


def _verdict(clause: str) -> Verdict | None:
    words = {
        "told apart": Verdict.OPEN,
        "equal": Verdict.EQUAL,
        "better": Verdict.BETTER,
        "higher": Verdict.BETTER,
        "gain": Verdict.BETTER,
        "worse": Verdict.WORSE,
        "lower than": Verdict.WORSE,
        "lose": Verdict.WORSE,
        "trained models differ": Verdict.UNTESTED,
        "on every item": Verdict.UNTESTED,
    }
    return next((verdict for word, verdict in words.items() if word in clause), None)
