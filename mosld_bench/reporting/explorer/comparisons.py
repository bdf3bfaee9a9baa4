"""Every difference that the page may show: of any row that is taken as the baseline, by the tests of the report."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from mosld_bench.reporting.analysis import Analysis, Comparison, Verdict
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.labels import margin_label
from mosld_bench.reporting.rows import RowKey
from mosld_bench.reporting.stats import Basis
from mosld_bench.spec.trial import Condition, Domain


class Family(StrEnum):
    """Over what the p of a difference is corrected by Holm's method."""

    REFERENCE = "reference"
    PAIRS = "pairs"
    BASE = "base"
    SETTINGS = "settings"


_FAMILIES = {
    Family.REFERENCE: "corrected for the rows of the block, of a task for the rows and tasks of its domain",
    Family.PAIRS: "corrected for all pairs of rows of the block, of a task for those on all tasks of its domain: which "
    "row to compare with was chosen after a look",
    Family.BASE: "minus the untrained model, corrected for the rows of the block",
    Family.SETTINGS: "the mixture beside single tasks, corrected for all rows",
}

_BASES = {
    Basis.POOLED: "seed noise of all rows of the block together",
    Basis.OWN: "the row's own seed noise: it scatters more than the others, or nothing is shared",
    Basis.BORROWED: "seed noise of other rows, for want of its own",
    Basis.MODELS: "of these trained models on other items; their seeds say nothing of methods",
}


#: Differences between rows of a block that a page has: of 200 rows on 30 tasks all would be a hundred megabytes.
_MOST_PAIRS = 50_000


class _Found(NamedTuple):
    comparison: Comparison
    measure: int
    family: Family


def comparisons(analysis: Analysis, places: Places) -> dict[str, Any]:
    """The key ``comparisons``."""
    found = list(_comparisons(analysis, places))
    verdicts, bases, families = list(Verdict), list(Basis), list(Family)
    differences = [one.comparison.difference for one in found]
    return {
        "verdicts": [{"key": verdict, "text": _words(analysis, verdict)} for verdict in verdicts],
        "bases": [{"key": basis, "text": _BASES[basis]} for basis in bases],
        "families": [{"key": family, "text": _FAMILIES[family]} for family in families],
        "row": [places.rows[one.comparison.row.key] for one in found],
        "other": [places.rows[one.comparison.other.key] for one in found],
        "measure": [one.measure for one in found],
        "difference": [difference.mean for difference in differences],
        "low": [difference.low for difference in differences],
        "high": [difference.high for difference in differences],
        "p": [difference.p for difference in differences],
        "p_holm": [one.comparison.adjusted for one in found],
        "p_equal": [one.comparison.equal_p for one in found],
        "verdict": [verdicts.index(one.comparison.verdict) for one in found],
        "within": [int(one.comparison.within) for one in found],
        "seeds": [difference.seeds for difference in differences],
        "basis": [bases.index(difference.basis) for difference in differences],
        "of_items": [int(difference.of_items) for difference in differences],
        "family": [families.index(one.family) for one in found],
    }


def _comparisons(analysis: Analysis, places: Places) -> Iterator[_Found]:
    """Measure by measure and block by block; no two are of the same rows in the same direction on one measure."""
    everyone = _all_are_baselines(analysis, places)
    for measure, of in enumerate(places.measures):
        for condition, _ in analysis.blocks():
            of_reference = analysis.against_reference(condition, of)
            reference = analysis.reference_row(condition)
            yield from (_Found(c, measure, Family.REFERENCE) for c in of_reference)
            chosen = None if everyone else _bests(analysis, condition, of)
            for pair in analysis.pairs(condition, of):
                other = pair.other.key
                is_reference = reference is not None and other == reference.key
                if not is_reference and (chosen is None or other in chosen):
                    yield _Found(pair, measure, Family.PAIRS)
            for c in analysis.against_base(condition, of):
                yield from (_Found(way, measure, Family.BASE) for way in (c, c.turned))
        for c in analysis.between_settings(of):
            yield from (_Found(way, measure, Family.SETTINGS) for way in (c, c.turned))


def _all_are_baselines(analysis: Analysis, places: Places) -> bool:
    """Whether the page has room for the differences to every row."""
    pools = [len(analysis.pool(condition)) for condition, _ in analysis.blocks()]
    return sum(rows * (rows - 1) for rows in pools) * len(places.measures) <= _MOST_PAIRS


def _bests(analysis: Analysis, condition: Condition, of: Domain | str) -> set[RowKey]:
    """The rows of a block that are a baseline beside the reference where there is not room for all.

    Those are the best one on the measure and the best on the in-domain mean.
    """
    return {best.key for best in (analysis.best(condition, of), analysis.best(condition)) if best is not None}


def _words(analysis: Analysis, verdict: Verdict) -> str:
    return {
        Verdict.BETTER: "better",
        Verdict.WORSE: "worse",
        Verdict.EQUAL: f"equal within {margin_label(analysis.study.margin)}",
        Verdict.OPEN: "neither told apart nor shown equal",
        Verdict.UNTESTED: "not tested",
    }[verdict]
