"""Which trials are run: not those with a record, nor those of which another study has one.

A record counts where it was made from the weights that are there now; rows of different weights are not comparable.
One that other code of its method made is made again: it is no record of the method that the recipe names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mosld_bench.errors import BenchError
from mosld_bench.methods import registry
from mosld_bench.records.method_code import differing_code
from mosld_bench.records.store import Store
from mosld_bench.spec.trial import PlannedTrial, Trial

Weights = Mapping[str, str]
"""Where weights are from (`inputs.models.weights_source`): source, revision, and sha256 where it is known."""


class Missing(NamedTuple):
    """What of a plan is left to run."""

    planned: list[PlannedTrial]
    """The trials to run, in the plan's order."""
    taken: Mapping[str, int]
    """Other study -> how many of its records were taken over."""
    outdated: Mapping[str, str] = {}
    """Trial of `planned` whose record is made again -> what made it, as the end of a sentence."""


def missing(
    planned: Sequence[PlannedTrial], store: Store, *, overwrite: str, weights: Mapping[str, Weights]
) -> Missing:
    """What of ``planned`` is to be run; with ``overwrite`` only-missing, records of other studies are taken over first.

    ``weights``: model -> where the weights are from that trials start from now.

    Raises BenchError where ``overwrite`` is never and there is a record, or a record was made from other weights.
    """
    if overwrite == "always":
        return Missing(list(planned), {})
    left, outdated = unrecorded(planned, store, weights)
    if overwrite == "only-missing":
        missing_here = take_over(left, store, weights)
        again = {trial.id: outdated[trial.id] for trial, _ in missing_here.planned if trial.id in outdated}
        return missing_here._replace(outdated=again)
    left = [member for member in left if member.trial.id not in outdated]
    if len(left) < len(planned):
        todo = {trial.id for trial, _ in left}
        first = next(trial.id for trial, _ in planned if trial.id not in todo)
        raise BenchError(
            f"--overwrite never, but {len(planned) - len(left)} of {len(planned)} trials have a record below "
            f"{store.results}, the first {first}. Use --overwrite only-missing to run the others."
        )
    return Missing(left, {})


class Unrecorded(NamedTuple):
    """Trials without a record that counts."""

    planned: list[PlannedTrial]
    outdated: dict[str, str]  # trial with a record of other code -> what made it, as the end of a sentence


def unrecorded(planned: Sequence[PlannedTrial], store: Store, weights: Mapping[str, Weights]) -> Unrecorded:
    """Those of ``planned`` without a record of the planned size and of the code that is here.

    Raises BenchError for a record of other weights.
    """
    left, outdated = [], {}
    for member in planned:
        meta = store.finished(member)
        if meta is None:
            left.append(member)
            continue
        _check_weights(member.trial, meta.get("weights"), weights.get(member.trial.model.name))
        if difference := _other_code(member, meta):
            left.append(member)
            outdated[member.trial.id] = difference
    return Unrecorded(left, outdated)


def _other_code(member: PlannedTrial, meta: Mapping[str, Any]) -> str | None:
    """What made a record with this ``meta_info``, if not the code that would make it now."""
    trial, fit = member
    return differing_code(meta.get("method"), registry.code_of(trial.recipe, fit.params, trial.train))


def take_over(planned: Sequence[PlannedTrial], store: Store, weights: Mapping[str, Weights]) -> Missing:
    """Copy the records that other studies have of ``planned``, of the same weights and code. Returns what is left."""
    left: list[PlannedTrial] = []
    taken: Counter[str] = Counter()
    folders = store.by_name()
    for member in planned:
        trial = member.trial
        for record in store.elsewhere(member, folders):
            same_weights = differing(record.meta_info.get("weights"), weights.get(trial.model.name)) is None
            if same_weights and _other_code(member, record.meta_info) is None:
                store.take(trial, record)
                taken[record.trial.study] += 1
                break
        else:
            left.append(member)
    return Missing(left, taken)


def differing(then: Weights | None, now: Weights | None) -> tuple[str, str] | None:
    """Both in words, where they are not the same weights; None where they are, or where one is not known.

    They are compared by their SHA-256 where both have one, else by source and revision.
    """
    if not then or not now:
        return None
    keys = ("sha256",) if "sha256" in then and "sha256" in now else ("source", "revision")
    if [then.get(key) for key in keys] == [now.get(key) for key in keys]:
        return None
    return _in_words(then, keys), _in_words(now, keys)


def _in_words(weights: Weights, keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {weights[key]}" for key in keys if weights.get(key))


def _check_weights(trial: Trial, then: Weights | None, now: Weights | None) -> None:
    """Raises BenchError where a record's weights are not those that the missing trials would start from."""
    if difference := differing(then, now):
        raise BenchError(
            f"The record {trial.id} was made with other weights of {trial.model.name} ({difference[0]}) than are here "
            f"now ({difference[1]}); rows of both would not be comparable. Bring back the former weights, or make "
            f"every trial again by --overwrite always."
        )
