"""`mosld-bench tasks`: list tasks, show their items, and count what test sets share with training sets."""

from __future__ import annotations

from mosld_bench.cli.console import console
from mosld_bench.cli.options import (
    Assignments,
    DataRoot,
    Include,
    InDomain,
    Limit,
    OutOfDomain,
    Root,
    StudyName,
    StudyOptions,
)
from mosld_bench.errors import BenchError
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.workspace import Workspace


def list_tasks(include_path: Include = None, root: Root = None) -> None:
    """List the tasks of tasks/ and --include-path; lm-eval's own can be named as well."""
    from mosld_bench import display

    console.print(display.tasks_table(TaskFiles.scan((Workspace.find(root).tasks, *(include_path or ())))))


def show_overlap(
    study: StudyName,
    *,
    tasks: InDomain = None,
    out_of_domain: OutOfDomain = None,
    limit: Limit = None,
    set_: Assignments = None,
    data_root: DataRoot = None,
    include_path: Include = None,
    root: Root = None,
) -> None:
    """Count the test items that share a run of 13 words with each training set of a study, or are in it whole."""
    from mosld_bench import display, pipeline
    from mosld_bench.inputs.tasks import TaskLoader

    overrides = StudyOptions(tasks=tasks, out_of_domain=out_of_domain, limit=limit, set_=set_).overrides()
    workspace = Workspace.find(root)
    declared = Study.load(workspace.study_file(study), overrides)
    if not declared.trains:
        raise BenchError(f"The study {study!r} trains nothing, so no test item can be in its training sets.")
    folders = (workspace.tasks, *(include_path or ()))
    overlaps = pipeline.find_overlaps(
        declared, workspace, TaskFiles.scan(folders), lambda: TaskLoader(folders, data_root, declared.name)
    )
    console.print(display.overlap_table(study, overlaps, console.width))
    console.print(display.overlap_sentence(overlaps))


def show_task(
    task: str, *, items: int = 2, data_root: DataRoot = None, include_path: Include = None, root: Root = None
) -> None:
    """Print a task's first training items as prompt and answer, just as they are trained on and scored."""
    from mosld_bench import display
    from mosld_bench.inputs.items import examples, training_docs
    from mosld_bench.inputs.tasks import TaskLoader

    loaded = TaskLoader([Workspace.find(root).tasks, *(include_path or ())], data_root).get(task)
    for example in examples(loaded, range(min(items, len(training_docs(loaded))))):
        console.print(display.example_text(example))
