"""The marks of the tables of results: what a test says of a row and what its interval rests on, with their legends."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mosld_bench.reporting.analysis import Analysis, Judged, Verdict
from mosld_bench.reporting.labels import margin_label
from mosld_bench.reporting.rows import RowKey
from mosld_bench.reporting.stats import LEVEL, Basis, Estimate
from mosld_bench.reporting.table import Line
from mosld_bench.spec.trial import Condition, Domain

TIED = "†"
WITHOUT_ITEMS = "*"
_VERDICTS: Mapping[str, str] = {Verdict.BETTER: "↑", Verdict.WORSE: "↓", Verdict.EQUAL: "≈"}
_BASES = {Basis.BORROWED: "‡", Basis.OWN: "§", Basis.MODELS: "¶"}
_BASIS_LEGENDS = {
    Basis.BORROWED: "with the seed noise of other rows, for want of its own",
    Basis.OWN: "with its own noise, since the row scatters more over seeds than the others",
    Basis.MODELS: "of these trained models, on other items; their seeds say nothing of methods",
}


@dataclass(frozen=True)
class Standing:
    """Where tests put a row on a mean or a task.

    ``verdict``: beside the study's reference, ``reference`` of that itself, empty where nothing is compared. ``leads``:
    whether it is told to be better than every other row of its block. ``tied``: whether it is not told apart from the
    best row of its block, or is that row and has such others; None without a test.
    """

    verdict: str = ""
    leads: bool = False
    tied: bool | None = None

    @property
    def mark(self) -> str:
        """† where it is tied, and the mark of its verdict."""
        return (TIED if self.tied else "") + _VERDICTS.get(self.verdict, "")


def standings(analysis: Analysis, condition: Condition, of: Domain | str) -> dict[RowKey, Standing]:
    """Row -> its standing on a domain's mean or a task; rows that are compared with none are absent."""
    comparisons = analysis.against_reference(condition, of)
    verdicts = {c.row.key: c.verdict.value for c in comparisons}
    verdicts |= {c.other.key: "reference" for c in comparisons}
    best = analysis.best(condition, of)
    tested = [c for c in analysis.against_best(condition, of) if c.verdict is not Verdict.UNTESTED]
    tied = {c.row.key: c.verdict in {Verdict.EQUAL, Verdict.OPEN} for c in tested}
    if best and tested:
        tied[best.key] = any(tied.values())
    leader = best.key if best and analysis.leads(condition, of) else None
    return {
        key: Standing(verdicts.get(key, ""), key == leader, tied.get(key)) for key in dict.fromkeys([*verdicts, *tied])
    }


def verdict_mark(comparison: Judged) -> str:
    """↑ better, ↓ worse, ≈ equal, whichever direction is the better one; ¶ where nothing is said of methods.

    And * where the interval leaves out the choice of items.
    """
    return _VERDICTS.get(comparison.verdict, "") + _unusual(comparison.difference)


def _unusual(estimate: Estimate) -> str:
    return ("" if estimate.of_methods else _BASES[Basis.MODELS]) + ("" if estimate.of_items else WITHOUT_ITEMS)


def basis_mark(estimate: Estimate, *, shared: bool = True) -> str:
    """What an interval rests on, where that is not the seeds of all rows, and items.

    ``shared``: whether rows share the noise of their seeds, so that a row's own is the exception.
    """
    basis = "" if estimate.basis is Basis.OWN and not shared else _BASES.get(estimate.basis, "")
    return basis + ("" if estimate.of_items else WITHOUT_ITEMS)


def common_marks(marks: Sequence[str]) -> str:
    """The marks that every one of these cells has: they are told once, and not marked."""
    first, *rest = marks or [""]
    return "".join(mark for mark in first if all(mark in others for others in rest))


def common_basis(comparisons: Iterable[Judged]) -> str:
    """Of the marks of `verdict_mark` that say what an interval rests on, those that all of these have."""
    return common_marks([_unusual(comparison.difference) for comparison in comparisons])


def without(mark: str, common: str) -> str:
    """A cell's marks without those that all have."""
    return "".join(character for character in mark if character not in common)


def marks_in(lines: Iterable[Line]) -> str:
    """Every mark of the cells, each once."""
    return "".join(dict.fromkeys(mark for line in lines for cell in line.cells for mark in cell.mark))


def verdict_legend(analysis: Analysis, marks: Collection[str], corrected_for: str = "", other: str = "") -> str:
    """What the marks of verdicts that occur mean: ' Beside LoRA: ↓ worse, ≈ equal within 1 point.'; else empty.

    ``other``: what rows are compared with, by default the study's reference.
    """
    within = {Verdict.EQUAL.value: f" within {margin_label(analysis.study.margin)}"}
    told = [f"{mark} {verdict}{within.get(verdict, '')}" for verdict, mark in _VERDICTS.items() if mark in marks]
    corrected = f" (corrected for {corrected_for})" if corrected_for and {"↑", "↓"} & set(marks) else ""
    return f" Beside {other or analysis.reference}{corrected}: {', '.join(told)}." if told else ""


def basis_legend(marks: Collection[str], common: str = "") -> str:
    """What the other marks that occur mean, and what is so of all intervals (`common_marks`)."""
    legends = {mark: _BASIS_LEGENDS[basis] for basis, mark in _BASES.items()}
    legends[WITHOUT_ITEMS] = "without the choice of items, which are not at hand"
    told = [f" {mark}: {text}." for mark, text in legends.items() if mark in marks]
    of_all = [text for mark, text in legends.items() if mark in common]
    return "".join(told) + (f" All intervals are {'; and '.join(of_all)}." if of_all else "")


def verdict_words(analysis: Analysis, comparisons: Sequence[Judged]) -> str:
    """What the verdicts that occur mean, as a caption has them; empty where all speak for themselves."""
    verdicts = {comparison.verdict for comparison in comparisons}
    margins = any(comparison.margin is not None for comparison in comparisons)  # or equality could not be shown
    words = {
        Verdict.EQUAL: f"shown to differ by less than {margin_label(analysis.study.margin)} (two one-sided tests at "
        f"{LEVEL:g})",
        Verdict.OPEN: "neither told apart nor shown equal" if margins else "not told apart",
    }
    return "".join(f" {verdict.capitalize()}: {text}." for verdict, text in words.items() if verdict in verdicts)
