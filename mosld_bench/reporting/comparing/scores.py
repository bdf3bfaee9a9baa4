"""Scores of a comparison: two rows on every task and domain that both were scored on, under every metric of both.

Rows of one block are compared as the report does it (`Evidence.difference`), a row with the untrained model of its
study too. All others share no noise that could be pooled: `stats.between` compares them over the seeds and items that
both have, and takes the seeds or items of each side for themselves where they have none in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Comparison, Verdict
from mosld_bench.reporting.comparing.pairs import Member, Pair, TaskOverlap
from mosld_bench.reporting.evidence import PROBABILITY
from mosld_bench.spec.trial import Domain


@dataclass(frozen=True)
class Score:
    """Two rows on the mean of a domain or on a task: ``ours`` and ``theirs`` are the means that the difference is of.

    ``domain``: of the task, None where it is of another one in the other study. ``metric``: lm-eval's name, or
    `PROBABILITY`; None of a mean over tasks with several primary metrics.
    ``our_seeds`` and ``their_seeds`` are those that count; ``same_seeds``: whether one is compared with itself.
    ``detectable``: the true difference that is found with a chance of 80 %; None where it is not known.
    """

    comparison: Comparison
    title: str
    domain: Domain | None
    metric: str | None
    ours: float
    theirs: float
    our_seeds: tuple[int, ...]
    their_seeds: tuple[int, ...]
    same_seeds: bool
    items: tuple[TaskOverlap, ...]
    detectable: float | None = None

    @property
    def of(self) -> Domain | str:
        """The domain, or the task."""
        return self.comparison.of

    @property
    def primary(self) -> bool:
        """Whether it is under the metric that the tables show."""
        return self.comparison.metric is None

    @property
    def difference(self) -> stats.Estimate:
        """Ours minus theirs."""
        return self.comparison.difference

    @property
    def scale(self) -> Scale:
        """That of the numbers."""
        return self.comparison.scale

    @property
    def identical(self) -> bool:
        """Whether the two have the same score on every item."""
        return self.difference.of_items and self.difference.mean == 0 and self.difference.error == 0

    @property
    def verdict(self) -> Verdict:
        """That of the tests."""
        return self.comparison.verdict


class _Found(NamedTuple):
    """A difference, the two means that it is of, and the seeds that these are over; fields of `Score`."""

    difference: stats.Estimate
    values: Sequence[float]
    seeds: Sequence[Sequence[int]]
    same_seeds: bool


def metrics_of(pair: Pair) -> list[str | None]:
    """The metrics that both have: None for the primary ones, those that are not primary everywhere, `PROBABILITY`."""
    names: set[str] = set()
    for task in (task for tasks in pair.domains().values() for task in tasks):
        names |= set.intersection(*(member.metrics(task) for member in pair.members)) - {pair.primary(task)}
    return [None, *sorted(names), PROBABILITY]


def scores_of(
    pairs: Sequence[Pair], margin: float, *, metrics: Sequence[str | None] = (), tasks: Sequence[str] = ()
) -> list[list[Score]]:
    """The scores of every pair: metric by metric, the mean of a domain before its tasks.

    ``margin``: what still counts as equal, in points. ``metrics`` and ``tasks``: those that are asked for, by default
    all, and then the means too. Holm's families are those of the report: under one metric and in one block, all pairs
    on the mean of a domain, and all pairs on its tasks.
    """
    found = [[*_scores(pair, margin, metrics, tasks)] for pair in pairs]
    families: dict[tuple[object, ...], list[Score]] = {}
    for score in (score for of_pair in found for score in of_pair):
        row, other = score.comparison.row, score.comparison.other
        block = (other if row.frozen else row).condition
        key = block, score.comparison.metric, score.domain, isinstance(score.of, Domain)
        families.setdefault(key, []).append(score)
    adjusted: dict[int, float | None] = {}
    for family in families.values():
        adjusted |= zip(map(id, family), stats.holm([score.difference.p for score in family]), strict=True)
    return [
        [replace(score, comparison=replace(score.comparison, adjusted=adjusted[id(score)])) for score in of_pair]
        for of_pair in found
    ]


def _scores(pair: Pair, margin: float, metrics: Sequence[str | None], only: Sequence[str]) -> Iterator[Score]:
    """The scores of a pair, each as if it were the only one of its family."""
    for metric in metrics or metrics_of(pair):
        for domain, tasks in pair.domains().items():
            mean = [domain] if domain is not None and tasks and not only else []
            for of in [*mean, *(task for task in tasks if not only or task in only)]:
                scale = _scale(pair, pair.tasks(of), metric)
                found = _find(pair, of, metric) if scale is not None else None
                if scale is not None and found is not None:
                    yield _score(pair, domain, of, metric, found, scale, margin)


def _score(
    pair: Pair, domain: Domain | None, of: Domain | str, metric: str | None, found: _Found, scale: Scale, margin: float
) -> Score:
    row, other, difference = pair.ours.row, pair.theirs.row, found.difference
    primary = {pair.primary(task) for task in pair.tasks(of)}
    detectable = None
    if metric is None and isinstance(of, Domain) and difference.basis is stats.Basis.POOLED:
        detectable = pair.ours.source.analysis.detectable(row.condition, of, difference.seeds)
    return Score(
        Comparison(row, other, of, metric, difference, difference.p, scale.margin(margin), scale),
        title=of.label if isinstance(of, Domain) else pair.title(of),
        domain=domain,
        metric=metric or (primary.pop() if len(primary) == 1 else None),
        ours=found.values[0],
        theirs=found.values[1],
        our_seeds=tuple(found.seeds[0]),
        their_seeds=tuple(found.seeds[1]),
        same_seeds=found.same_seeds,
        items=tuple(pair.overlap(task) for task in pair.tasks(of)),
        detectable=detectable,
    )


def _scale(pair: Pair, tasks: Sequence[str], metric: str | None) -> Scale | None:
    """The scale of the tasks under a metric; None where they have several, or the two sides other ones."""
    if metric == PROBABILITY:
        return SHARE
    if metric is None and any(pair.primary(task) is None for task in tasks):
        return None
    ours, theirs = (member.source.analysis.scales.common(tasks, metric) for member in pair.members)
    return ours if ours == theirs else None


def _find(pair: Pair, of: Domain | str, metric: str | None) -> _Found | None:
    """The difference of the two; None without a score of both."""
    tasks, (ours, theirs) = pair.tasks(of), (member.row for member in pair.members)
    by_seed = [member.by_seed(tasks, metric) for member in pair.members]
    if not all(by_seed):
        return None
    common = set.intersection(*map(set, by_seed))
    if pair.one_source and ours.condition == theirs.condition and ours.ranked and common:
        return _of_block(pair, of, metric, sorted(common))
    if pair.one_source and ours.frozen != theirs.frozen:
        return _against_base(pair, of, metric)
    return _between(pair, tasks, metric)


def _of_block(pair: Pair, of: Domain | str, metric: str | None, seeds: Sequence[int]) -> _Found | None:
    """As the report compares two rows of a block: the noise of seeds is that of all its rows."""
    analysis = pair.ours.source.analysis
    pool = analysis.pool(pair.ours.row.condition, metric)
    rows = {row.key: row for row in pool}
    ours, theirs = (rows[member.row.key] for member in pair.members)
    estimate = analysis.evidence.difference(ours, theirs, of, pool, metric)
    if estimate is None:
        return None
    scores = [analysis.evidence.by_seed(row, of, metric) for row in (ours, theirs)]
    means = [float(np.mean([of_row[seed] for seed in seeds])) for of_row in scores]
    return _Found(estimate, means, (seeds, seeds), True)


def _against_base(pair: Pair, of: Domain | str, metric: str | None) -> _Found | None:
    """As the report sets a row against the untrained model; which of the two is that one is told by the sign."""
    analysis, first = pair.ours.source.analysis, pair.ours.row.frozen
    ours, theirs = (analysis.under(metric, member.row) for member in pair.members)
    row, base = (theirs, ours) if first else (ours, theirs)
    block = [analysis.under(metric, trained) for trained in analysis.trained if trained.condition == row.condition]
    estimate = analysis.evidence.against_base(row, base, of, block, metric)
    if estimate is None:
        return None
    scores = [analysis.evidence.by_seed(scored, of, metric) for scored in (ours, theirs)]
    means, seeds = [float(np.mean([*of_row.values()])) for of_row in scores], [tuple(sorted(s)) for s in scores]
    return _Found(replace(estimate, mean=means[0] - means[1]), means, seeds, False)


def _between(pair: Pair, tasks: Sequence[str], metric: str | None) -> _Found | None:
    """Two rows of no common block, over the seeds and items that both have, or else over all of each."""
    members = pair.members
    by_seed = [member.by_seed(tasks, metric) for member in members]
    borrowed = [_borrowed(member, tasks, metric) for member in members]
    seeds = [sorted(of_side) for of_side in by_seed]
    trained = not any(member.row.frozen for member in members)
    common = sorted(set(seeds[0]) & set(seeds[1])) if trained else []
    told = all(len(of_side) > 1 or noise is not None for of_side, noise in zip(seeds, borrowed, strict=True))
    same_seeds = len(common) > 1 or (bool(common) and not told)
    seeds = [common, common] if same_seeds else seeds
    overlaps = [pair.overlap(task) for task in tasks]
    known = all(overlap.common is not None for overlap in overlaps)
    known = known and all(m.has_items(tasks, metric, of_side) for m, of_side in zip(members, seeds, strict=True))
    samples = []
    for member, of_side, scores, noise in zip(members, seeds, by_seed, borrowed, strict=True):
        items = None
        means = [scores[seed] for seed in of_side]
        if known:
            docs = [pair.common(o.task) if o.paired else member.keys(o.task) for o in overlaps]
            items = [member.matrix(t, metric, of_side, d or ()) for t, d in zip(tasks, docs, strict=True)]
            means = [float(mean) for mean in np.mean([task.values.mean(axis=1) for task in items], axis=0)]
        within = _within(member, tasks, metric) if noise and known else None
        samples.append(stats.Sample(means, items, member.row.frozen, noise, within))
    same_items = [overlap.paired for overlap in overlaps] if known else []
    estimate = stats.between(samples[0], samples[1], same_seeds=same_seeds, same_items=same_items)
    return _Found(estimate, [float(np.mean(sample.by_seed)) for sample in samples], seeds, same_seeds)


def _borrowed(member: Member, tasks: Sequence[str], metric: str | None) -> stats.SeedNoise | None:
    """What a seed moves the rows of the block of a row with one seed; None for others, and where none has several."""
    if member.row.frozen or len(member.by_seed(tasks, metric)) > 1:
        return None
    rows = [other.by_seed(tasks, metric) for other in member.block()]
    seeds = sorted({seed for row in rows for seed in row})
    return stats.spread_of_rows([[row.get(seed, np.nan) for seed in seeds] for row in rows])


def _within(member: Member, tasks: Sequence[str], metric: str | None) -> float | None:
    """The mean of S·VE over the rows of a block that have several seeds, with all items."""
    found = []
    for other in member.block():
        seeds = sorted(other.by_seed(tasks, metric))
        if len(seeds) > 1 and other.has_items(tasks, metric, seeds):
            noise = stats.item_noise([other.matrix(task, metric, seeds, other.keys(task) or ()) for task in tasks])
            found += [len(seeds) * noise.within] if noise and noise.within is not None else []
    return float(np.mean(found)) if found else None
