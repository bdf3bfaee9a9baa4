"""Every difference that the page may show: of any row that is taken as the baseline, by the tests of the report."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from mosld_bench.reporting.analysis import MOST_PAIRED, Analysis, Comparison, Verdict
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
    for measure, of in enumerate(places.measures):
        for condition, _ in analysis.blocks():
            of_reference = analysis.against_reference(condition, of)
            reference = analysis.reference_row(condition)
            yield from (_Found(c, measure, Family.REFERENCE) for c in of_reference)
            chosen = _baselines(analysis, condition, of)
            for pair in analysis.pairs(condition, of):
                if (reference is None or pair.other.key != reference.key) and (
                    chosen is None or pair.other.key in chosen
                ):
                    yield _Found(pair, measure, Family.PAIRS)
            for c in analysis.against_base(condition, of):
                yield from (_Found(way, measure, Family.BASE) for way in (c, c.turned))
        for c in analysis.between_settings(of):
            yield from (_Found(way, measure, Family.SETTINGS) for way in (c, c.turned))


def _baselines(analysis: Analysis, condition: Condition, of: Domain | str) -> set[RowKey] | None:
    """The rows beside the reference that may be the baseline of a block; None for all.

    Of a block of more than `MOST_PAIRED` rows the best on the measure and on the in-domain mean: all pairs of 200 rows
    on 30 tasks would be a page of a hundred megabytes.
    """
    if len(analysis.pool(condition)) <= MOST_PAIRED:
        return None
    return {best.key for best in (analysis.best(condition, of), analysis.best(condition)) if best is not None}


def _words(analysis: Analysis, verdict: Verdict) -> str:
    return {
        Verdict.BETTER: "better",
        Verdict.WORSE: "worse",
        Verdict.EQUAL: f"equal within {margin_label(analysis.study.margin)}",
        Verdict.OPEN: "neither told apart nor shown equal",
        Verdict.UNTESTED: "not tested",
    }[verdict]
