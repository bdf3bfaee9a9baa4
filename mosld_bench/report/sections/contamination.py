"""The section on what the evaluation sets share with the training sets, from the overlaps that a run has left."""

from __future__ import annotations

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.records.overlap import SHORTEST, Overlap
from mosld_bench.report.analysis import Analysis
from mosld_bench.report.document import Section, paragraph, section
from mosld_bench.report.table import Cell, Column, Line, Table


def overlap_section(analysis: Analysis) -> Section | None:
    """Which test items can be read in a training set; None where a run has left no overlaps."""
    found = analysis.overlaps
    if not found:
        return None
    n = found[0].n
    shared = sorted((one for one in found if one.shared), key=lambda one: -one.shared / one.items)
    text = (
        f"A test item is shared with a training set where a run of {n} words of it, prompt and right answer, is in a "
        f"training item; an item of {SHORTEST} to {n - 1} words where it is there as a whole; a shorter one where a "
        "training item is just this. Wording that a tenth of a set has in common is left out. Validation items count "
        "as training items here, though nothing is trained on them; so does what is mixed in."
    )
    if not shared:
        return section("Overlap", paragraph(text + " No test item is shared."))
    worst = [
        f"{analysis.title(one.evaluated)} with {analysis.title(one.train)} ({_share(one)} %)" for one in shared[:3]
    ]
    text += f" Most is shared by {listed(worst)}; what is shared was scored like all else."
    return section("Overlap", paragraph(text), _table(analysis))


def _share(one: Overlap) -> str:
    return f"{100 * one.shared / one.items:.2g}"


def _table(analysis: Analysis) -> Table:
    """Evaluation sets down, training sets across, in per cent of the test items."""
    found = {(one.train, one.evaluated): one for one in analysis.overlaps}
    trained = list(dict.fromkeys(train for train, _ in found))
    lines = []
    for task in dict.fromkeys(evaluated for _, evaluated in found):
        cells = [Cell(analysis.title(task)), Cell(f"{found[trained[0], task].items:,}")]
        for train in trained:
            one = found[train, task]
            cells.append(Cell(_share(one) if one.shared else "0", bold=bool(one.shared)))
        lines.append(Line(tuple(cells)))
    return Table(
        "overlap",
        "Test items shared with each training set, in per cent. Bold: any.",
        (
            Column("Test set", "left"),
            Column("Items"),
            *(Column(analysis.title(train), turned=True) for train in trained),
        ),
        tuple(lines),
        pd.DataFrame([one.model_dump() for one in analysis.overlaps]),
    )
