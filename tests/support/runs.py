"""A study of the tiny workspace, planned and ready to run in this process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from mosld_bench.records.record import Outcome
from mosld_bench.records.store import Store
from mosld_bench.scheduling import InlineExecutor, ProgressDisplay, make_plan
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
    workspace = Workspace(root, root)
    study = Study.load(root / "reports" / "tiny" / "study.yaml", overrides)
    config = WorkerConfig(task_folders=(str(workspace.tasks),), resources=study.resources, save_adapter=True)
    return Prepared(study, make_plan(study, workspace).planned, config)


def silent(planned: Iterable[PlannedTrial]) -> ProgressDisplay:
    """A display of ``planned`` that prints nothing."""
    return ProgressDisplay(dict.fromkeys((trial.id for trial, _ in planned), 0.0), Console(quiet=True))


def run_inline(planned: Sequence[PlannedTrial], config: WorkerConfig, results: Path) -> list[Outcome]:
    """Run ``planned`` in this process and write the outcomes below ``results``, as the pipeline does."""
    store, outcomes = Store(results), []
    for outcome in InlineExecutor(config).run(planned, silent(planned)):
        store.write(outcome)
        outcomes.append(outcome)
    return outcomes


def timeless(value: object) -> object:
    """A record's content with its times and its memory, which are never the same, set to zero."""
    if isinstance(value, dict):
        return {
            key: 0 if key in {"started", "peak_memory_bytes"} or "second" in key else timeless(content)
            for key, content in value.items()
        }
    return [timeless(content) for content in value] if isinstance(value, list) else value
