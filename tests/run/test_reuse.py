"""Which trials are run: what is recorded, what other studies have, and what other weights forbid."""

from __future__ import annotations

from pathlib import Path

import pytest
from pypdf import PdfReader

from mosld_bench import pipeline as job
from mosld_bench.errors import BenchError
from mosld_bench.inputs import models
from mosld_bench.records.store import Store
from mosld_bench.run import ray_executor as launch
from mosld_bench.spec.trial import PlannedTrial
from tests.conftest import bench
from tests.support.runs import prepare, silent

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_overwrite(tiny: Path) -> None:
    _, jobs, around = prepare(tiny, recipes=["lora"])
    results = tiny / "results"
    assert job.missing(jobs, results, "never") == jobs
    launch.run_inline(jobs[:1], around, results, silent(jobs[:1]))
    assert job.missing(jobs, results, "only-missing") == jobs[1:]
    assert job.missing(jobs, results, "always") == jobs
    with pytest.raises(BenchError, match="--overwrite never, but 1 of 2 trials have a record"):
        job.missing(jobs, results, "never")


def test_a_budget_named_after_a_recipe_follows_it(tiny: Path) -> None:
    """A record of another size under the same trial is not taken for the one that is planned now."""
    given = {"recipes": ["lora"], "frozen_base": False, "budgets": ["mosld-r4"]}
    _, jobs, around = prepare(tiny, **given)
    launch.run_inline(jobs, around, tiny / "results", silent(jobs))
    assert job.missing(jobs, tiny / "results", "only-missing") == []
    path = tiny / "methods" / "mosld.yaml"
    path.write_text(path.read_text().replace("experts: [2, 4, 6, 8]", "experts: [2, 4, 8, 8]"))
    _, changed, _ = prepare(tiny, **given)
    assert [trial.id for trial, _ in changed] == [trial.id for trial, _ in jobs]
    assert changed[0][1].target != jobs[0][1].target
    assert job.missing(changed, tiny / "results", "only-missing") == changed


def test_a_trial_that_another_study_has_is_taken_and_not_run(tiny: Path) -> None:
    _, jobs, around = prepare(tiny, recipes=["lora"])
    first = launch.run_inline(jobs, around, tiny / "results", silent(jobs))
    (tiny / "reports" / "more").mkdir()
    (tiny / "reports" / "more" / "study.yaml").write_text("include: ../tiny/study.yaml\nquestion: And more?\n")
    root, flags = ("--root", str(tiny), "--executor", "inline"), ("--methods", "lora,mosld")
    done = bench("run", "more", *flags, *root)
    assert done.returncode == 0, done.stderr
    assert "more: 3 trials, 2 recorded, 2 of them taken from tiny, 1 to run" in done.stdout
    made = {one.trial_id: one for one in Store(tiny / "results").records("more")}
    for outcome in first:
        one = made[outcome.record.trial_id]
        assert (one.trial.study, one.meta_info.pop("taken_from")) == ("more", "tiny")
        changed = one.trial.model_copy(update={"study": "tiny"})
        assert one.model_copy(update={"trial": changed}) == outcome.record
        names = [{p.name for p in (tiny / "results" / s / one.trial_id).iterdir()} for s in ("tiny", "more")]
        assert names[0] == names[1] >= {"record.json", "items.parquet"}
    text = "".join(page.extract_text() for page in PdfReader(tiny / "reports" / "more" / "report.pdf").pages)
    assert "Taken from other studies, which have the same trials: two records of tiny." in " ".join(text.split())
    assert "3 trials, 3 recorded, 0 to run" in bench("run", "more", *flags, *root).stdout
    broken = tiny / "results" / "broken" / first[0].record.trial_id / "record.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    trial, fit = jobs[0]
    found = [one.trial.study for one in Store(tiny / "results").elsewhere(PlannedTrial(trial, fit))]
    assert found == ["more"]  # what cannot be read is left out


def test_records_of_other_weights_are_not_added_to(tiny: Path) -> None:
    _, jobs, around = prepare(tiny, recipes=["lora"])
    launch.run_inline(jobs[:1], around, tiny / "results", silent(jobs[:1]))
    name = jobs[0][0].model.name
    same = models.weights_source(jobs[0][0].model)
    assert job.missing(jobs, tiny / "results", "only-missing", {name: same}) == jobs[1:]
    other = {"source": "elsewhere", "revision": "main"}
    with pytest.raises(BenchError, match=r"made with other weights of .* than are here now \(source elsewhere"):
        job.missing(jobs, tiny / "results", "only-missing", {name: other})
    assert job.missing(jobs, tiny / "results", "always", {name: other}) == jobs
    more = [(trial.model_copy(update={"study": "more"}), fit) for trial, fit in jobs]
    assert job._take(more, tiny / "results", {name: other}) == (more, {})
    assert job._take(more, tiny / "results", {name: same}) == (more[1:], {"tiny": 1})
