"""What `mosld-bench tasks` prints: the tasks in reach, their items, and the overlap of test with training sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import HEAVY_HEAD
from rich.table import Table
from rich.text import Text

from mosld_bench.records.overlap import Overlap
from mosld_bench.spec.task_files import TaskFiles

if TYPE_CHECKING:
    from mosld_bench.inputs.rendering import Example

_ROOM_FOR_EXAMPLES = 110  # characters of a terminal; below, the overlap table has numbers alone


def tasks_table(files: TaskFiles) -> Table:
    """One line a task of ``files``, by name. A name is never cut; longer texts go over several lines."""
    table = Table()
    table.add_column("task", no_wrap=True)
    for column in ("title", "kind", "data", "trains"):
        table.add_column(column, overflow="fold")
    for name in sorted(files.paths):
        config = files.config(name) or {}
        metadata = config.get("metadata") or {}
        texts = (metadata.get("title", ""), metadata.get("kind", ""), config.get("dataset_path", ""))
        table.add_row(name, *map(str, texts), "yes" if config.get("training_split") else "no")
    return table


def example_text(example: Example) -> Text:
    """An item of a task: its prompt, and its answer in reverse video."""
    return Text.assemble(example.context, (example.answer, "reverse"), "\n")


def overlap_table(study: str, overlaps: Sequence[Overlap], width: int = 160) -> Table:
    """One line a pair of test and training set of the study named ``study`` that shares items.

    Where ``width`` characters leave no room for them, without the examples of what is shared.
    """
    narrow = width < _ROOM_FOR_EXAMPLES
    table = Table(
        title=f"{study}: test items that share a run of 13 words with a training set",
        box=None if narrow else HEAVY_HEAD,
        padding=(0, 1, 0, 0) if narrow else (0, 1),
    )
    for column in ("test set", "training set"):
        table.add_column(column, no_wrap=True)
    for column in ("items", "shared", "exact", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    if not narrow:
        table.add_column("an example", overflow="fold")
    for overlap in overlaps:
        if overlap.shared:
            share = f"{overlap.shared / overlap.items:.2%}"
            counts = (f"{overlap.items:,}", str(overlap.shared), str(overlap.exact), share)
            table.add_row(overlap.evaluated, overlap.train, *counts, *(() if narrow else (overlap.example,)))
    return table


def overlap_sentence(overlaps: Sequence[Overlap]) -> str:
    """How many pairs of test and training set the table leaves out, since they share nothing."""
    return f"{sum(not overlap.shared for overlap in overlaps)} of {len(overlaps)} pairs share nothing."
