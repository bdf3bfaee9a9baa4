"""The section on what the evaluation sets share with the training sets, from the overlaps that a run has left."""

from __future__ import annotations

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.records.overlap import SHORTEST, Overlap
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Section, paragraph, section
from mosld_bench.reporting.table import Cell, Column, Line, Table

_ELSEWHERE = (
    "What the test items share with the training sets is not known for these tasks and items, only for those of "
    "another run of the study. `mosld-bench tasks overlap`, with the options of this run, looks for it."
)


def overlap_section(analysis: Analysis) -> Section | None:
    """Which test items can be read in a training set; None where no run has left any overlaps."""
    overlaps = analysis.overlaps
    if not overlaps and analysis.other_overlaps:
        return section("Overlap", paragraph(_ELSEWHERE), appendix=True)
    if not overlaps:
        return None
    n = overlaps[0].n
    shared = sorted((overlap for overlap in overlaps if overlap.shared), key=lambda pair: -pair.shared / pair.items)
    text = (
        f"A test item is shared with a training set where a run of {n} words of it, prompt and right answer, is in a "
        f"training item; an item of {SHORTEST} to {n - 1} words where it is there as a whole; a shorter one where a "
        "training item is just this. Wording that a tenth of a set has in common is left out. Validation items count "
        "as training items here, though nothing is trained on them; so does what is mixed in."
    )
    if not shared:
        return section("Overlap", paragraph(text + " No test item is shared."), appendix=True)
    largest = [
        f"{analysis.title(overlap.evaluated)} with {analysis.title(overlap.train)} ({_percent_shared(overlap)} %)"
        for overlap in shared[:3]
    ]
    text += f" Most is shared by {listed(largest)}; what is shared was scored like all else."
    return section("Overlap", paragraph(text), _table(analysis), appendix=True)


def _percent_shared(overlap: Overlap) -> str:
    """Shared items in per cent of the test items: two significant digits, or a whole number."""
    share = 100 * overlap.shared / overlap.items
    return f"{share:.0f}" if share >= 10 else f"{share:.2g}"


def _table(analysis: Analysis) -> Table:
    """Evaluation sets down, training sets across, in per cent of the test items."""
    overlaps = {(overlap.train, overlap.evaluated): overlap for overlap in analysis.overlaps}
    training_sets = list(dict.fromkeys(train for train, _ in overlaps))
    lines = []
    for task in dict.fromkeys(evaluated for _, evaluated in overlaps):
        cells = [Cell(analysis.title(task)), Cell(f"{overlaps[training_sets[0], task].items:,}")]
        for train in training_sets:
            overlap = overlaps[train, task]
            cells.append(Cell(_percent_shared(overlap) if overlap.shared else "0", bold=bool(overlap.shared)))
        lines.append(Line(tuple(cells)))
    return Table(
        "overlap",
        "Test items shared with each training set, in per cent. Bold: any.",
        (
            Column("Test set", "left"),
            Column("Items"),
            *(Column(analysis.title(train), turned=True) for train in training_sets),
        ),
        tuple(lines),
        pd.DataFrame([overlap.model_dump() for overlap in analysis.overlaps]),
    )
