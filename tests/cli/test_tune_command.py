"""The command `tune` as one types it: what it refuses, what it runs and leaves, and that a study takes it in."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.cli import main
from mosld_bench.records.store import Store
from mosld_bench.spec.study import Study
from mosld_bench.spec.tuning import read_tuning
from mosld_bench.spec.workspace import Workspace
from tests.cli.conftest import Command, Finished

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

EMBEDDED = ("tune", "embedded")
WRONG = {
    "study": (("tune", "nope"), "There is no study named 'nope'"),
    "counts": (("tune", "parameters"), "'parameters' only counts parameters: it has no learning rate"),
    "by hand": (("tune", "smollm2"), "has factors written by hand for full, prefix-tuning"),
    "budgets": (
        ("tune", "paper"),
        "has the budgets r8, mosld-r8, and a search is made under one of each. Say which, by",
    ),
    "models": (("tune", "scaling"), "Say which, by --model."),
    "nothing held out": ((*EMBEDDED, "--set", "train.validation_fraction=0"), "holds no item out of training"),
    "no loss": ((*EMBEDDED, "--set", "train.validation_items=0"), "holds no item out of training"),
    "single": ((*EMBEDDED, "--settings", "single"), "a search is made on their mixture"),
    "seeds": ((*EMBEDDED, "--seeds", "0,1"), "The seeds 0, 1 are those of the study 'embedded' as well"),
    "one seed": ((*EMBEDDED, "--seeds", "5"), "takes 2 different seeds or more"),
    "factor": ((*EMBEDDED, "--factors", "0,1,2"), "above 0; given: 0, 1, 2"),
    "few factors": ((*EMBEDDED, "--factors", "1,2"), "takes 3 factors or more"),
    "no factors": ((*EMBEDDED, "--factors", "a,b"), "--factors takes numbers by comma"),
    "recipes": ((*EMBEDDED, "--methods", "base"), "trains no recipe"),
    "recipe": ((*EMBEDDED, "--methods", "lorra"), "Did you mean 'lora'"),
    "executor": ((*EMBEDDED, "--executor", "rai"), "Did you mean 'ray'"),
    "plan": (("plan", "embedded", "--factors", "1,2,4"), "give --tune with it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence_before_anything_runs(case: str, command: Command, tmp_path: Path) -> None:
    words, message = WRONG[case]
    done = command(*words)
    assert done.code == 2
    assert message in done.err
    assert done.err.startswith("mosld-bench: ")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_search_is_priced_by_plan_and_by_a_dry_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mosld_bench.trial.device.core_rate", lambda dtype: 50e9)
    words = ("--methods", "lora,mosld", "--factors", "0.5,1,2,4", "--seeds", "7,8,9")
    planned, dry = command("plan", "embedded", "--tune", *words), command("tune", "embedded", "--dry-run", *words)
    assert (planned.code, dry.code) == (0, 0)
    assert re.sub(r" +", " ", planned.out) == re.sub(r" +", " ", dry.out)
    assert "embedded-tuning: 24 trials on embedded" in planned.out
    assert (
        "two recipes at the factors ×0.5, ×1, ×2, ×4 on the learning rate 0.005, with the seeds 7, 8, 9" in planned.out
    )
    trials = json.loads(command("plan", "embedded", "--tune", "--json", *words).out)["trials"]
    assert {(row["recipe"], row["learning_rate_scale"], row["seed"]) for row in trials} == {
        (recipe, factor, seed) for recipe in ("lora", "mosld") for factor in (0.5, 1.0, 2.0, 4.0) for seed in (7, 8, 9)
    }
    assert not (tmp_path / "results").exists()
    priced = command("plan", "smollm2", "--tune", "--set", "learning_rate_scales={}").out
    assert re.search(r"of which none is stopped: [\d.]+ GPU-hours come down to [\d.]+ where all that may be", priced)


def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> Finished:
    monkeypatch.setattr(sys, "argv", ["mosld-bench", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return Finished(stop.value.code, out, err)


def test_a_whole_search(tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command to trials at the found rates: what is left, repeated, broken off, and taken in."""

    def run(*words: str) -> Finished:
        return typed(monkeypatch, capsys, *words, "--root", str(tiny), "--executor", "inline")

    study_file, folder = tiny / "reports" / "tiny" / "study.yaml", tiny / "results" / "tiny-tuning"
    text = (
        study_file.read_text()
        .replace("steps: 4", "steps: 10")
        .replace("learning_rate: 1.0e-2", "learning_rate: 3.0e-2")
    )
    study_file.write_text(text)
    done = run("tune", "tiny")
    assert done.code == 0, done.err
    assert f"The study takes it in by a line in {study_file}: tuning: tuning.yaml" in done.out
    tuning = read_tuning(tiny / "reports" / "tiny" / "tuning.yaml")
    assert f"tuning: {tiny}/reports/tiny/tuning.yaml" in done.out
    records = {record.trial_id: record for record in Store(tiny / "results").records("tiny-tuning")}
    runs = {run.trial: run for found in tuning.recipes.values() for run in found.runs}
    assert runs.keys() == records.keys() == {path.name for path in folder.iterdir()}
    assert len(runs) == 2 * 2 * len(tuning.factors)
    tests = {metric.task for record in records.values() for metric in record.metrics}
    assert tests == {"copy", "count"}
    for trial, one in runs.items():
        record = records[trial]
        info = record.train_info
        assert info is not None
        assert info.validation_items == {"copy": 2, "count": 2}, "all that is held out of 20 items each"
        assert (record.status, info.steps) == ("finished" if one.ended == "finished" else "stopped", one.steps)
        assert one.loss == info.final_validation_loss
        assert (folder / trial / "items.parquet").exists() == (one.ended == "finished")
    chosen = {name: found.chosen for name, found in tuning.recipes.items()}
    for name, found in tuning.recipes.items():
        means = found.means()
        assert means[chosen[name]] == min(means.values())
        assert re.search(rf"^{name} +×{found.chosen:g} ", done.out, re.M)

    again, first = run("tune", "tiny"), (tiny / "reports" / "tiny" / "tuning.yaml").read_bytes()
    assert again.code == 0
    assert "loading" not in again.out
    assert (tiny / "reports" / "tiny" / "tuning.yaml").read_bytes() == first
    lost = next(iter(records))
    (folder / lost / "record.json").unlink()
    resumed = run("tune", "tiny")
    assert re.findall(r"^  (\S+): loading", resumed.out, re.M) == [lost]
    assert (tiny / "reports" / "tiny" / "tuning.yaml").read_bytes() == first
    assert run("tune", "tiny", "--overwrite", "never").code == 2

    study_file.write_text(f"{study_file.read_text()}tuning: tuning.yaml\n")
    assert "takes it in by a line" not in run("tune", "tiny").out
    trials = Study.load(study_file).plan(Workspace(tiny, tiny))
    assert {t.recipe.name: t.recipe.learning_rate_scale for t in trials if t.train_on} == chosen
    planned = typed(monkeypatch, capsys, "plan", "tiny", "--root", str(tiny))
    assert "found by a search for lora and mosld (tiny-tuning, digest" in " ".join(planned.out.split())
    both = ("--methods", "lora", "--set", "rates=[chosen,runner_up]")
    reported = run("run", "tiny", *both)
    assert reported.code == 0, reported.err
    assert len(re.findall(r"│ lora +│ mixture(?:, runner-up rate)? +│", reported.out)) == 2
    stale = typed(monkeypatch, capsys, "plan", "tiny", "--steps", "9", "--root", str(tiny))
    assert (stale.code, "train.steps is 10 there and 9 here" in stale.err) == (2, True)


def test_a_failed_trial_ends_the_search_where_it_is_and_the_same_command_goes_on(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No rate is chosen from what is left; a wave is not begun before the one before is whole."""
    from mosld_bench.trial import train as training

    words = ("tune", "tiny", "--root", str(tiny), "--executor", "inline", "--methods", "lora")
    made, train = [0], training.train

    def failing(*args: Any, **options: Any) -> Any:
        made[0] += 1
        if made[0] == 2:
            raise RuntimeError("the disk is full")
        return train(*args, **options)

    monkeypatch.setattr(training, "train", failing)
    done = typed(monkeypatch, capsys, *words)
    assert done.code == 1
    assert "until then there is nothing to choose from" in done.out
    assert made == [6], "the three factors in the middle with two seeds, and nothing further"
    assert not (tiny / "reports" / "tiny" / "tuning.yaml").exists()
    assert typed(monkeypatch, capsys, *words).code == 0
    assert (tiny / "reports" / "tiny" / "tuning.yaml").exists()
