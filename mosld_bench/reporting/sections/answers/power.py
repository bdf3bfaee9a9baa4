"""The question what the study can find, and what more seeds or items would buy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mosld_bench.format import counted, listed, spelled
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.spec.trial import Condition, Domain

_SEEDS = (3, 5, 10, 20)  # of which the next two are said to find so much
_WISH = 0.5  # points that a study might want to find


def power(analysis: Analysis, block: Condition) -> Iterator[str]:
    """What the rows of a block find with a chance of 80 %, in-domain; what with more seeds, and with all test items."""
    if analysis.unlike(Domain.IN):
        return
    scale, rows, noise = analysis.scale(Domain.IN), len(analysis.contenders(block)), analysis.pair_noise(block)
    seeds = max((len(row.by_seed()) for row in analysis.pool(block)), default=0)
    effect = analysis.detectable(block)
    if not seeds:
        return
    if noise is None or effect is None:
        known = f"{spelled(seeds).capitalize()} seed{'s do' if seeds > 1 else ' does'}"
        advice = "" if (rows - 1) * (seeds - 1) > 1 else ": two seeds of three methods, or three of two, would tell"
        yield f"{known} not tell the noise between seeds, so what the study would find is not known{advice}."
        return
    found = f"{scale.text(effect)}{scale.points} in-domain"
    if Domain.OUT in analysis.averaged() and (outside := analysis.detectable(block, Domain.OUT)) is not None:
        found += f" and {analysis.scale(Domain.OUT).text(outside)} out of domain"
    yield (
        f"With {counted(seeds, 'seed')}, differences of {found} are found with a chance of {100 * stats.POWER:.0f} % "
        "(each tested by itself)."
    )
    more = [count for count in _SEEDS if count > seeds][:2]
    buys = [
        f"{spelled(count)}{'' if i else ' seeds would find'} {scale.text(analysis.detectable(block, seeds=count))}"
        for i, count in enumerate(more)
    ]
    if items := _all_items(analysis):
        on_all = scale.text(analysis.detectable(block, share=items.share))
        buys.append(f"all {items.total:,} test items in place of {items.scored:,} would find {on_all}")
    if buys:
        yield f"In-domain, {listed(buys)}."
    wish = scale.margin(_WISH)
    if wish is not None and float(scale.text(effect)) > _WISH:
        needed = stats.seeds_for(wish, noise, rows=rows)
        if needed not in more:
            takes = counted(needed, "seed") if needed else "more items: no number of seeds is enough"
            yield f"Half a point takes {takes}."


class _Items(NamedTuple):
    """How much more all test items tell than those that were scored, and how many both are."""

    share: float
    total: int
    scored: int


def _all_items(analysis: Analysis) -> _Items | None:
    """None where all in-domain items were scored, or where it is not known how many there are.

    A mean over tasks errs by the sum of 1 / items, so that the harmonic mean of the tasks' shares counts.
    """
    tasks = analysis.study.in_domain
    scored = [metric.items if (metric := analysis.metric(task)) else 0 for task in tasks]
    sizes = [analysis.test_items(task) for task in tasks]
    known = [(few, size) for few, size in zip(scored, sizes, strict=True) if size is not None and 0 < few <= size]
    if len(known) < len(tasks) or all(few == size for few, size in known):
        return None
    share = len(tasks) / sum(few / size for few, size in known)
    return _Items(share, sum(size for _, size in known), sum(scored))
