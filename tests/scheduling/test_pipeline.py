"""The main path: in which order things happen, and what is left when it is broken off."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from mosld_bench import pipeline
from mosld_bench.errors import DataError
from mosld_bench.records.record import Outcome, Record
from mosld_bench.records.store import Store
from mosld_bench.scheduling import Options, ProgressDisplay, RunWatcher, make_plan
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.execute import failed

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


class Recorder:
    """An executor whose trials all fail at once; keeps in ``events`` what happens, and breaks off at ``stop_at``."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.events: list[str] = []
        self._stop_at = stop_at

    def run(self, planned: Sequence[PlannedTrial], watcher: RunWatcher) -> Iterator[Outcome]:
        self.events.append("started")
        return self._outcomes(planned)

    def _outcomes(self, planned: Sequence[PlannedTrial]) -> Iterator[Outcome]:
        for number, (trial, _) in enumerate(planned):
            if number == self._stop_at:
                raise KeyboardInterrupt
            self.events.append(f"yielded {number}")
            yield failed(trial, f"failure {number}", {})

    def ended(self) -> Iterator[Outcome]:
        return iter(())

    def close(self) -> None:
        self.events.append("closed")


def watched(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the pipeline run on ``recorder``, which notes what the pipeline does as well."""
    write, finish = Store.write, ProgressDisplay.finish
    events = recorder.events

    def noting_write(store: Store, outcome: Outcome) -> Path:
        events.append("written")
        return write(store, outcome)

    def noting_finish(display: ProgressDisplay, record: Record) -> None:
        events.append("shown")
        finish(display, record)

    monkeypatch.setattr(Store, "write", noting_write)
    monkeypatch.setattr(ProgressDisplay, "finish", noting_finish)
    monkeypatch.setattr(pipeline, "make_executor", lambda *words, **options: recorder)
    monkeypatch.setattr(pipeline, "find_overlaps", lambda *words: events.append("overlaps"))


def run(root: Path, console: Console, options: Options | None = None) -> int:
    workspace = Workspace(root, root)
    plan = make_plan(Study.load(root / "reports" / "tiny" / "study.yaml", {"recipes": ["lora"]}), workspace)
    return pipeline.run(plan, workspace, console, options or Options(gpus=0, executor="inline"))


def test_overlaps_are_searched_while_workers_get_ready_and_the_driver_writes_each_outcome(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, output = Recorder(), io.StringIO()
    watched(recorder, monkeypatch)
    assert run(tiny, Console(file=output, width=200)) == 1
    each = ["yielded 0", "written", "shown", "yielded 1", "written", "shown"]
    assert recorder.events == ["started", "overlaps", *each, "closed"]
    lines = output.getvalue().splitlines()
    assert lines[0] == "tiny: 2 trials, 0 recorded, 2 to run"
    failures = sorted((tiny / "results" / "tiny").glob("*/failure.json"))
    for line, path in zip(sorted(lines[-2:]), failures, strict=True):
        assert line == f"failed: {path.parent.name}; the whole error is in {path}"
    assert not (tiny / "reports" / "tiny" / "report.pdf").exists()  # of nothing there is no report


def test_a_run_that_is_broken_off_keeps_what_was_written_and_gives_the_workers_back(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(stop_at=1)
    watched(recorder, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, Console(quiet=True))
    assert recorder.events == ["started", "overlaps", "yielded 0", "written", "shown", "closed"]
    assert len(list((tiny / "results" / "tiny").glob("*/failure.json"))) == 1


def test_a_held_out_text_that_lm_eval_brings_is_looked_at_before_anything_starts(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own tasks no definition is read when a study is planned; `other` stands for one here."""
    recorder = Recorder()
    watched(recorder, monkeypatch)
    monkeypatch.setattr(TaskFiles, "check_text", lambda files, task: None)
    with (tiny / "reports" / "tiny" / "study.yaml").open("a") as file:
        file.write("evaluate: {text: other}\n")
    with pytest.raises(DataError, match=r"evaluate\.text: the task 'other' .* has the output_type multiple_choice"):
        run(tiny, Console(quiet=True))
    assert recorder.events == []


@pytest.mark.parametrize("module", ["mosld_bench.scheduling", "mosld_bench.pipeline"])
def test_importing_what_runs_trials_loads_no_heavy_library(module: str) -> None:
    heavy = {"torch", "transformers", "peft", "ray", "lm_eval", "pandas", "datasets"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_a_budget_leaves_out_is_recorded_with_the_reason(tiny: Path) -> None:
    for path in (tiny / "methods").glob("*.yaml"):
        if "group: peft" in path.read_text(encoding="utf-8"):
            path.unlink()
    params = "{peft_type: LOKR, r: 2, target_modules: [q_proj]}"
    (tiny / "methods" / "small.yaml").write_text(f"title: Small\nmethod: peft\ngroup: peft\nparams: {params}\n")
    workspace, path = Workspace(tiny, tiny), tiny / "reports" / "tiny" / "study.yaml"
    plan = make_plan(Study.load(path, {"recipes": ["lora", "peft"], "seeds": [0]}), workspace)
    printed = Console(file=io.StringIO(), record=True, width=200)
    assert pipeline.run(plan, workspace, printed, Options(executor="inline")) == 0
    assert "Left out: The recipe 'small' cannot meet the budget 6k" in printed.export_text()
    ((trial, _),) = plan.left_out
    failures = Store(workspace.results).failures("tiny")
    assert failures.keys() == {trial.id}
    assert "'small' cannot meet the budget 6k" in failures[trial.id]
