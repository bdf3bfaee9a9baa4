"""Which of a study's records a report counts: one record a cell, one definition a recipe, one size a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mosld_bench.errors import BenchError
from mosld_bench.records.record import Record
from mosld_bench.records.store import Sources
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition, Trial, canonical


class Failure(NamedTuple):
    """A planned trial that has no record since it failed, and the end of its error."""

    trial: Trial
    error: str


@dataclass(frozen=True)
class Selection:
    """The records that count, in the order of the plan, and what of the plan and of the other records there is.

    ``missing`` are the planned trials without a record, ``failures`` those of them that were run. Left out are the
    number of records ``other_protocol`` (made under another one than the plan's) and ``superseded`` (of an earlier
    version of a recipe, or of a cell that was run again).
    """

    records: tuple[Record, ...]
    missing: tuple[Trial, ...]
    failures: tuple[Failure, ...]
    other_protocol: int
    superseded: int


def select(study: Study, trials: Sequence[Trial], sources: Sources) -> Selection:
    """Choose the records that count. Raises BenchError where none does."""
    planned = {trial.id: trial for trial in trials}
    protocols = {trial.protocol for trial in trials}
    comparable = [r for r in sources.records if r.trial_id in planned or r.trial.protocol in protocols]
    records = _current(comparable, planned)
    if not records:
        raise BenchError(_nothing_to_report(study, len(sources.records)))
    present = {record.trial_id for record in records}
    missing = tuple(trial for trial in trials if trial.id not in present)
    return Selection(
        records=tuple(records),
        missing=missing,
        failures=tuple(Failure(t, sources.failures[t.id]) for t in missing if t.id in sources.failures),
        other_protocol=len(sources.records) - len(comparable),
        superseded=len(comparable) - len(records),
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


class _Cell(NamedTuple):
    """What a report has one record of."""

    recipe: str
    condition: Condition
    seed: int
    train_on: tuple[str, ...]


def _current(records: Sequence[Record], planned: Mapping[str, Trial]) -> list[Record]:
    """One record a cell and one definition a recipe: the plan's, else that of the latest record.

    A recipe that was changed since has older records under its name; they say nothing about it as it is now.
    """
    latest = sorted(records, key=lambda r: (r.trial_id in planned, str(r.meta_info.get("started", "")), r.trial_id))
    current = {record.trial.recipe.name: _definition(record.trial.recipe) for record in latest}
    current |= {trial.recipe.name: _definition(trial.recipe) for trial in planned.values()}
    cells = {
        _Cell(trial.recipe.name, trial.condition, trial.seed, trial.train_on): record
        for record in latest
        for trial in [record.trial]
        if _definition(trial.recipe) == current[trial.recipe.name]
    }
    # A budget may be named after a recipe that was changed since: of a block, the latest target counts.
    targets = {(r.trial.condition, r.trial.model): r.size.target for r in cells.values() if r.size and r.size.target}
    counting = [
        r
        for r in cells.values()
        if not (r.size and r.size.target) or targets[r.trial.condition, r.trial.model] == r.size.target
    ]
    place = {trial: i for i, trial in enumerate(planned)}
    return sorted(counting, key=lambda r: (place.get(r.trial_id, len(place)), r.trial.recipe.order, r.trial_id))


def _definition(recipe: Recipe) -> str:
    """Text that is the same for recipes that mean the same."""
    return canonical(recipe.identity)
