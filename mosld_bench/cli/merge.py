"""`mosld-bench merge`: result folders of several machines put side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from mosld_bench.cli.console import console, say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import Root, place, running
from mosld_bench.errors import UnknownNameError
from mosld_bench.spec.workspace import Workspace


@examples(
    (
        "mosld-bench merge lab-a/results lab-b/results",
        "what two machines have recorded, into this workspace's results/",
    ),
    ("mosld-bench merge lab-a lab-b --to both --dry-run", "what would be done, and which records disagree"),
)
def merge(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of results, of workspaces, or of one study's records.", metavar="DIR")
    ],
    *,
    to: Annotated[Path | None, place("--to", help="Folder of results to write to; default: results/.")] = None,
    keep: Annotated[
        str | None, running(help="Of records of one trial with different numbers: first, or newest.")
    ] = None,
    dry_run: Annotated[bool, running("--dry-run", help="Print what would be done and stop.")] = False,
    root: Root = None,
) -> None:
    """Put result folders of several machines side by side, so that `report` and `compare` see all of them.

    A trial is known by its id. The same id with the same numbers is one record; with other numbers it is a conflict,
    and nothing is written unless --keep says which counts. What finished goes before what failed. The folders that
    are merged stay as they are.
    """
    from mosld_bench import display
    from mosld_bench.records.merging import check_conflicts, plan_merge, write_merge

    if keep not in {None, "first", "newest"}:
        raise UnknownNameError("value of --keep", str(keep), ("first", "newest"))
    target = to or Workspace.find(root).results
    planned = plan_merge(folders, target, cast(Literal["first", "newest"] | None, keep))
    if not dry_run:
        check_conflicts(planned)
        write_merge(planned)
    console.print(display.merge_table(planned))
    for line in display.merge_sentences(planned, written=not dry_run):
        say(line)
    if dry_run:
        check_conflicts(planned)
    if planned.unreadable:
        raise typer.Exit(1)
