"""Which of a study's records a report counts: those of the trials that it is asked for, of one size a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mosld_bench.errors import BenchError
from mosld_bench.records.record import Record
from mosld_bench.records.store import Sources
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial, canonical


class Failure(NamedTuple):
    """A planned trial that has no record since it failed, and the end of its error."""

    trial: Trial
    error: str


@dataclass(frozen=True)
class Selection:
    """The records that count, in the order of the plan, and what of the plan and of the other records there is.

    ``missing`` are the planned trials without a record, ``failures`` those of them that were run. Left out are the
    number of records ``other_protocol`` (made under another one than the plan's), ``superseded`` (of an earlier
    version of a planned recipe, or of another size than its budget comes to now) and ``unasked`` (of the plan's
    protocol, and not planned).
    """

    records: tuple[Record, ...]
    missing: tuple[Trial, ...]
    failures: tuple[Failure, ...]
    other_protocol: int
    superseded: int
    unasked: int


def select(study: Study, trials: Sequence[Trial], sources: Sources) -> Selection:
    """Choose the records that count: those of the planned ``trials``, and no others.

    A row that nobody asked for would enter the corrections for the number of rows, the means and the figures.

    Raises BenchError where there is none.
    """
    planned = {trial.id: place for place, trial in enumerate(trials)}
    protocols = {trial.protocol for trial in trials}
    definitions: dict[str, set[str]] = {}  # several where a recipe is planned at several learning rates
    for trial in trials:
        definitions.setdefault(trial.recipe.name, set()).add(_definition(trial.recipe))
    of_plan = sorted((r for r in sources.records if r.trial_id in planned), key=lambda r: planned[r.trial_id])
    records = _of_latest_size(of_plan)
    if not records:
        raise BenchError(_nothing_to_report(study, len(sources.records)))
    others = [r for r in sources.records if r.trial_id not in planned and r.trial.protocol in protocols]
    former = [r for r in others if r.trial.recipe.name in definitions]
    former = [r for r in former if _definition(r.trial.recipe) not in definitions[r.trial.recipe.name]]
    present = {record.trial_id for record in records}
    missing = tuple(trial for trial in trials if trial.id not in present)
    return Selection(
        records=tuple(records),
        missing=missing,
        failures=tuple(Failure(t, sources.failures[t.id]) for t in missing if t.id in sources.failures),
        other_protocol=len(sources.records) - len(of_plan) - len(others),
        superseded=len(of_plan) - len(records) + len(former),
        unasked=len(others) - len(former),
    )


def _nothing_to_report(study: Study, records: int) -> str:
    advice = "run"
    if records:
        advice = (
            f"there are {records} of other conditions. Give the options of the run that made them (--steps, "
            "--model, --set, ...), or run"
        )
    return (
        f"There is no finished trial of the study {study.name!r} as it is asked for; {advice} "
        f"`mosld-bench run {study.name}` first."
    )


def _of_latest_size(records: Sequence[Record]) -> list[Record]:
    """Of every block the records of its latest target: a budget may be named after a recipe that was changed since."""
    latest = sorted(records, key=lambda r: (str(r.meta_info.get("started", "")), r.trial_id))
    targets = {(r.trial.condition, r.trial.model): r.size.target for r in latest if r.size and r.size.target}
    return [
        r
        for r in records
        if not (r.size and r.size.target) or targets[r.trial.condition, r.trial.model] == r.size.target
    ]


def _definition(recipe: Recipe) -> str:
    """Text that is the same for recipes that mean the same."""
    return canonical(recipe.identity)
