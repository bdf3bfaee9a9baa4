"""`mosld-bench tasks`: list tasks, show and check their items, and count what test sets share with training sets."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mosld_bench.cli import completion
from mosld_bench.cli.console import console, make_console, print_json, say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import (
    AllowCode,
    Assignments,
    DataRoot,
    Include,
    InDomain,
    Json,
    Limit,
    Model,
    ModelRoot,
    OutOfDomain,
    Root,
    StudyName,
    StudyOptions,
    TaskName,
    output,
    permit,
)
from mosld_bench.errors import BenchError
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import ModelSpec
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    from mosld_bench.inputs.audit import Vocabulary


@examples(
    ("mosld-bench tasks ls", "what --tasks takes, beside lm-eval's own"),
    ("mosld-bench tasks ls --json", "for programs"),
)
def list_tasks(include_path: Include = None, json: Json = False, root: Root = None) -> None:
    """List the tasks of tasks/ and --include-path; lm-eval's own can be named as well."""
    from mosld_bench import display

    listed, unreadable = display.listed_tasks(TaskFiles.scan((Workspace.find(root).tasks, *(include_path or ()))))
    if json:
        print_json(
            {"tasks": [task._asdict() for task in listed], "unreadable": [file._asdict() for file in unreadable]}
        )
        return
    console.print(display.tasks_table(listed))
    for file in unreadable:
        say(f"not a task: {file.reason}")


@examples(
    ("mosld-bench tasks overlap embedded", "the default study's test sets"),
    ("mosld-bench tasks overlap smollm2 --data-root data --json", "for programs"),
)
def show_overlap(
    study: StudyName,
    *,
    tasks: InDomain = None,
    out_of_domain: OutOfDomain = None,
    limit: Limit = None,
    set_: Assignments = None,
    data_root: DataRoot = None,
    include_path: Include = None,
    allow_code: AllowCode = False,
    json: Json = False,
    root: Root = None,
) -> None:
    """Count the test items that share a run of 13 words with each training set of a study, or are in it whole."""
    from mosld_bench import display, pipeline
    from mosld_bench.inputs.tasks import TaskLoader

    permit(allow_code)
    overrides = StudyOptions(tasks=tasks, out_of_domain=out_of_domain, limit=limit, set_=set_).overrides()
    workspace = Workspace.find(root)
    declared = Study.load(workspace.study_file(study), overrides)
    if not declared.trains:
        raise BenchError(f"The study {study!r} trains nothing, so no test item can be in its training sets.")
    folders = (workspace.tasks, *(include_path or ()))
    overlaps = pipeline.find_overlaps(
        declared, workspace, TaskFiles.scan(folders), lambda: TaskLoader(folders, data_root, declared.name)
    )
    if json:
        print_json({"study": declared.name, "overlaps": [overlap.model_dump(mode="json") for overlap in overlaps]})
        return
    console.print(display.overlap_table(study, overlaps, console.width))
    console.print(display.overlap_sentence(overlaps))


@examples(
    ("mosld-bench tasks check emb_foods", "every item of a task"),
    ("mosld-bench tasks check emb_foods emb_animals --model embedded --json", "with their tokens, for programs"),
)
def check_tasks(
    tasks: Annotated[list[str], typer.Argument(help="Tasks, as for --tasks.", autocompletion=completion.task_name)],
    *,
    model: Model = None,
    model_root: ModelRoot = None,
    data_root: DataRoot = None,
    include_path: Include = None,
    allow_code: AllowCode = False,
    json: Json = False,
    root: Root = None,
) -> None:
    """Look at every item of tasks, as a run does before it starts: what cannot be used, and what is worth a note.

    Exit code 2 where items cannot be used. With --model also their tokens: answers without one, and cut prompts.
    """
    from mosld_bench import display
    from mosld_bench.inputs.audit import audit, whole
    from mosld_bench.inputs.audit_cache import AuditCache
    from mosld_bench.inputs.steadiness import check_steady
    from mosld_bench.inputs.tasks import TaskLoader

    permit(allow_code)
    loader = TaskLoader([Workspace.find(root).tasks, *(include_path or ())], data_root)
    uses = [use for task in tasks for use in whole(loader.get(task))]
    cache = AuditCache(lambda line: print(line, file=sys.stderr))
    with display.checking(make_console(stderr=True)) as watch:
        found = audit(loader, uses, _vocabularies(model, model_root), known=cache.known, keep=cache.keep, watch=watch)
    if json:
        print_json([asdict(checked) for checked in found])
    else:
        console.print(display.checked_table(found))
        for line in display.checked_sentences(found):
            say(line)
    check_steady(loader, uses, found, known=cache.known, keep=cache.keep)
    if any(checked.refused for checked in found):
        raise typer.Exit(2)


def _vocabularies(model: str | None, model_root: Path | None) -> list[Vocabulary]:
    if model is None:
        return []
    from mosld_bench.inputs.models import load_config
    from mosld_bench.scheduling.checks import vocabulary

    spec = ModelSpec(name=model)
    return [vocabulary(spec, load_config(spec, model_root), model_root)]


@examples(
    ("mosld-bench tasks show emb_foods", "two items, as they are trained on and scored"),
    ("mosld-bench tasks show emb_foods --items 20 --json", "for programs"),
)
def show_task(
    task: TaskName,
    *,
    items: Annotated[int, output(help="How many of the items.", min=0)] = 2,
    data_root: DataRoot = None,
    include_path: Include = None,
    allow_code: AllowCode = False,
    json: Json = False,
    root: Root = None,
) -> None:
    """Print a task's first training items as prompt and answer: the requests that train and score them."""
    from mosld_bench import display
    from mosld_bench.inputs.items import examples as items_of
    from mosld_bench.inputs.items import training_docs
    from mosld_bench.inputs.tasks import TaskLoader

    permit(allow_code)
    loaded = TaskLoader([Workspace.find(root).tasks, *(include_path or ())], data_root).get(task)
    shown = items_of(loaded, range(min(items, len(training_docs(loaded)))))
    if json:
        print_json({"task": task, "items": [{"prompt": item.context, "answer": item.answer} for item in shown]})
        return
    for item in shown:
        console.print(display.example_text(item))
