"""`plan --probe` from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mosld_bench.records.record import Outcome
from mosld_bench.spec.trial import Fit, Trial
from mosld_bench.trial.execute import execute
from mosld_bench.trial.session import Session, Watcher
from tests.cli.conftest import Command

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_a_probe_is_in_the_json_and_leaves_no_record(
    tiny: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toy tasks give no size: there are seconds and bytes, and no hours."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny / "cache"))
    words = ("plan", "tiny", "--json", "--root", str(tiny))
    assert json.loads(command(*words).out)["probe"] is None
    probe = json.loads(command(*words, "--probe").out)["probe"]
    assert probe["device"] == "cpu"
    assert probe["steps"] == 8
    assert probe["items"] > 0
    assert probe["step_seconds"] > 0
    assert probe["memory"] > 1e8
    assert (probe["train_rate"], probe["score_rate"], probe["hours"]) == (None, None, None)
    assert not (tiny / "results").exists()


def test_what_is_said_meanwhile_is_not_in_the_json(
    tiny: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that cannot be written, and a short trial that is tried again."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MOSLD_BENCH_CACHE", str(tmp_path / "file"))
    tries = iter((True, False))

    def once_full(trial: Trial, session: Session, fit: Fit, watch: Watcher) -> Outcome:
        outcome = execute(trial, session, fit, watch)
        return replace(outcome, may_pass=next(tries))

    monkeypatch.setattr("mosld_bench.scheduling.executor.execute", once_full)
    done = command("plan", "tiny", "--probe", "--json", "--root", str(tiny))
    assert json.loads(done.out)["probe"]["steps"] == 8
    assert str(tmp_path / "file") in done.err
    assert "trying once more" in done.err


def test_a_probe_without_data_ends_as_a_run_does(tiny: Path, command: Command) -> None:
    (tiny / "tasks" / "copy.jsonl").unlink()
    words = ("tiny", "--root", str(tiny))
    probe, run = command("plan", *words, "--probe"), command("run", *words, "--executor", "inline")
    assert (probe.code, run.code) == (2, 2)
    assert probe.err == run.err != ""


def test_where_data_are_is_of_a_probe_alone(tiny: Path, command: Command) -> None:
    refused = command("plan", "tiny", "--data-root", str(tiny), "--root", str(tiny))
    assert refused.code == 2
    assert "--probe" in refused.err
