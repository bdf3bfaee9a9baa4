"""Which trials are run: not those with a record, nor those of which another study has one.

A record counts where it was made from the weights that are there now; rows of different weights are not comparable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mosld_bench.errors import BenchError
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


def missing(
    planned: Sequence[PlannedTrial], store: Store, *, overwrite: str, weights: Mapping[str, Weights]
) -> Missing:
    """What of ``planned`` is to be run; with ``overwrite`` only-missing, records of other studies are taken over first.

    ``weights``: model -> where the weights are from that trials start from now.

    Raises BenchError where ``overwrite`` is never and there is a record, or a record was made from other weights.
    """
    if overwrite == "always":
        return Missing(list(planned), {})
    left = unrecorded(planned, store, weights)
    if overwrite == "only-missing":
        return take_over(left, store, weights)
    if len(left) < len(planned):
        todo = {trial.id for trial, _ in left}
        first = next(trial.id for trial, _ in planned if trial.id not in todo)
        raise BenchError(
            f"--overwrite never, but {len(planned) - len(left)} of {len(planned)} trials have a record below "
            f"{store.results}, the first {first}. Use --overwrite only-missing to run the others."
        )
    return Missing(left, {})


def unrecorded(planned: Sequence[PlannedTrial], store: Store, weights: Mapping[str, Weights]) -> list[PlannedTrial]:
    """Those of ``planned`` without a record of the planned size. Raises BenchError for a record of other weights."""
    left = []
    for member in planned:
        meta = store.finished(member)
        if meta is None:
            left.append(member)
        else:
            _check_weights(member.trial, meta.get("weights"), weights.get(member.trial.model.name))
    return left


def take_over(planned: Sequence[PlannedTrial], store: Store, weights: Mapping[str, Weights]) -> Missing:
    """Copy the records that other studies have of ``planned``, made from the same weights. Returns what is left."""
    left: list[PlannedTrial] = []
    taken: Counter[str] = Counter()
    for member in planned:
        trial = member.trial
        for record in store.elsewhere(member):
            if differing(record.meta_info.get("weights"), weights.get(trial.model.name)) is None:
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
