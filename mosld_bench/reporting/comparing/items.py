"""The items on which two rows differ most, with what each answered."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.reporting.comparing.pairs import Pair
from mosld_bench.reporting.evidence import PROBABILITY


@dataclass(frozen=True)
class ItemDifference:
    """An item of a task as two rows answered it: the ``place``-th pair, the item's ``doc`` and its own id ``item``.

    ``ours`` and ``theirs`` are means over seeds of `PROBABILITY`, or of the score where an item has none; ``metric``
    says of which. The predictions are by seed, None where one text is scored.
    """

    place: int
    task: str
    title: str
    doc: int
    item: str
    metric: str
    scale: Scale
    ours: float
    theirs: float
    our_predictions: tuple[str | None, ...]
    their_predictions: tuple[str | None, ...]
    target: str


class _Candidate(NamedTuple):
    """An item before its answers are looked up; ``seeds`` are those of either side."""

    place: int
    task: str
    metric: str | None
    scale: Scale
    doc: int
    values: tuple[float, float]
    seeds: tuple[frozenset[int], frozenset[int]]

    @property
    def size(self) -> float:
        """How far the two are apart, in points; less than nothing on a scale that has none, so that these come last."""
        apart = abs(self.values[0] - self.values[1])
        return apart * self.scale.factor if self.scale.points else -1 / (1 + apart)


def most_different(pairs: Sequence[Pair], most: int, tasks: Collection[str] = ()) -> list[ItemDifference]:
    """The ``most`` items on which rows differ most, over all pairs and tasks (or these ``tasks``), the largest first.

    Of the items that both rows have, over the seeds that both have, or all of each where they have none in common.
    Equal differences come in the order of pairs, tasks and items; items without one are left out.
    """
    found: list[_Candidate] = []
    for place, pair in enumerate(pairs):
        for task in (task for names in pair.domains().values() for task in names if not tasks or task in tasks):
            found += _candidates(place, pair, task, most)
    largest = sorted(found, key=lambda candidate: -candidate.size)[:most]
    return [_looked_up(candidate, pairs[candidate.place]) for candidate in largest]


def _candidates(place: int, pair: Pair, task: str, most: int) -> Iterator[_Candidate]:
    """The items of a task that may be among the ``most``."""
    docs, members = sorted(pair.common(task) or ()), pair.members
    for metric in (PROBABILITY, None):
        seeds = [frozenset(member.answers(task, metric)) for member in members]
        if docs and all(seeds):
            break
    else:
        return
    shared = frozenset() if any(member.row.frozen for member in members) else seeds[0] & seeds[1]
    used = [shared or of_side for of_side in seeds]
    ours, theirs = (
        member.matrix(task, metric, sorted(of_side), docs).values.mean(axis=0)
        for member, of_side in zip(members, used, strict=True)
    )
    scale = SHARE if metric else pair.ours.source.analysis.scales.of(task) or SHARE
    for index in np.argsort(-np.abs(ours - theirs), kind="stable")[:most]:
        if ours[index] != theirs[index]:
            values = float(ours[index]), float(theirs[index])
            yield _Candidate(place, task, metric, scale, docs[index], values, (used[0], used[1]))


def _looked_up(candidate: _Candidate, pair: Pair) -> ItemDifference:
    task, answers = candidate.task, []
    for member, seeds in zip(pair.members, candidate.seeds, strict=True):
        frames = [f for record, f in member.answered(task) if record.trial.seed in seeds and f is not None]
        answers.append([frame[frame["doc"] == candidate.doc].iloc[0] for frame in frames])
    first = answers[0][0]
    predictions = [tuple(a["prediction"] if isinstance(a["prediction"], str) else None for a in of) for of in answers]
    return ItemDifference(
        place=candidate.place,
        task=task,
        title=pair.title(task),
        doc=candidate.doc,
        item=str(first["item"]),
        metric=candidate.metric or pair.primary(task) or "score",
        scale=candidate.scale,
        ours=candidate.values[0],
        theirs=candidate.values[1],
        our_predictions=predictions[0],
        their_predictions=predictions[1],
        target=str(first["target"]),
    )
