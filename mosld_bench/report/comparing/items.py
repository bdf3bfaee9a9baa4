"""The items on which two rows differ most, with what each answered."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.report.comparing.pairs import Member, Pair
from mosld_bench.report.evidence import PROBABILITY

if TYPE_CHECKING:
    import pandas as pd


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

    @property
    def size(self) -> float:
        """How far the two are apart, in points; less than nothing on a scale that has none, so that these come last."""
        apart = abs(self.ours - self.theirs)
        return apart * self.scale.factor if self.scale.points else -1 / (1 + apart)


def most_different(pairs: Sequence[Pair], most: int, tasks: Collection[str] = ()) -> list[ItemDifference]:
    """The ``most`` items on which rows differ most, over all pairs and tasks (or these ``tasks``), the largest first.

    Of the items that both rows have, over the seeds that both have, or all of each where they have none in common.
    Equal differences come in the order of pairs, tasks and items.
    """
    found: list[ItemDifference] = []
    for place, pair in enumerate(pairs):
        for task in (task for names in pair.domains().values() for task in names if not tasks or task in tasks):
            found += _of_task(place, pair, task, most)
    return sorted((item for item in found if item.ours != item.theirs), key=lambda item: -item.size)[:most]


def _of_task(place: int, pair: Pair, task: str, most: int) -> Iterator[ItemDifference]:
    """The items of a task that may be among the ``most``."""
    common = pair.common(task)
    if not common or not most:
        return
    seeds = [{record.trial.seed for record in member.row.records} for member in pair.members]
    trained = not any(member.row.frozen for member in pair.members)
    shared = seeds[0] & seeds[1] if trained else set()
    answered = [_answered(member, task, shared or own, common) for member, own in zip(pair.members, seeds, strict=True)]
    columns = [PROBABILITY, "score"]
    means = {column: [_mean(frames, column) for frames in answered] for column in columns}
    column = next((c for c in columns if all(mean.notna().any() for mean in means[c])), None)
    if column is None:
        return
    primary = pair.primary(task)
    scale = SHARE if column == PROBABILITY else pair.ours.source.analysis.scales.of(task) or SHARE
    ours, theirs = means[column]
    apart = (ours - theirs).abs().dropna().sort_values(ascending=False, kind="stable")
    for doc in apart.index[:most]:
        first = answered[0][0].loc[doc]
        yield ItemDifference(
            place=place,
            task=task,
            title=pair.title(task),
            doc=int(doc),
            item=str(first["item"]),
            metric=PROBABILITY if column == PROBABILITY else str(primary),
            scale=scale,
            ours=float(ours[doc]),
            theirs=float(theirs[doc]),
            our_predictions=_predictions(answered[0], doc),
            their_predictions=_predictions(answered[1], doc),
            target=str(first["target"]),
        )


def _answered(member: Member, task: str, seeds: Collection[int], docs: Collection[int]) -> list[pd.DataFrame]:
    """The items ``docs`` in each record of the seeds, by ``doc``."""
    frames = [f for record, f in member.answered(task) if record.trial.seed in seeds and f is not None]
    columns = ["doc", "item", "prediction", "target", PROBABILITY, "score"]
    return [frame.loc[frame["doc"].isin(docs), columns].set_index("doc").sort_index() for frame in frames]


def _mean(frames: Sequence[pd.DataFrame], column: str) -> pd.Series[float]:
    """The mean over records, item by item; missing where one lacks it."""
    total = frames[0][column].copy()
    for frame in frames[1:]:
        total = total + frame[column]
    return total / len(frames)


def _predictions(frames: Sequence[pd.DataFrame], doc: int) -> tuple[str | None, ...]:
    values = [frame.at[doc, "prediction"] for frame in frames]
    return tuple(value if isinstance(value, str) else None for value in values)
