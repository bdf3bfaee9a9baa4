"""`mosld-bench compare`: two recipes, studies or folders of records, and how sure their difference is."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from mosld_bench.cli.console import console, say
from mosld_bench.cli.options import Include, Root
from mosld_bench.errors import BenchError
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.workspace import Workspace

_SIDE = "A recipe of --study, RECIPE@STUDY, RECIPE@FOLDER, a study, or a folder of records: one trial's or a study's."


def compare(
    a: Annotated[str, typer.Argument(help=_SIDE)],
    b: Annotated[str, typer.Argument(help="What A is compared with: as A.")],
    *,
    study: Annotated[str, typer.Option(help="Study, or folder of its records, that bare recipes are of.")] = "embedded",
    budget: Annotated[str | None, typer.Option(help="Rows of these budgets alone, by comma.")] = None,
    setting: Annotated[str | None, typer.Option(help="Rows of these settings alone: mixture, single.")] = None,
    metric: Annotated[str | None, typer.Option(help="Metrics, by comma: primary, probability, acc_norm, ...")] = None,
    task: Annotated[str | None, typer.Option(help="Tasks, by comma, without the means over them.")] = None,
    margin: Annotated[float | None, typer.Option(help="Points that still count as equal; else the study's.")] = None,
    items: Annotated[int, typer.Option(help="How many of the items that differ most.", min=0)] = 10,
    json: Annotated[bool, typer.Option("--json", help="Every number, for programs.")] = False,
    include_path: Include = None,
    root: Root = None,
) -> None:
    """Compare two recipes, two studies, or two folders of records, also of other machines: A minus B.

    By domain, task and metric, paired over the seeds and items that both have. Reads records; runs nothing.
    """
    if margin is not None and not 0 < margin <= 100:
        raise BenchError(f"--margin takes points, more than 0 and at most 100; given: {margin:g}.")
    budgets = [Budget.parse(text) for text in _parts(budget)]
    from mosld_bench import display
    from mosld_bench.records.store import no_garbage_collection
    from mosld_bench.reporting import comparing

    with no_garbage_collection():
        reader = comparing.SideReader(Workspace.find(root), study, tuple(include_path or ()))
        sides = reader.read(a), reader.read(b)
        result = comparing.compare(
            *sides,
            budgets=budgets,
            settings=_parts(setting),
            metrics=_parts(metric),
            tasks=_parts(task),
            margin=margin,
            items=items,
        )
    if json:
        print(jsonlib.dumps(comparing.as_json(result), indent=1, ensure_ascii=False, allow_nan=False))
        return
    for note in result.notes:
        say(note)
    for compared in result.pairs:
        for sentence in comparing.sentences(compared):
            say(sentence)
        if sections := comparing.sections(compared, result.margin):
            console.print(display.comparison_table(comparing.title(compared), sections, width=console.width))
    if result.items:
        console.print(
            display.items_table([(comparing.item_title(result, item), item) for item in result.items], console.width)
        )


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]
