"""What `mosld-bench tasks` prints: the tasks in reach, their items, and the overlap of test with training sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from mosld_bench.errors import BadFileError
from mosld_bench.format import visible
from mosld_bench.records.overlap import Overlap
from mosld_bench.spec.task_files import TaskFiles

if TYPE_CHECKING:
    from mosld_bench.inputs.audit import Checked, Watcher
    from mosld_bench.inputs.rendering import Example

_NOTES = 5  # lines on the data that a run prints
_ROOM_FOR_EXAMPLES = 110  # characters of a terminal; below, the overlap table has numbers alone


class ListedTask(NamedTuple):
    """A task as it is listed: what its definition says of it, texts empty where it says nothing."""

    name: str
    title: str
    kind: str
    data: str  # the data set, or how its files are read
    trains: bool  # whether it has items to train on
    file: str


class UnreadableFile(NamedTuple):
    """A file of a task folder that cannot be read, and why; ``name``: of its task, None where that cannot be told."""

    name: str | None
    file: str
    reason: str


def listed_tasks(files: TaskFiles) -> tuple[list[ListedTask], list[UnreadableFile]]:
    """The tasks of ``files`` by name, and the files that are none, also by what they include."""
    listed, unreadable = [], [UnreadableFile(file.task, str(file.path), file.reason) for file in files.unreadable]
    for name, path in sorted(files.paths.items()):
        try:
            config = files.config(name) or {}
        except BadFileError as error:
            unreadable.append(UnreadableFile(name, str(path), str(error)))
            continue
        metadata = config.get("metadata") or {}
        listed.append(
            ListedTask(
                name=name,
                title=str(metadata.get("title", "")),
                kind=str(metadata.get("kind", "")),
                data=str(config.get("dataset_path", "")),
                trains=bool(config.get("training_split")),
                file=str(path),
            )
        )
    return listed, unreadable


def tasks_table(tasks: Iterable[ListedTask]) -> Table:
    """One line a task, in their order. A name is never cut; longer texts go over several lines."""
    table = Table()
    table.add_column("task", no_wrap=True)
    for column in ("title", "kind", "data", "trains"):
        table.add_column(column, overflow="fold")
    for task in tasks:
        table.add_row(task.name, task.title, task.kind, task.data, "yes" if task.trains else "no")
    return table


def example_text(example: Example) -> Text:
    """An item of a task: its prompt, and its answer in reverse video."""
    return Text.assemble(visible(example.context), (visible(example.answer), "reverse"), "\n")


@contextmanager
def checking(console: Console) -> Iterator[Watcher]:
    """Show how far the look at the items is, on a terminal and as long as it lasts: yields what is to be told."""
    bar = Progress(
        "looking at the items of", TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        shown = bar.add_task("", total=None)
        yield lambda task, split, done, total: bar.update(
            shown, description=f"{task}, {split}", completed=done, total=total
        )


def checked_table(found: Sequence[Checked]) -> Table:
    """One line a split of a task: its role in a study, how many items, and how many things are to be said of them."""
    table = Table()
    for column in ("task", "split", "used as"):
        table.add_column(column, no_wrap=True)
    for column in ("items", "refused", "notes"):
        table.add_column(column, justify="right", no_wrap=True)
    for checked in found:
        counts = (len(checked.refused), len(checked.notes))
        table.add_row(checked.task, checked.split, checked.role, f"{checked.items:,}", *map(str, counts))
    return table


def checked_sentences(found: Sequence[Checked]) -> list[str]:
    """Each problem of ``found`` as a line, what is refused first."""
    refused = [f"refused: {problem.sentence}" for checked in found for problem in checked.refused]
    return refused + [f"note: {problem.sentence}" for checked in found for problem in checked.notes]


def data_notes(found: Sequence[Checked]) -> list[str]:
    """What a run says of its data: the first few notes, and how many there are."""
    notes = checked_sentences([replace(checked, problems=tuple(checked.notes)) for checked in found])
    more = len(notes) - _NOTES
    rest = [f"note: {more} more on the data; 'mosld-bench tasks check TASK' shows them"] if more > 0 else []
    return notes[:_NOTES] + rest


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
