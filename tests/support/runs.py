"""A study of the tiny workspace, planned and ready to run in this process."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from mosld_bench.inputs.models import load_config
from mosld_bench.methods.fit import fit_budget
from mosld_bench.run.progress import ProgressDisplay
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.session import WorkerConfig


class Prepared(NamedTuple):
    """A study, its trials with their budgets solved, and what a session needs to run them on the CPU."""

    study: Study
    planned: list[PlannedTrial]
    config: WorkerConfig


def prepare(root: Path, **overrides: Any) -> Prepared:
    """The study ``tiny`` of the workspace ``root``, with ``overrides`` of its keys; adapters are kept."""
    study = Study.load(root / "reports" / "tiny" / "study.yaml", overrides)
    workspace = Workspace(root, root)
    model = load_config(study.models[0])
    recipes = load_recipes(workspace.methods)
    planned = [
        PlannedTrial(trial, fit_budget(trial.recipe, model, trial.budget, trial.tolerance, recipes))
        for trial in study.plan(workspace)
    ]
    return Prepared(study, planned, WorkerConfig((str(workspace.tasks),), study.resources, save_adapter=True))


def silent(planned: Iterable[PlannedTrial]) -> ProgressDisplay:
    """A display of ``planned`` that prints nothing."""
    return ProgressDisplay(dict.fromkeys((trial.id for trial, _ in planned), 0.0), Console(quiet=True))
