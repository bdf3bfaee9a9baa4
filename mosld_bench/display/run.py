"""What a run says before its first trial and after its last one."""

from __future__ import annotations

from collections.abc import Iterable

from mosld_bench.display.plan import left_out_sentences
from mosld_bench.format import counted, listed
from mosld_bench.records.record import Record
from mosld_bench.records.store import Store
from mosld_bench.scheduling.plan import Plan
from mosld_bench.scheduling.reuse import Missing


def run_sentences(plan: Plan, todo: Missing) -> list[str]:
    """How many trials of a plan there are, have a record and are to run, and what is left out or made again."""
    recorded = len(plan.planned) - len(todo.planned)
    taken = "".join(f", {count} of them taken from {study}" for study, count in todo.taken.items())
    counts = f"{plan.study.name}: {len(plan.planned)} trials, {recorded} recorded{taken}, {len(todo.planned)} to run"
    sentences = [counts, *left_out_sentences(plan)]
    if todo.outdated:
        first, made_by = next(iter(todo.outdated.items()))
        others = f"; with it {listed(list(todo.outdated)[1:])}" if len(todo.outdated) > 1 else ""
        again = counted(len(todo.outdated), "trial")
        sentences.append(f"{again} of them again: the record {first} was made by {made_by}{others}")
    return sentences


def without_adapter_sentences(plan: Plan, todo: Missing, store: Store) -> list[str]:
    """Where --save-adapters comes too late: a trial that has a record is not trained again for it."""
    running = {trial.id for trial, _ in todo.planned}
    recorded = [trial for trial, _ in plan.planned if trial.id not in running and trial.train_on]
    without = [trial.id for trial in recorded if not store.has_adapter(trial)]
    if not without:
        return []
    return [
        f"--save-adapters: {counted(len(without), 'recorded trial')} left no adapter, the first {without[0]}. "
        "--overwrite always trains them again, to the same numbers."
    ]


def failure_sentences(failed: Iterable[Record], store: Store) -> list[str]:
    """Where the whole error of each failed trial is."""
    return [f"failed: {record.trial_id}; the whole error is in {store.failure_file(record.trial)}" for record in failed]
