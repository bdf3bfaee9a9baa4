"""`mosld-bench compare`: two recipes, studies or folders of records, and how sure their difference is."""

from __future__ import annotations

from typing import Annotated

import typer

from mosld_bench.cli.console import console, make_console, print_json, say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import Include, Json, Root, compared, output
from mosld_bench.errors import BenchError
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.workspace import Workspace

_SIDE = "A recipe of --study, RECIPE@STUDY, RECIPE@FOLDER, a study, or a folder of records: one trial's or a study's."


@examples(
    ("mosld-bench compare mosld lora --study smollm2", "two recipes of a study: A minus B, with intervals"),
    ("mosld-bench compare mosld@smollm2 mosld@smollm2-budget", "one recipe in two studies"),
    ("mosld-bench compare mosld lora --study smollm2 --metric primary --items 0 --json", "for programs"),
)
def compare(
    a: Annotated[str, typer.Argument(help=_SIDE)],
    b: Annotated[str, typer.Argument(help="What A is compared with: as A.")],
    *,
    study: Annotated[str, compared(help="Study, or folder of its records, that bare recipes are of.")] = "embedded",
    budget: Annotated[str | None, compared(help="Rows of these budgets alone, by comma.")] = None,
    setting: Annotated[str | None, compared(help="Rows of these settings alone: mixture, single.")] = None,
    metric: Annotated[
        str | None,
        compared(help="Metrics, by comma: primary, probability, acc_norm, ..."),
    ] = None,
    task: Annotated[str | None, compared(help="Tasks, by comma, without the means over them.")] = None,
    margin: Annotated[float | None, compared(help="Points that still count as equal; else the study's.")] = None,
    items: Annotated[int, output(help="How many of the items that differ most.", min=0)] = 10,
    json: Json = False,
    include_path: Include = None,
    root: Root = None,
) -> None:
    """Compare two recipes, two studies, or two folders of records, also of other machines: A minus B.

    By domain, task and metric, paired over the seeds and items that both have. Reads records; runs nothing.
    """
    if margin is not None and not 0 < margin <= 100:
        raise BenchError(f"--margin takes points, more than 0 and at most 100; given: {margin:g}.")
    budgets = [Budget.parse(text) for text in _parts(budget)]
    from mosld_bench import collector, display
    from mosld_bench.reporting import comparing

    with make_console(stderr=True).status("reading records …"), collector.off():
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
        print_json(comparing.as_json(result))
        return
    for note in result.notes:
        say(note)
    for pair in result.pairs:
        for sentence in comparing.sentences(pair):
            say(sentence)
        if sections := comparing.sections(pair, result.margin):
            console.print(display.comparison_table(comparing.title(pair), sections, width=console.width))
    if result.items:
        console.print(
            display.items_table([(comparing.item_title(result, item), item) for item in result.items], console.width)
        )


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]
