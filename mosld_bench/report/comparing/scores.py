"""Scores of a comparison: two rows on every task and domain that both were scored on, under every metric of both.

Rows of one block are compared as the report does it (`Evidence.difference`), a row with the untrained model of its
study too. All others share no noise that could be pooled: `stats.between` compares them over the seeds and items that
both have, and takes the seeds or items of each side for themselves where they have none in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.report import stats
from mosld_bench.report.analysis import Comparison, Verdict
from mosld_bench.report.comparing.pairs import Member, Pair, TaskOverlap
from mosld_bench.report.evidence import PROBABILITY
from mosld_bench.spec.trial import Domain


@dataclass(frozen=True)
class Score:
    """Two rows on the mean of a domain or on a task: ``ours`` and ``theirs`` are the means that the difference is of.

    ``metric`` is lm-eval's name or `PROBABILITY`; of a mean over tasks with several primary metrics it is None.
    ``our_seeds`` and ``their_seeds`` are those that count. ``detectable``: the true difference that is found with a
    chance of 80 %; None where it is not known.
    """

    comparison: Comparison
    title: str
    metric: str | None
    primary: bool
    ours: float
    theirs: float
    our_seeds: tuple[int, ...]
    their_seeds: tuple[int, ...]
    items: tuple[TaskOverlap, ...]
    detectable: float | None = None

    @property
    def of(self) -> Domain | str:
        """The domain, or the task."""
        return self.comparison.of

    @property
    def difference(self) -> stats.Estimate:
        """Ours minus theirs."""
        return self.comparison.difference

    @property
    def scale(self) -> Scale:
        """That of the numbers."""
        return self.comparison.scale

    @property
    def same_seeds(self) -> bool:
        """Whether a seed of one side is compared with the same seed of the other."""
        trained = not (self.comparison.row.frozen or self.comparison.other.frozen)
        return trained and self.our_seeds == self.their_seeds

    @property
    def identical(self) -> bool:
        """Whether the two have the same score on every item."""
        return self.difference.of_items and self.difference.mean == 0 and self.difference.error == 0

    @property
    def verdict(self) -> Verdict:
        """That of the tests."""
        return self.comparison.verdict


@dataclass(frozen=True)
class _Estimated:
    """A score before it is corrected within its family; the fields of `Score`."""

    pair: Pair
    of: Domain | str
    domain: Domain | None
    metric: str | None
    scale: Scale
    difference: stats.Estimate
    values: tuple[float, float]
    seeds: tuple[tuple[int, ...], tuple[int, ...]]


def metrics_of(pair: Pair) -> list[str | None]:
    """The metrics that both have: None for the primary ones, those that are not primary everywhere, `PROBABILITY`."""
    names: set[str] = set()
    for task in (task for tasks in pair.domains().values() for task in tasks):
        names |= set.intersection(*(member.metrics(task) for member in pair.members)) - {pair.primary(task)}
    return [None, *sorted(names), PROBABILITY]


def score(
    pairs: Sequence[Pair], margin: float, *, metrics: Sequence[str | None] = (), tasks: Sequence[str] = ()
) -> list[list[Score]]:
    """The scores of every pair: metric by metric, the mean of a domain before its tasks.

    ``margin``: what still counts as equal, in points. ``metrics`` and ``tasks``: those that are asked for, by default
    all, and then the means too. Holm's families are those of the report: under one metric and in one block, all pairs
    on the mean of a domain, and all pairs on its tasks.
    """
    found = [[*_estimates(pair, metrics, tasks)] for pair in pairs]
    families: dict[tuple[object, ...], list[_Estimated]] = {}
    for one in (one for of_pair in found for one in of_pair):
        ours, theirs = (member.row for member in one.pair.members)
        block = (theirs if ours.frozen else ours).condition
        families.setdefault((block, one.metric, one.domain, isinstance(one.of, Domain)), []).append(one)
    adjusted: dict[int, float | None] = {}
    for family in families.values():
        adjusted |= zip(map(id, family), stats.holm([one.difference.p for one in family]), strict=True)
    return [[_score(one, adjusted[id(one)], margin) for one in of_pair] for of_pair in found]


def _score(one: _Estimated, adjusted: float | None, margin: float) -> Score:
    pair, tasks = one.pair, one.pair.tasks(one.of)
    primary = {pair.primary(task) for task in tasks}
    points = one.scale.margin(margin)
    return Score(
        Comparison(pair.ours.row, pair.theirs.row, one.of, one.metric, one.difference, adjusted, points, one.scale),
        title=one.of.label if isinstance(one.of, Domain) else pair.title(one.of),
        metric=one.metric or (primary.pop() if len(primary) == 1 else None),
        primary=one.metric is None,
        ours=one.values[0],
        theirs=one.values[1],
        our_seeds=one.seeds[0],
        their_seeds=one.seeds[1],
        items=tuple(pair.overlap(task) for task in tasks),
        detectable=_detectable(one),
    )


def _detectable(one: _Estimated) -> float | None:
    """Of the primary mean of a domain, where the noise of a block's seeds is pooled."""
    if one.metric is not None or not isinstance(one.of, Domain) or one.difference.basis is not stats.Basis.POOLED:
        return None
    return one.pair.ours.source.analysis.detectable(one.pair.ours.row.condition, one.of, one.difference.seeds)


def _estimates(pair: Pair, metrics: Sequence[str | None], only: Sequence[str]) -> Iterable[_Estimated]:
    for metric in metrics or metrics_of(pair):
        for domain, tasks in pair.domains().items():
            mean = [domain] if domain is not None and tasks and not only else []
            for of in [*mean, *(task for task in tasks if not only or task in only)]:
                scale = _scale(pair, pair.tasks(of), metric)
                estimated = _estimate(pair, of, metric) if scale is not None else None
                if scale is not None and estimated is not None:
                    yield _Estimated(pair, of, domain, metric, scale, *estimated)


def _scale(pair: Pair, tasks: Sequence[str], metric: str | None) -> Scale | None:
    """The scale of the tasks under a metric; None where they have several, or the two sides other ones."""
    if metric == PROBABILITY:
        return SHARE
    if metric is None and any(pair.primary(task) is None for task in tasks):
        return None
    ours, theirs = (member.source.analysis.scales.common(tasks, metric) for member in pair.members)
    return ours if ours == theirs else None


_Found = tuple[stats.Estimate, tuple[float, float], tuple[tuple[int, ...], tuple[int, ...]]]


def _estimate(pair: Pair, of: Domain | str, metric: str | None) -> _Found | None:
    """The difference, the two means that it is of, and the seeds that these are over; None without a score of both."""
    tasks, (ours, theirs) = pair.tasks(of), (member.row for member in pair.members)
    by_seed = [member.by_seed(tasks, metric) for member in pair.members]
    if not all(by_seed):
        return None
    common = set.intersection(*map(set, by_seed))
    if pair.one_source and ours.condition == theirs.condition and ours.ranked and common:
        return _of_block(pair, of, metric, tuple(sorted(common)))
    if pair.one_source and ours.frozen != theirs.frozen:
        return _against_base(pair, of, metric)
    return _between(pair, tasks, metric)


def _of_block(pair: Pair, of: Domain | str, metric: str | None, seeds: tuple[int, ...]) -> _Found | None:
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
    return estimate, (means[0], means[1]), (seeds, seeds)


def _against_base(pair: Pair, of: Domain | str, metric: str | None) -> _Found | None:
    """As the report sets a row against the untrained model; which of the two is that one is told by the sign."""
    analysis, first = pair.ours.source.analysis, pair.ours.row.frozen
    ours, theirs = (analysis.under(metric, member.row) for member in pair.members)
    row, base = (theirs, ours) if first else (ours, theirs)
    block = [analysis.under(metric, one) for one in analysis.trained if one.condition == row.condition]
    estimate = analysis.evidence.against_base(row, base, of, block, metric)
    if estimate is None:
        return None
    scores = [analysis.evidence.by_seed(one, of, metric) for one in (ours, theirs)]
    means, seeds = [float(np.mean([*of_row.values()])) for of_row in scores], [tuple(sorted(s)) for s in scores]
    return replace(estimate, mean=means[0] - means[1]), (means[0], means[1]), (seeds[0], seeds[1])


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
    known = all(one.common is not None for one in overlaps)
    known = known and all(m.has_items(tasks, metric, of_side) for m, of_side in zip(members, seeds, strict=True))
    samples = []
    for member, of_side, scores, noise in zip(members, seeds, by_seed, borrowed, strict=True):
        items = None
        means = [scores[seed] for seed in of_side]
        if known:
            docs = [pair.common(one.task) if one.paired else member.keys(one.task) for one in overlaps]
            items = [member.matrix(t, metric, of_side, d or ()) for t, d in zip(tasks, docs, strict=True)]
            means = [float(mean) for mean in np.mean([task.values.mean(axis=1) for task in items], axis=0)]
        within = _within(member, tasks, metric) if noise and known else None
        samples.append(stats.Sample(means, items, member.row.frozen, noise, within))
    same_items = [one.paired for one in overlaps] if known else []
    estimate = stats.between(samples[0], samples[1], same_seeds=same_seeds, same_items=same_items)
    levels = [float(np.mean(sample.by_seed)) for sample in samples]
    return estimate, (levels[0], levels[1]), (tuple(seeds[0]), tuple(seeds[1]))


def _borrowed(member: Member, tasks: Sequence[str], metric: str | None) -> stats.SeedNoise | None:
    """What a seed moves the rows of the block of a row with one seed; None for others, and where none has several."""
    if member.row.frozen or len(member.by_seed(tasks, metric)) > 1:
        return None
    rows = [one.by_seed(tasks, metric) for one in member.block()]
    seeds = sorted({seed for row in rows for seed in row})
    return stats.spread_of_rows([[row.get(seed, np.nan) for seed in seeds] for row in rows])


def _within(member: Member, tasks: Sequence[str], metric: str | None) -> float | None:
    """The mean of S·VE over the rows of a block that have several seeds, with all items."""
    found = []
    for one in member.block():
        seeds = sorted(one.by_seed(tasks, metric))
        if len(seeds) > 1 and one.has_items(tasks, metric, seeds):
            noise = stats.item_noise([one.matrix(task, metric, seeds, one.keys(task) or ()) for task in tasks])
            found += [len(seeds) * noise.within] if noise and noise.within is not None else []
    return float(np.mean(found)) if found else None
