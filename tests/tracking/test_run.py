"""Runs and searches with trackers: a run a trial, records as without, and what is missing is told before the start."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mosld_bench import pipeline
from mosld_bench.cli import main
from mosld_bench.records.store import Store
from mosld_bench.scheduling import Options, make_plan, make_search
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from mosld_bench.tracking.to_tensorboard import TensorBoard
from tests.conftest import items, write_task

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_each_trial_of_a_run_is_a_run(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(pipeline, "write", lambda analysis, folder: folder / "report.pdf")
    workspace = Workspace(tiny, tiny)
    study = Study.load(workspace.study_file(str(tiny / "reports" / "tiny" / "study.yaml")), {"recipes": ["lora"]})
    console = Console(record=True, quiet=False, file=io.StringIO(), width=200)
    options = Options(executor="inline", report_to=("tensorboard",))
    assert pipeline.run(make_plan(study, workspace), workspace, console, options) == 0
    folder = tiny / "reports" / "tiny" / "tensorboard"
    assert f"tensorboard: tensorboard --logdir {folder}" in console.export_text()
    records = {record.trial_id: record for record in Store(workspace.results).records("tiny")}
    assert {path.name for path in folder.iterdir()} == records.keys()
    for trial, record in records.items():
        events = EventAccumulator(str(folder / trial)).Reload()
        mean = sum(m.value for m in record.metrics if m.primary and m.role == "in_domain") / 2
        (score,) = events.Scalars("score/in_domain_mean")
        assert score.value == pytest.approx(mean)
        curve = record.train_info.curve if record.train_info else ()
        losses = events.Scalars("train/loss") if curve else []
        assert [event.value for event in losses] == pytest.approx([point.loss for point in curve])


class Broken(TensorBoard):
    """One that cannot begin a run."""

    def begin(self, trial: str, config: Mapping[str, Any]) -> Any:
        raise OSError("no room")


def test_each_trial_of_a_search_is_a_run_and_a_broken_tracker_loses_none(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    for name, letters in (("copy", "abcdefg"), ("count", "hijklmn")):
        write_task(tiny / "tasks", name, items(40, letters))
    workspace = Workspace(tiny, tiny)
    study = Study.load(tiny / "reports" / "tiny" / "study.yaml", {"recipes": ["lora"], "out_of_domain": []})
    search = make_search(study, workspace, factors=(0.5, 1.0, 2.0))
    options = Options(executor="inline", report_to=("tensorboard",))
    assert pipeline.tune(search, workspace, Console(quiet=True), options) == 0
    folder = tiny / "reports" / "tiny" / "tensorboard"
    trials = {record.trial_id for record in Store(workspace.results).records("tiny-tuning")}
    assert len(trials) >= 6
    assert {path.name for path in folder.iterdir()} == trials

    monkeypatch.setattr(TensorBoard, "begin", Broken.begin)
    again = make_search(study, workspace, factors=(0.5, 1.0, 2.0), seeds=(7, 8))
    console = Console(record=True, file=io.StringIO(), width=200)
    assert pipeline.tune(again, workspace, console, options) == 0
    told = [line for line in console.export_text().splitlines() if "no room" in line]
    assert len(told) == 1
    assert told[0].startswith("tensorboard: it began no run of lora-mixture")
    assert len(list(Store(workspace.results).records("tiny-tuning"))) >= len(trials) + 6


@pytest.mark.parametrize("deed", ["run", "tune"])
def test_a_missing_library_is_one_sentence_before_anything_starts(
    deed: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mosld_bench.tracking.tracker.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for given, told in (
        (("trackio",), "--report-to trackio needs the library trackio, which is not installed: pip install"),
        (("none,wandb",), "--report-to takes none, or trackers; given: none, wandb."),
        (("none", "tensorbaord"), "Did you mean 'tensorboard'"),
    ):
        words = [word for name in given for word in ("--report-to", name)]
        monkeypatch.setattr(sys, "argv", ["mosld-bench", deed, "tiny", *words, "--root", str(tiny)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert (stop.value.code, printed.out) == (2, "")
        assert told in printed.err
    assert not (tiny / "results").exists()
