"""A merge of result folders in the terminal: what each gave, and what is left out."""

from __future__ import annotations

from rich.table import Table

from mosld_bench.format import counted, listed
from mosld_bench.records.merging import Merge


def merge_table(merge: Merge) -> Table:
    """One line a folder and study: its trials, and what became of them. What was in the target before comes first."""
    table = Table(title=f"trials put together in {merge.target}")
    for column in ("folder", "study"):
        table.add_column(column, overflow="fold")
    for column in ("trials", "copied", "same", "passed over", "unreadable"):
        table.add_column(column, justify="right", no_wrap=True)
    for (source, study), counts in merge.counts.items():
        here = source == merge.target
        told = ["" if here else str(counts[name]) for name in ("copied", "same", "passed over")]
        unreadable = sum(lost.source == source and lost.folder.parent.name == study for lost in merge.unreadable)
        table.add_row(str(source), study, str(counts["trials"]), *told, str(unreadable))
    return table


def merge_sentences(merge: Merge, *, written: bool) -> list[str]:
    """What cannot be read, and what there is to do next."""
    lines = [f"unreadable: {lost.reason}" for lost in merge.unreadable]
    completed = sum(copy.of is None for copy in merge.copies)
    if completed:
        lines.append(f"{counted(completed, 'trial')} got files that only another folder had beside the same numbers")
    if written:
        studies = [f"{study} ({counted(count, 'trial')})" for study, count in merge.kept.items()]
        lines.append(f"merged: {listed(studies)} in {merge.target}")
    return lines
